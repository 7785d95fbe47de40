"""Decoder gains: the invariants, against closed forms, against independent integration, and against one another."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor, nn
from torch.nn import functional as F

from comodulation import gains as module
from comodulation.gains import (
    ESTIMATORS,
    LINKS,
    NORMALIZERS,
    SLOPE_LIMIT,
    DecoderStatistics,
    average_over_tasks,
    decoder_gains,
    decoder_statistics,
    gains_from_statistics,
    gauss_hermite,
)

DEVICE = torch.device(os.environ.get("COMODULATION_TEST_DEVICE", "cpu"))
Decode = Callable[[Tensor], Tensor]

# Everything that is offered: correlation not with derivative, the exponential link only with relative.
OFFERED = [
    (estimator, normalizer, link)
    for estimator, normalizer, link in product(ESTIMATORS, NORMALIZERS, LINKS)
    if (estimator, normalizer) != ("derivative", "correlation") and (link == "rectified" or normalizer == "relative")
]
STATISTICS = [(normalizer, link) for normalizer, link in product(NORMALIZERS, LINKS)
              if link == "rectified" or normalizer == "relative"]  # fmt: skip


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator(DEVICE).manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def dense(
    encoder: int, decoder: int, dtype: torch.dtype = torch.float64, *, bias: float = 0.3, seed: int = 0
) -> Decode:
    """A rectified fully connected decoder."""
    weight = randn(decoder, encoder, seed=seed, dtype=dtype) / encoder**0.5
    offset = bias * randn(decoder, seed=seed + 1, dtype=dtype)
    return lambda h: torch.relu(h @ weight.T + offset)


def residual(channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Decode:
    """The paper's decoder: relu(K h + b + h), 3x3."""
    kernel = randn(channels, channels, 3, 3, seed=seed, dtype=dtype) / (9 * channels) ** 0.5
    offset = 0.1 * randn(channels, seed=seed + 1, dtype=dtype)
    return lambda h: torch.relu(F.conv2d(h, kernel, offset, padding=1) + h)


def smooth(encoder: int, decoder: int, seed: int = 0) -> Decode:
    """A positive decoder without kinks, strongly curved."""
    weight, offset = randn(decoder, encoder, seed=seed), randn(decoder, seed=seed + 1)
    return lambda h: F.softplus(h @ weight.T + offset)


def everything(decode: Decode, activity: Tensor, coupling: Tensor, std: float = 0.3, **options: object) -> Tensor:
    """decoder_gains with reproducible samples."""
    return decoder_gains(decode, activity, coupling, std, generator=noise(), **options)  # type: ignore[arg-type]


# ---- rows without any coupling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_uncoupled_rows_are_exactly_one_with_finite_gradients(
    estimator: str, normalizer: str, link: str, dtype: torch.dtype
) -> None:
    # Row 0 is not coupled, row 1 only through silent neurons, row 2 is silent altogether, row 3 is an ordinary one.
    for decode, shape in ((dense(37, 50, dtype), (4, 37)), (residual(12, dtype), (4, 12, 3, 5))):
        activity = rand(*shape, dtype=dtype)
        activity[1, :5] = 0
        activity[2] = 0
        coupling = randn(*shape[:2], seed=1, dtype=torch.float32 if dtype.itemsize == 2 else dtype)
        coupling[0] = 0
        coupling[1, 5:] = 0
        coupling.requires_grad_()
        gains = everything(decode, activity, coupling, estimator=estimator, normalizer=normalizer, link=link)
        assert (gains[:3] == 1).all()
        assert (gains[3] - 1).abs().max() > 0.1
        (gains * randn(*gains.shape, seed=2, dtype=dtype)).sum().backward()
        assert coupling.grad is not None
        assert torch.isfinite(coupling.grad).all()
        assert coupling.grad[3].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_exponential_link_has_a_gradient_at_zero_coupling(estimator: str) -> None:
    # A controller starts there. The gradient is that of a row with a coupling next to zero.
    activity, decode = rand(1, 6), dense(6, 5)
    slopes = []
    for start in (0.0, 1e-4):
        coupling = torch.full((1, 6), start, dtype=torch.float64, device=DEVICE, requires_grad=True)
        gains = everything(decode, activity, coupling, estimator=estimator, link="exponential")
        slopes.append(torch.autograd.grad((gains * randn(5, seed=2)).sum(), coupling)[0])
    assert slopes[0].abs().max() > 0.1
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_where_no_slope_is_positive_the_rectified_gains_are_one(estimator: str, normalizer: str, link: str) -> None:
    # Positive weights and negative couplings: modulation lowers every decoder neuron, or leaves it silent.
    weight = rand(9, 6)
    weight[4:] *= -1
    coupling = (-rand(3, 6, seed=1)).requires_grad_()
    gains = everything(
        lambda h: torch.relu(h @ weight.T), rand(3, 6, seed=2), coupling,
        estimator=estimator, normalizer=normalizer, link=link,
    )  # fmt: skip
    gains.sum().backward()
    assert coupling.grad is not None
    assert torch.isfinite(coupling.grad).all()
    assert (gains[:, 4:] == 1).all()  # silent neurons
    assert (gains[:, :4] == 1).all() if link == "rectified" else (gains[:, :4] < 1).all()


