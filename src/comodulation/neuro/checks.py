"""Checks of numbers that several files of this room share."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def check_whole(value: object, least: int, name: str) -> int:
    """``value`` as an int. Raises InputError unless it is a whole number of at least ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_positive(value: object, name: str) -> float:
    """``value`` as a float. Raises InputError unless it is a positive finite number."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)
