"""Statistics are computed outside autocast: in half precision a difference between nearly equal numbers is noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comodulation import ComodulatedHead, comodulate, decoder_gains
from comodulation.mathematics.estimators import ESTIMATORS
from comodulation.mathematics.gains import LINKS, NORMALIZERS
from comodulation.mathematics.options import Modulation
from support.networks import couple

HALVES = [torch.bfloat16, torch.float16]
TASKS = torch.tensor([0, 1, 2, 1])
STD = 0.03  # below the last place of bfloat16 by itself
OFFERED = [
    (estimator, link, normalizer)
    for estimator in ESTIMATORS
    for link in LINKS
    for normalizer in NORMALIZERS
    if (link == "rectified" or normalizer == "relative") and (estimator, normalizer) != ("derivative", "correlation")
]


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("estimator", "link", "normalizer"), OFFERED)
def test_decoder_gains(dtype, estimator, link, normalizer):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, padding=1).requires_grad_(False)
    activity, coupling = numbers(4, 8, 5, 5).relu(), numbers(4, 8, seed=1)
    coupling = coupling.exp() if link == "rectified" else coupling

    def gains(activity, decode=lambda h: layer(h).relu()):
        return decoder_gains(
            decode, activity, coupling, STD, estimator=estimator, link=link, normalizer=normalizer,
            generator=torch.Generator().manual_seed(2),
        )  # fmt: skip

    expected = gains(activity)
    rounded = gains(activity.to(dtype).float())
    with torch.autocast("cpu", dtype):
        assert torch.equal(gains(activity), expected)
        # What an encoder returns under autocast; its gains are those of that activity, in its type.
        assert torch.equal(gains(activity.to(dtype)), rounded.to(dtype))


def test_parameters_in_half_precision_meet_activity_in_full():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()).eval().requires_grad_(False)
    half = nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()).eval().requires_grad_(False).bfloat16()
    half.load_state_dict(layer.state_dict())
    layer.load_state_dict(half.state_dict())  # the same numbers, in float32
    activity, coupling = numbers(4, 8, 5, 5).relu(), numbers(4, 8, seed=1)
    for estimator in ESTIMATORS:
        options = {"estimator": estimator, "link": "exponential"}
        expected = decoder_gains(layer, activity, coupling, STD, generator=torch.Generator().manual_seed(2), **options)
        with torch.autocast("cpu", torch.bfloat16):
            found = decoder_gains(half, activity, coupling, STD, generator=torch.Generator().manual_seed(2), **options)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Skipping(nn.Module):
    """An encoder whose activity reaches the decoder by two ways, and normalisation between them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.between, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.second, self.last = nn.Sequential(nn.Conv2d(8, 9, 3), nn.ReLU()), nn.Linear(9, 5)

    def forward(self, x):
        h = self.first(x)
        return self.last(self.second(h + self.norm(self.between(h)).relu()).mean((2, 3)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("estimator", ["quadrature", "derivative"])
@pytest.mark.parametrize("level", ["input", "task"])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_any_network(dtype, estimator, level, hidden):
    torch.manual_seed(0)
    net = comodulate(
        Skipping(), encoder="first", decoder="second", num_tasks=3, estimator=estimator, std=STD, level=level,
        controller={"hidden": hidden},
    )  # fmt: skip
    couple(net, 0.5)
    images = numbers(4, 3, 9, 9)
    expected, base = net(images, TASKS).detach(), net(images, mode="base").detach()
    with torch.autocast("cpu", dtype):
        found = net(images, TASKS).detach().float()
        rounding = float((net(images, mode="base").float() - base).abs().max())
        net.train()(images, TASKS).float().mean().backward()
    assert float((found - expected).abs().max()) < 0.02 * float((expected - base).abs().max()) + 2 * rounding
    assert all(bool(torch.isfinite(value.grad).all()) for value in net.learnable())


# Gains that are stored under autocast are those of float32, but for the rounding of the encoder's activity.
@pytest.mark.parametrize("estimator", ["quadrature", "derivative"])
def test_stored_gains(estimator):
    torch.manual_seed(0)
    net = couple(
        comodulate(Skipping(), encoder="first", decoder="second", num_tasks=3, estimator=estimator, std=STD), 0.5
    )
    images = numbers(4, 3, 9, 9)
    net.store_task_gains([(images, TASKS)])
    expected = net.task_gains
    with torch.autocast("cpu", torch.bfloat16):
        net.store_task_gains([(images, TASKS)])
    torch.testing.assert_close(net.task_gains, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("estimator", ["derivative", "quadrature", "monte_carlo"])
@pytest.mark.parametrize("observed", [False, True])
def test_heads(estimator, observed):
    torch.manual_seed(0)
    head = ComodulatedHead(
        6, 4, 3, encoder_channels=8, decoder_channels=10, modulation=Modulation(estimator=estimator, std=STD)
    )
    with torch.no_grad():
        head.controller.embedding.weight.copy_(numbers(3, 8) / 2)
    activity = numbers(4, 8, 4, 4).relu()

    def gains():
        if observed:
            head.observe([(activity, TASKS)])
        head.eval().store_task_gains([(activity, TASKS)])
        return head.task_gains

    expected = gains()
    with torch.autocast("cpu", torch.bfloat16):
        found = gains()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
