"""Activity with negative values: the statistic that is invariant as LayerNorm is, and refusals that name layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate
from support.networks import Blocks, couple, settled

TASKS = torch.tensor([1, 0, 1, 2])


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Stream(nn.Module):
    """Tokens ``(B, L, N)``: a layer, and one whose output is changed as a test says, before what reads it."""

    def __init__(self, change=lambda d: d):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.changed = Changed(change)
        self.double().eval()

    def decoded(self, h):
        return self.changed(self.second(h.tanh()) + 0.3)

    def forward(self, x):
        return self.last(self.decoded(self.first(x)))


class Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, d):
        return self.change(d)


def adapted(model, **options):
    return couple(
        comodulate(
            model, encoder="first", decoder="changed", num_tasks=3, unrectified="layer_norm", example=draw(4, 3, 5),
            **options,
        ).double()
    )  # fmt: skip


def stored(net):
    net.store_task_gains([(draw(4, 3, 5, seed=1), TASKS)])
    return net.task_gains


@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
@pytest.mark.parametrize(
    "change",
    [
        lambda d: -d,
        lambda d: 1e-6 * d,
        lambda d: 1e150 * d,
        lambda d: -3 * d + 2,
        lambda d: d + draw(4, 3, 1, seed=5)[: len(d)],  # another shift at each position
        lambda d: d * draw(4, 3, 1, seed=5)[: len(d)],
    ],
    ids=["sign", "small", "large", "all three", "shifts", "scales"],
)
def test_gains_are_invariant_as_layer_norm_is(change, estimator):
    torch.testing.assert_close(
        stored(adapted(Stream(change), estimator=estimator)), stored(adapted(Stream(), estimator=estimator)),
        rtol=1e-7, atol=1e-9,
    )  # fmt: skip


# Not so the magnitude, which is why there is this statistic.
def test_magnitude_is_not():
    def gains(model):
        options = {"encoder": "first", "decoder": "changed", "num_tasks": 3, "unrectified": "magnitude"}
        return stored(couple(comodulate(model, **options, encoder_width=6).double()))

    assert float((gains(Stream(lambda d: d + 2)) / gains(Stream())).log().abs().max()) > 0.1


# Written out: z from d, its power E[z^2] over positions and the task's inputs, and half the derivative of its logarithm.
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_by_hand_against_finite_differences(beta):
    model = Stream()
    net = adapted(model, beta=beta)
    gains = stored(net)
    x = draw(4, 3, 5, seed=1)
    u = net.controller(torch.arange(3)).detach()

    def power(task, m):
        d = model.decoded(model.first(x[task == TASKS]) * (m * u[task]).exp())
        z = (d - d.mean(-1, keepdim=True)) / d.var(-1, correction=0, keepdim=True).sqrt()
        return z.square().mean((0, 1))

    for task in range(3):
        slope = (power(task, 1e-6).log() - power(task, -1e-6).log()) / 2e-6
        expected = (beta * (slope / 2).clamp(-4, 4)).exp()
        torch.testing.assert_close(gains[task], expected, rtol=1e-6, atol=1e-8)
        # The power is D in all, whatever the modulator does.
        assert float((power(task, 0.0) * gains[task].log()).sum()) == pytest.approx(0, abs=1e-10)


def test_quadrature_agrees_as_sigma_goes_to_0():
    derivative = stored(adapted(Stream()))
    previous = None
    for std in (0.1, 0.01):
        off = float((stored(adapted(Stream(), estimator="quadrature", std=std)) - derivative).abs().max())
        assert previous is None or off < previous / 50  # the error is of order sigma^2
        previous = off
    assert previous < 1e-3


# At any sigma the weighted sum is 0: the covariances of the powers with the modulator sum to that of their sum, a constant.
def test_log_gains_weighted_by_power_sum_to_0_at_any_sigma():
    net = adapted(Stream(), estimator="quadrature", std=0.5, level="input")
    u = net.controller(TASKS)
    with net._recording((draw(4, 3, 5),), {}) as call:
        found = net.statistics(call, u)
    torch.testing.assert_close(found.slope.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.mean.sum(1), torch.full((4,), 7.0).double())


@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
def test_gradients_against_finite_differences(estimator):
    net = adapted(Stream(), estimator=estimator).train()
    row, x, step = net.controller.embedding.weight, draw(4, 3, 5, seed=1), draw(3, 6, seed=2)
    (gradient,) = torch.autograd.grad(net(x, TASKS).square().sum(), row)
    values = []
    for size in (1e-6, -1e-6):
        with torch.no_grad():
            row.add_(size * step)
            values.append(net(x, TASKS).square().sum().item())
            row.sub_(size * step)
    assert float((gradient * step).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_maps_are_normalised_over_channels():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)).double()
    net = couple(
        comodulate(model, encoder="0", decoder="1", num_tasks=3, unrectified="layer_norm", level="input").double()
    )
    x = draw(4, 3, 8, 8)
    u = net.controller(TASKS)

    def power(m):
        d = model[1](model[0](x) * (m * u).exp()[:, :, None, None])
        return nn.functional.layer_norm(d.movedim(1, -1), (5,), eps=0).square().mean((1, 2))

    slope = (power(1e-6).log() - power(-1e-6).log()) / 2e-6
    expected = model[1](model[0](x) * u.exp()[:, :, None, None]) * (slope / 2).exp()[:, :, None, None]
    torch.testing.assert_close(net(x, TASKS), expected, rtol=1e-5, atol=1e-7)


# All neurons of a position equal: there is nothing to normalise, and no NaN.
def test_constant_activity_has_gains_of_one():
    net = adapted(Stream(lambda d: 0 * d + 2))
    assert bool((stored(net) == 1).all())
    net.train()(draw(4, 3, 5), TASKS).sum().backward()
    assert bool(torch.isfinite(net.controller.embedding.weight.grad).all())


def test_positions_have_no_layer_norm():
    with pytest.raises(InputError, match=r"'layer_norm' needs neurons='channel'"):
        comodulate(
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3)), encoder="0", decoder="1", num_tasks=2,
            neurons="position", unrectified="layer_norm", example=torch.ones(1, 1, 8, 8),
        )  # fmt: skip


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "advice"),
    [
        ({"encoder": "first.bn2", "decoder": "third"}, "Name the nearest rectified, 'stem.2' or 'first', or pass"),
        ({"encoder": "first", "decoder": "third.bn2"}, "Name the nearest rectified, 'second' or 'third', or pass"),
        ({"encoder": "second", "decoder": "classifier"}, "Name the nearest rectified, 'third', or pass"),
    ],
)
def test_refusals_name_the_nearest_rectified_layers(layers, advice):
    model, images = settled(Blocks()), torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InputError) as refused:
        comodulate(model, **layers, num_tasks=2, example=images)
    assert advice in str(refused.value)
    assert "unrectified='layer_norm'" in str(refused.value)
    assert all(not module._forward_hooks for module in model.modules())
    for name in advice.split("'")[1::2]:  # and they work
        place = "encoder" if layers["encoder"] == "first.bn2" else "decoder"
        comodulate(model, **{**layers, place: name}, num_tasks=2, example=images)


class Beside(nn.Module):
    """Rectified layers that would not do: beside the encoder, with another number of inputs, run twice."""

    def __init__(self):
        super().__init__()
        self.first, self.other, self.table, self.twice = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(4))
        self.second = nn.Linear(4, 3)

    def forward(self, x):
        h = self.first(x)
        bias = self.table(torch.eye(4)).mean(0)
        return self.second(h + self.other(x) + bias + self.twice(self.twice(h)) - 2)


def test_refusals_name_no_layer_that_would_not_do():
    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"Name other layers \(no rectified one fits here\), or pass"):
        comodulate(Beside(), encoder="first", decoder="second", num_tasks=2, example=torch.randn(5, 4))
