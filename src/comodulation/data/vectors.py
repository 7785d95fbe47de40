"""Embeddings: vectors or maps that were computed elsewhere, in a column of a table or in a file of arrays. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInputError, InputError, brief, reason_of, refusing
from ..files import check_regular, safetensors_header

ARRAY_FILES = (".npy", ".safetensors")
COLUMN_FILES = (".parquet", ".arrow", ".feather")
MAX_VECTORS = 2**40  # bytes of a file of embeddings
_SHAPES = "expected rows of vectors (N, V) or of maps (N, C, H, W)"
_HASH_ROWS = 1000


@dataclass(frozen=True)
class Vectors:
    """Inputs that are vectors or maps.

    Attributes:
        array: numbers ``(N, V)`` or ``(N, C, H, W)``, in memory or mapped to it.
        ids: what the data call each, where they say.
        places: of those that there are in the array; None: all.
    """

    array: np.ndarray
    ids: tuple[str | None, ...] = ()
    places: np.ndarray | None = None
    what = "embedding"

    def __len__(self) -> int:
        return len(self.array if self.places is None else self.places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one: of a vector of V numbers ``(V, 1, 1)``."""
        return feature_shape(self.array.shape[1:])

    def read(self, row: int, where: str) -> np.ndarray:
        """One embedding, float32, ``(V,)`` or ``(C, H, W)``. Raises BadInputError for one that is missing or not finite."""
        return finite(self.array[row if self.places is None else self.places[row]], where)

    def length(self, row: int) -> int:
        """0: all are alike."""
        return 0

    def usable(self) -> list[np.ndarray]:
        """None: that is asked only where lengths differ."""
        return []

    def take(self, rows: Sequence[int]) -> Vectors:
        """Some of them."""
        ids = tuple(self.ids[row] for row in rows) if self.ids else ()
        places = np.asarray(rows, np.int64)  # of an array in a file, nothing is read
        return Vectors(self.array, ids, places if self.places is None else self.places[places])

    def identities(self) -> list[str]:
        """Of each a text that is its own: equal ones are in one split, whatever rows are added."""
        return [hashlib.sha256(row.tobytes()).hexdigest() for block in self._blocks() for row in block]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the numbers as float32: the same numbers in another precision are the same embeddings."""
        digest = hashlib.sha256(f"embeddings {(len(self), *self.array.shape[1:])}".encode())
        for block in self._blocks():
            digest.update(block.tobytes())
        return digest.hexdigest()

    def _blocks(self) -> Any:
        for start in range(0, len(self), _HASH_ROWS):
            rows: Any = slice(start, start + _HASH_ROWS)
            with np.errstate(over="ignore", invalid="ignore"):
                yield np.ascontiguousarray(self.array[rows if self.places is None else self.places[rows]], "<f4")


def feature_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of a vector ``(V,)`` or a map ``(C, H, W)``. Raises InputError for any other shape."""
    if len(shape) not in (1, 3) or not all(size > 0 for size in shape):
        raise InputError(f"an embedding has the shape {tuple(shape)}, expected a vector (V,) or a map (C, H, W)")
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers as float32. Raises BadInputError, which begins with ``where``, where one is not finite or too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(values, np.float32)
    if np.isfinite(found).all():
        return found
    place = np.argwhere(~np.isfinite(found))[0]
    value = values[tuple(place)]
    if np.isnan(values).all():
        said = "is missing: it holds no numbers"
    else:
        kind = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else f"{value}, too large for float32,"
        said = f"holds {kind} at place {', '.join(map(str, place))}; expected finite numbers"
    raise BadInputError(f"{where} {said}")


# ---- files ----


