"""Rows of files of texts or embeddings, some thousand at a time.

Files of .npy and arrow are mapped to memory, of .safetensors a slice is read, parquet is decoded block by block: memory does not
grow with the file. Tables of text (csv, tsv, xlsx) and files of a text a line are read whole: large ones are better parquet, or
in several files. Of a bucket, parquet is read where it lies, and another file is copied to this machine first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import InputError, choose
from ...files import safetensors_header
from ...places import in_bucket, local_copy, reached
from ..given_tables import InputReader, TextReader, id_column
from ..label_files import is_table, read_label_table
from ..source import ID_COLUMNS
from ..texts import Texts
from ..vectors import (
    ARRAY_FILES,
    COLUMN_FILES,
    Vectors,
    arrow_table,
    list_column,
    numpy_of,
    read_vectors,
    vectors_of_column,
)

TEXT_FILES = (".txt", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".feather")


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Attributes:
        first: number of the first of them in the file, from 0.
        inputs: what they hold; where no row holds an embedding, and so no shape is known, missing texts.
    """

    first: int
    inputs: Texts | Vectors


def row_files(given: Sequence[Path], reader: InputReader) -> list[Path]:
    """Files as they are given, and for a folder those in it that may hold inputs, in order of their names.

    Raises:
        InputError: a file that is not there, a folder without such files.
    """
    suffixes = TEXT_FILES if isinstance(reader, TextReader) else (*ARRAY_FILES, *COLUMN_FILES)
    found: list[Path] = []
    for path in given:
        with reached(path):
            found += _row_files(path, suffixes)
    return found


def _row_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        return [path]
    inside = sorted(path.iterdir(), key=lambda one: one.name)
    inside = [one for one in inside if one.suffix.lower() in suffixes and one.name[0] not in "._"]
    if not inside:
        raise InputError(f"{path} holds no files that end with {', '.join(suffixes)}")
    return inside


def rows_of(path: Path, reader: InputReader) -> int:
    """How many rows a file has. Raises InputError for one that holds no such inputs."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with _opened(path) as file:
            _columns(file, path, reader)
            return int(file.metadata.num_rows)
    if suffix == ".safetensors":
        return _tensor_shape(path, reader)[0]
    return len(_whole(path, reader))


def blocks_of(path: Path, reader: InputReader, start: int, stop: int, size: int) -> Iterator[Block]:
    """Rows ``start`` to ``stop`` of a file, at most ``size`` at a time; where blocks end depends on these numbers alone.

    Raises:
        InputError: a file that is damaged, or vectors of different length.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_blocks(path, reader, start, stop, size)
        return
    if suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(local_copy(path), "pt") as file:  # numpy has no bfloat16
            part = file.get_slice(getattr(reader, "column", None) or next(iter(file.keys())))
            for first in range(start, stop, size):
                yield Block(first, Vectors(numpy_of(part[first : min(stop, first + size)])))
        return
    whole = _whole(path, reader)
    for first in range(start, stop, size):
        end = min(stop, first + size)
        ids = whole.ids[first:end]
        if isinstance(whole, Texts):
            yield Block(first, Texts(whole.values[first:end], ids))
        else:
            yield Block(first, Vectors(whole.array[first:end], ids))


def _whole(path: Path, reader: Any) -> Texts | Vectors:
    path = local_copy(path)
    about = path.stat() if path.exists() else None
    return _whole_file(path, reader, about and (about.st_ino, about.st_size, about.st_mtime_ns))


@lru_cache(maxsize=1)
def _whole_file(path: Path, reader: Any, version: Any) -> Texts | Vectors:
    """The inputs of a file that is mapped to memory, or of one that can only be read from its beginning.

    One is kept, until another is asked for, or another ``version`` of it.
    """
    if path.suffix.lower() in (*ARRAY_FILES, *COLUMN_FILES) and not isinstance(reader, TextReader):
        array, column = read_vectors(path, reader.column)
        if column is None:
            return Vectors(array)
        rows = arrow_table(path)
        return Vectors(array, _called(rows, _id_column(rows.schema, column)))
    table = read_label_table(path, reader.column, least=0) if is_table(path.name) else None
    inputs, column = reader.of_file(path, table)
    own = None if table is None else id_column(table, column)
    return inputs if table is None or own is None else replace(inputs, ids=tuple(table.columns[own]))


def _tensor_shape(path: Path, reader: InputReader) -> tuple[int, ...]:
    from safetensors import SafetensorError, safe_open

    try:
        safetensors_header(here := local_copy(path))
        with safe_open(here, "np") as file:
            names = list(file.keys())
            if reader.column is None and len(names) != 1:
                raise InputError(f"{path} holds {len(names)} tensors, expected one")
            shape = file.get_slice(choose(reader.column or names[0], names, f"tensor of {path}")).get_shape()
            if not shape:
                raise InputError(f"{path} holds a single number, expected rows of vectors")
            return tuple(shape)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error


def _opened(path: Path) -> Any:
    try:
        if in_bucket(path):  # of which no more is read than is needed
            return pq.ParquetFile(path.path, filesystem=path.fs)  # type: ignore[attr-defined]
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _columns(file: Any, path: Path, reader: InputReader) -> tuple[str, str | None]:
    """The column of inputs, and the one that says what rows are called."""
    schema = file.schema_arrow
    if isinstance(reader, TextReader):
        column = choose(reader.column, schema.names, "column of texts")
        kind = schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"column {column!r} of {path} holds {kind}, expected texts")
    else:
        column = list_column(schema, path, reader.column)
    return column, _id_column(schema, column)


def _id_column(schema: Any, inputs: str) -> str | None:
    """The column that says what rows are called, beside that of the inputs."""
    return next((name for name in ID_COLUMNS if name in schema.names and name != inputs), None)


def _called(table: Any, own: str | None) -> tuple[str | None, ...]:
    return () if own is None else tuple(None if one is None else str(one) for one in table[own].to_pylist())


def _parquet_blocks(path: Path, reader: InputReader, start: int, stop: int, size: int) -> Iterator[Block]:
    with _opened(path) as file:
        column, own = _columns(file, path, reader)
        groups, before, passed = [], 0, 0
        for number in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if passed + rows > start and passed < stop:
                groups.append(number)
            elif passed + rows <= start:
                before = passed + rows
            passed += rows
        names = [column] if own is None else [column, own]
        place = before
        kept: list[Any] = []
        edges = [*list(range(start, stop, size))[1:], stop]
        try:
            for batch in file.iter_batches(size, row_groups=groups, columns=names):
                table = pa.Table.from_batches([batch])
                table, place = table.slice(max(0, start - place)), place + len(batch)
                while len(table):
                    missing = edges[0] - start - sum(len(one) for one in kept)
                    kept.append(table.slice(0, missing))
                    table = table.slice(missing)
                    if sum(len(one) for one in kept) == edges[0] - start:
                        yield Block(start, _inputs(pa.concat_tables(kept), column, own, path, reader))
                        start, kept = edges.pop(0), []
                    if not edges:
                        return
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{path} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from error


def _inputs(table: Any, column: str, own: str | None, path: Path, reader: InputReader) -> Texts | Vectors:
    ids = _called(table, own)
    if isinstance(reader, TextReader):
        return Texts(tuple(table[column].to_pylist()), ids)
    if table[column].null_count == len(table):
        return Texts((None,) * len(table), ids)
    return Vectors(vectors_of_column(table[column], f"column {column!r} of {path}"), ids)
