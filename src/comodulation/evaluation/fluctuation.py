"""Where the fluctuation goes that the modulator causes in the decoder (docs/mechanism.md, section 2).

Not to be confused with the generator of the modulator's values, ``comodulation.mathematics.randomness``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .separability import check_basis

NUMBERS_PER_PASS = 2**24  # 128 MiB of float64 at a time


@dataclass(frozen=True)
class NoiseGeometry:
    """Shape of the modulation-induced fluctuation, relative to one subspace.

    Attributes:
        total: tr C, summed over neurons, in squared units of activity.
        participation_ratio: dimensions the fluctuation fills, in [1, D]; 0 without any.
        share, outside: of the variance, inside and outside the subspace; nan without any fluctuation.
        chance, chance_std: mean and standard deviation of ``share`` over random subspaces of the same rank.
        spectrum: eigenvalues of C, largest first, ``(D,)``.
    """

    total: float
    participation_ratio: float
    share: float
    outside: float
    chance: float
    chance_std: float
    spectrum: Tensor


def fluctuation_covariance(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Covariance over the modulator's values, averaged over inputs: C = mean_n Cov_t(d_n(m_t)).

    Args:
        samples: pooled decoder activity, ``(T, N, D)``, for T values of the modulator.
        weights: of the T values, ``(T,)``, with sum 1, where they are quadrature nodes. By default they are random
            samples, and C is unbiased.

    Returns:
        ``(D, D)`` in float64; no array of more than D D or about 2^24 numbers is formed on the way.

    Raises:
        ValueError: no inputs, fewer than two values of the modulator, weights of wrong shape.
    """
    if samples.ndim != 3 or samples.shape[0] < 2 or samples.shape[1] < 1:
        raise ValueError(f"samples must be (T, N, D) with T > 1 and N > 0, got {tuple(samples.shape)}")
    values, inputs, neurons = samples.shape
    if weights is None:
        mean = samples.new_full((values,), 1 / values, dtype=torch.float64)
        weights = mean * values / (values - 1)
    elif weights.shape != (values,):
        raise ValueError(f"weights must be ({values},), one per value of the modulator, got {tuple(weights.shape)}")
    else:
        mean = weights = weights.to(samples.device, torch.float64)
    covariance = samples.new_zeros(neurons, neurons, dtype=torch.float64)
    for part in samples.split(max(1, NUMBERS_PER_PASS // (values * neurons)), dim=1):
        part = part.double()
        # From the first sample, not from 0: equal samples then give exactly 0, whatever the weights' last bit.
        shifted = part - part[0]
        deviation = shifted - torch.einsum("t,tnd->nd", mean, shifted)
        covariance += (deviation * weights[:, None, None]).flatten(0, 1).T @ deviation.flatten(0, 1)
    return covariance / inputs


def participation_ratio(covariance: Tensor) -> float:
    """(tr C)^2 / tr C^2 of ``(D, D)``: 1 for a single direction, D for equal variance in all; 0 for C = 0.

    >>> participation_ratio(torch.eye(3))
    3.0
    """
    covariance = _checked(covariance)
    largest = covariance.abs().max()
    if largest == 0:
        return 0.0
    scaled = covariance / largest
    return float(scaled.trace().square() / scaled.square().sum())


def subspace_share(covariance: Tensor, basis: Tensor) -> float:
    """Share of the variance inside a subspace, tr(V' C V) / tr C; nan for C = 0.

    Args:
        covariance: ``(D, D)``. basis: orthonormal columns V, ``(D, r)``.

    Raises:
        ValueError: shapes that do not fit.
    """
    covariance = _checked(covariance)
    basis, total = check_basis(basis, len(covariance)).to(covariance), covariance.trace()
    return float((basis * (covariance @ basis)).sum() / total) if total > 0 else math.nan


def permuted_share(
    covariance: Tensor, basis: Tensor, gains: Tensor, permutations: int = 50, generator: torch.Generator | None = None
) -> float:
    """Mean share of the fluctuation in a subspace after gains were given to neurons at random.

    Unequal gains alone move fluctuation into few directions, and a task's subspace holds the active neurons. What the same gains do
    on other neurons is no labelling; what the gains do beyond it is.

    Args:
        covariance: before the gains, ``(D, D)``. basis: orthonormal, ``(D, r)``. gains: ``(D,)``.
        permutations: over neurons, drawn from ``generator``.

    Raises:
        ValueError: shapes that do not fit.
    """
    covariance = _checked(covariance)
    if gains.shape != covariance.shape[:1]:
        raise ValueError(f"gains must be (D,) with D = {len(covariance)}, got {tuple(gains.shape)}")
    drawn = [gains.to(covariance)[torch.randperm(len(gains), generator=generator)] for _ in range(permutations)]
    return sum(subspace_share(g[:, None] * covariance * g, basis) for g in drawn) / permutations


def random_share(covariance: Tensor, rank: int) -> tuple[float, float]:
    """Mean and standard deviation of ``subspace_share`` over random subspaces, uniform over all of that rank.

    The mean is r / D for any C. The variance is 2 r (D - r) / (D (D - 1) (D + 2)) (1 / PR - 1 / D), PR the participation
    ratio: from E[(u' C u)^2] = ((tr C)^2 + 2 tr C^2) / (D (D + 2)) for u uniform on the sphere, and its extension to
    r orthogonal directions. A random subspace cuts across neurons of all kinds; the subspaces of other tasks are the
    stricter control.

    Args:
        covariance: ``(D, D)``. rank: r in [0, D].

    Raises:
        ValueError: a rank out of range.
    """
    covariance = _checked(covariance)
    size = len(covariance)
    if not 0 <= rank <= size:
        raise ValueError(f"rank must be in [0, {size}], got {rank}")
    filled = participation_ratio(covariance)
    if not filled or size == 1:
        return rank / size, 0.0
    variance = 2 * rank * (size - rank) / (size * (size - 1) * (size + 2)) * (1 / filled - 1 / size)
    return rank / size, math.sqrt(max(variance, 0.0))


def noise_geometry(samples: Tensor, basis: Tensor, weights: Tensor | None = None) -> NoiseGeometry:
    """Everything above, for the inputs of one task and the task's subspace.

    Args:
        samples: pooled decoder activity, ``(T, N, D)``. basis: orthonormal, ``(D, r)``. weights: as in
            ``fluctuation_covariance``.

    Raises:
        ValueError: shapes that do not fit.
    """
    covariance = fluctuation_covariance(samples, weights)
    share = subspace_share(covariance, basis)
    chance, chance_std = random_share(covariance, basis.shape[1])
    return NoiseGeometry(
        total=float(covariance.trace()),
        participation_ratio=participation_ratio(covariance),
        share=share,
        outside=1 - share,
        chance=chance,
        chance_std=chance_std,
        spectrum=torch.linalg.eigvalsh(covariance).clamp(min=0).flip(0),
    )


def _checked(covariance: Tensor) -> Tensor:
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not len(covariance):
        raise ValueError(f"covariance must be (D, D), got {tuple(covariance.shape)}")
    return covariance.double()
