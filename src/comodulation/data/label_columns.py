"""Label columns that are in memory already, as users of arrays and frames have them, and predictions in the same form.

A label is a word, a whole number or a bool, and stays what it is: predictions hold the labels that were given. None, NaN and what
pandas and polars have for them are gaps; -1 is a label. No frame library is imported before a frame of it was given.
"""

from __future__ import annotations

import importlib
import numbers
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError, brief

FORMS = ("vector", "array", "dict", "pandas", "polars")
MISSING, UNKNOWN = -1, -2  # places of a gap, and of a label that is none of the classes

# Types of a frame's columns that predictions get again; others are left to the frame library.
_NUMBERS = [f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)] + ["Float32", "Float64"]
_PANDAS = {"object", "str", "string", "category", "bool", "boolean", *_NUMBERS, *map(str.lower, _NUMBERS)}
_POLARS = {"String", "Categorical", "Boolean", *_NUMBERS}


@dataclass(frozen=True)
class LabelColumns:
    """K columns of N cells.

    Attributes:
        form: what they came in, one of ``FORMS``.
        names: of the columns; of an array their numbers.
        cells: of each column ``(N,)``.
        dtypes: of each column as its frame says, "" where there is no frame.
    """

    form: str
    names: tuple[Hashable, ...]
    cells: tuple[np.ndarray, ...]
    dtypes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cells[0])

    def what(self, column: int) -> str:
        """A column as messages call it."""
        return "Y" if self.form == "vector" else f"column {self.names[column]!r} of Y"


def read_label_columns(labels: Any) -> LabelColumns:
    """The columns of labels in any form: of one task ``(N,)``, else ``(N, K)``, a frame or a dictionary of columns.

    Raises:
        InputError: anything else; columns of different lengths or of one name.
    """
    found = _columns(labels)
    if not found.names:
        raise InputError("Y has no columns; expected one for each task")
    if len(set(found.names)) < len(found.names):
        twice = next(name for name in found.names if found.names.count(name) > 1)
        raise InputError(f"Y has {found.names.count(twice)} columns named {twice!r}; names must differ")
    for number, column in enumerate(found.cells):
        if len(column) != len(found):
            raise InputError(f"{found.what(number)} has {len(column)} rows, {found.what(0)} {len(found)}")
    return found


def _columns(labels: Any) -> LabelColumns:
    library, kind = _library(labels)
    if kind == "DataFrame":
        columns = [labels.iloc[:, n] if library == "pandas" else labels[:, n] for n in range(len(labels.columns))]
        cells = tuple(map(_frame_cells, columns))
        return LabelColumns(library, tuple(labels.columns), cells, tuple(map(str, labels.dtypes)))
    if library:
        name = "y" if labels.name in (None, "") else labels.name
        return LabelColumns("vector", (name,), (_frame_cells(labels),), ("",))
    if isinstance(labels, Mapping):
        cells = tuple(_vector(column, f"column {name!r} of Y") for name, column in labels.items())
        return LabelColumns("dict", tuple(labels), cells, ("",) * len(cells))
    table = _array(labels)
    if table.ndim == 1:
        return LabelColumns("vector", ("y",), (table,), ("",))
    if table.ndim != 2:
        raise InputError(
            f"Y has the shape {table.shape}, expected (N,) for one task, (N, K) for K, a frame, or a dictionary of columns"
        )
    return LabelColumns("array", tuple(range(table.shape[1])), tuple(table.T), ("",) * table.shape[1])


