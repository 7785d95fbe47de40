"""From seeds to statements: paired differences with t intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over seeds, its t interval, and the paired t-test's p.

    Attributes:
        mean: of the differences, in their units.
        low, high: interval of the given confidence.
        p: two-sided; nan with fewer than two seeds or differences that are all equal.
        n: number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> PairedDifference:
    """Paired difference a - b over seeds.

    Args:
        a, b: one value per seed, in the same order.
        confidence: of the interval.

    Raises:
        ValueError: different lengths, or fewer than two seeds, with which no interval exists.

    >>> d = paired_difference([3.0, 5.0], [1.0, 1.0])
    >>> d.mean, round(d.low, 2), round(d.high, 2)
    (3.0, -9.71, 15.71)
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many on both sides, got {len(a)} and {len(b)}")
    if len(a) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 seeds, got {len(a)}")
    difference = np.asarray(a, float) - np.asarray(b, float)
    mean, error = float(difference.mean()), float(stats.sem(difference))
    if error == 0:
        return PairedDifference(mean, mean, mean, float("nan"), len(difference))
    low, high = stats.t.interval(confidence, len(difference) - 1, mean, error)
    return PairedDifference(mean, float(low), float(high), float(stats.ttest_rel(a, b).pvalue), len(difference))
