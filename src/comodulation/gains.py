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
from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .errors import choose
from .modulation import check_activity_and_coupling, check_std, is_finite, largest_exponent, modulate
from .precision import autocasts, outside_autocast
from .tangents import directional_derivative

ESTIMATORS = ("quadrature", "derivative", "monte_carlo")
NORMALIZERS = ("relative", "covariance", "correlation")
LINKS = ("rectified", "exponential")
SLOPE_LIMIT = 4.0  # of the exponential link: relative slopes are clamped to +- this
MOST_NODES = 100  # beyond about 150 the Gauss-Hermite weights underflow and are NaN
ROUNDING = 64  # units in the last place that a decoder's own sums are taken to lose by cancellation
ROWS_PER_PASS = 4096  # modulated copies of the input that one decoder pass of monte_carlo may hold

Decode = Callable[[Tensor], Tensor]


class DecoderStatistics(NamedTuple):
    """What the modulator does to each decoder neuron. Each field ``(B, D)``, or ``(K, D)`` once averaged over tasks."""

    slope: Tensor  # Cov(m, d) / sigma^2, activity per unit of modulator
    mean: Tensor  # mean of d over m
    deviation: Tensor  # standard deviation of d over m, divided by sigma: activity per unit of modulator


def decoder_gains(
    decode: Decode,
    activity: Tensor,
    coupling: Tensor,
    std: float,
    *,
    estimator: str = "quadrature",
    normalizer: str = "relative",
    link: str = "rectified",
    beta: float = 1.0,
    num_nodes: int = 5,
    num_samples: int = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gain of every decoder neuron for every input, from its covariance with the modulator.

    Args:
        decode: maps encoder activity ``(N, E, ...)`` to rectified decoder activity ``(N, D, ...)``, row by row.
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
    check_options(estimator, normalizer, link, beta, num_nodes, num_samples)
    if not bool((activity >= 0).all()) or not bool(torch.isfinite(activity).all()):
        raise ValueError(
            "activity must be rectified (>= 0) and finite: the modulator scales firing rates, and a share of a "
            f"negative activity has no meaning; got values from {activity.min().item():g} to {activity.max().item():g}"
        )
    # Not finite ratios count as 0 further down, so that a diverged controller would look like one without any effect.
    if not bool(torch.isfinite(coupling).all()):
        raise ValueError("coupling must be finite, got NaN or infinite values")
    statistics = decoder_statistics(
        decode,
        activity,
        coupling,
        std,
        estimator=estimator,
        num_nodes=num_nodes,
        num_samples=num_samples,
        generator=generator,
    )
    gains = gains_from_statistics(statistics, normalizer=normalizer, link=link, beta=beta)
    return gains.clamp(max=torch.finfo(activity.dtype).max).to(activity.dtype)  # an infinite gain makes silence NaN


def check_options(
    estimator: str, normalizer: str, link: str, beta: float, num_nodes: int = 5, num_samples: int = 128
) -> None:
    """Raise ValueError for an unknown name, a combination that is not offered, or a number out of range."""
    choose(estimator, ESTIMATORS, "estimator")
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
    if not isinstance(num_nodes, Integral) or not 2 <= num_nodes <= MOST_NODES:
        raise ValueError(f"num_nodes must be an integer from 2 to {MOST_NODES}, got {num_nodes!r}")
    if not isinstance(num_samples, Integral) or num_samples < 2:
        raise ValueError(f"num_samples must be an integer of at least 2, got {num_samples!r}")


def decoder_statistics(
    decode: Decode,
    activity: Tensor,
    coupling: Tensor,
    std: float,
    *,
    estimator: str = "quadrature",
    num_nodes: int = 5,
    num_samples: int = 128,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> DecoderStatistics:
    """Slope, mean and deviation of every decoder neuron under modulation. Arguments as in ``decoder_gains``, unchecked.

    A map's activity is its spatial mean, taken before any statistic. Half precision is accumulated in float32. Under autocast
    everything here, ``decode`` included, is computed outside it, from activity in float32.

    Args:
        draws: standard normal values ``(T, B)`` for ``monte_carlo`` to use in place of ``num_samples`` of its own.

    Returns:
        DecoderStatistics with fields ``(B, D)`` in at least float32.
    """
    precise = torch.promote_types(activity.dtype, torch.float32)
    if autocasts(activity.device):
        with outside_autocast(activity.device):
            return decoder_statistics(
                decode, activity.to(precise), coupling, std, estimator=estimator, num_nodes=num_nodes,
                num_samples=num_samples, generator=generator, draws=draws,
            )  # fmt: skip
    coupling = coupling.to(precise)
    if estimator == "derivative":
        mean, slope = _derivative(decode, activity, coupling)
        return DecoderStatistics(slope, mean, slope.abs())
    if estimator == "quadrature":
        nodes, weights = gauss_hermite(num_nodes, coupling.dtype, coupling.device)
        modulator = (std * nodes)[:, None].expand(-1, activity.shape[0])
        samples = spatial_mean(_decode_rows(decode, modulate(activity, coupling, modulator, std)))
        statistics = statistics_at_nodes(samples, nodes, weights, std)
    else:
        if draws is None:
            shape = (num_samples, len(activity))
            draws = torch.randn(shape, dtype=coupling.dtype, device=activity.device, generator=generator)
        num_samples, modulator = len(draws), std * draws.to(coupling.dtype)
        samples = _sample(decode, activity, coupling, modulator, std)
        mean = samples.mean(0)
        deviation = samples - mean
        centred = modulator - modulator.mean(0)
        unbiased = 1 / (num_samples - 1)
        # By sigma twice, not by its square, which leaves the range of float32 long before sigma does.
        slope = torch.einsum("tb,tbd->bd", centred / std * unbiased, deviation) / std
        spread = _root_mean_square(deviation, samples.new_full((num_samples,), unbiased)) / std
        statistics = DecoderStatistics(_above_rounding(slope, samples.abs().mean(0), std), mean, spread)
    # Exactly 0 where nothing can covary because the encoder is uncoupled.
    active = (activity > 0).flatten(2).any(2) if activity.ndim > 2 else activity > 0
    uncoupled = ~(active & (coupling != 0)).any(1, keepdim=True)
    return statistics._replace(slope=zero_where(uncoupled, statistics.slope))


def statistics_at_nodes(samples: Tensor, nodes: Tensor, weights: Tensor, std: float) -> DecoderStatistics:
    """Statistics of decoder activity known at Gauss-Hermite nodes of the modulator.

    Args:
        samples: decoder activity at m = sigma x_q, positions averaged, ``(Q, B, D)``.
        nodes, weights: x_q and omega_q, ``(Q,)``; see ``gauss_hermite``. std: sigma.

    Returns:
        DecoderStatistics with fields ``(B, D)``; a slope below what rounding alone produces is exactly 0.
    """
    mean = torch.einsum("q,qbd->bd", weights, samples)
    deviation = samples - mean
    # Centred: sum_q omega_q x_q = 0 exactly by symmetry, but in floating point the mean's own rounding would remain.
    slope = torch.einsum("q,qbd->bd", weights * nodes, deviation) / std
    rounding = torch.einsum("q,qbd->bd", weights * nodes.abs(), samples.abs())
    return DecoderStatistics(_above_rounding(slope, rounding, std), mean, _root_mean_square(deviation, weights) / std)


def _above_rounding(slope: Tensor, rounding: Tensor, std: float) -> Tensor:
    """The slope, and exactly 0 where it is below what rounding alone produces.

    (Two equal rows of one matrix product may differ in the last bit, and the normalisation would blow that up.)
    """
    floor = ROUNDING * torch.finfo(slope.dtype).eps * rounding.detach() / std
    return zero_where(slope.detach().abs() <= floor, slope)


def average_over_tasks(statistics: DecoderStatistics, task_ids: Tensor, num_tasks: int) -> DecoderStatistics:
    """Statistics averaged over the inputs of each task, for gains of level `task`.

    Args:
        statistics: fields ``(B, D)``.
        task_ids: task of each input, integers ``(B,)``.
        num_tasks: number K of tasks.

    Returns:
        DecoderStatistics with fields ``(K, D)``. A task without inputs has statistics 0, hence gains of 1. Deviations
        are averaged as variances.
    """
    counts = torch.bincount(task_ids, minlength=num_tasks).clamp(min=1)[:, None]

    def average(values: Tensor) -> Tensor:
        return values.new_zeros(num_tasks, values.shape[1]).index_add(0, task_ids, values) / counts

    # Squared relative to the largest of the task: squares leave the range of float32 long before deviations do.
    rows = task_ids.long()[:, None].expand_as(statistics.deviation)
    scale = statistics.deviation.detach().new_zeros(num_tasks, rows.shape[1])
    scale = scale.scatter_reduce(0, rows, statistics.deviation.detach(), "amax")
    scale = torch.where(scale > 0, scale, 1)
    variance = average((statistics.deviation / scale.index_select(0, task_ids)).square())
    positive = variance > 0
    deviation = torch.where(positive, torch.where(positive, variance, 1).sqrt() * scale, 0)
    return DecoderStatistics(average(statistics.slope), average(statistics.mean), deviation)


def gains_from_statistics(
    statistics: DecoderStatistics, *, normalizer: str = "relative", link: str = "rectified", beta: float = 1.0
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
        scaled = _ratio(slope, statistics.mean if normalizer == "relative" else statistics.deviation)
    if link == "exponential":
        exponent = beta * scaled.clamp(-SLOPE_LIMIT, SLOPE_LIMIT)
        return torch.exp(exponent.clamp(max=largest_exponent(exponent.dtype)))
    positive = scaled.clamp(min=0)
    largest = positive.amax(1, keepdim=True).detach() if positive.shape[1] else positive.sum(1, keepdim=True)
    labelled = largest > 0
    positive = positive / torch.where(labelled, largest, 1)  # only guards the mean against overflow; it cancels
    gains = positive / torch.where(labelled, positive.mean(1, keepdim=True), 1)
    return 1 + beta * (torch.where(labelled, gains, 1) - 1)


def gauss_hermite(num_nodes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Probabilists' Gauss-Hermite nodes x_q and weights omega_q with sum omega = 1, each ``(Q,)``.

    sum_q omega_q f(x_q) is E[f(x)] for x ~ N(0, 1), exact for polynomials up to degree 2 Q - 1.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = weights / weights.sum()
    return torch.as_tensor(nodes).to(device, dtype), torch.as_tensor(weights).to(device, dtype)


def spatial_mean(activity: Tensor) -> Tensor:
    """Mean over all positions: ``(..., C, H, W)`` with at least float32 accuracy. The axes after the first three go.

    Args:
        activity: ``(T, B, D, ...)``.

    Returns:
        ``(T, B, D)``.
    """
    precise = activity.to(torch.promote_types(activity.dtype, torch.float32))
    return precise.flatten(3).mean(3) if precise.ndim > 3 else precise


def _decode_rows(decode: Decode, modulated: Tensor) -> Tensor:
    """Decode ``(T, B, E, ...)`` in one pass, ``(T, B, D, ...)``."""
    decoded = decode(modulated.flatten(0, 1))
    if decoded.ndim < 2 or decoded.shape[0] != modulated.shape[0] * modulated.shape[1]:
        raise ValueError(
            f"decode must map (N, E, ...) to (N, D, ...); for N = {modulated.shape[0] * modulated.shape[1]} it "
            f"returned {tuple(decoded.shape)}"
        )
    return decoded.unflatten(0, modulated.shape[:2])


def _derivative(decode: Decode, activity: Tensor, coupling: Tensor) -> tuple[Tensor, Tensor]:
    """Activity at m = 0 and its derivative with respect to m there, each ``(B, D)``; the tangent is activity * coupling."""
    if _is_scripted(decode):
        raise RuntimeError(
            "decode is scripted, and torch's compiler drops forward-mode derivatives silently; give the module itself, or "
            "use estimator 'quadrature'"
        )
    # The slope is linear in the coupling. Scaled to between a half and 1 by a power of two (exactly, that is) and back, the
    # tangent does not underflow in half precision, and overflows no sooner than the activity.
    size = coupling.detach().abs()
    largest = size.amax(1, keepdim=True) if size.shape[1] else size.sum(1, keepdim=True)
    scale = torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1)
    scaled = (coupling / scale / 2).reshape(*coupling.shape, *(1,) * (activity.ndim - 2))
    tangent = (activity * scaled).to(activity.dtype)
    try:
        # A copy: a decode that begins with an in-place operation must not write into the caller's activity.
        value, slope = directional_derivative(lambda h: _decode_rows(decode, h[None]), activity.clone(), tangent)
    except NotImplementedError as error:
        # Torch's own word for an operation without a forward mode; nothing else of a decode is caught, and its words are kept.
        raise RuntimeError(
            "decode has no forward-mode derivative, which estimator 'derivative' needs; use estimator 'quadrature' "
            f"({str(error).splitlines()[0]})"
        ) from error
    return spatial_mean(value)[0], spatial_mean(slope)[0] * 2 * scale


def _is_scripted(decode: Decode) -> bool:
    """Whether torch.jit has compiled a decode, or a module that it is or belongs to."""
    owner = getattr(decode, "__self__", decode)
    parts = owner.modules() if isinstance(owner, nn.Module) else ()
    scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch.ScriptMethod)
    return isinstance(decode, scripted) or any(isinstance(part, scripted) for part in parts)


def _sample(decode: Decode, activity: Tensor, coupling: Tensor, modulator: Tensor, std: float) -> Tensor:
    """Decoder activity ``(T, B, D)`` under the modulator values ``(T, B)``, a bounded number of them at a time."""
    at_once = max(1, ROWS_PER_PASS // max(1, len(activity)))
    parts = [
        spatial_mean(_decode_rows(decode, modulate(activity, coupling, part, std))) for part in modulator.split(at_once)
    ]
    return torch.cat(parts)


def _root_mean_square(deviation: Tensor, weights: Tensor) -> Tensor:
    """sqrt(sum_q weights_q deviation_q^2), ``(Q, B, D) -> (B, D)``, without under- or overflow, with a finite gradient."""
    scale = deviation.detach().abs().amax(0)
    # Where activity itself overflowed, 0: the square of NaN would make the gradients of all neurons NaN.
    positive = (scale > 0) & torch.isfinite(scale)
    relative = torch.where(positive, deviation, 0) / torch.where(positive, scale, 1)
    squares = torch.einsum("q,qbd->bd", weights, relative.square())
    positive = positive & (squares > 0)  # not where all that moves has a weight of 0: the root has no gradient there
    return torch.where(positive, torch.where(positive, squares, 1).sqrt() * scale, 0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 with gradient 0 where that is not finite (a silent neuron)."""
    safe = denominator > 0
    ratio = numerator / torch.where(safe, denominator, 1)
    finite = safe & torch.isfinite(ratio.detach())
    # Twice `where`: an infinite value in the branch not taken would still turn the gradient into NaN. Both by a constant, the
    # denominator's own value: the derivative would otherwise divide by its square, which underflows.
    numerator, denominator = torch.where(finite, numerator, 0), torch.where(finite, denominator, 1)
    constant = denominator.detach()
    return torch.where(finite, (numerator / constant) / (denominator / constant), 0)


def zero_where(condition: Tensor, values: Tensor) -> Tensor:
    """Exactly 0 where ``condition``, with the gradient kept: a controller that starts at zero coupling must be able to leave it."""
    return torch.where(condition, values - values.detach(), values)
