"""Label columns as integers, -1 where missing.

What a cell says is read in one place (``label_word``), and so is what means no and yes (``YES``, ``NO``): a number, a text of the
number and a whole floating-point number are one label, wherever they come from.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, brief
from ..tasks import NO_YES
from .folder_files import composed
from .source import Split

YES, NO = frozenset({"1", "true", "yes"}), frozenset({"0", "-1", "false", "no"})  # in lower case
_WHOLE = re.compile(r"([+-]?\d+)\.0+")

Place = Callable[[int], str]  # number of a cell -> where that is, for messages: "line 3", "row 2"


# ---- a cell, and the cells of a column ----


def label_word(value: Any) -> str | None:
    """A cell as the label that it holds; None where it is missing: null, NaN, or a text of nothing but blanks.

    Raises:
        InputError: a value that is neither a number, a text nor a date.

    >>> [label_word(cell) for cell in (1, 1.0, "1", "1.0", " a ", "", None)]
    ['1', '1', '1', '1', 'a', None, None]
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        whole = _WHOLE.fullmatch(text) if text.endswith("0") else None
        return (whole[1] if whole else text) or None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else label_word(str(value))
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    raise InputError(f"label {brief(value)} is neither a number nor a text")


def means_no_and_yes(words: Iterable[str]) -> bool:
    """Whether labels, at least one, are all spellings of no and yes."""
    spellings = {word.lower() for word in words}
    return bool(spellings) and spellings <= YES | NO


def distinct_words(words: Sequence[str | None], what: str, place: Place) -> list[str]:
    """The labels of a column, each once, in order; numbers by their value.

    Args:
        words: of the cells, N of them, None where missing.
        what: the column, for messages.
        place: of a cell, for messages.

    Raises:
        InputError: no cell has a label; numbers that are not whole, or negative (-1 may mean missing).
    """
    found = {word for word in words if word is not None}
    if not found:
        raise InputError(f"{what} has no labels: every cell is missing")
    if not all(is_number(word) for word in found):
        return sorted(found)
    for row, word in enumerate(words):
        if word is not None and not re.fullmatch(r"\+?\d{1,4000}", word):
            unclear = re.fullmatch(r"-\d+|[+-]?nan", word.lower())
            expected = (
                "missing labels are empty cells; --task names the columns to learn"
                if unclear
                else "to predict numbers (regression) is not what this does; leave the column out (--ignore, or --task for the "
                "others), or make classes of it, such as low and high"
            )
            raise InputError(f"{what} holds numbers that are no classes, first {word[:60]} ({place(row)}); {expected}")
    return ordered(found)


def places_of(words: Sequence[str | None], answers: Sequence[str], what: str, place: Place) -> list[int | None]:
    """Which of some answers each cell of a column gives, None where missing.

    Two answers that mean no and yes are given by every spelling of no and yes.

    Args:
        words: of the cells, N of them, None where missing.
        answers: of the task.
        what, place: as in ``distinct_words``.

    Raises:
        InputError: a label that is none of the answers; 0 beside -1, which may mean no or missing.
    """
    # Answers of runs of earlier releases may be in another Unicode form than words are.
    places = {composed(word): n for n, answer in enumerate(answers) if (word := label_word(answer)) is not None}
    places |= {composed(answer): number for number, answer in enumerate(answers)}
    meanings = [answer.lower() in YES for answer in answers]
    if means_no_and_yes(answers) and sorted(meanings) == [False, True]:
        return _no_and_yes_places(words, meanings.index(True), what, place)
    try:
        return [None if word is None else places[word] for word in words]
    except KeyError as error:
        row = words.index(error.args[0])
        raise InputError(
            f"{what}, {place(row)}: label {brief(error.args[0])} is out of range, expected one of the {len(answers)} known "
            f"classes ({brief(', '.join(answers))})"
        ) from None


def _no_and_yes_places(words: Sequence[str | None], yes: int, what: str, place: Place) -> list[int | None]:
    spellings = {word: word.lower() for word in dict.fromkeys(words) if word is not None}
    if wrong := next((word for word, spelling in spellings.items() if spelling not in YES | NO), None):
        raise InputError(
            f"{what}, {place(words.index(wrong))}: {brief(wrong)} is not binary, expected 0 or 1 (or -1 and 1, no and yes, "
            "false and true)"
        )
    if {"0", "-1"} <= spellings.keys():
        raise InputError(
            f"{what} holds both 0 and -1, so -1 may mean no or missing; write no as 0 everywhere, and leave the "
            "cell of a missing label empty"
        )
    numbers = {word: yes if spelling in YES else 1 - yes for word, spelling in spellings.items()}
    return [None if word is None else numbers[word] for word in words]


