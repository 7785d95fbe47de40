"""Decoder gains with decoders, shapes, types and layouts of every kind, and with bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comodulation.mathematics import estimators as module
from comodulation.mathematics.estimators import ESTIMATORS, decoder_statistics
from comodulation.mathematics.gains import decoder_gains
from support.decoders import DEVICE, OFFERED, Decode, dense, everything, noise, rand, randn, residual

# ---- decoders of every kind ----------------------------------------------------------------------------------------


class _NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * (x > 0)


class _OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient


def recurrent() -> Decode:
    lstm = nn.LSTM(5, 4, batch_first=True).to(DEVICE)
    return lambda h: lstm(h[:, None])[0][:, 0].relu()


def fused_attention() -> Decode:
    def decode(h: Tensor) -> Tensor:
        tokens = h.unflatten(1, (1, 5, 1))
        return F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)

    return decode


@pytest.mark.parametrize(
    "decode",
    [_NoForwardMode.apply, _OldStyle.apply, recurrent(), fused_attention()],
    ids=["Function without jvp", "old-style Function", "LSTM", "fused attention"],
)
def test_without_forward_mode_the_derivative_says_so_and_quadrature_works(decode: Decode) -> None:
    activity, coupling = rand(3, 5, dtype=torch.float32), rand(3, 5, seed=1, dtype=torch.float32)
    message = (
        r"^decode has no forward-mode derivative, which estimator 'derivative' needs; use estimator 'quadrature' \(\w"
    )
    with pytest.raises(RuntimeError, match=message):
        everything(decode, activity, coupling, estimator="derivative")
    assert torch.isfinite(everything(decode, activity, coupling)).all()


class Holding(nn.Module):
    """A module with a compiled part, whose decoder is a method."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.jit.script(nn.Sequential(nn.Linear(5, 4), nn.ReLU()))

    def decode(self, h: Tensor) -> Tensor:
        return self.part(h)


def compiled(kind: str) -> Decode:
    plain = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    return {
        "scripted": lambda: torch.jit.script(plain),
        "traced": lambda: torch.jit.trace(plain, torch.rand(3, 5)),
        "traced function": lambda: torch.jit.trace(torch.relu, torch.rand(3, 5)),
        "its method": lambda: torch.jit.script(plain).forward,
        "in a module": lambda: nn.Sequential(torch.jit.script(plain)),
        "in a method's module": lambda: Holding().decode,
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["scripted", "traced", "traced function", "its method", "in a module", "in a method's module"]
)
def test_a_compiled_decode_has_no_derivative_and_quadrature_works(kind: str) -> None:
    # Torch's compiler drops the tangent from the second call on: all gains would be 1.
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of some weights, all units are off
        decode = compiled(kind)
    activity = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    coupling = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"decode is scripted.*give the module itself, or use estimator 'quadr"):
            everything(decode, activity, coupling, estimator="derivative")
        assert (everything(decode, activity, coupling) != 1).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_encoder_without_neurons_changes_nothing(estimator: str) -> None:
    gains = everything(lambda h: h.new_ones(len(h), 4), rand(2, 0), rand(2, 0), estimator=estimator)
    assert torch.equal(gains, torch.ones_like(gains))
    assert gains.shape == (2, 4)


def test_other_errors_of_decode_are_not_renamed() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        everything(lambda h: h @ torch.ones(4, 2, dtype=h.dtype), rand(2, 3), rand(2, 3), estimator="derivative")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bad", [lambda h: h.sum(), lambda h: h[:1], lambda h: h.flatten()])
def test_a_decode_of_wrong_shape_is_named(estimator: str, bad: Decode) -> None:
    with pytest.raises(ValueError, match=r"decode must map \(N, E, ...\) to \(N, D, ...\)"):
        everything(bad, rand(2, 3), rand(2, 3), estimator=estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_in_place_operations_of_decode_do_not_reach_the_caller(estimator: str) -> None:
    activity, coupling = rand(3, 5), rand(3, 5, seed=1).requires_grad_()
    before, plain = activity.clone(), dense(5, 4)
    gains = everything(lambda h: plain(h.mul_(2)), activity, coupling, estimator=estimator)
    gains.square().sum().backward()
    assert torch.equal(activity, before)
    torch.testing.assert_close(gains, everything(lambda h: plain(2 * h), activity, coupling, estimator=estimator))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_and_without_recording_of_gradients(estimator: str) -> None:
    # Under inference_mode and no_grad, and with a decode whose parameters want gradients: the same gains.
    decode = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).double().to(DEVICE)
    activity, coupling = rand(2, 3, 4, 4), rand(2, 3, seed=1)
    gains = everything(decode, activity, coupling, estimator=estimator)
    assert gains.requires_grad
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(everything(decode, activity, coupling, estimator=estimator), gains.detach())


