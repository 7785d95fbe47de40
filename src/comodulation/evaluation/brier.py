"""The Brier score's bias and variance, over seeds and draws of the training set (derivation: docs/questions.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class BrierParts:
    """Mean over test examples, each without bias of its own from few seeds and draws.

    Attributes:
        brier: mean over seeds, draws and examples; the sum of the three others, exactly.
        bias: squared distance of the expected probabilities from the answer. The noise of the labels is part of it.
        between_seeds: variance of the expectation given a seed (its base network, its half of the data).
        within_seeds: variance over draws of a seed (which images, their order, the noise); nan with one draw.
    """

    brier: float
    bias: float
    between_seeds: float
    within_seeds: float

    @property
    def variance(self) -> float:
        """Over everything that is drawn."""
        return self.between_seeds + self.within_seeds


def brier_parts(probabilities: ArrayLike, targets: ArrayLike) -> BrierParts:
    """Split the Brier score of predictions for the same M test examples.

    With one seed, what is expected is meant given that seed: ``between_seeds`` is 0 and the bias is that of this base network.

    Args:
        probabilities: of S seeds and D draws each, ``(S, D, M, C)``, D >= 2.
        targets: classes ``(M,)``.

    Raises:
        ValueError: shapes that disagree, fewer than two draws, probabilities that are not finite.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(targets)
    if p.ndim != 4 or y.shape != p.shape[2:3] or not p.size:
        raise ValueError(f"probabilities must be (seeds, draws, M, C) and targets (M,), got {p.shape} and {y.shape}")
    seeds, draws = p.shape[:2]
    if draws < 2:
        raise ValueError(f"a variance needs at least 2 draws of each seed, got {draws}")
    if not np.isfinite(p).all():
        raise ValueError("probabilities must be finite")
    answers = np.eye(p.shape[3])[y]
    by_seed, expected = p.mean(1), p.mean((0, 1))
    within = _squares(p - by_seed[:, None]) * (p.shape[0] * p.shape[1]) / (seeds * (draws - 1))
    brier, distance = _squares(p - answers), _squares(expected - answers)
    if seeds == 1:
        return BrierParts(brier, distance - within / draws, 0.0, within)
    of_means = _squares(by_seed - expected) * seeds / (seeds - 1)
    return BrierParts(brier, distance - of_means / seeds, of_means - within / draws, within)


def _squares(differences: NDArray[np.float64]) -> float:
    """Squared length over classes, mean over all else."""
    return float(np.square(differences).sum(-1).mean()) if differences.size else math.nan
