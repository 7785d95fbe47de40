"""How sure a share is that was counted in a sample, and how large a sample it takes.

Source: Wilson, "Probable inference, the law of succession, and statistical inference" (Journal of the American Statistical
Association 22, 1927).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(share: ArrayLike, number: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """Ends of the interval (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    Args:
        share: p, of any shape. number: n, of the same shape; nan gives nan.
        confidence: of the interval; z is the normal quantile that goes with it.

    Returns:
        Its lower and upper ends, of that shape.
    """
    p, n, z = np.asarray(share, float), np.asarray(number, float), _quantile(confidence)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def labels_needed(share: float, half_width: float = 0.05, confidence: float = 0.95) -> int:
    """The smallest sample whose Wilson interval of a share is no wider than plus or minus ``half_width``.

    With m = n + z^2, the half width h of the interval above satisfies h^2 = z^2 (m p (1 - p) + z^2 (1/4 - p (1 - p))) / m^2, which
    falls in m. It is d at the larger root of d^2 m^2 - z^2 p (1 - p) m - z^4 (1/4 - p (1 - p)) = 0, that is

        n = z^2 (v + sqrt(v^2 + 4 d^2 (1/4 - v))) / (2 d^2) - z^2,    v = p (1 - p).

    Args:
        share: p, in [0, 1], as it was found. half_width: d, above 0. confidence: of the interval.

    >>> labels_needed(0.5), labels_needed(0.9), labels_needed(1.0)
    (381, 141, 35)
    """
    z, v, d = _quantile(confidence), share * (1 - share), half_width
    root = z**2 * (v + math.sqrt(v**2 + 4 * d**2 * (0.25 - v))) / (2 * d**2)
    return max(1, math.ceil(root - z**2 - 1e-9))


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
