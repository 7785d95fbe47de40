"""Rows of files of texts or embeddings, some thousand at a time.

Files of .npy and arrow are mapped to memory, of .safetensors a slice is read, parquet is decoded block by block: memory does not
grow with the file. Tables of text (csv, tsv, xlsx) and files of a text a line are read whole: large ones are better parquet, or
in several files. Of a bucket, parquet is read where it lies, and another file is copied to this machine first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import InputError, refusing
from ...places import in_bucket, local_copy, reached
from ..given_tables import InputReader, TextReader, VectorReader, id_column, inputs_of_file
from ..texts import Texts
from ..vectors import ARRAY_FILES, COLUMN_FILES, Vectors, arrow_table, numpy_of, open_tensor

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
            if path.is_file():
                found.append(path)
                continue
            if not path.is_dir():
                raise InputError(f"no such file: {path}")
            inside = sorted(path.iterdir(), key=lambda one: one.name)
            inside = [one for one in inside if one.suffix.lower() in suffixes and one.name[0] not in "._"]
            if not inside:
                raise InputError(f"{path} holds no files that end with {', '.join(suffixes)}")
            found += inside
    return found


def rows_of(path: Path, reader: InputReader) -> int:
    """How many rows a file has. Raises InputError for one that holds no such inputs."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with _parquet(path) as file:
            reader.column_of(file.schema_arrow, path)
            return int(file.metadata.num_rows)
    if suffix == ".safetensors":
        with open_tensor(local_copy(path), reader.column) as (file, name):
            if shape := file.get_slice(name).get_shape():
                return int(shape[0])
            raise InputError(f"{path} holds a single number, expected rows of vectors")
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
        with open_tensor(local_copy(path), reader.column) as (file, name):
            part = file.get_slice(name)
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


# ---- files that are mapped to memory, or read from their beginning ----


def _whole(path: Path, reader: InputReader) -> Texts | Vectors:
    path = local_copy(path)
    about = path.stat() if path.exists() else None
    return _whole_file(path, reader, about and (about.st_ino, about.st_size, about.st_mtime_ns))


@lru_cache(maxsize=1)
def _whole_file(path: Path, reader: InputReader, version: Any) -> Texts | Vectors:
    """The inputs of a file; one is kept, until another is asked for, or another ``version`` of it."""
    if path.suffix.lower() in COLUMN_FILES and isinstance(
        reader, VectorReader
    ):  # no table of labels, which would be read
        inputs, column = reader.of_file(path, None)
        rows = arrow_table(path)
        return replace(inputs, ids=_ids(rows, id_column(rows.schema.names, column)))
    return inputs_of_file(path, reader)[0]


def _ids(table: Any, column: str | None) -> tuple[str | None, ...]:
    return () if column is None else tuple(None if one is None else str(one) for one in table[column].to_pylist())


# ---- parquet ----


def _parquet(path: Path) -> Any:
    with _readable(path):
        if in_bucket(path):  # of which no more is read than is needed
            return pq.ParquetFile(path.path, filesystem=path.fs)  # type: ignore[attr-defined]
        return pq.ParquetFile(path, memory_map=True)


def _readable(path: Path) -> AbstractContextManager[None]:
    return refusing(f"{path} cannot be read", pa.ArrowException, OSError)


def _parquet_blocks(path: Path, reader: InputReader, start: int, stop: int, size: int) -> Iterator[Block]:
    with _parquet(path) as file, _readable(path):
        column = reader.column_of(file.schema_arrow, path)
        own = id_column(file.schema_arrow.names, column)
        groups, before = _groups_with(file.metadata, start, stop)
        skipped, kept = start - before, []
        for batch in file.iter_batches(size, row_groups=groups, columns=[column] if own is None else [column, own]):
            kept.append(pa.Table.from_batches([batch]).slice(min(skipped, len(batch))))
            skipped = max(0, skipped - len(batch))
            there = pa.concat_tables(kept)
            while start < stop and len(there) >= (number := min(size, stop - start)):
                yield Block(start, _inputs(there.slice(0, number), column, own, path, reader))
                start, there = start + number, there.slice(number)
            if start >= stop:
                return
            kept = [there]


def _groups_with(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows from ``start`` to ``stop``, and the number of the first row in the first of them."""
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    edges = list(itertools.accumulate(sizes, initial=0))
    groups = [number for number, (first, end) in enumerate(itertools.pairwise(edges)) if first < stop and end > start]
    return groups, edges[groups[0]] if groups else start


def _inputs(table: Any, column: str, own: str | None, path: Path, reader: InputReader) -> Texts | Vectors:
    ids = _ids(table, own)
    if isinstance(reader, VectorReader) and table[column].null_count == len(table):
        return Texts((None,) * len(table), ids)
    return replace(reader.of_column(table[column], f"column {column!r} of {path}"), ids=ids)