# ---- shapes, types, layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_precision_in_is_precision_out(estimator: str, dtype: torch.dtype) -> None:
    # Against float64 on the same, already rounded numbers. Positive weights, so that nothing cancels: the slope's error
    # is eps of the activity over sigma, and the slopes are about one times the activity.
    std = 0.3
    weight, activity, coupling = rand(8, 5, dtype=dtype), rand(3, 5, seed=1, dtype=dtype), 0.5 + rand(3, 5, seed=2)
    kernel = rand(8, 5, 3, 3, seed=3, dtype=dtype)
    maps = rand(3, 5, 4, 4, seed=4, dtype=dtype)
    for decode, precise, h in (
        (lambda h: h @ weight.T, lambda h: h @ weight.double().T, activity),
        (lambda h: F.conv2d(h, kernel, padding=1), lambda h: F.conv2d(h, kernel.double(), padding=1), maps),
    ):
        options = {"estimator": "quadrature" if estimator == "monte_carlo" else estimator}
        expected = everything(precise, h.double(), coupling, std, **options)
        gains = everything(decode, h, coupling.to(dtype), std, estimator=estimator)
        assert gains.dtype == dtype
        assert gains.shape == (3, 8)
        assert gains.device == h.device
        if estimator != "monte_carlo":
            tolerance = 8 * torch.finfo(dtype).eps / std
            torch.testing.assert_close(gains.double(), expected, rtol=tolerance, atol=tolerance)


