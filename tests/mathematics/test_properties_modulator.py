"""Properties of the encoder equation over difficult inputs: extreme scales, half precision, any memory layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from comodulation.mathematics.estimators import gauss_hermite
from comodulation.mathematics.modulator import check_std, largest_exponent, modulate
from support.decoders import DEVICE, rand, randn
from support.properties import holds_for

FLOATS = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
SEEDS = st.integers(0, 10**6)
POWERS = st.floats(-15, 15)
LAYOUTS = ("contiguous", "channels-last", "transposed", "every other", "one row", "one position")


def laid_out(layout: str, tensor: Tensor) -> Tensor:
    """``(B, E, H, W)`` in another layout; the values change only where several elements share a place in memory."""
    if layout == "channels-last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "every other":
        return torch.stack([tensor, -tensor], -1)[..., 0]
    if layout == "one row":
        return tensor[:1].expand_as(tensor)
    return tensor[..., :1, :1].expand_as(tensor) if layout == "one position" else tensor


@holds_for(seed=SEEDS, dtype=FLOATS, powers=st.tuples(POWERS, POWERS, POWERS, POWERS), batch=st.integers(0, 3))
def test_never_nan_and_silence_stays_silence(
    seed: int, dtype: torch.dtype, powers: tuple[float, float, float, float], batch: int
) -> None:
    # Scales of 1e-15 to 1e15 each of activity, coupling, modulator and sigma: whatever overflows is infinite or 0, never
    # NaN; a silent neuron is 0 and its gradients are finite.
    activity_scale, coupling_scale, modulator_scale, std = (10.0**power for power in powers)
    activity = (activity_scale * rand(batch, 4, 2, seed=seed)).clamp(max=torch.finfo(dtype).max).to(dtype)
    activity[:, 0] = 0
    precise = torch.promote_types(dtype, torch.float32)
    coupling = (coupling_scale * randn(batch, 4, seed=seed + 1)).to(precise).requires_grad_()
    modulator = (modulator_scale * randn(5, batch, seed=seed + 2)).to(precise)
    out = modulate(activity, coupling, modulator, std)
    assert out.dtype == dtype
    assert out.shape == (5, batch, 4, 2)
    assert not out.isnan().any()
    assert (out >= 0).all()
    assert (out[:, :, 0] == 0).all()
    (silent,) = torch.autograd.grad(out[:, :, 0].sum(), coupling)
    assert (silent == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_silent_neuron_survives_a_factor_beyond_the_type(dtype: torch.dtype) -> None:
    # exp(1000) is no number of any type; below the limit nothing is changed.
    limit = largest_exponent(dtype)
    coupling = torch.ones(1, 2, dtype=dtype, device=DEVICE, requires_grad=True)
    activity = torch.tensor([[0.0, 1e-3]], dtype=dtype, device=DEVICE)
    for m in (1000.0, limit + 0.5):
        out = modulate(activity, coupling, torch.tensor([m], dtype=dtype, device=DEVICE), 1e-3)
        assert out[0, 0] == 0
        assert out[0, 1] > 1e-4 * torch.finfo(dtype).max
        (gradient,) = torch.autograd.grad(out.sum(), coupling)
        assert gradient.isfinite().all()
    below = modulate(activity, coupling, torch.tensor([limit - 1.0], dtype=dtype, device=DEVICE), 1e-3)
    assert below[0, 1].item() == pytest.approx(1e-3 * math.exp(limit - 1 - 5e-7), rel=1e-4)
    assert (largest_exponent(torch.float64), largest_exponent(torch.float32)) == (709, 88)


@holds_for(w=st.floats(-1e3, 1e3), m=st.floats(-30, 30), power=POWERS, std=st.floats(1e-12, 5))
def test_one_neuron_against_arithmetic_in_python(w: float, m: float, power: float, std: float) -> None:
    exponent = m * w - std**2 * w**2 / 2
    if exponent > 600:
        return
    h = 10.0**power
    one = [torch.tensor(x, dtype=torch.float64, device=DEVICE) for x in ([[h]], [[w]], [m])]
    # The exponent is a difference: its error is eps of its terms, and that of the exponential the same relative.
    tolerance = 8 * 2.3e-16 * (1 + abs(m * w) + std**2 * w**2)
    assert modulate(*one, std).item() == pytest.approx(h * math.exp(exponent), rel=tolerance, abs=5e-324)


@holds_for(seed=SEEDS, dtype=FLOATS, layout=st.sampled_from(LAYOUTS), samples=st.booleans())
def test_any_memory_layout_gives_the_same_bits(seed: int, dtype: torch.dtype, layout: str, samples: bool) -> None:
    activity = laid_out(layout, rand(3, 4, 5, 2, seed=seed).to(dtype))
    coupling = randn(4, 3, seed=seed + 1).t()  # strided
    modulator = randn(1, 3, seed=seed + 2).expand(6, 3) if samples else randn(1, seed=seed + 2).expand(3)
    out = modulate(activity, coupling, modulator, 0.4)
    expected = modulate(activity.clone().contiguous(), coupling.contiguous(), modulator.contiguous(), 0.4)
    assert torch.equal(out, expected)


@holds_for(
    seed=SEEDS,
    dtype=FLOATS,
    rows=st.permutations(range(4)),
    neurons=st.permutations(range(5)),
    power=st.integers(-8, 8),
)
def test_symmetries_to_the_last_bit(
    seed: int, dtype: torch.dtype, rows: list[int], neurons: list[int], power: int
) -> None:
    activity, coupling = rand(4, 5, 3, seed=seed).to(dtype), randn(4, 5, seed=seed + 1)
    modulator, scale = randn(6, 4, seed=seed + 2), 2.0**power
    out = modulate(activity, coupling, modulator, 0.7)
    # Order of inputs and of neurons; an input alone; the sign of the modulator is that of the couplings.
    permuted = modulate(activity[rows][:, neurons], coupling[rows][:, neurons], modulator[:, rows], 0.7)
    assert torch.equal(permuted, out[:, rows][:, :, neurons])
    assert torch.equal(modulate(activity[1:2], coupling[1:2], modulator[:, 1:2], 0.7), out[:, 1:2])
    assert torch.equal(modulate(activity, -coupling, -modulator, 0.7), out)
    # Proportional to the activity, exactly so for powers of two in the types that do not underflow here.
    if dtype in (torch.float64, torch.float32):
        assert torch.equal(modulate(scale * activity, coupling, modulator, 0.7), scale * out)


@holds_for(seed=SEEDS, dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_throughout_is_computed_in_float32(seed: int, dtype: torch.dtype) -> None:
    halves = [x.to(dtype) for x in (rand(3, 5, 2, seed=seed), randn(3, 5, seed=seed + 1), randn(4, 3, seed=seed + 2))]
    assert torch.equal(modulate(*halves, 0.4), modulate(*(x.float() for x in halves), 0.4).to(dtype))


@holds_for(s=st.floats(-3, 3), std=st.floats(1e-6, 1e6), power=POWERS)
def test_covariance_with_the_modulator_reads_out_the_coupling(s: float, std: float, power: float) -> None:
    # E[m h(m)] = sigma^2 w h and E[h(m)] = h for s = sigma w, at every scale of sigma and of activity.
    nodes, weights = gauss_hermite(60, torch.float64, DEVICE)
    h, w = 10.0**power, s / std
    activity, coupling = (torch.tensor([[x]], dtype=torch.float64, device=DEVICE) for x in (h, w))
    out = modulate(activity, coupling, std * nodes[:, None], std)[:, 0, 0]
    assert (weights * out).sum().item() == pytest.approx(h, rel=1e-11)
    assert (weights * nodes * out).sum().item() == pytest.approx(s * h, rel=1e-9, abs=1e-12 * h)


@pytest.mark.parametrize("std", [10**400, -(10**400)])
def test_integers_beyond_every_float_are_no_std(std: int) -> None:
    with pytest.raises(ValueError, match="std must be a positive finite number"):
        check_std(std)


@pytest.mark.parametrize("std", [np.finfo(float).max, np.finfo(float).tiny])
def test_the_ends_of_the_floats_are_a_std(std: float) -> None:
    assert check_std(std) == std
