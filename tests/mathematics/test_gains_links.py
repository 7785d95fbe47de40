"""Normaliser, link, strength, and gains of level `task`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from comodulation.mathematics.estimators import DecoderStatistics, average_over_tasks, decoder_statistics
from comodulation.mathematics.gains import NORMALIZERS, SLOPE_LIMIT, gains_from_statistics
from support.decoders import DEVICE, STATISTICS, everything, rand, randn, residual

# ---- normaliser, link, strength ------------------------------------------------------------------------------------


def random_statistics(rows: int = 3, neurons: int = 6) -> DecoderStatistics:
    return DecoderStatistics(randn(rows, neurons), rand(rows, neurons, seed=1), rand(rows, neurons, seed=2))


def test_arithmetic_by_hand() -> None:
    statistics = DecoderStatistics(
        *(torch.tensor([row]) for row in ([2.0, 1.0, -3.0], [4.0, 1.0, 1.0], [1.0, 4.0, 1.0]))
    )
    by_hand = {
        "covariance": [2.0, 1.0, 0.0],  # [2, 1, 0] over their mean 1
        "relative": [1.0, 2.0, 0.0],  # [1/2, 1, 0] over their mean 1/2
        "correlation": [8 / 3, 1 / 3, 0.0],  # [2, 1/4, 0] over their mean 3/4
    }
    for normalizer, expected in by_hand.items():
        gains = gains_from_statistics(statistics, normalizer=normalizer)
        torch.testing.assert_close(gains, torch.tensor([expected]))
        weaker = gains_from_statistics(statistics, normalizer=normalizer, beta=0.25)
        torch.testing.assert_close(weaker, 1 + 0.25 * (torch.tensor([expected]) - 1))
    exponential = gains_from_statistics(statistics, link="exponential", beta=0.5)
    torch.testing.assert_close(exponential, torch.tensor([[math.exp(0.25), math.exp(0.5), math.exp(-1.5)]]))


@given(
    data=st.data(),
    normalizer=st.sampled_from(NORMALIZERS),
    beta=st.floats(0, 1),
    exponents=st.lists(st.integers(-30, 30), min_size=1, max_size=6),
)
@settings(max_examples=80, deadline=None)
def test_rectified_gains_have_mean_one_and_are_not_negative(
    data: st.DataObject, normalizer: str, beta: float, exponents: list[int]
) -> None:
    # Rows of wild ranges, with zeros: silent neurons, neurons that do not vary, rows without any label.
    def numbers(low: float) -> Tensor:
        size = len(exponents)
        values = data.draw(st.lists(st.floats(low, 1) | st.just(0.0), min_size=size, max_size=size))
        scaled = [v * 10.0**e for v, e in zip(values, exponents, strict=True)]
        return torch.tensor(
            [[v if abs(v) > 1e-250 else 0.0 for v in scaled]], dtype=torch.float64
        )  # 1 / v is a gradient

    slope = numbers(-1).requires_grad_()
    gains = gains_from_statistics(DecoderStatistics(slope, numbers(0), numbers(0)), normalizer=normalizer, beta=beta)
    gains[0, 0].backward()
    assert slope.grad is not None
    assert torch.isfinite(slope.grad).all()
    assert gains.min() >= 1 - beta - 1e-12
    torch.testing.assert_close(gains.mean(1), torch.ones(1, dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("normalizer", "link"), STATISTICS)
def test_strength_zero_is_exactly_one(normalizer: str, link: str) -> None:
    assert (gains_from_statistics(random_statistics(), normalizer=normalizer, link=link, beta=0.0) == 1).all()


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 1.0])
def test_strength_interpolates_between_one_and_the_full_gains(normalizer: str, beta: float) -> None:
    full = gains_from_statistics(random_statistics(), normalizer=normalizer)
    gains = gains_from_statistics(random_statistics(), normalizer=normalizer, beta=beta)
    torch.testing.assert_close(gains, torch.lerp(torch.ones_like(full), full, beta))


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_exponential_link_is_clamped_and_silent_neurons_keep_their_gain(beta: float) -> None:
    slope = torch.tensor([[5.0, -5.0, 3.9, -3.9, 0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    gains = gains_from_statistics(DecoderStatistics(slope, mean, mean), link="exponential", beta=beta)
    expected = [beta * s for s in (SLOPE_LIMIT, -SLOPE_LIMIT, 3.9, -3.9, 0.0, 0.0, 0.0)]
    torch.testing.assert_close(gains, torch.tensor([expected], dtype=torch.float64).exp())
    assert (gains[0, 4:] == 1).all()
    gradient = torch.autograd.grad(gains.sum(), slope)[0]
    # d exp(beta s) / ds inside the limits; 0 beyond them and for silent neurons.
    inside = torch.tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, beta * gains.detach() * inside)


def test_the_exponential_link_is_signed_and_not_scaled_to_mean_one() -> None:
    # Opposite couplings of a linear decoder give reciprocal gains.
    weight, activity, coupling = rand(8, 5, seed=1), rand(3, 5, seed=2), randn(3, 5, seed=3)
    up, down = (
        everything(lambda h: h @ weight.T, activity, c, estimator="derivative", link="exponential")
        for c in (coupling, -coupling)
    )
    torch.testing.assert_close(up * down, torch.ones_like(up))
    assert (up.mean(1) - 1).abs().min() > 1e-3


# ---- level task ----------------------------------------------------------------------------------------------------


@given(tasks=st.lists(st.integers(0, 4), min_size=1, max_size=12), wide=st.booleans())
@settings(max_examples=30, deadline=None)
def test_task_averages_equal_a_loop(tasks: list[int], wide: bool) -> None:
    statistics = random_statistics(len(tasks))
    ids = torch.tensor(tasks, dtype=torch.int64 if wide else torch.int32)
    averaged = average_over_tasks(DecoderStatistics(*(x.cpu() for x in statistics)), ids, 5)
    for k in range(5):
        rows = [b for b, task in enumerate(tasks) if task == k]
        for name, power in (("slope", 1), ("mean", 1), ("deviation", 2)):
            values = [getattr(statistics, name)[b].cpu() ** power for b in rows]
            expected = (sum(values) / len(rows)) ** (1 / power) if power == 2 and rows else None
            if expected is None:
                expected = sum(values) / len(rows) if rows else torch.zeros(6, dtype=torch.float64)
            torch.testing.assert_close(getattr(averaged, name)[k], expected)


@pytest.mark.parametrize(("normalizer", "link"), STATISTICS)
def test_task_gains_are_ratios_of_averages_with_finite_gradients(normalizer: str, link: str) -> None:
    slope = (1 + randn(6, 4)).requires_grad_()
    statistics = DecoderStatistics(slope, rand(6, 4, seed=1), rand(6, 4, seed=2))
    ids = torch.tensor([0, 2, 0, 2, 2, 0], device=DEVICE)
    gains = gains_from_statistics(average_over_tasks(statistics, ids, 4), normalizer=normalizer, link=link)
    assert gains.shape == (4, 4)
    assert (gains[[1, 3]] == 1).all()  # tasks without inputs
    # Not the average of the inputs' gains: the ratio is taken once, from the averages.
    each = gains_from_statistics(statistics, normalizer=normalizer, link=link)
    assert (gains[0] - each[[0, 2, 5]].mean(0)).abs().max() > 1e-2
    gradient = torch.autograd.grad(gains.square().sum(), slope)[0]
    assert torch.isfinite(gradient).all()
    assert gradient.any(1).all()  # every input of the task takes part


def test_the_slope_of_the_derivative_is_linear_in_the_coupling() -> None:
    # What makes exact task gains a matrix-vector product: at a fixed activity b = J w.
    activity, decode = rand(5, 12, 4, 4), residual(12)
    first, second = randn(5, 12, seed=1), randn(5, 12, seed=2)

    def slope(coupling: Tensor) -> Tensor:
        return decoder_statistics(decode, activity, coupling, 1.0, estimator="derivative").slope

    combined = slope(2 * first - 0.7 * second)
    torch.testing.assert_close(combined, 2 * slope(first) - 0.7 * slope(second), rtol=1e-12, atol=1e-13)
