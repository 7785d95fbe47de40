"""Columns of an NWB file's tables, read whole, within the memory that is stored of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .hdf5 import bounded


def column_of(table: Any, name: str, *, several: bool = False) -> list[Any] | None:
    """A number, truth value or word a row; None for a column of anything else, or of several values a row.

    Args:
        table: a ``DynamicTable``. several: whether a row may hold several words, which are then a list.
    """
    from hdmf.common import DynamicTableRegion, VectorIndex

    column = table[name]
    if isinstance(column, VectorIndex):
        return [np.asarray(given).tolist() for given in ragged_of(table, name)] if several else None
    if isinstance(column, DynamicTableRegion):
        return None
    values = table_values(table, name)
    if values.ndim != 1 or values.dtype.kind not in "biufSUO":
        return None
    found = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.tolist()]
    return found if all(value is None or isinstance(value, (bool, int, float, str)) for value in found) else None


def table_values(table: Any, name: str) -> NDArray[Any]:
    """All values of a column, ``(R, ...)``. Raises InputError where they cannot be read, or take too much memory."""
    return _values(table[name], f"column {name!r} of {table.name}")


def ragged_of(table: Any, name: str, rows: Sequence[int] | NDArray[Any] | None = None) -> list[NDArray[Any]]:
    """The values of rows of a column of lists, ``(n, ...)`` each.

    Raises:
        InputError: the column holds no lists, or lists of lists; its index does not fit.
    """
    from hdmf.common import VectorIndex

    column, what = table[name], f"column {name!r} of {table.name}"
    if not isinstance(column, VectorIndex) or isinstance(column.target, VectorIndex):
        raise InputError(f"{what} must hold one list for each row")
    flat, ends = _values(column.target, what), _values(column, f"the index of {what}", index=True)
    if ends.ndim != 1 or len(ends) != len(table) or ends.dtype.kind not in "iu":
        raise InputError(f"{what} has an index of {ends.dtype} of shape {ends.shape} for {len(table)} rows")
    edges = np.concatenate([[0], ends.astype(np.int64)])
    if (np.diff(edges) < 0).any() or edges[-1] > len(flat):
        raise InputError(f"{what} has an index that does not ascend to its {len(flat)} values")
    return [flat[edges[row] : edges[row + 1]] for row in (range(len(ends)) if rows is None else rows)]


def electrodes_of(units: Any, electrodes: Any) -> list[NDArray[np.int64]] | None:
    """Rows of the electrodes table that each unit was recorded with; None where the units table does not say.

    Raises:
        InputError: a row that the electrodes table does not have.
    """
    from hdmf.common import VectorIndex

    if "electrodes" not in units.colnames:
        return None
    if isinstance(units["electrodes"], VectorIndex):
        found = [rows.astype(np.int64) for rows in ragged_of(units, "electrodes")]
    else:
        found = list(table_values(units, "electrodes").astype(np.int64)[:, None])
    if any(((rows < 0) | (rows >= len(electrodes))).any() for rows in found):
        raise InputError(
            f"column 'electrodes' of the units table names rows that the {len(electrodes)} electrodes do not have"
        )
    return found


def spans_of(table: Any) -> NDArray[Any]:
    """Start and end of each row of a table of times, ``(R, 2)``, as they are stored."""
    return np.stack([table_values(table, edge) for edge in ("start_time", "stop_time")], 1)


def intervals_in(file: Any) -> list[Any]:
    """All tables of times (``TimeIntervals``) that a file holds, wherever."""
    from pynwb.epoch import TimeIntervals

    return [found for found in file.objects.values() if isinstance(found, TimeIntervals)]


def _values(column: Any, what: str, *, index: bool = False) -> NDArray[Any]:
    """``index``: the numbers that are stored, not the rows that they are the numbers of."""
    from hdmf.common import DynamicTableRegion

    data = bounded(column.data, what)
    try:
        raw = index or isinstance(column, DynamicTableRegion)
        return np.asarray(data[:] if raw else column[:])
    except (OSError, RuntimeError, KeyError, IndexError, ValueError, TypeError) as error:  # damaged, or cut short
        raise InputError(f"{what} cannot be read: {error}") from error