def classes_and_places(cells: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The classes of a column in order ``(C,)``, and which of them each cell has, int64 ``(N,)``, -1 for a gap.

    Raises:
        InputError: no cell has a label; cells that are no labels, or of different kinds.

    >>> classes_and_places(np.array(["b", None, "a"], object), "Y")
    (array(['a', 'b'], dtype=object), array([ 1, -1,  0]))
    """
    known = known_cells(cells, what)
    if not known.any():
        raise InputError(f"{what} has no labels: every cell is missing")
    classes, inverse = np.unique(cells[known], return_inverse=True)
    places = np.full(len(cells), MISSING, np.int64)
    places[known] = inverse
    return classes, places


def places_among(cells: np.ndarray, classes: np.ndarray, what: str) -> np.ndarray:
    """Which of some classes each cell has, int64 ``(N,)``: -1 for a gap, -2 for a label that is none of them.

    Raises:
        InputError: cells that are no labels, or words where the classes are none, or the reverse: no cell could be a class.
    """
    known = known_cells(cells, what)
    given, learned = ({_kind(one, what) for one in some.tolist()[:1]} for some in (cells[known], classes))
    if given and ("word" in given) != ("word" in learned):
        raise InputError(f"{what} holds {given.pop()}s, expected {learned.pop()}s as in the labels that were learned")
    places = {label: place for place, label in enumerate(classes.tolist())}
    found = np.full(len(cells), MISSING, np.int64)
    found[known] = [places.get(label, UNKNOWN) for label in cells[known].tolist()]
    return found


def known_cells(cells: np.ndarray, what: str) -> np.ndarray:
    """Which cells are no gaps, bool ``(N,)``. Raises InputError for cells that are no labels, naming the first."""
    if cells.dtype.kind in "biuU":
        return np.ones(len(cells), bool)
    if cells.dtype.kind == "f":
        known = ~np.isnan(cells)
        kinds = {"number"} if known.any() else set()
    elif cells.dtype.kind == "O":
        known = np.array([not _missing(cell) for cell in cells], bool)
        kinds = {_kind(cell, what) for cell in cells[known]}
    else:
        raise InputError(f"Unknown label type: {what} holds {cells.dtype}, expected words, whole numbers or bools")
    if len(kinds) > 1:
        raise InputError(
            f"{what} holds {' and '.join(f'{kind}s' for kind in sorted(kinds))}; expected labels of one kind"
        )
    if kinds == {"number"}:
        row = next((row for row in known.nonzero()[0] if not float(cells[row]).is_integer()), None)
        if row is not None:
            value = brief(cells[row:].tolist()[0])
            raise InputError(
                f"Unknown label type: continuous. {what} holds {value} in row {row}, expected words, whole numbers or bools; this "
                "is a classifier"
            )
    return known


def in_form(
    form: str, names: Sequence[Hashable], columns: Sequence[np.ndarray], dtypes: Sequence[str], rows_like: Any
) -> Any:
    """Columns of labels ``(N,)`` each in a form: an array ``(N,)`` or ``(N, K)``, a dictionary, or a frame.

    Args:
        form: one of ``FORMS``; a ``vector`` of more than one column is an array.
        names, columns, dtypes: as in ``LabelColumns``.
        rows_like: where it is a pandas frame or series, another pandas frame gets its index.
    """
    if form == "vector" and len(columns) == 1:
        return columns[0]
    if form in ("vector", "array"):
        alike = len({column.dtype.kind for column in columns}) == 1
        table = np.empty((len(columns[0]), len(columns)), np.result_type(*columns) if alike else object)
        for number, column in enumerate(columns):
            table[:, number] = column
        return table
    if form == "dict":
        return dict(zip(names, columns, strict=True))
    frames: Any = importlib.import_module(form)
    if form == "polars":
        return frames.DataFrame([_polars_series(frames, *one) for one in zip(names, columns, dtypes, strict=True)])
    frame = frames.DataFrame(dict(enumerate(columns)), index=_index(rows_like))
    frame = frame.astype({n: kind for n, kind in enumerate(dtypes) if kind in _PANDAS})
    frame.columns = frames.Index(list(names), tupleize_cols=any(isinstance(name, tuple) for name in names))
    return frame


def probabilities_in_form(form: str, classes: np.ndarray, values: np.ndarray, rows_like: Any) -> Any:
    """Probabilities ``(N, C)`` as a frame whose columns are the classes (of polars: as text), where the form is one."""
    if form not in ("pandas", "polars"):
        return values
    frames: Any = importlib.import_module(form)
    if form == "polars":
        return frames.DataFrame({str(one): values[:, n] for n, one in enumerate(classes.tolist())})
    return frames.DataFrame(values, index=_index(rows_like), columns=classes.tolist())


def _polars_series(polars: Any, name: Hashable, column: np.ndarray, dtype: str) -> Any:
    series = polars.Series(name, column.tolist())
    return series.cast(getattr(polars, dtype)) if dtype in _POLARS else series


def _index(rows_like: Any) -> Any:
    return rows_like.index if _library(rows_like)[0] == "pandas" else None


def _library(value: Any) -> tuple[str, str]:
    """The library that a frame or series is of, and which of both it is; empty for anything else."""
    for kind in type(value).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in ("pandas", "polars") and kind.__name__ in ("DataFrame", "Series"):
            return library, kind.__name__
    return "", ""


def _frame_cells(series: Any) -> np.ndarray:
    """The cells of a series ``(N,)``: with its own type where it is NumPy's, else as Python's values."""
    if _library(series)[0] == "polars":
        return _array(series.to_list())
    plain = isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf"
    return np.asarray(series, None if plain else object)


def _vector(column: Any, what: str) -> np.ndarray:
    cells = _frame_cells(column) if _library(column)[1] == "Series" else _array(column)
    if cells.ndim != 1:
        raise InputError(f"{what} has the shape {cells.shape}, expected (N,)")
    return cells


def _array(values: Any) -> np.ndarray:
    """Labels as an array of their own type; of a list, NumPy would make words of numbers beside words."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        values = np.ma.getdata(values).astype(object)
        values[hidden] = None
    try:
        found = np.asarray(values)
        if isinstance(values, (list, tuple)) and found.dtype.kind in "SU":
            whole = np.asarray(values, object)
            return found if all(isinstance(cell, str) for cell in whole.flat) else whole
    except (TypeError, ValueError) as error:
        raise InputError(f"Y is no table of labels: {error}") from error
    return found


def _missing(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, (float, np.floating)) and bool(np.isnan(cell))


def _kind(cell: Any, what: str) -> str:
    if isinstance(cell, str):
        return "word"
    if isinstance(cell, (bool, np.bool_)):
        return "bool"
    if isinstance(cell, numbers.Real):
        return "number"
    raise InputError(f"Unknown label type: {what} holds {brief(cell)}, expected words, whole numbers or bools")