def read_vectors(path: Path, name: str | None = None) -> tuple[np.ndarray, str | None]:
    """The embeddings of a file, ``(N, V)`` or ``(N, C, H, W)``, of .npy mapped to memory; and the column that they are of, if any.

    Args:
        path: *.npy, *.safetensors, *.parquet, *.arrow or *.feather; or a folder of parquet files, one behind the other in the order
            of their names, without those that begin with "_" or ".".
        name: of the tensor, or of the column of lists; None finds the only one.

    Raises:
        InputError: a file that is absent, of another kind, damaged, or would have to be unpickled; none or several tensors or
            columns; vectors of different length; numbers that are none.
    """
    if not path.is_file() and not is_folder_of_vectors(path):
        raise InputError(f"no such file of embeddings: {path}")
    suffix = path.suffix.lower()
    if suffix in COLUMN_FILES or path.is_dir():
        column, found = _column(path, name)
        return vectors_of_column(found, f"column {column!r} of {path}"), column
    if suffix not in ARRAY_FILES:
        raise InputError(
            f"{path} is no file of embeddings that can be read: expected {', '.join((*ARRAY_FILES, *COLUMN_FILES))}"
        )
    array = _npy(path) if suffix == ".npy" else _tensor(path, name)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds {array.dtype}, expected numbers (float16 to float64)")
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise InputError(f"{path} holds an array of the shape {array.shape}, {_SHAPES}")
    return array, None


def is_folder_of_vectors(path: Path) -> bool:
    """Whether a path is that of a folder with parquet files, as `comodulate extract` writes it."""
    return path.is_dir() and bool(_shards(path))


def _shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.parquet"), key=lambda one: one.name)
    return [one for one in found if one.name[0] not in "._"]


def _npy(path: Path) -> np.ndarray:
    try:
        check_regular(path, MAX_VECTORS)
        with open(path, "rb") as file:
            if not file.read(6) == b"\x93NUMPY":
                raise ValueError("it is no .npy file; anything else, such as a pickle, is not read")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        reason = reason_of(error, str(path))
        if "Object arrays" in reason:
            reason = "it holds Python objects, which would have to be unpickled; expected an array of numbers (N, V)"
        raise InputError(f"{path} cannot be read as .npy: {reason}") from error


@contextlib.contextmanager
def open_tensor(path: Path, name: str | None) -> Iterator[tuple[Any, str]]:
    """A file of safetensors, opened, and the name of the only tensor in it, or the one that is named.

    Raises:
        InputError: no such file, or a damaged one, also while it is read; none or several tensors, or none of this name.
    """
    from safetensors import SafetensorError, safe_open

    with refusing(f"{path} is not a readable safetensors file", SafetensorError, OSError, ValueError):
        safetensors_header(path)
        with safe_open(path, "pt") as file:  # numpy has no bfloat16
            names = list(file.keys())
            if name is None and len(names) != 1:
                raise InputError(
                    f"{path} holds {len(names)} tensors ({brief(', '.join(names))}), expected one; name one of them "
                    "with --embeddings"
                )
            if name is not None and name not in names:
                raise InputError(f"{path} has no tensor {name!r}, only {brief(', '.join(names))}")
            yield file, name or names[0]


def _tensor(path: Path, name: str | None) -> np.ndarray:
    with open_tensor(path, name) as (file, own):
        return numpy_of(file.get_tensor(own))


def numpy_of(tensor: Any) -> np.ndarray:
    """A tensor as an array; bfloat16, which numpy does not have, as float32."""
    import torch

    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _column(path: Path, name: str | None) -> tuple[str, Any]:
    """The column of lists of a file: its name, and its chunks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        name, first = _column(_shards(path)[0], name)
        found = [first, *(_column(one, name)[1] for one in _shards(path)[1:])]
        if differing := [one.type for one in found if one.type != first.type]:
            raise InputError(
                f"column {name!r} of the files in {path} holds {first.type} and {differing[0]}, expected one type"
            )
        return name, pa.chunked_array([chunk for own in found for chunk in own.chunks], first.type)
    with refusing(f"{path} cannot be read", pa.ArrowException, OSError, ValueError):
        check_regular(path, MAX_VECTORS)
        if path.suffix.lower() == ".parquet":
            name = list_column(pq.read_schema(path), path, name)
            return name, pq.read_table(path, columns=[name])[name]
        table = arrow_table(path)
        name = list_column(table.schema, path, name)
        return name, table[name]


def arrow_table(path: Path) -> Any:
    """The table of an Arrow file, in either of its two formats. Raises what Arrow raises."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        try:
            return pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_stream(file).read_all()


