"""The encoder equation: its arithmetic, its mean, and what it must leave alone."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.mathematics.estimators import gauss_hermite
from comodulation.mathematics.modulator import check_std, modulate

DEVICE = torch.device(os.environ.get("COMODULATION_TEST_DEVICE", "cpu"))
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def test_arithmetic_by_hand() -> None:
    # h exp(m w - sigma^2 w^2 / 2) with h = 3, m = 0.5, w = 2, sigma = 0.7, worked out with math.exp.
    out = modulate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), torch.tensor([0.5]), 0.7)
    assert out.item() == pytest.approx(3 * math.exp(0.5 * 2 - 0.49 * 4 / 2), rel=1e-6)


def test_equals_a_loop_over_samples_inputs_and_neurons() -> None:
    activity, coupling, modulator = rand(3, 4, 2, 5), 2 * rand(3, 4, seed=1) - 1, rand(6, 3, seed=2) - 0.5
    out = modulate(activity, coupling, modulator, 0.4)
    assert out.shape == (6, 3, 4, 2, 5)
    for t in range(6):
        for b in range(3):
            for e in range(4):
                w, m = coupling[b, e].item(), modulator[t, b].item()
                expected = activity[b, e] * math.exp(m * w - (0.4 * w) ** 2 / 2)
                torch.testing.assert_close(out[t, b, e], expected, rtol=1e-14, atol=0)


def test_one_sample_is_a_row_of_many() -> None:
    activity, coupling, modulator = rand(3, 4, 2, 5), rand(3, 4, seed=1), rand(6, 3, seed=2)
    many = modulate(activity, coupling, modulator, 0.4)
    assert all(torch.equal(many[t], modulate(activity, coupling, modulator[t], 0.4)) for t in range(6))


@pytest.mark.parametrize("strength", [-1.5, -0.1, 1e-8, 0.3, 1.0, 2.0])
def test_mean_is_preserved_and_variance_is_log_normal(strength: float) -> None:
    # Gauss-Hermite with 60 nodes integrates exp(s x) to rounding for |s| <= 3: mean 1, variance exp(s^2) - 1.
    std = 0.5
    nodes, weights = gauss_hermite(60, torch.float64, DEVICE)
    coupling = torch.full((1, 1), strength / std, dtype=torch.float64, device=DEVICE)
    factor = modulate(torch.ones_like(coupling), coupling, std * nodes[:, None], std)[:, 0, 0]
    mean = (weights * factor).sum().item()
    assert mean == pytest.approx(1, abs=1e-12)
    variance = (weights * (factor - 1).square()).sum().item()
    assert variance == pytest.approx(math.expm1(strength**2), rel=1e-9, abs=1e-15)


def test_sampled_mean_is_preserved() -> None:
    # Tolerance from the sample size: 5 standard errors sqrt((exp(s^2) - 1) / T) of the mean of a log-normal factor.
    samples, std = 200_000, 0.6
    coupling = torch.tensor([[0.0, 0.5, 1.0, -1.0]], dtype=torch.float64)
    modulator = std * torch.randn(samples, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    error = (modulate(torch.ones_like(coupling), coupling, modulator, std).mean(0) - 1).abs()
    assert (error <= 5 * (torch.expm1((std * coupling).square()) / samples).sqrt()).all()
    assert (error[0, 1:] > 0).all()  # the samples do differ


@pytest.mark.parametrize("dtype", FLOATS)
def test_zero_coupling_changes_no_bit(dtype: torch.dtype) -> None:
    activity = (1e3 * rand(2, 5, 3, dtype=torch.float64)).to(dtype)
    out = modulate(activity, torch.zeros(2, 5, device=DEVICE), 3 * rand(4, 2), 1e3)
    assert out.dtype == dtype
    assert all(torch.equal(out[t], activity) for t in range(4))


@pytest.mark.parametrize("dtype", FLOATS)
def test_silent_neurons_stay_silent_even_where_the_factor_overflows_half_precision(dtype: torch.dtype) -> None:
    # exp(20) = 5e8 is no float16; 0 times it must be 0 and not NaN.
    activity = torch.tensor([[0.0, 1e-5]], dtype=dtype, device=DEVICE)
    out = modulate(activity, torch.ones(1, 2, device=DEVICE), torch.tensor([20.0], device=DEVICE), 0.1)
    assert out[0, 0] == 0
    assert out[0, 1].item() == pytest.approx(activity[0, 1].item() * math.exp(20 - 0.005), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype: torch.dtype) -> None:
    activity, coupling, modulator = rand(4, 8, dtype=dtype), rand(4, 8, seed=1, dtype=torch.float32), rand(4, seed=2)
    expected = modulate(activity.float(), coupling, modulator.float(), 0.3).to(dtype)
    assert torch.equal(modulate(activity, coupling, modulator, 0.3), expected)


def test_the_activity_decides_on_the_precision() -> None:
    """Computed in float64 because of its modulator alone, a factor of exp(100) would make float32 activity infinite."""
    activity, coupling, modulator = rand(3, 4, dtype=torch.float32), rand(3, 4, dtype=torch.float32), rand(6, 3)
    expected = modulate(activity, coupling, modulator.float(), 0.4)
    assert torch.equal(modulate(activity, coupling.double(), modulator, 0.4), expected)
    ones = torch.ones(1, 1, device=DEVICE)
    large = modulate(ones, ones, torch.tensor([100.0], dtype=torch.float64, device=DEVICE), 0.1)
    assert bool(torch.isfinite(large).all())


@given(
    coupling=st.floats(-3, 3),
    modulator=st.floats(-4, 4),
    std=st.floats(1e-12, 2),
    power=st.integers(-8, 8),
)
@settings(max_examples=50, deadline=None)
def test_only_the_products_with_the_coupling_matter(coupling: float, modulator: float, std: float, power: int) -> None:
    # Coupling times 2^p with modulator and std divided by 2^p is the same population, to the last bit.
    one = torch.ones(1, 1, dtype=torch.float64)
    scale = 2.0**power
    first = modulate(one, coupling * one, modulator * one[0], std)
    second = modulate(one, scale * coupling * one, modulator / scale * one[0], std / scale)
    assert torch.equal(first, second)


def test_any_memory_layout() -> None:
    activity, coupling, modulator = rand(4, 8, 3, 5), rand(4, 8, seed=1), rand(4, seed=2)
    expected = modulate(activity, coupling, modulator, 0.3)
    last = activity.contiguous(memory_format=torch.channels_last)
    strided = torch.stack([activity, activity], -1)[..., 0]
    coupling_strided = coupling.t().contiguous().t()
    assert not strided.is_contiguous()
    assert not coupling_strided.is_contiguous()
    assert torch.equal(modulate(last, coupling, modulator, 0.3), expected)
    assert torch.equal(modulate(strided, coupling_strided, modulator, 0.3), expected)


def test_empty_batch() -> None:
    assert modulate(torch.ones(0, 3, 2, 2), torch.ones(0, 3), torch.ones(5, 0), 1.0).shape == (5, 0, 3, 2, 2)


def test_gradients_against_finite_differences() -> None:
    inputs = [x.requires_grad_() for x in (rand(2, 3, 2), rand(2, 3, seed=1), rand(4, 2, seed=2))]
    assert torch.autograd.gradcheck(lambda a, w, m: modulate(a, w, m, 0.4), inputs)


@pytest.mark.parametrize(
    ("activity", "coupling", "modulator", "std", "message"),
    [
        ((3,), (3,), (3,), 1.0, r"activity must have shape \(B, E"),
        ((2, 3), (3,), (2,), 1.0, r"coupling must have shape .*\(2, 3\).*got \(3,\)"),
        (
            (2, 3),
            (1, 3),
            (2,),
            1.0,
            "coupling must have shape",
        ),  # no broadcasting: a task pattern is expanded by the caller
        ((2, 3, 4), (2, 3, 4), (2,), 1.0, "coupling must have shape"),
        ((2, 3), (2, 3), (3,), 1.0, "modulator must have shape .* B = 2, got"),
        ((2, 3), (2, 3), (2, 1), 1.0, "modulator must have shape"),
        ((2, 3), (2, 3), (1, 1, 2), 1.0, "modulator must have shape"),
        ((2, 3), (2, 3), (), 1.0, "modulator must have shape"),
    ],
)
def test_shapes_that_do_not_fit(
    activity: tuple[int, ...], coupling: tuple[int, ...], modulator: tuple[int, ...], std: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        modulate(torch.ones(activity), torch.ones(coupling), torch.ones(modulator), std)


def test_integers_are_refused() -> None:
    for activity, coupling in (
        (torch.ones(2, 3).long(), torch.ones(2, 3)),
        (torch.ones(2, 3), torch.ones(2, 3).bool()),
    ):
        with pytest.raises(ValueError, match="floating point"):
            modulate(activity, coupling, torch.ones(2), 1.0)


def test_a_coupling_that_does_not_fit_a_map_is_told_the_shape_it_must_have() -> None:
    with pytest.raises(ValueError, match=r"\(B, E\) = \(2, 3\) to fit the activity, got \(3, 2\)"):
        modulate(torch.ones(2, 3, 5, 5), torch.ones(3, 2), torch.ones(2), 1.0)


@pytest.mark.parametrize("std", [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "0.3", None, np.float32("nan")])
def test_std_must_be_positive_and_finite(std: object) -> None:
    with pytest.raises(ValueError, match="std must be a positive finite number"):
        modulate(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), std)  # type: ignore[arg-type]


@pytest.mark.parametrize("std", [1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(2), 5e-324, 1e300])
def test_numbers_of_every_kind_are_a_std(std: float) -> None:
    assert type(check_std(std)) is float
    assert check_std(std) == std