def ordered(words: Iterable[str]) -> list[str]:
    """Labels in order: whole numbers by their value where all are, else as texts.

    >>> ordered(["10", "9"]), ordered(["10", "9", "a"])
    (['9', '10'], ['10', '9', 'a'])
    """
    found = list(words)
    if all(re.fullmatch(r"[+-]?\d{1,4000}", word) for word in found):  # Python reads 4300 digits
        return sorted(found, key=lambda word: (int(word), word))
    return sorted(found)


def is_number(word: str) -> bool:
    """Whether a label is a number, written in any way that Python reads."""
    try:
        float(word)
    except ValueError:
        return False
    return True


# ---- columns of a split ----


def label_names(split: Split, column: str) -> list[str]:
    """Names of the classes of a column: of its ClassLabel, or its distinct values in order.

    Raises:
        InputError: a column whose cells are no labels, or all missing; numbers that are not whole, or negative.
    """
    return _coded_names(split, column) or distinct_words(_words(split, column), _what(split, column), _row)


def class_column(split: Split, column: str, names: Sequence[str]) -> np.ndarray:
    """Class of each row as its place in ``names``, int64 ``(N,)``, -1 where missing.

    Raises:
        InputError: a value that is not among ``names``, or a code that its ClassLabel has no name for; every cell missing.
    """
    return _not_all_missing(answer_column(split, column, names), split, column)


def binary_column(split: Split, column: str) -> np.ndarray:
    """A binary attribute as 0 and 1, int64 ``(N,)``, -1 where missing. 1/0, 1/-1, true/false and yes/no are read.

    The codes 0 and 1 of a ClassLabel are no and yes, unless its names say which is which.

    Raises:
        InputError: any other value; every cell missing.
    """
    return _not_all_missing(yes_no_column(split, column), split, column)


def yes_no_column(split: Split, column: str) -> np.ndarray:
    """As ``binary_column``, of a column that may be all missing."""
    coded = _coded_names(split, column)
    if coded and not means_no_and_yes(coded):
        words = [label_word(code) for code in split.column(column)]
        return _array(places_of(words, NO_YES, f"column {column!r}", _row))
    return answer_column(split, column, NO_YES)


def is_binary(split: Split, column: str) -> bool:
    """Whether a column holds plain values that mean no and yes. The integers of a ClassLabel are names, not values."""
    if _coded_names(split, column):
        return False
    return means_no_and_yes({word for word in _words(split, column) if word is not None})


def answer_column(split: Split, column: str, answers: Sequence[str]) -> np.ndarray:
    """A task's answers as places in ``answers``, int64 ``(N,)``, -1 where missing; 0/1 and the like are read as no and yes.

    Raises:
        InputError: as for ``class_column``, but for a column that is all missing.
    """
    return _array(places_of(_words(split, column), answers, f"column {column!r}", _row))


def _words(split: Split, column: str) -> list[str | None]:
    """The label in each row, None where missing; of a ClassLabel by name."""
    # A ClassLabel's integers are places in its own list of names, which another data set may order otherwise.
    coded = _coded_names(split, column)
    try:
        words = [None if (word := label_word(value)) is None else composed(word) for value in split.column(column)]
    except InputError as error:
        raise InputError(f"{_what(split, column)}: {error}") from error
    if not coded:
        return words
    names: dict[str | None, str | None] = {str(code): name for code, name in enumerate(coded)} | {None: None}
    for row, word in enumerate(words):
        if word not in names:
            raise InputError(
                f"column {column!r}, row {row}: label {word} is out of range, expected 0 to {len(coded) - 1}"
            )
    return [names[word] for word in words]


def _array(places: Sequence[int | None]) -> np.ndarray:
    return np.array([-1 if place is None else place for place in places], np.int64)


def _what(split: Split, column: str) -> str:
    return f"column {column!r} of {split.source} [{split.name}]"


def _row(row: int) -> str:
    return f"row {row}"


def _coded_names(split: Split, column: str) -> list[str]:
    """Names of the classes of a ClassLabel, [] for plain values. Raises InputError for a column that holds no labels."""
    from datasets import ClassLabel, Value

    feature = split.feature(column)
    if isinstance(feature, ClassLabel):
        return [composed(str(name)) for name in feature.names]
    if not isinstance(feature, Value):
        raise InputError(
            f"column {column!r} of {split.source} holds {type(feature).__name__}, expected one label a row"
        )
    return []


def _not_all_missing(result: np.ndarray, split: Split, column: str) -> np.ndarray:
    if (result < 0).all():
        raise InputError(f"{_what(split, column)} has no labels: every cell is missing")
    return result
