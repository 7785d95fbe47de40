"""Decoder gains, computed from how decoder activity covaries with the modulator.

Three pure steps, in this order:

1. ``decoder_statistics``: per input and decoder neuron j, the slope of activity on the modulator
   b_j = Cov_m(m, d_j(m)) / sigma^2, the mean of d_j over m, and its standard deviation over m, all ``(B, D)``.
   Three estimators: ``quadrature``, ``derivative``, ``monte_carlo``.
2. ``average_over_tasks``: for gains of level `task`, the statistics averaged over the inputs of each task, ``(K, D)``.
3. ``gains_from_statistics``: normaliser, link and strength beta, ``(B, D)`` or ``(K, D)``.

``decoder_gains`` is 1 and 3 in one call: a gain per input (level `input`).

By Stein's lemma Cov(m, f(m)) = sigma^2 E[f'(m)], so b_j is also the mean derivative of activity with respect to the
modulator: the covariance and the derivative estimator are two routes to one number. Keeping b rather than the
covariance sigma^2 b avoids an underflow for small sigma; where sigma^2 matters, the docstring says so.

Source: arXiv 2311.15053 (2023), decoder gain equation (link `rectified`). The link `exponential`, the normaliser
`relative`, and the quadrature and derivative estimators are additions of this library; docs/mathematics.md derives them.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import choose
from .estimators import Decode, DecoderStatistics, EstimatorName, estimator_named, statistics_by
from .modulator import check_activity_and_coupling, check_std, is_finite, largest_exponent

Normalizer = Literal["relative", "covariance", "correlation"]
Link = Literal["rectified", "exponential"]
NORMALIZERS, LINKS = get_args(Normalizer), get_args(Link)
SLOPE_LIMIT = 4.0  # of the exponential link: relative slopes are clamped to +- this


def decoder_gains(
    decode: Decode,
    activity: Tensor,
    coupling: Tensor,
    std: float,
    *,
    estimator: EstimatorName = "quadrature",
    normalizer: Normalizer = "relative",
    link: Link = "rectified",
    beta: float = 1.0,
    num_nodes: int = 5,
    num_samples: int = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gain of every decoder neuron for every input, from its covariance with the modulator.

    Args:
        decode: maps encoder activity ``(N, E, ...)`` to rectified decoder activity ``(N, D, ...)``, row by row. With normaliser
            ``relative``, a neuron whose mean is not positive counts as silent.
        activity: rectified encoder activity, ``(B, E, ...)``.
        coupling: coupling of each encoder neuron to the modulator, ``(B, E)``.
        std: standard deviation sigma of the modulator.
        estimator: ``quadrature`` (Gauss-Hermite over the scalar modulator, ``num_nodes`` decoder passes),
            ``derivative`` (small-noise limit, one forward-mode derivative) or ``monte_carlo`` (``num_samples`` draws).
        normalizer: ``relative`` (by sigma^2 times mean activity), ``covariance`` (none) or ``correlation`` (by the
            standard deviations of m and of activity; not with ``derivative``, where it is only a sign).
        link: ``rectified``: [c]_+ over its normaliser, divided by its mean over neurons, then 1 + beta (g - 1).
            ``exponential``: exp(beta s) with s the relative slope clamped to +-4; normaliser ``relative`` only.
        beta: strength, in [0, 1] for ``rectified``, >= 0 for ``exponential``. 0 gives gains of 1.
        num_nodes: Gauss-Hermite nodes, from 2 to 100.
        num_samples: Monte Carlo samples, at least 2.
        generator: source of the Monte Carlo samples, on the activity's device; None takes torch's own.

    Returns:
        Gains ``(B, D)`` in ``activity.dtype``, with mean 1 over D for the rectified link. An input whose encoder is not
        coupled to the modulator (coupling zero, or only on silent neurons) gets gains of exactly 1.
        Differentiable in ``coupling``.

    Raises:
        ValueError: before ``decode`` is called, for shapes that do not fit, a std that is not positive and finite,
            beta or num_nodes out of range, unknown names, combinations that are not offered, activity that is negative
            or not finite, a coupling that is not finite.
        RuntimeError: ``derivative`` with a ``decode`` that has no forward-mode derivative, or that torch.jit has scripted or
            traced. Scripted functions that ``decode`` calls are not seen: from the second call on, they have a derivative of 0.

    >>> import torch
    >>> activity = torch.tensor([[1.0, 1.0]])
    >>> weight = torch.eye(2)
    >>> decoder_gains(lambda h: torch.relu(h @ weight), activity, torch.tensor([[3.0, 1.0]]), 0.1, estimator="derivative")
    tensor([[1.5000, 0.5000]])
    """
    check_activity_and_coupling(activity, coupling)
    std = check_std(std)
    named = estimator_named(estimator, num_nodes, num_samples, generator)
    check_options(estimator, normalizer, link, beta)
    if not bool((activity >= 0).all()) or not bool(torch.isfinite(activity).all()):
        raise ValueError(
            "activity must be rectified (>= 0) and finite: the modulator scales firing rates, and a share of a "
            f"negative activity has no meaning; got values from {activity.min().item():g} to {activity.max().item():g}"
        )
    # Not finite ratios count as 0 further down, so that a diverged controller would look like one without any effect.
    if not bool(torch.isfinite(coupling).all()):
        raise ValueError("coupling must be finite, got NaN or infinite values")
    statistics = statistics_by(named, decode, activity, coupling, std)
    gains = gains_from_statistics(statistics, normalizer=normalizer, link=link, beta=beta)
    return gains.clamp(max=torch.finfo(activity.dtype).max).to(activity.dtype)  # an infinite gain makes silence NaN