def list_column(schema: Any, source: str | Path, name: str | None) -> str:
    """The name of the only column of lists of numbers, or the one that is named. Raises InputError where there is none."""
    known = [field.name for field in schema if is_vector(field.type)]
    if name is not None and name not in schema.names:
        raise InputError(f"{source} has no column {name!r}, only {brief(', '.join(schema.names))}")
    if name is not None and name not in known:
        raise InputError(
            f"column {name!r} of {source} holds {schema.field(name).type}, expected lists of numbers (embeddings)"
        )
    if name is None and len(known) != 1:
        found = (
            f"{len(known)} columns of lists of numbers ({', '.join(known)})"
            if known
            else "no column of lists of numbers"
        )
        raise InputError(f"{source} has {found}; name the one with the embeddings, of {', '.join(schema.names)}")
    return name or known[0]


def is_vector(kind: Any) -> bool:
    """Whether cells of an Arrow type are lists of numbers, or lists of lists of lists."""
    import pyarrow as pa

    kind, depth = getattr(kind, "storage_type", kind), 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (1, 3) and (pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_list(kind: Any) -> bool:
    """Whether cells of an Arrow type are lists of any form."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def vectors_of_column(column: Any, what: str) -> np.ndarray:
    """A column of lists as an array ``(N, V)`` or ``(N, C, H, W)``; rows without a list are NaN.

    Args:
        column: Arrow's chunks. what: the column, for messages.

    Raises:
        InputError: vectors of different length, or none at all.
    """
    parts: list[tuple[np.ndarray, np.ndarray | None]] = []
    start, shape = 0, None
    for chunk in column.chunks:
        rows = getattr(chunk, "storage", chunk)
        there = np.asarray(rows.is_valid())
        if there.any():
            values, own = _flat(rows.drop_null(), what, start + np.flatnonzero(there))
            if shape is not None and own != shape:
                _refuse_lengths(what, int(start + there.argmax()), own, shape)
            shape = own
            parts.append((there, values.reshape(-1, *own)))
        else:
            parts.append((there, None))
        start += len(rows)
    if shape is None:
        raise InputError(f"{what} holds no embedding: every cell is missing")
    made = []
    for there, found in parts:
        if found is None or not there.all():
            whole = np.full(
                (len(there), *shape), np.nan, np.float64 if found is None else np.promote_types(found.dtype, np.float16)
            )
            whole[there] = found
            found = whole
        made.append(found)
    return made[0] if len(made) == 1 else np.concatenate(made)


def _flat(rows: Any, what: str, places: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """All numbers of some rows without missing lists, and the shape of a row; ``places`` are the rows' numbers, for messages."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape: list[int] = []
    units = 1  # lists of a row on this level
    while pa.types.is_nested(rows.type):
        if rows.null_count:
            place = int(np.flatnonzero(~np.asarray(rows.is_valid()))[0]) // units
            raise InputError(f"{what}, row {places[place]}: a list within the embedding is missing")
        sizes = np.asarray(pc.list_value_length(rows))
        if (other := np.flatnonzero(sizes != sizes[0])).size:
            place = int(other[0])
            _refuse_lengths(what, int(places[place // units]), (int(sizes[place]),), (int(sizes[0]),))
        if sizes[0] == 0:
            raise InputError(f"{what}, row {places[0]}: the embedding is empty")
        shape.append(int(sizes[0]))
        units *= int(sizes[0])
        rows = rows.flatten()
    if rows.null_count:
        rows = rows.cast(pa.float64()).fill_null(np.nan)
    return rows.to_numpy(zero_copy_only=False), tuple(shape)


def _refuse_lengths(what: str, row: int, own: tuple[int, ...], first: tuple[int, ...]) -> None:
    def said(shape: tuple[int, ...]) -> str:
        return f"{shape[0]} numbers" if len(shape) == 1 else f"the shape {shape}"

    raise InputError(
        f"{what}: the embedding of row {row} has {said(own)}, those before it {said(first)}; expected one length"
    )
