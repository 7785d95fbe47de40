"""How sparse gains are and how far they moved from 1 (docs/mechanism.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

THRESHOLDS = (0.01, 0.03, 0.1, 0.3)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FLOOR = 2.0**-10  # a gain of 0 counts as this where a logarithm is taken


@dataclass(frozen=True)
class GainSparsity:
    """Sparsity of gains, by task.

    Attributes:
        counts: gains below 0.01, 0.03, 0.1, 0.3, int64 ``(K, 4)``. fractions: the same over D, ``(K, 4)``.
        mean_fractions: mean over tasks, ``(4,)``.
        quantiles: of each task's gains at 0.05, 0.25, 0.5, 0.75, 0.95, ``(K, 5)``.
        movement: mean of |ln g|, in nats, gains below 2^-10 counting as 2^-10, ``(K,)``; 0 where gains did not move.
        zeros: share of gains that are exactly 0, ``(K,)``.
    """

    counts: Tensor
    fractions: Tensor
    mean_fractions: Tensor
    quantiles: Tensor
    movement: Tensor
    zeros: Tensor


def gain_sparsity(gains: Tensor) -> GainSparsity:
    """Counts below thresholds, quantiles and distance from 1 of gains ``(K, D)``.

    Raises:
        ValueError: gains that are not ``(K, D)`` with K, D > 0, or negative, infinite or nan.

    >>> gain_sparsity(torch.tensor([[0.0, 0.02, 0.2, 2.0]])).counts
    tensor([[1, 2, 2, 3]])
    """
    gains = _checked(gains)
    counts = torch.stack([(gains < threshold).sum(1) for threshold in THRESHOLDS], 1)
    fractions = counts.double() / gains.shape[1]
    return GainSparsity(
        counts=counts,
        fractions=fractions,
        mean_fractions=fractions.mean(0),
        quantiles=gains.quantile(gains.new_tensor(QUANTILES), dim=1).T,
        movement=gains.clamp(min=FLOOR).log().abs().mean(1),
        zeros=(gains == 0).double().mean(1),
    )


def log2_histogram(gains: Tensor, *, low: int = -8, high: int = 4, per_octave: int = 2) -> tuple[Tensor, Tensor]:
    """Histogram of log2 of the gains of each task.

    Args:
        gains: ``(K, D)``.
        low, high: centres of the first and the last bin, which also hold everything below (zeros too) and above.
        per_octave: bins per factor of 2. A bin is centred on 0, so that gains that did not move fall into one bin.

    Returns:
        Edges ``(M + 1,)``, in log2 units, and counts, int64 ``(K, M)``; each row of counts has sum D.

    Raises:
        ValueError: gains as in ``gain_sparsity``; a range without 0 or without bins.
    """
    gains = _checked(gains)
    if not low <= 0 <= high or per_octave < 1:
        raise ValueError(f"low <= 0 <= high and per_octave >= 1 are needed, got {low}, {high}, {per_octave}")
    bins = (high - low) * per_octave + 1
    edges = low + (torch.arange(bins + 1, dtype=torch.float64, device=gains.device) - 0.5) / per_octave
    place = torch.bucketize(gains.log2(), edges[1:-1], right=True)
    return edges, torch.nn.functional.one_hot(place, bins).sum(1)


def _checked(gains: Tensor) -> Tensor:
    if gains.ndim != 2 or not gains.numel():
        raise ValueError(f"gains must be (K, D) with K, D > 0, got {tuple(gains.shape)}")
    if not bool(gains.isfinite().all()) or bool((gains < 0).any()):
        raise ValueError("gains must be finite and not negative")
    return gains.double()
