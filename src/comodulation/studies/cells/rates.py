"""A search for one learning rate that gives every row the same number of trials, wherever its best rate lies.

Rates are tried by climbing: a start, its neighbour three times as large, then the untried neighbour of the best so far; once both
neighbours of the best have been tried, the steps become smaller. When they are too small to tell anything, the search goes on
beyond its ends. Nothing is drawn at random, so that an interrupted search goes on as it would have gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

FACTOR = 3.0
SMALLEST = 1.1  # the smallest step


def next_rate(tried: Mapping[float, float], start: float) -> float:
    """The rate to try next.

    Args:
        tried: rate -> validation NLL (infinite where training diverged).
        start: the first rate.

    >>> next_rate({}, 0.1), next_rate({0.1: 2.0}, 0.1), next_rate({0.1: 2.0, 0.3: 3.0}, 0.1)
    (0.1, 0.3, 0.033)
    """
    if not tried:
        return start
    best = min(tried, key=lambda rate: (tried[rate], rate))  # where all have diverged, the smallest
    factor, ends = FACTOR, (max(tried) * FACTOR, min(tried) / FACTOR)
    while True:
        for neighbour in (best * factor, best / factor) if factor > SMALLEST else ends:
            if not any(math.isclose(neighbour, rate, rel_tol=0.05) for rate in tried):
                return float(f"{neighbour:.2g}")  # two digits: a file shows what was meant
        factor = math.sqrt(factor)


def at_an_end(tried: Mapping[float, float]) -> bool:
    """Whether the best rate is the smallest or the largest that was tried, so that a better one may lie beyond."""
    finite = [rate for rate, nll in tried.items() if math.isfinite(nll)]
    best = min(tried, key=lambda rate: tried[rate])
    return len(finite) < 2 or best in (min(finite), max(finite))
