"""What decoder neurons do under the modulator: covariance with it, mean and spread, by three estimators.

The modulator is one Gaussian scalar, so that the covariance of a decoder neuron with it is a one-dimensional integral.
``Quadrature`` takes Gauss-Hermite nodes, ``Derivative`` the limit of small noise (Stein's lemma), ``MonteCarlo`` samples; options
name them by the words of ``ESTIMATORS``. ``gains.py`` makes gains of these statistics; docs/mathematics.md derives both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import choose
from .forward_mode import NoForwardMode, directional_derivative
from .modulator import modulate
from .precision import autocasts, outside_autocast

EstimatorName = Literal["quadrature", "derivative", "monte_carlo"]
ESTIMATORS = get_args(EstimatorName)
MOST_NODES = 100  # beyond about 150 the Gauss-Hermite weights underflow and are NaN
ROUNDING = 64  # units in the last place that a decoder's own sums are taken to lose by cancellation
ROWS_PER_PASS = 4096  # modulated copies of the input that one decoder pass of monte_carlo may hold


Decode = Callable[[Tensor], Tensor]


class DecoderStatistics(NamedTuple):
    """What the modulator does to each decoder neuron. Each field ``(B, D)``, or ``(K, D)`` once averaged over tasks."""

    slope: Tensor  # Cov(m, d) / sigma^2, activity per unit of modulator
    mean: Tensor  # mean of d over m
    deviation: Tensor  # standard deviation of d over m, divided by sigma: activity per unit of modulator


@dataclass(frozen=True)
class Quadrature:
    """Gauss-Hermite nodes of the scalar modulator, from 2 to 100 of them."""

    nodes: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, Integral) or not 2 <= self.nodes <= MOST_NODES:
            raise ValueError(f"num_nodes must be an integer from 2 to {MOST_NODES}, got {self.nodes!r}")

    def __call__(self, decode: Decode, activity: Tensor, coupling: Tensor, std: float) -> DecoderStatistics:
        nodes, weights = gauss_hermite(self.nodes, coupling.dtype, coupling.device)
        modulator = (std * nodes)[:, None].expand(-1, activity.shape[0])
        samples = spatial_mean(_decode_rows(decode, modulate(activity, coupling, modulator, std)))
        return only_coupled(statistics_at_nodes(samples, nodes, weights, std), activity, coupling)


@dataclass(frozen=True)
class Derivative:
    """The limit of small noise: the forward-mode derivative at m = 0, whose tangent is activity * coupling."""

    def __call__(self, decode: Decode, activity: Tensor, coupling: Tensor, std: float) -> DecoderStatistics:
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
        except NoForwardMode as error:  # what else a decode raises comes out as it is
            raise RuntimeError(
                "decode has no forward-mode derivative, which estimator 'derivative' needs; use estimator 'quadrature' "
                f"({str(error).splitlines()[0]})"
            ) from error
        slope = spatial_mean(slope)[0] * 2 * scale
        return DecoderStatistics(slope, spatial_mean(value)[0], slope.abs())


@dataclass(frozen=True)
class MonteCarlo:
    """Samples of the modulator, at least 2.

    Attributes:
        samples: how many.
        generator: their source, on the activity's device; None takes torch's own.
        draws: standard normal values ``(T, B)`` in place of samples of its own.
    """

    samples: int = 128
    generator: torch.Generator | None = None
    draws: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Integral) or self.samples < 2:
            raise ValueError(f"num_samples must be an integer of at least 2, got {self.samples!r}")

    def __call__(self, decode: Decode, activity: Tensor, coupling: Tensor, std: float) -> DecoderStatistics:
        draws = self.draws
        if draws is None:
            shape = (self.samples, len(activity))
            draws = torch.randn(shape, dtype=coupling.dtype, device=activity.device, generator=self.generator)
        modulator = std * draws.to(coupling.dtype)
        at_once = max(1, ROWS_PER_PASS // max(1, len(activity)))
        parts = [
            spatial_mean(_decode_rows(decode, modulate(activity, coupling, part, std)))
            for part in modulator.split(at_once)
        ]
        return only_coupled(statistics_of_samples(torch.cat(parts), modulator, std), activity, coupling)


Estimator = Quadrature | Derivative | MonteCarlo


def estimator_named(
    name: EstimatorName,
    num_nodes: int = 5,
    num_samples: int = 128,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> Estimator:
    """The estimator that options describe. Raises ValueError for an unknown name and for numbers out of range, used or not."""
    offered: tuple[Estimator, ...] = Quadrature(num_nodes), Derivative(), MonteCarlo(num_samples, generator, draws)
    return dict(zip(ESTIMATORS, offered, strict=True))[choose(name, ESTIMATORS, "estimator")]


def decoder_statistics(
    decode: Decode,
    activity: Tensor,
    coupling: Tensor,
    std: float,
    *,
    estimator: EstimatorName = "quadrature",
    num_nodes: int = 5,
    num_samples: int = 128,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> DecoderStatistics:
    """Slope, mean and deviation of every decoder neuron under modulation. Arguments as in ``decoder_gains``; tensors unchecked.

    A map's activity is its spatial mean, taken before any statistic. Half precision is accumulated in float32. Under autocast
    everything here, ``decode`` included, is computed outside it, from activity in float32.

    Args:
        draws: standard normal values ``(T, B)`` for ``monte_carlo`` to use in place of ``num_samples`` of its own.

    Returns:
        DecoderStatistics with fields ``(B, D)`` in at least float32.
    """
    named = estimator_named(estimator, num_nodes, num_samples, generator, draws)
    return statistics_by(named, decode, activity, coupling, std)


def statistics_by(
    estimator: Estimator, decode: Decode, activity: Tensor, coupling: Tensor, std: float
) -> DecoderStatistics:
    """``decoder_statistics`` by an estimator."""
    precise = torch.promote_types(activity.dtype, torch.float32)
    if autocasts(activity.device):
        with outside_autocast(activity.device):
            return statistics_by(estimator, decode, activity.to(precise), coupling, std)
    return estimator(decode, activity, coupling.to(precise), std)


def only_coupled(statistics: DecoderStatistics, activity: Tensor, coupling: Tensor) -> DecoderStatistics:
    """The statistics, with slopes of exactly 0 where nothing can covary because the encoder is uncoupled.

    Args:
        statistics: fields ``(B, D)``. activity: of the encoder, ``(B, E, ...)``. coupling: ``(B, E)``.
    """
    active = (activity > 0).flatten(2).any(2) if activity.ndim > 2 else activity > 0
    uncoupled = ~(active & (coupling != 0)).any(1, keepdim=True)
    return statistics._replace(slope=zero_where(uncoupled, statistics.slope))


def statistics_of_samples(samples: Tensor, modulator: Tensor, std: float) -> DecoderStatistics:
    """Statistics of decoder activity known at T samples of the modulator, with the unbiased covariance over them.

    Args:
        samples: decoder activity, positions averaged, ``(T, B, D)``.
        modulator: values of the modulator, ``(T, B)``. std: sigma.

    Returns:
        DecoderStatistics with fields ``(B, D)``; a slope below what rounding alone produces is exactly 0.
    """
    mean = samples.mean(0)
    deviation = samples - mean
    centred = modulator - modulator.mean(0)
    unbiased = 1 / (len(samples) - 1)
    # By sigma twice, not by its square, which leaves the range of float32 long before sigma does.
    slope = torch.einsum("tb,tbd->bd", centred / std * unbiased, deviation) / std
    spread = _root_mean_square(deviation, samples.new_full((len(samples),), unbiased)) / std
    return DecoderStatistics(_above_rounding(slope, samples.abs().mean(0), std), mean, spread)


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


def _is_scripted(decode: Decode) -> bool:
    """Whether torch.jit has compiled a decode, or a module that it is or belongs to."""
    owner = getattr(decode, "__self__", decode)
    parts = owner.modules() if isinstance(owner, nn.Module) else ()
    scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch.ScriptMethod)
    return isinstance(decode, scripted) or any(isinstance(part, scripted) for part in parts)


def _root_mean_square(deviation: Tensor, weights: Tensor) -> Tensor:
    """sqrt(sum_q weights_q deviation_q^2), ``(Q, B, D) -> (B, D)``, without under- or overflow, with a finite gradient."""
    scale = deviation.detach().abs().amax(0)
    # Where activity itself overflowed, 0: the square of NaN would make the gradients of all neurons NaN.
    positive = (scale > 0) & torch.isfinite(scale)
    relative = torch.where(positive, deviation, 0) / torch.where(positive, scale, 1)
    squares = torch.einsum("q,qbd->bd", weights, relative.square())
    positive = positive & (squares > 0)  # not where all that moves has a weight of 0: the root has no gradient there
    return torch.where(positive, torch.where(positive, squares, 1).sqrt() * scale, 0)


def zero_where(condition: Tensor, values: Tensor) -> Tensor:
    """Exactly 0 where ``condition``, with the gradient kept: a controller that starts at zero coupling must be able to leave it."""
    return torch.where(condition, values - values.detach(), values)