def check_options(estimator: EstimatorName, normalizer: Normalizer, link: Link, beta: float) -> None:
    """Raise ValueError for an unknown name, a combination that is not offered, or a strength out of range."""
    choose(normalizer, NORMALIZERS, "normalizer")
    choose(link, LINKS, "link")
    if normalizer == "correlation" and estimator == "derivative":
        raise ValueError(
            "normalizer 'correlation' is not offered with estimator 'derivative': in the small-noise limit every "
            "correlation is +1, 0 or -1; use estimator 'quadrature', or normalizer 'relative'"
        )
    if link == "exponential" and normalizer != "relative":
        raise ValueError(f"link 'exponential' is defined for normalizer 'relative' only, got {normalizer!r}")
    upper = 1.0 if link == "rectified" else math.inf
    if not (is_finite(beta) and 0 <= beta <= upper):
        raise ValueError(f"beta must be in [0, {upper:g}] for link {link!r}, got {beta!r}")


def gains_from_statistics(
    statistics: DecoderStatistics, *, normalizer: Normalizer = "relative", link: Link = "rectified", beta: float = 1.0
) -> Tensor:
    """Gains from statistics, row by row. Options as in ``decoder_gains``, unchecked.

    Returns:
        Gains ``(B, D)``, or ``(K, D)`` for averaged statistics.
    """
    slope = statistics.slope
    if normalizer == "covariance":
        scaled = slope  # times sigma^2, a constant that the division by the mean over neurons removes
    else:
        # Slope over mean: sigma^2 cancels. Slope over deviation: the correlation itself, sigma cancels.
        scaled = ratio(slope, statistics.mean if normalizer == "relative" else statistics.deviation)
    if link == "exponential":
        exponent = beta * scaled.clamp(-SLOPE_LIMIT, SLOPE_LIMIT)
        return torch.exp(exponent.clamp(max=largest_exponent(exponent.dtype)))
    positive = scaled.relu()  # and not clamp, whose derivative at 0 is 1 in older versions of torch
    largest = positive.amax(1, keepdim=True).detach() if positive.shape[1] else positive.sum(1, keepdim=True)
    labelled = largest > 0
    positive = positive / torch.where(labelled, largest, 1)  # only guards the mean against overflow; it cancels
    gains = positive / torch.where(labelled, positive.mean(1, keepdim=True), 1)
    return 1 + beta * (torch.where(labelled, gains, 1) - 1)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 with gradient 0 where that is not finite (a silent neuron)."""
    safe = denominator > 0
    ratio = numerator / torch.where(safe, denominator, 1)
    finite = safe & torch.isfinite(ratio.detach())
    # Twice `where`: an infinite value in the branch not taken would still turn the gradient into NaN. Both by a constant, the
    # denominator's own value: the derivative would otherwise divide by its square, which underflows.
    numerator, denominator = torch.where(finite, numerator, 0), torch.where(finite, denominator, 1)
    constant = denominator.detach()
    return torch.where(finite, (numerator / constant) / (denominator / constant), 0)
