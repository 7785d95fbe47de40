"""The forward-mode derivative of layers with fixed parameters, against finite differences, and what it costs."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from comodulation.tangents import directional_derivative


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
        "import torch; from comodulation.tangents import directional_derivative as d; "
        "print(d(torch.sin, torch.zeros(2), torch.ones(2))[1].tolist())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n", "")
