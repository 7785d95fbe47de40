"""Cells that hold several labels ("indoor; night", a list of words) -> for each label a column of no and yes.

Read are the lists of parquet and of `datasets`; texts of which all are lists as JSON, Python or NumPy write them; and texts with
";" or "|" between labels that come again in other cells. A comma or a blank stands in single labels too often.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError, brief
from .folder_files import composed
from .labels import is_number, label_word, ordered
from .source import Split
from .suitability import MANY, RARE, several_labels

SEPARATORS = (";", "|")
Labels = frozenset[str] | None  # of a cell; None where it is missing

_QUOTED = r"""(?:'[^']*'|"[^"]*")"""
_NUMPY = re.compile(rf"\[\s*({_QUOTED}(?:\s+{_QUOTED})+|[+-]?\d+(?:\s+[+-]?\d+)+)\s*\]")


def lists_of_texts(cells: Sequence[str | None]) -> list[Labels] | None:
    """The labels of each cell of a column of texts, N of them; None where the column holds single labels.

    >>> lists_of_texts(["a; b", None, "b", "a;c", "c"])[0] == {"a", "b"}
    True
    >>> lists_of_texts(['["a", "b"]', "[]"])[1]
    frozenset()
    """
    texts = dict.fromkeys(cell for cell in cells if cell is not None)
    if not texts:
        return None
    if all(text.startswith("[") and text.endswith("]") for text in texts):
        read = {text: _written_list(text) for text in texts}
        if any(found is None for found in read.values()):
            return None
        return lists_of_values([None if cell is None else read[cell] for cell in cells])
    if (found := several_labels(texts, SEPARATORS)) is None:
        return None
    parts = {text: _parts(text, found[0]) for text in texts}
    counts = Counter(label for cell in cells if cell is not None for label in parts[cell])
    if len(counts) > MANY and 2 * sum(count < RARE for count in counts.values()) >= len(counts):
        return None  # sentences
    return [None if cell is None else parts[cell] for cell in cells]


def certain_lists(cells: Sequence[str | None]) -> list[Labels]:
    """The labels of each cell of a column of texts that is known to hold lists, as a run that learned from such a column does."""
    if (found := lists_of_texts(cells)) is not None:
        return found
    mark = next((mark for mark in SEPARATORS if any(mark in cell for cell in cells if cell)), SEPARATORS[0])
    return [None if cell is None else _parts(cell, mark) for cell in cells]


def lists_of_values(cells: Sequence[Any]) -> list[Labels] | None:
    """The labels of cells that are lists already, or None; None where these are no labels: vectors, boxes, lists of lists."""
    found: list[Labels] = []
    lengths, numbers = set(), True
    for cell in cells:
        if cell is None:
            found.append(None)
            continue
        if not isinstance(cell, (list, tuple)):
            return None
        try:
            words = [composed(word) for value in cell if (word := label_word(value)) is not None]
        except InputError:
            return None
        lengths.add(len(words))
        numbers = numbers and all(map(is_number, words))
        if any(is_number(word) and not re.fullmatch(r"\+?\d+", word) for word in words):
            return None
        found.append(frozenset(words))
    if numbers and len(lengths) == 1 and min(lengths) > 1:
        return None
    return found


def labels_of(column: str, cells: Sequence[Labels], where: str) -> tuple[list[str], list[str]]:
    """The labels of a column of lists that at least ``RARE`` cells have, in order; and sentences for the user.

    Args:
        column: its name. cells: of it. where: what messages call the table.

    Raises:
        InputError: there is none.
    """
    counts = Counter(label for cell in cells if cell for label in cell)
    what = f"column {column!r} of {where}"
    wanted = [label for label in ordered(counts) if counts[label] >= RARE]
    rare = [label for label in ordered(counts) if counts[label] < RARE]
    if not wanted:
        raise InputError(f"{what} holds lists of labels, but no label is in {RARE} or more of its {len(cells)} cells")
    notes = [
        f"{what} holds several labels in a cell: each of its {len(wanted)} labels is a task of no and yes, such as "
        f"{brief(task_name(column, wanted[0]))}"
    ]
    if rare:
        shown = ", ".join(map(brief, rare[:3]))
        notes.append(f"left out: {len(rare)} labels of {what} that fewer than {RARE} cells have, such as {shown}")
    return wanted, notes