def test_the_coupling_may_have_another_precision_than_the_activity() -> None:
    decode = dense(5, 4, torch.float32)
    activity, coupling = rand(3, 5, dtype=torch.float32), rand(3, 5, seed=1)
    gains = everything(decode, activity, coupling)
    assert gains.dtype == torch.float32
    torch.testing.assert_close(gains, everything(decode, activity, coupling.float()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_map_is_its_spatial_mean_before_any_statistic(estimator: str) -> None:
    activity, coupling, decode = rand(2, 12, 3, 5), randn(2, 12, seed=1), residual(12)
    pooled = everything(lambda h: decode(h).mean((2, 3)), activity, coupling, estimator=estimator)
    torch.testing.assert_close(everything(decode, activity, coupling, estimator=estimator), pooled)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_maps_of_one_position_and_sequences_equal_vectors(estimator: str) -> None:
    activity, coupling, decode = rand(2, 5), randn(2, 5, seed=1), dense(5, 4)
    expected = everything(decode, activity, coupling, estimator=estimator)
    for positions in ((1,), (1, 1), (1, 1, 1)):
        maps = activity.reshape(2, 5, *positions)
        gains = everything(
            lambda h, p=positions: decode(h.flatten(1)).reshape(-1, 4, *p), maps, coupling, estimator=estimator
        )
        torch.testing.assert_close(gains, expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_any_memory_layout(estimator: str) -> None:
    activity, coupling, decode = rand(3, 12, 4, 6), randn(3, 12, seed=1), residual(12)
    expected = everything(decode, activity, coupling, estimator=estimator)
    last = activity.contiguous(memory_format=torch.channels_last)
    transposed = activity.transpose(2, 3).contiguous().transpose(2, 3)
    expanded = activity[:1].expand(3, -1, -1, -1)
    for h in (last, transposed):
        assert not h.is_contiguous()
        gains = everything(decode, h, coupling.t().contiguous().t(), estimator=estimator)
        torch.testing.assert_close(gains, expected, rtol=1e-10, atol=1e-10)
    alike = everything(decode, expanded, coupling[:1].expand(3, -1), estimator=estimator)
    if estimator != "monte_carlo":
        torch.testing.assert_close(alike, expected[:1].expand(3, -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_empty_batch_and_single_neurons(estimator: str, normalizer: str, link: str) -> None:
    options = {"estimator": estimator, "normalizer": normalizer, "link": link}
    coupling = torch.ones(0, 12, dtype=torch.float64, device=DEVICE, requires_grad=True)
    empty = everything(residual(12), rand(0, 12, 4, 4), coupling, **options)
    assert empty.shape == (0, 12)
    empty.sum().backward()
    assert coupling.grad is not None
    # One encoder and one decoder neuron, positively coupled: the mean over neurons is the neuron itself.
    one = everything(lambda h: 2 * h, rand(3, 1), 0.5 + rand(3, 1, seed=1), **options)
    if link == "rectified":
        torch.testing.assert_close(one, torch.ones_like(one))
    else:
        assert (one > 1.3).all()


def test_monte_carlo_uses_its_generator_alone() -> None:
    activity, coupling, decode = rand(3, 5), randn(3, 5, seed=1), dense(5, 4)
    state = torch.get_rng_state()
    first, again, other = (
        decoder_gains(decode, activity, coupling, 0.3, estimator="monte_carlo", generator=noise(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Inputs have modulators of their own: equal inputs get different estimates.
    same = decoder_gains(
        decode, activity[:1].expand(2, -1), coupling[:1].expand(2, -1), 0.3, estimator="monte_carlo", generator=noise()
    )
    assert not torch.equal(same[0], same[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_monte_carlo_draws_at_the_precision_of_the_coupling(dtype: torch.dtype) -> None:
    # What it draws itself is what a caller draws with the same generator, to the last bit.
    activity, coupling, decode = rand(3, 5, dtype=dtype), randn(3, 5, seed=1, dtype=dtype), dense(5, 4, dtype)
    draws = torch.randn((16, 3), generator=noise(1), dtype=dtype, device=DEVICE)
    handed_in = decoder_statistics(decode, activity, coupling, 0.3, estimator="monte_carlo", draws=draws)
    own = decoder_statistics(
        decode, activity, coupling, 0.3, estimator="monte_carlo", num_samples=16, generator=noise(1)
    )
    for mine, theirs in zip(own, handed_in, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "options", [{"estimator": "derivativ"}, {"num_nodes": 101}, {"estimator": "monte_carlo", "num_samples": 1}]
)
def test_statistics_refuse_the_estimators_that_gains_refuse(options: dict) -> None:
    for function in (decoder_statistics, decoder_gains):
        with pytest.raises(ValueError, match=r"did you mean 'derivative'|num_nodes must|num_samples must"):
            function(dense(5, 4), rand(3, 5), rand(3, 5), 0.3, **options)


def test_monte_carlo_in_several_passes_equals_one(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, coupling, decode = rand(3, 5), randn(3, 5, seed=1), dense(5, 4)
    expected = everything(decode, activity, coupling, estimator="monte_carlo")
    rows: list[int] = []

    def counting(h: Tensor) -> Tensor:
        rows.append(len(h))
        return decode(h)

    monkeypatch.setattr(module, "ROWS_PER_PASS", 30)
    torch.testing.assert_close(everything(counting, activity, coupling, estimator="monte_carlo"), expected)
    assert max(rows) <= 30
    assert sum(rows) == 128 * 3


# ---- bad input -----------------------------------------------------------------------------------------------------


def _never(h: Tensor) -> Tensor:
    raise AssertionError("decode was called")


ONE = torch.ones(2, 3)
CORRELATION = (  # why, and what to take instead
    r"^normalizer 'correlation' is not offered with estimator 'derivative': in the small-noise limit every correlation is "
    r"\+1, 0 or -1; use estimator 'quadrature', or normalizer 'relative'$"
)
NEGATIVE = (
    r"^activity must be rectified \(>= 0\) and finite: the modulator scales firing rates, and a share of a negative activity "
    r"has no meaning; got values from -1 to -1$"
)


@pytest.mark.parametrize(
    ("activity", "coupling", "options", "message"),
    [
        (torch.ones(3), ONE, {}, r"activity must have shape \(B, E, ...\), got \(3,\)"),
        (ONE, torch.ones(3), {}, r"coupling must have shape \(B, E\) = \(2, 3\)"),
        (ONE, torch.ones(1, 3), {}, "coupling must have shape"),
        (ONE, torch.ones(2, 4), {}, r"got \(2, 4\)"),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 1, 1), {}, "coupling must have shape"),
        (ONE.long(), ONE, {}, "must be floating point, got torch.int64"),
        (ONE, ONE.bool(), {}, "must be floating point"),
        (ONE, ONE, {"std": 0.0}, "std must be a positive finite number, got 0.0"),
        (ONE, ONE, {"std": -0.3}, "std must be a positive finite number, got -0.3"),
        (ONE, ONE, {"std": math.nan}, "std must be a positive finite number"),
        (ONE, ONE, {"std": math.inf}, "std must be a positive finite number"),
        (ONE, ONE, {"std": None}, "std must be a positive finite number"),
        (ONE, ONE, {"beta": -0.1}, r"beta must be in \[0, 1\] for link 'rectified', got -0.1"),
        (ONE, ONE, {"beta": 1.1}, r"beta must be in \[0, 1\] for link 'rectified', got 1.1"),
        (ONE, ONE, {"beta": math.nan}, "beta must be in"),
        (ONE, ONE, {"beta": "1"}, "beta must be in"),
        (ONE, ONE, {"beta": -1.0, "link": "exponential"}, r"beta must be in \[0, inf\] for link 'exponential'"),
        (ONE, ONE, {"beta": math.inf, "link": "exponential"}, "beta must be in"),
        (ONE, ONE, {"estimator": "derivativ"}, "unknown estimator 'derivativ'; did you mean 'derivative'"),
        (ONE, ONE, {"estimator": None}, "unknown estimator None"),
        (ONE, ONE, {"normalizer": "variance"}, "unknown normalizer 'variance'.* known: relative, covariance"),
        (ONE, ONE, {"link": "linear"}, "unknown link 'linear'"),
        (ONE, ONE, {"estimator": "derivative", "normalizer": "correlation"}, CORRELATION),
        (ONE, ONE, {"link": "exponential", "normalizer": "covariance"}, "'exponential' is .*'relative' only"),
        (ONE, ONE, {"link": "exponential", "normalizer": "correlation"}, "for normalizer 'relative' only"),
        (ONE, ONE, {"num_nodes": 1}, "num_nodes must be an integer from 2 to 100, got 1"),
        (ONE, ONE, {"num_nodes": 101}, "num_nodes must be an integer from 2 to 100, got 101"),
        (ONE, ONE, {"num_nodes": 2.5}, "num_nodes must be an integer"),
        (ONE, ONE, {"num_samples": 1}, "num_samples must be an integer of at least 2, got 1"),
        (ONE, ONE, {"num_samples": 8.0}, "num_samples must be an integer"),
        (-ONE, ONE, {}, NEGATIVE),
        (ONE * math.nan, ONE, {}, "activity must be rectified"),
        (ONE * math.inf, ONE, {}, "activity must be rectified .* and finite"),
        (ONE, ONE * math.nan, {}, "^coupling must be finite, got NaN or infinite values$"),
        (ONE, -ONE * math.inf, {}, "coupling must be finite"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bad_input_is_refused_before_decode_is_called(
    activity: Tensor, coupling: Tensor, options: dict[str, object], message: str, estimator: str
) -> None:
    if "normalizer" in options and estimator == "derivative":
        estimator = "quadrature"  # with `derivative` a bad normaliser would be two faults at once
    arguments = {"std": 0.3, "estimator": estimator} | options
    with pytest.raises(ValueError, match=message):
        decoder_gains(_never, activity, coupling, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 0.5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_numbers_of_every_kind(estimator: str, number: float) -> None:
    coupling = rand(2, 5, seed=1).requires_grad_()
    options = {"estimator": estimator, "num_nodes": np.int64(5), "num_samples": np.int32(16)}
    gains = everything(dense(5, 4), rand(2, 5), coupling, number, beta=number, **options)
    gains.sum().backward()
    assert torch.equal(gains, everything(dense(5, 4), rand(2, 5), coupling, 0.5, beta=0.5, **options))
