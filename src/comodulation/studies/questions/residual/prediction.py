"""Which property of a network predicts a number measured on it, across networks: tested, not only drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ....evaluation import ALPHA, holm

PERMUTATIONS = 20_000
EXACT = 7  # up to so many networks every permutation is tried
RESAMPLES = 5_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictor:
    """How well one property predicts the outcome over N networks.

    Attributes:
        name: of the property.
        rho: Spearman's rank correlation; nan where the property or the outcome is the same for all.
        low, high: 95% interval of it, percentiles of a bootstrap over networks; simultaneous over the properties (Bonferroni).
        p: two-sided, by permutation of the outcome over networks. p_holm: adjusted over the properties.
        slope: of the regression line, outcome per standard deviation of the property.
        error: root mean square error of predicting a network from the line fitted to all others.
        mean_error: the same of predicting the others' mean.
    """

    name: str
    rho: float
    low: float
    high: float
    p: float
    p_holm: float
    slope: float
    error: float
    mean_error: float

    @property
    def decided(self) -> bool:
        """Whether it is correlated after correction: by the permutations, and by the interval."""
        return self.p_holm < ALPHA and (self.low > 0 or self.high < 0)

    @property
    def predicts(self) -> bool:
        """Whether it is correlated after correction, and its line predicts left-out networks better than the mean does."""
        return self.decided and self.error < self.mean_error


def predictors(properties: Mapping[str, ArrayLike], outcome: ArrayLike) -> list[Predictor]:
    """Every property against the outcome.

    Args:
        properties: by name, one number a network, ``(N,)``.
        outcome: ``(N,)``, N >= 4.

    Raises:
        ValueError: fewer than 4 networks, lengths that disagree, values that are not finite.
    """
    y = np.asarray(outcome, float)
    table = {name: np.asarray(values, float) for name, values in properties.items()}
    if y.ndim != 1 or len(y) < 4:
        raise ValueError(f"a rank correlation needs at least 4 networks, got {len(y) if y.ndim else 1}")
    for name, x in (*table.items(), ("the outcome", y)):
        if x.shape != y.shape or not np.isfinite(x).all():
            raise ValueError(f"{name} must have {len(y)} finite values, got shape {x.shape}")
    p_values = {name: permutation_p(x, y) for name, x in table.items()}
    adjusted = holm(list(p_values.values()))
    # As many as are tested: a property that is the same for all networks has no p.
    alpha = ALPHA / max(1, sum(not math.isnan(p) for p in p_values.values()))
    found = []
    for (name, x), p_holm in zip(table.items(), adjusted, strict=True):
        low, high = _bootstrap(x, y, alpha)
        scale = float(x.std())
        slope = float(np.polyfit((x - x.mean()) / scale, y, 1)[0]) if scale else math.nan
        errors = leave_one_out(x, y)
        found.append(
            Predictor(name, spearman(x, y), low, high, p_values[name], float(p_holm), slope, errors, mean_error(y))
        )
    return found


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation, ties sharing their mean rank; nan where all of x or of y are equal."""
    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def permutation_p(x: Floats, y: Floats) -> float:
    """Share of permutations of y whose |rank correlation| with x is at least the one found; nan where none is defined.

    All permutations where there are at most 5040, else random ones, among which the one found counts.
    """
    found = abs(spearman(x, y))
    if math.isnan(found):
        return math.nan
    a, b = stats.rankdata(x), stats.rankdata(y)
    if len(y) <= EXACT:
        orders = np.array(list(itertools.permutations(range(len(y)))))
        extra = 0
    else:
        orders = np.random.default_rng(0).permuted(np.tile(np.arange(len(y)), (PERMUTATIONS, 1)), axis=1)
        extra = 1
    sums = np.abs(b[orders] @ (a - a.mean()))
    reached = int((sums >= found_sum(a, b) * (1 - 1e-9)).sum())
    return (reached + extra) / (len(orders) + extra)


def found_sum(a: Floats, b: Floats) -> float:
    """|sum of products| of ranks, one side centred: what a permutation of b changes in their correlation."""
    return abs(float(b @ (a - a.mean())))


def leave_one_out(x: Floats, y: Floats) -> float:
    """Root mean square error of each y predicted by the line fitted to all other points."""
    errors = []
    for place in range(len(y)):
        rest = np.arange(len(y)) != place
        a, b = x[rest], y[rest]
        spread = float(np.square(a - a.mean()).sum())
        slope = float((a - a.mean()) @ b) / spread if spread else 0.0
        errors.append(y[place] - b.mean() - slope * (x[place] - a.mean()))
    return float(np.sqrt(np.mean(np.square(errors))))


def mean_error(y: Floats) -> float:
    """Root mean square error of each y predicted by the mean of all others."""
    return float(np.sqrt(np.mean(np.square((y - y.mean()) * len(y) / (len(y) - 1)))))


def _bootstrap(x: Floats, y: Floats, alpha: float) -> tuple[float, float]:
    drawn = np.random.default_rng(0).integers(len(y), size=(RESAMPLES, len(y)))
    a, b = (stats.rankdata(values[drawn], axis=1) - (len(y) + 1) / 2 for values in (x, y))
    scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    values = (a * b).sum(1)[scale > 0] / scale[scale > 0]
    return (math.nan, math.nan) if not len(values) else tuple(np.quantile(values, [alpha / 2, 1 - alpha / 2]).tolist())
