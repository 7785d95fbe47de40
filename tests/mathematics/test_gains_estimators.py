"""The estimators: against closed forms, independent integration, and one another."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from comodulation.mathematics.estimators import decoder_statistics, gauss_hermite
from comodulation.mathematics.gains import gains_from_statistics
from support.decoders import (
    DEVICE,
    OFFERED,
    STATISTICS,
    Decode,
    dense,
    everything,
    noise,
    rand,
    randn,
    residual,
    smooth,
)

# ---- closed forms --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("device", [DEVICE, torch.device("meta")], ids=str)
def test_gauss_hermite_is_where_it_is_asked_for(dtype: torch.dtype, device: torch.device) -> None:
    for values in gauss_hermite(5, dtype, device):
        assert (values.shape, values.dtype, values.device.type) == ((5,), dtype, device.type)


# ---- the estimators against one another ----------------------------------------------------------------------------


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