# ---- closed forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["quadrature", "derivative"])
def test_linear_decoder_gives_the_activity_weighted_average_coupling(estimator: str) -> None:
    # E[m exp(m w - s^2 w^2 / 2)] = s^2 w, hence Cov(m, d_j) = s^2 sum_e K_je h_e w_e: the average of the couplings,
    # weighted by what each neuron contributes. Twenty nodes are exact to rounding.
    weight, activity, coupling, std = rand(8, 5, seed=1), rand(3, 5, seed=2), randn(3, 5, seed=3), 0.4
    statistics = decoder_statistics(lambda h: h @ weight.T, activity, coupling, std, estimator=estimator, num_nodes=20)
    average = ((activity * coupling) @ weight.T) / (activity @ weight.T)
    torch.testing.assert_close(statistics.slope / statistics.mean, average, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(statistics.mean, activity @ weight.T, rtol=1e-11, atol=0)
    rectified = average.clamp(min=0) / average.clamp(min=0).mean(1, keepdim=True)
    gains = gains_from_statistics(statistics)
    torch.testing.assert_close(gains, rectified, rtol=1e-9, atol=1e-9)
    exponential = gains_from_statistics(statistics, link="exponential", beta=0.7)
    torch.testing.assert_close(exponential, (0.7 * average).exp(), rtol=1e-9, atol=0)


def test_deviation_is_that_of_a_log_normal() -> None:
    # One neuron: Var d = h^2 (exp(s^2 w^2) - 1), and the correlation is s w / sqrt(exp(s^2 w^2) - 1).
    activity, coupling, std = *(torch.tensor([[x]], dtype=torch.float64) for x in (2.0, 1.5)), 0.5
    statistics = decoder_statistics(lambda h: h, activity, coupling, std, num_nodes=30)
    assert statistics.deviation.item() * std == pytest.approx(2 * math.sqrt(math.expm1(0.75**2)), rel=1e-10)
    correlation = statistics.slope / statistics.deviation
    assert correlation.item() == pytest.approx(0.75 / math.sqrt(math.expm1(0.75**2)), rel=1e-10)


def threshold_decoder(thresholds: Tensor) -> Decode:
    return lambda h: torch.relu(h - thresholds)


def black_scholes(h: float, w: float, std: float, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and slope of relu(h exp(m w - s^2 w^2 / 2) - theta): the price of a call option and its sensitivity."""
    s = std * w
    d1 = np.log(h / thresholds) / s + s / 2
    return h * stats.norm.cdf(d1) - thresholds * stats.norm.cdf(d1 - s), w * h * stats.norm.cdf(d1)


def test_one_kink_against_the_black_scholes_formula() -> None:
    h, w, std = 1.2, 1.5, 0.4
    thresholds = np.linspace(0.35, 3.05, 28)
    mean, slope = black_scholes(h, w, std, thresholds)
    numbers = [torch.full((1, 1), x, dtype=torch.float64) for x in (h, w)]
    arguments = (
        threshold_decoder(torch.as_tensor(thresholds)), *numbers, std
    )  # fmt: skip
    # A kink costs Q nodes a share of the slope of the order of 1 / Q (docs/mathematics.md; 0.38 / Q at most here).
    for nodes in (3, 5, 25, 100):
        quadrature = decoder_statistics(*arguments, num_nodes=nodes)
        assert np.abs(quadrature.slope[0].numpy() - slope).max() < 0.5 / nodes * w * h
        assert np.abs(quadrature.mean[0].numpy() - mean).max() < 0.5 / nodes * std * w * h
    # The derivative is the same formula with the step function in place of the normal distribution.
    derivative = decoder_statistics(*arguments, estimator="derivative")
    np.testing.assert_allclose(derivative.slope[0].numpy(), w * h * (thresholds < h), rtol=1e-12)
    # 20,000 samples: the largest standard error of a slope, sqrt(Var(x (d - mean)) / T) / std, is 0.025; four of them.
    sampled = decoder_statistics(*arguments, estimator="monte_carlo", num_samples=20_000, generator=noise())
    assert np.abs(sampled.slope[0].numpy() - slope).max() < 0.1
    assert np.abs(sampled.slope[0].numpy() - slope).max() < np.abs(derivative.slope[0].numpy() - slope).max() / 5


def test_quadrature_against_adaptive_integration() -> None:
    # scipy's quad knows nothing of nodes: the integrals of x d(x) and d(x) under the normal density.
    activity, coupling, std = rand(2, 4), randn(2, 4, seed=1), 0.5
    decode = smooth(4, 3)
    statistics = decoder_statistics(decode, activity, coupling, std, num_nodes=60)

    def decoded(x: float, b: int, j: int) -> float:
        factor = np.exp(std * x * coupling[b].numpy() - (std * coupling[b].numpy()) ** 2 / 2)
        return decode(activity[b : b + 1] * torch.as_tensor(factor))[0, j].item()

    for b, j in product(range(2), range(3)):

        def moment(power: int, b: int = b, j: int = j) -> float:
            return integrate.quad(lambda x: x**power * decoded(x, b, j) * stats.norm.pdf(x), -9, 9, epsabs=1e-11)[0]

        mean, covariance = moment(0), moment(1)
        assert statistics.mean[b, j].item() == pytest.approx(mean, abs=1e-9)
        assert statistics.slope[b, j].item() * std == pytest.approx(covariance, abs=1e-9)


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 5])
def test_error_of_quadrature_has_the_predicted_size(num_nodes: int) -> None:
    # Q nodes miss Q! of E[x^(2Q)] and nothing of lower powers: the slope of exp(s x) is short by the share
    # Q! / (2Q - 1)! s^(2Q - 2), up to higher orders of s.
    for s in (0.2, 0.4):
        one = torch.ones(1, 1, dtype=torch.float64)
        slope = decoder_statistics(lambda h: h, one, s * one, 1.0, num_nodes=num_nodes).slope.item() / s
        predicted = math.factorial(num_nodes) / math.factorial(2 * num_nodes - 1) * s ** (2 * num_nodes - 2)
        assert 1 - slope == pytest.approx(predicted, rel=0.1)


@given(num_nodes=st.integers(2, 100))
@settings(max_examples=30, deadline=None)
def test_gauss_hermite_is_exact_for_the_moments_it_promises(num_nodes: int) -> None:
    nodes, weights = gauss_hermite(num_nodes, torch.float64, torch.device("cpu"))
    assert torch.isfinite(weights).all()
    for power in range(min(2 * num_nodes, 16)):
        moment = 0.0 if power % 2 else float(math.prod(range(power - 1, 0, -2)))
        scale = (weights * nodes.abs() ** power).sum().item()
        assert (weights * nodes**power).sum().item() == pytest.approx(moment, abs=1e-12 * scale)


# ---- the estimators against one another ---------------------------------------------------------------------------


def test_monte_carlo_converges_to_quadrature_as_one_over_the_root_of_the_samples() -> None:
    # Standard error of the sampled slope: sqrt(Var(x (d - mean)) / T) / std, itself by quadrature. In units of it the
    # errors of 300 independent inputs have root mean square 1, give or take 0.05 (a fifth is four of those).
    activity, coupling, std, decode = rand(300, 6), randn(300, 6, seed=1), 0.3, dense(6, 5)
    exact = decoder_statistics(decode, activity, coupling, std, num_nodes=60)
    nodes, weights = gauss_hermite(60, torch.float64, DEVICE)
    factor = torch.exp(std * nodes[:, None, None] * coupling - (std * coupling) ** 2 / 2)
    products = nodes[:, None, None] * (decode(activity * factor) - exact.mean)
    mean = torch.einsum("q,qbd->bd", weights, products)
    variance = torch.einsum("q,qbd->bd", weights, (products - mean).square())
    clear = variance > 1e-6  # a silent neuron has no error at all
    errors = []
    for samples in (64, 1024):
        sampled = decoder_statistics(
            decode, activity, coupling, std, estimator="monte_carlo", num_samples=samples, generator=noise()
        )
        error = (sampled.slope - exact.slope)[clear]
        scaled = error / (variance[clear] / samples).sqrt() * std
        assert scaled.square().mean().sqrt().item() == pytest.approx(1, abs=0.2)
        assert abs(scaled.mean().item()) < 0.25  # unbiased: 5 / sqrt(300)
        errors.append(error.square().mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("normalizer", "link"), [pair for pair in STATISTICS if pair[0] != "correlation"])
def test_quadrature_converges_to_the_derivative_with_the_square_of_sigma(normalizer: str, link: str) -> None:
    activity, coupling, decode = rand(4, 5), randn(4, 5, seed=1), smooth(5, 6)
    options = {"normalizer": normalizer, "link": link}
    limit = everything(decode, activity, coupling, 1.0, estimator="derivative", **options)
    sigmas = (0.2, 0.1, 0.05, 0.025)
    errors = [
        (everything(decode, activity, coupling, s, num_nodes=20, **options) - limit).abs().amax().item() for s in sigmas
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.1)
    assert errors[0] > 0.02  # there was something to converge


def test_quadrature_converges_to_the_derivative_with_kinks_too() -> None:
    activity, coupling, decode = rand(4, 12, 4, 4), rand(4, 12, seed=1), residual(12)
    limit = everything(decode, activity, coupling, estimator="derivative")
    errors = [(everything(decode, activity, coupling, s) - limit).abs().amax().item() for s in (0.3, 0.03, 0.003, 3e-4)]
    # Until no kink is left within reach of the modulator; then to rounding, for a decoder that is linear in between.
    assert errors[0] > 0.05 > errors[1]
    assert max(errors[2:]) < 1e-9


@pytest.mark.parametrize("normalizer", ["relative", "covariance"])
def test_tiny_sigma(normalizer: str) -> None:
    # The factor differs from 1 by sigma w, known to eps: a relative error of about eps / sigma remains in the slopes.
    weight = rand(8, 5, seed=1)
    activity, coupling = rand(3, 5, seed=2), 0.5 + rand(3, 5, seed=3)
    limit = everything(lambda h: h @ weight.T, activity, coupling, estimator="derivative", normalizer=normalizer)
    for std in (1e-3, 1e-6, 1e-9, 1e-12):
        gains = everything(lambda h: h @ weight.T, activity, coupling, std, normalizer=normalizer)
        torch.testing.assert_close(gains, limit, rtol=8 * 2.2e-16 / std + std**2, atol=0)


@pytest.mark.parametrize("std", [1e-6, 1e-8, 1e-12, 1e-30, 1e-300])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_a_sigma_beyond_the_precision_gives_no_noise_amplified(
    estimator: str, normalizer: str, link: str, std: float
) -> None:
    # In float32 the modulated inputs are then equal, or nearly: never NaN, and with equal inputs exactly 1.
    activity, coupling = rand(3, 12, 4, 4, dtype=torch.float32), rand(3, 12, seed=1, dtype=torch.float32)
    gains = everything(
        residual(12, torch.float32), activity, coupling, std, estimator=estimator, normalizer=normalizer, link=link
    )
    assert torch.isfinite(gains).all()
    if link == "rectified":
        torch.testing.assert_close(gains.mean(1), torch.ones(3, device=DEVICE))
    if std <= 1e-8 and estimator != "derivative":
        assert (gains == 1).all()


# ---- symmetries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 3.0, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalizer", ["relative", "covariance"])
def test_small_noise_gains_do_not_depend_on_the_scale_of_the_coupling(
    normalizer: str, dtype: torch.dtype, scale: float
) -> None:
    activity, decode = rand(3, 12, 4, 4, dtype=dtype), residual(12, dtype)
    coupling = rand(3, 12, seed=1, dtype=torch.promote_types(dtype, torch.float32))
    options = {"estimator": "derivative", "normalizer": normalizer}
    expected = everything(decode, activity, coupling, **options)
    # The tangent is rounded to the activity's precision; a gain is a quotient of sums of such values.
    rounding = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        everything(decode, activity, scale * coupling, **options), expected, rtol=rounding, atol=2 * rounding
    )


@pytest.mark.parametrize("normalizer", ["relative", "covariance", "correlation"])
def test_small_noise_quadrature_does_not_depend_on_the_scale_of_the_coupling(normalizer: str) -> None:
    activity, coupling, decode = rand(3, 6), rand(3, 6, seed=1), smooth(6, 5)
    first, second = (everything(decode, activity, c * coupling, 1e-4, normalizer=normalizer) for c in (1, 10))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)  # of order (10 sigma w)^2
    assert (first - 1).abs().max() > 0.05


@pytest.mark.parametrize("scale", [1e-15, 1e-7, 1e7, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_gains_of_a_homogeneous_decoder_do_not_depend_on_the_scale_of_activity(
    estimator: str, normalizer: str, link: str, dtype: torch.dtype, scale: float
) -> None:
    weight = randn(9, 6, dtype=dtype)
    activity, coupling = rand(3, 6, seed=1, dtype=dtype), randn(3, 6, seed=2, dtype=dtype)
    coupling = torch.where(coupling > 1, 0, coupling).requires_grad_()
    results = []
    for factor in (1.0, scale):
        gains = everything(
            lambda h: torch.relu(h @ weight.T), factor * activity, coupling,
            estimator=estimator, normalizer=normalizer, link=link,
        )  # fmt: skip
        results.append((gains, *torch.autograd.grad(gains.square().sum(), coupling)))
    tolerance = 1e3 * torch.finfo(dtype).eps
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


@given(seed=st.integers(0, 10**6), combination=st.sampled_from(OFFERED), order=st.permutations(range(7)))
@settings(max_examples=40, deadline=None)
def test_equivariant_to_permutations_of_decoder_neurons(
    seed: int, combination: tuple[str, str, str], order: list[int]
) -> None:
    estimator, normalizer, link = combination
    activity, coupling, decode = rand(2, 5, seed=seed), randn(2, 5, seed=seed + 1), dense(5, 7, seed=seed + 2)
    options = {"estimator": estimator, "normalizer": normalizer, "link": link, "beta": 0.6}
    gains = everything(decode, activity, coupling, **options)
    permuted = everything(lambda h: decode(h)[:, order], activity, coupling, **options)
    torch.testing.assert_close(permuted, gains[:, order], rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6), combination=st.sampled_from(OFFERED), order=st.permutations(range(5)))
@settings(max_examples=40, deadline=None)
def test_invariant_to_permutations_of_encoder_neurons(
    seed: int, combination: tuple[str, str, str], order: list[int]
) -> None:
    estimator, normalizer, link = combination
    activity, coupling, decode = rand(2, 5, seed=seed), randn(2, 5, seed=seed + 1), dense(5, 7, seed=seed + 2)
    back = torch.tensor(order).argsort()
    options = {"estimator": estimator, "normalizer": normalizer, "link": link}
    gains = everything(decode, activity, coupling, **options)
    permuted = everything(lambda h: decode(h[:, back]), activity[:, order], coupling[:, order], **options)
    torch.testing.assert_close(permuted, gains, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("estimator", ["quadrature", "derivative"])
@pytest.mark.parametrize(("normalizer", "link"), STATISTICS)
def test_a_row_alone_equals_the_row_in_a_batch(estimator: str, normalizer: str, link: str, dtype: torch.dtype) -> None:
    if (estimator, normalizer) == ("derivative", "correlation"):
        pytest.skip("not offered")
    # A matrix product may sum in another order for another number of rows: eps of the activity, over sigma = 0.3.
    for decode, shape in ((dense(40, 30, dtype), (9, 40)), (residual(12, dtype), (9, 12, 4, 4))):
        activity, coupling = rand(*shape, dtype=dtype), randn(*shape[:2], seed=1, dtype=dtype)
        coupling[3] = 0
        options = {"estimator": estimator, "normalizer": normalizer, "link": link}
        batch = everything(decode, activity, coupling, **options)
        alone = torch.cat([everything(decode, activity[b : b + 1], coupling[b : b + 1], **options) for b in range(9)])
        tolerance = 300 * torch.finfo(dtype).eps
        torch.testing.assert_close(alone, batch, rtol=tolerance, atol=tolerance)


# ---- normaliser, link, strength -----------------------------------------------------------------------------------


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
        return torch.tensor([[v * 10.0**e for v, e in zip(values, exponents, strict=True)]], dtype=torch.float64)

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


# ---- level task ---------------------------------------------------------------------------------------------------


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


# ---- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_gradients_against_finite_differences(estimator: str, normalizer: str, link: str) -> None:
    activity, decode = rand(2, 3), smooth(3, 4)
    coupling = (0.5 + rand(2, 3, seed=1)).requires_grad_()
    options = {"estimator": estimator, "normalizer": normalizer, "link": link, "beta": 0.8, "num_samples": 8}
    assert torch.autograd.gradcheck(lambda w: everything(decode, activity, w, **options), [coupling])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_of_a_convolutional_decoder_and_its_kernel(estimator: str) -> None:
    # Away from its kinks the rectified decoder is smooth too; pretraining may want the gradient of the kernel.
    activity, coupling = 0.5 + rand(1, 2, 2, 2), (0.5 + rand(1, 2, seed=1)).requires_grad_()
    kernel = (0.1 + rand(2, 2, 3, 3, seed=2)).requires_grad_()

    def gains(w: Tensor, k: Tensor) -> Tensor:
        return everything(
            lambda h: torch.relu(F.conv2d(h, k, padding=1)), activity, w, estimator=estimator, num_samples=6
        )

    assert torch.autograd.gradcheck(gains, [coupling, kernel])


# ---- decoders of every kind ---------------------------------------------------------------------------------------


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
    message = r"decode has no forward-mode derivative, which estimator 'derivative' needs; use estimator 'quadrature'"
    with pytest.raises(RuntimeError, match=message):
        everything(decode, activity, coupling, estimator="derivative")
    assert torch.isfinite(everything(decode, activity, coupling)).all()


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


# ---- shapes, types, layouts ---------------------------------------------------------------------------------------


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


# ---- bad input ----------------------------------------------------------------------------------------------------


def _never(h: Tensor) -> Tensor:
    raise AssertionError("decode was called")


ONE = torch.ones(2, 3)


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
        (ONE, ONE, {"estimator": "derivative", "normalizer": "correlation"}, "'correlation' is not offered"),
        (ONE, ONE, {"link": "exponential", "normalizer": "covariance"}, "'exponential' is .*'relative' only"),
        (ONE, ONE, {"link": "exponential", "normalizer": "correlation"}, "for normalizer 'relative' only"),
        (ONE, ONE, {"num_nodes": 1}, "num_nodes must be an integer from 2 to 100, got 1"),
        (ONE, ONE, {"num_nodes": 101}, "num_nodes must be an integer from 2 to 100, got 101"),
        (ONE, ONE, {"num_nodes": 2.5}, "num_nodes must be an integer"),
        (ONE, ONE, {"num_samples": 1}, "num_samples must be an integer of at least 2, got 1"),
        (ONE, ONE, {"num_samples": 8.0}, "num_samples must be an integer"),
        (-ONE, ONE, {}, r"activity must be rectified .* got values from -1 to -1"),
        (ONE * math.nan, ONE, {}, "activity must be rectified"),
        (ONE * math.inf, ONE, {}, "activity must be rectified .* and finite"),
        (ONE, ONE * math.nan, {}, "coupling must be finite"),
        (ONE, -ONE * math.inf, {}, "coupling must be finite"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bad_input_is_refused_before_decode_is_called(
    activity: Tensor, coupling: Tensor, options: dict[str, object], message: str, estimator: str
) -> None:
    if "normalizer" in options and estimator == "derivative":
        pytest.skip("two faults at once")
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
