"""Intervals of many differences from few seeds each: the spread over seeds is estimated from all of them together.

The t interval of three seeds is 2.2 times as wide as if their spread were known. Where many rows are trained on the same few seeds,
their errors have about the same size, and together they tell it well. It assumes errors of one size, independent between rows once
rows and seeds are taken out; ``spread_ratio`` shows the first.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .comparison import PairedDifference


def against_reference(values: ArrayLike, reference: ArrayLike, confidence: float = 0.95) -> list[PairedDifference]:
    """Differences of rows from a reference row over the same seeds, in a two-way layout of rows and seeds.

    Value = row + seed + error, errors of one variance. With M the mean square of the errors of all R + 1 rows, which has
    R (S - 1) degrees of freedom, each difference has the variance 2 M / S.

    Args:
        values: ``(R, S)``, R >= 1, S >= 2. reference: ``(S,)``.
        confidence: of each interval; `as_family` adjusts them for their number.

    Raises:
        ValueError: shapes that disagree, fewer than two seeds, values that are not finite.
    """
    table = _table(values)
    row = np.asarray(reference, float)
    if row.shape != table.shape[1:] or not np.isfinite(row).all():
        raise ValueError(f"the reference must have {table.shape[1]} finite values, got shape {row.shape}")
    everything = np.vstack([row, table])
    centred = everything - everything.mean(1, keepdims=True)
    errors = centred - centred.mean(0)
    freedom = (len(everything) - 1) * (table.shape[1] - 1)
    return [_difference(d, 2 * float(np.square(errors).sum()) / freedom, freedom, confidence) for d in table - row]


def spread_ratio(differences: ArrayLike) -> float:
    """Largest standard deviation over seeds divided by the median one: what pooling takes to be about 1; nan where that is 0.

    With three seeds and twenty rows of equal spread it is 2.1 on average; more than 4 says that pooling misleads.
    """
    spreads = _table(differences).std(axis=1, ddof=1)
    middle = float(np.median(spreads))
    return float(spreads.max()) / middle if middle else math.nan


def _difference(row: NDArray[np.float64], variance: float, freedom: int, confidence: float) -> PairedDifference:
    mean, seeds = float(row.mean()), len(row)
    error = math.sqrt(variance / seeds)
    if not error:
        return PairedDifference(mean, mean, mean, math.nan, seeds, 0.0, math.nan)
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    found = PairedDifference(mean, mean, mean, p, seeds, math.sqrt(variance), math.nan, freedom)
    low, high = found.interval(confidence)
    return replace(found, low=low, high=high)


def _table(values: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(values, float)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise ValueError(f"values must be (rows, seeds) with at least 2 seeds, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite")
    return table
