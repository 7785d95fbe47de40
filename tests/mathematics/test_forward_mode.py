"""The forward-mode derivative of layers with fixed parameters, against finite differences, and what it costs."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from comodulation.mathematics.forward_mode import directional_derivative


def normalisation(**options):
    """Batch normalisation that has seen something."""
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3, **options).double()
    for _ in range(3):
        layer(1 + 2 * torch.randn(5, 3, 4, 4, dtype=torch.float64))
    if layer.affine:
        nn.init.uniform_(layer.weight)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        normalisation().eval(),
        normalisation(affine=False).eval(),
        normalisation(eps=0.3).eval(),
        normalisation(momentum=None).eval(),
        normalisation(),  # by the batch's own statistics
        normalisation(track_running_stats=False).eval(),
        nn.Conv2d(3, 2, 3, padding=1).double(),
        nn.Conv2d(3, 3, 3, stride=2, groups=3, bias=False).double(),
        nn.Linear(4, 2).double(),
    ],
)  # fmt: skip
def test_against_finite_differences(layer):
    at, along = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, slope = directional_derivative(layer, at, along)
    step = 1e-6
    expected = (layer(at + step * along) - layer(at - step * along)) / (2 * step)
    torch.testing.assert_close(value, layer(at))
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", [normalisation().eval(), nn.Conv2d(3, 2, 3).double(), nn.Linear(4, 2).double()])
def test_fewer_operations_than_torch(layer):
    """What torch computes of the parameters' tangents, which are zero, is left out."""
    layer.requires_grad_(False)
    at, along = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    with Operations() as ours:
        directional_derivative(layer, at, along)
    with Operations() as torchs, forward_ad.dual_level():
        forward_ad.unpack_dual(layer(forward_ad.make_dual(at, along)))
    assert ours.count < torchs.count


def test_the_first_derivative_warns_of_nothing():
    """In a process that has not used forward mode yet: torch's own deprecations are not the user's."""
    script = (
        "import torch; from comodulation.mathematics.forward_mode import directional_derivative as d; "
        "print(d(torch.sin, torch.zeros(2), torch.ones(2))[1].tolist())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n", "")


def logits(h):
    return h @ torch.randn(6, 6, dtype=h.dtype, generator=torch.Generator().manual_seed(2))


def maps(h):
    """Activity ``(4, 6)`` as maps of two channels and three positions."""
    return logits(h).reshape(4, 2, 3)


OPERATIONS = {
    "softmax": lambda h: logits(h).softmax(-1),
    "softmax, of a function": lambda h: nn.functional.softmax(logits(h), dim=1, dtype=torch.float64),
    "softmax, masked": lambda h: logits(h).masked_fill(torch.arange(6) > 3, -float("inf")).softmax(-1),
    "log_softmax": lambda h: torch.log_softmax(logits(h), 1),
    "logsumexp": lambda h: logits(h).logsumexp(-1),
    "logsumexp of two dimensions": lambda h: torch.logsumexp(maps(h), (1, 2), keepdim=True),
    "glu": lambda h: nn.functional.glu(logits(h)),
    "hardsigmoid": lambda h: nn.functional.hardsigmoid(2 * logits(h)),
    "hardsigmoid in place": lambda h: nn.Hardsigmoid(inplace=True)(2 * logits(h)),
    "layer_norm": lambda h: nn.functional.layer_norm(logits(h), (6,), torch.arange(6.0).double()),
    "layer_norm of two dimensions": lambda h: nn.functional.layer_norm(maps(h), (2, 3)),
    "instance_norm": lambda h: nn.functional.instance_norm(maps(h), weight=torch.tensor([0.5, 2.0]).double()),
    "batch_norm of the batch": lambda h: nn.functional.batch_norm(maps(h), None, None, training=True),
    "group_norm": lambda h: nn.functional.group_norm(logits(h), 2),
    "rms_norm": lambda h: nn.functional.rms_norm(logits(h), (6,)),
}


# The derivative's own derivative, also through the value. Torch's rules raise an error, or are wrong without one.
@pytest.mark.parametrize("through_value", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_derivative_can_be_trained(name, through_value):
    generator = torch.Generator().manual_seed(1)
    h, u, step = (torch.randn(4, 6, dtype=torch.float64, generator=generator) for _ in range(3))

    def slope(u):
        at = h * u.exp() if through_value else h
        return directional_derivative(OPERATIONS[name], at, at * u)[1]

    weights = torch.randn(slope(u).shape, dtype=torch.float64, generator=generator)
    row = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((slope(row) * weights).sum(), row)
    expected = ((slope(u + 1e-6 * step) - slope(u - 1e-6 * step)) * weights).sum() / 2e-6
    torch.testing.assert_close((gradient * step).sum(), expected, rtol=1e-6, atol=1e-7)
    at = h * u.exp() if through_value else h  # and the derivative itself
    value, along = directional_derivative(OPERATIONS[name], at.requires_grad_(), at * u)
    difference = (OPERATIONS[name](at + 1e-6 * at * u) - OPERATIONS[name](at - 1e-6 * at * u)) / 2e-6
    torch.testing.assert_close(value, OPERATIONS[name](at), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(along, difference, rtol=1e-6, atol=1e-7)
