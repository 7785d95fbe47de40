"""Answers in shards: parquet files with a fixed number of inputs each. A shard is complete, or it does not exist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ..data import InputReader
from ..data.features import Batches, Encoder
from ..files import replacing
from ..places import reached
from .plain_tables import utf8
from .streamed_inputs import ReadBatch

ROW_GROUP = 2**14  # rows, at least, that are written at once
COMPRESSION = "lz4"


class Columns(Protocol):
    """What shards hold of their inputs: what is computed of a batch, as columns of a table. Each process makes its own.

    Attributes:
        holds: what they hold, in messages: ``answers``.
        manifest, pictures: names of the files beside the shards that say what they are of, and list the pictures.
        encoder: of the inputs. reader: of its files; None of pictures. precision: of its arithmetic.
        noisy: whether noise is drawn for each input.
        skip_bad: whether the inputs that cannot be used are named beside the others; else the first of them ends the work.
        rows: inputs of a batch, at most.
        schema: all columns of a shard; see ``shard_schema``.
        files: on which the columns depend, the same on every machine.
    """

    holds: str
    manifest: str
    pictures: str
    encoder: Encoder
    reader: InputReader | None
    precision: str
    noisy: bool
    skip_bad: bool
    rows: int
    schema: pa.Schema
    files: list[Path]

    def about(self) -> dict[str, Any]:
        """All that the columns depend on besides the inputs, the engine and the device, as JSON, without paths."""

    def use(self, engine: str, device: str) -> None:
        """Compute by an engine on a device from now on. Raises as ``forward_of``."""

    def compute(self, batch: Batches, ids: Tensor | None) -> list[pa.Array]:
        """The columns of B preprocessed inputs; ``ids``: ``content_id`` of each, ``(B,)``, where ``noisy``."""


def shard_schema(fields: Sequence[pa.Field]) -> pa.Schema:
    """Columns of a shard: which input, what is computed of it, and why nothing is."""
    of_inputs = [("file", pa.dictionary(pa.int32(), pa.string())), ("row", pa.int64()), ("id", pa.string())]
    return pa.schema([*(pa.field(name, kind) for name, kind in of_inputs), *fields, pa.field("error", pa.string())])


def shard_path(out: Path, number: int) -> Path:
    """Where a shard is."""
    return out / f"part-{number:06d}.parquet"


def finished_shard(out: Path, number: int, rows: int) -> int | None:
    """How many inputs of a finished shard could not be used; None for a shard that is not there, or not as a whole."""
    with reached(out):
        try:
            with shard_path(out, number).open("rb") as file:
                about = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return None
    if about.num_rows != rows:
        return None
    errors = about.num_columns - 1
    nulls = sum(about.row_group(place).column(errors).statistics.null_count for place in range(about.num_row_groups))
    return rows - int(nulls)


def write_shard(path: Path, columns: Columns, batches: Iterator[ReadBatch]) -> Iterator[tuple[int, int]]:
    """Compute the columns of batches and write them to a file.

    Yields:
        After each batch: inputs, how many of them were cut.

    Raises:
        RunError: the file cannot be written.
    """
    schema = columns.schema
    kept: list[pa.Table] = []
    # Of numbers, dictionaries would be tried in vain.
    named = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    with (
        replacing(path) as partial,
        pq.ParquetWriter(
            partial, schema, compression=COMPRESSION, use_dictionary=named, write_statistics=["error"]
        ) as writer,
    ):
        for batch in batches:
            kept.append(computed(columns, schema, batch))
            if sum(map(len, kept)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(kept).unify_dictionaries())
                kept = []
            yield len(batch), batch.cut
        if kept:
            writer.write_table(pa.concat_tables(kept).unify_dictionaries())


def computed(columns: Columns, schema: pa.Schema, batch: ReadBatch) -> pa.Table:
    """A batch's rows of a shard."""
    number = len(batch)
    own, errors = columns.compute(batch.batches, batch.content), pa.nulls(number, pa.string())
    if batch.errors:
        there = np.ones(number, bool)
        there[list(batch.errors)] = False
        own = [_where(there, column) for column in own]
        errors = pa.array([batch.errors.get(place) for place in range(number)], pa.string())
    found = [
        _files(batch.file, number),
        pa.nulls(number, pa.int64()) if batch.row is None else pa.array(batch.row, pa.int64()),
        pa.nulls(number, pa.string()) if batch.ids is None else pa.array(batch.ids, pa.string()),
        *own,
        errors,
    ]
    return pa.Table.from_arrays(found, schema=schema)


def _files(file: str | Sequence[str], number: int) -> pa.Array:
    if isinstance(file, str):
        return pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), pa.array([utf8(file)]))
    return pa.array([utf8(one) for one in file], pa.string()).dictionary_encode()


def _where(there: np.ndarray, column: Any) -> pa.Array:
    """A column with nulls in the rows that are not there."""
    return column.take(pa.array(np.where(there, np.arange(len(there)), 0), mask=~there))