def task_name(column: str, label: str) -> str:
    """Name of the column of no and yes that a label becomes."""
    return f"{column}={label}"


def has_label(cells: Sequence[Labels], label: str) -> list[int | None]:
    """Whether each cell has a label: 1 or 0, None where it is missing."""
    return [None if cell is None else int(label in cell) for cell in cells]


def column_and_label(name: str, columns: Iterable[str]) -> tuple[str, str] | None:
    """The column of lists and the label that a name COLUMN=LABEL means; None where no such column is there."""
    column = next((one for one in sorted(columns, key=len, reverse=True) if name.startswith(f"{one}=")), None)
    return None if column is None else (column, name.removeprefix(f"{column}="))


def with_binary_columns(
    splits: Mapping[str, Split], names: Sequence[str], *, answered: bool = False
) -> dict[str, Split]:
    """Splits of a data set, to which columns of lists, where names ask for them, are added as columns of no and yes.

    Args:
        splits: of one data set; the labels are those of all of them.
        names: of columns, or COLUMN=LABEL.
        answered: the names are a run's tasks: a column among them is one, whatever it holds.

    Raises:
        InputError: as ``labels_of``.
    """
    result = dict(splits)
    columns = dict.fromkeys(name for split in splits.values() for name in split.label_columns)
    for name in names:
        place = (name, None) if name in columns else column_and_label(name, columns)
        if place is None or (answered and name in columns):
            continue
        column, label = place
        parts = {key: _raw_cells(split, column) for key, split in splits.items() if column in split.label_columns}
        lists, whole = all(own for own, _ in parts.values()), [cell for _, cells in parts.values() for cell in cells]
        cells = lists_of_values(whole) if lists else lists_of_texts(whole) if label is None else certain_lists(whole)
        if cells is None:
            continue
        labels, notes = labels_of(column, cells, splits[next(iter(parts))].source) if label is None else ([label], [])
        rest = iter(cells)
        for key, (_, own) in parts.items():
            part = list(itertools.islice(rest, len(own)))
            added = _added(result[key], {task_name(column, one): has_label(part, one) for one in labels}, column)
            result[key] = replace(added, notes=(*added.notes, *notes))
    return result


def _added(split: Split, columns: Mapping[str, list[int | None]], of: str) -> Split:
    """A split with columns of no and yes, made of a column of lists, besides its own."""
    import pyarrow as pa

    table = split.table
    for name, values in columns.items():
        if name not in table.column_names:
            table = table.add_column(name, pa.array(values, pa.int64()))
    return replace(split, table=table, lists={**split.lists, of: tuple(columns)})


def _raw_cells(split: Split, column: str) -> tuple[bool, list[Any]]:
    """Whether a column holds lists, and its cells, with names for the codes of a ClassLabel; of what holds no text, none."""
    import datasets

    feature = split.feature(column)
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        names = feature.feature.names if isinstance(feature.feature, datasets.ClassLabel) else None
        cells = split.column(column)
        if names is None:
            return True, cells
        return True, [None if cell is None else [None if one is None else names[one] for one in cell] for cell in cells]
    text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    return False, [None if cell is None else label_word(cell) for cell in split.column(column)] if text else []


def _parts(text: str, separator: str) -> frozenset[str]:
    return frozenset(composed(word) for part in text.split(separator) if (word := label_word(part)))


def _written_list(text: str) -> list[Any] | None:
    """The list that a text is; None where it is none."""
    if found := _NUMPY.fullmatch(text):
        return [word.strip("'\"") for word in re.findall(rf"{_QUOTED}|[+-]?\d+", found[1])]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, list) else None
