"""Label columns as integers, -1 where missing. Null, NaN and empty cells are missing; anything else must be a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError, brief
from ..tasks import NO_YES
from .source import Split

_YES, _NO = {"1", "true"}, {"0", "-1", "false"}


def label_names(split: Split, column: str) -> list[str]:
    """Names of the classes of a column: of its ClassLabel, or its distinct values in order."""
    if names := _coded_names(split, column):
        return names
    values = [value for value in split.column(column) if not is_missing(value)]
    if not values:
        raise InputError(f"column {column!r} of {split.source} [{split.name}] has no labels: every cell is missing")
    if all(isinstance(value, str) for value in values):
        return sorted(set(values))
    integers = [_as_integer(value, column) for value in values]
    if min(integers) < 0:
        raise InputError(f"column {column!r}: class {min(integers)} is negative; missing labels are null, NaN or empty")
    return [str(value) for value in sorted(set(integers))]


def class_column(split: Split, column: str, names: Sequence[str]) -> np.ndarray:
    """Class of each row as its place in ``names``, int64 ``(N,)``, -1 where missing.

    Raises:
        InputError: a value that is not an integer, infinite, out of range or not among ``names``; every cell missing.
    """
    places = {name: place for place, name in enumerate(names)}
    # A ClassLabel's integers are places in its own list of names, which another data set may order otherwise.
    coded = _coded_names(split, column)
    result = np.full(len(split), -1, np.int64)
    for row, value in enumerate(split.column(column)):
        if is_missing(value):
            continue
        name = value if isinstance(value, str) else str(_as_integer(value, column))
        if coded:
            integer = _as_integer(value, column)
            if not 0 <= integer < len(coded):
                raise InputError(
                    f"column {column!r}, row {row}: label {value} is out of range, expected 0 to {len(coded) - 1}"
                )
            name = coded[integer]
        if name not in places:
            raise InputError(
                f"column {column!r}, row {row}: label {brief(name)} is out of range, expected one of the {len(names)} "
                f"known classes ({brief(', '.join(names))})"
            )
        result[row] = places[name]
    return _not_all_missing(result, split, column)


def binary_column(split: Split, column: str) -> np.ndarray:
    """A binary attribute as 0 and 1, int64 ``(N,)``, -1 where missing. 1/0, true/false and CelebA's 1/-1 are read.

    Raises:
        InputError: any other value; every cell missing.
    """
    _coded_names(split, column)
    result = np.full(len(split), -1, np.int64)
    seen = set()
    for row, value in enumerate(split.column(column)):
        if is_missing(value):
            continue
        text = str(value).strip().lower() if isinstance(value, (str, bool)) else str(_as_integer(value, column))
        if text not in _YES | _NO:
            raise InputError(
                f"column {column!r}, row {row}: {brief(value)} is not binary, expected 0 or 1 (or -1 and 1)"
            )
        seen.add(text)
        result[row] = text in _YES
    if {"0", "-1"} <= seen:
        raise InputError(
            f"column {column!r} holds both 0 and -1, so that -1 may mean no or missing; missing labels are null, NaN or "
            "empty"
        )
    return _not_all_missing(result, split, column)


def is_binary(split: Split, column: str) -> bool:
    """Whether a column holds plain values that ``binary_column`` reads. The integers of a ClassLabel are names, not values."""
    if _coded_names(split, column):
        return False
    values = {str(value).strip().lower() for value in split.column(column) if not is_missing(value)}
    return bool(values) and {value.removesuffix(".0") for value in values} <= _YES | _NO


def answer_column(split: Split, column: str, answers: Sequence[str]) -> np.ndarray:
    """A task's answers as places in ``answers``, int64 ``(N,)``, -1 where missing; 0/1 and the like are read as no and yes.

    Raises:
        InputError: as for ``class_column``.
    """
    if tuple(answers) == NO_YES and is_binary(split, column):
        return binary_column(split, column)
    return class_column(split, column, answers)


def is_missing(value: Any) -> bool:
    """Whether a cell holds no label: null, NaN or an empty string."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value)


def _as_integer(value: Any, column: str) -> int:
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    raise InputError(f"column {column!r}: label {brief(value)} is not an integer")


def _coded_names(split: Split, column: str) -> list[str]:
    """Names of the classes of a ClassLabel, [] for plain values. Raises InputError for a column that holds no labels."""
    from datasets import ClassLabel, Value

    feature = split.feature(column)
    if isinstance(feature, ClassLabel):
        return [str(name) for name in feature.names]
    if not isinstance(feature, Value):
        raise InputError(
            f"column {column!r} of {split.source} holds {type(feature).__name__}, expected one label a row"
        )
    return []


def _not_all_missing(result: np.ndarray, split: Split, column: str) -> np.ndarray:
    if (result < 0).all():
        raise InputError(f"column {column!r} of {split.source} [{split.name}] has no labels: every cell is missing")
    return result
