"""Tables whose rows have inputs of their own, texts or vectors, or of a file beside them in order -> splits.

Labels, splits and what is left out are as in a table of labels beside images (tables.py). Where nothing else says which rows are
for testing, a hash of the input does, so that equal inputs are in one split, and stay there when rows are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ..errors import InputError, brief, choose
from ..files import input_path
from .folder_files import SPLITS
from .label_files import LabelTable, read_label_table
from .source import ID_COLUMNS, Split
from .tables import SPLIT_COLUMN, held_out, label_columns, split_column, table_splits
from .texts import Texts, texts_in
from .vectors import Vectors, list_column, read_vectors, vectors_of_column


class InputReader(Protocol):
    """Finds the inputs of rows in data that hold them, in a column."""

    @property
    def column(self) -> str | None: ...

    def of_file(self, path: Path, table: LabelTable | None) -> tuple[Texts | Vectors, str | None]:
        """The inputs of a file, and the column that they are of; ``table``: the file, read as a table of labels."""

    def of_dataset(self, table: Any, source: str) -> tuple[Texts | Vectors, str]:
        """The inputs of a table that `datasets` has read, and the column that they are of."""


@dataclass(frozen=True)
class TextReader:
    """Reads texts of a column."""

    column: str

    def of_file(self, path: Path, table: LabelTable | None) -> tuple[Texts | Vectors, str | None]:
        """Texts of a column of the table, or of the lines of a file that is none. Raises InputError for another column."""
        if table is None:
            return texts_in(path), None
        if kind := table.unread.get(self.column):
            raise InputError(f"column {self.column!r} of {path} holds {kind}, expected texts")
        return Texts(tuple(table.columns[choose(self.column, table.columns, "column of texts")])), self.column

    def of_dataset(self, table: Any, source: str) -> tuple[Texts | Vectors, str]:
        """Texts of a column. Raises InputError for a column that is not there, or holds something else."""
        choose(self.column, table.column_names, "column of texts")
        found = table.select_columns([self.column]).with_format("arrow")[:][self.column]
        kind = found.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"column {self.column!r} of {source} holds {kind}, expected texts")
        return Texts(tuple(found.to_pylist())), self.column


@dataclass(frozen=True)
class VectorReader:
    """Reads vectors or maps, of a column of lists or of a file of arrays."""

    column: str | None = None

    def of_file(self, path: Path, table: LabelTable | None) -> tuple[Texts | Vectors, str | None]:
        """Embeddings of a file. Raises InputError as ``read_vectors``."""
        if table is not None and self.column in table.columns:
            raise InputError(
                f"column {self.column!r} of {path} holds one value in each row, expected lists of numbers: a column of a parquet "
                "or arrow file, or a .npy or .safetensors file with --labels"
            )
        array, column = read_vectors(path, self.column)
        return Vectors(array), column

    def of_dataset(self, table: Any, source: str) -> tuple[Texts | Vectors, str]:
        """Embeddings of a column. Raises InputError for none or several such columns, or vectors of different length."""
        schema = table.features.arrow_schema
        name = list_column(schema, source, self.column)
        found = table.select_columns([name]).with_format("arrow")[:][name]
        return Vectors(vectors_of_column(found, f"column {name!r} of {source}")), name


def given_table_splits(
    data: str | Path,
    reader: InputReader,
    labels: str | Path | None = None,
    tasks: Sequence[str] = (),
    *,
    ignore: Sequence[str] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Split]:
    """The splits of a table of labels, whose inputs are in it or in a file beside it.

    Args:
        data: file with the inputs. reader: of them.
        labels: the table, its rows in the order of the inputs; None: ``data`` is the table.
        tasks, ignore, answers: as of ``label_table_splits``.

    Raises:
        InputError: a file, column or cell that is not what it should be; as many rows of labels as of inputs are expected.
    """
    path = input_path(data)
    if labels is None:
        table = read_label_table(path, reader.column)
        inputs, column = reader.of_file(path, table)
    else:
        inputs, column = reader.of_file(path, None)
        table = read_label_table(input_path(labels), least=len(inputs))  # an input that has no label has a row, too
    if len(inputs) != len(table.lines):
        raise InputError(
            f"{path} has {len(inputs):,} rows of {inputs.what}s and {table.path} {len(table.lines):,} of labels; expected as many, "
            "in the same order"
        )
    names = split_column(table) if SPLIT_COLUMN not in (answers or tasks) else None
    own = id_column(table, column)
    single = own is not None and own not in (answers or tasks) and len(set(table.columns[own])) == len(table.lines)
    skipped = {column, *([] if names is None else [SPLIT_COLUMN]), *([own] if single else [])}
    others = dict.fromkeys(name for name in (*table.columns, *table.unread, *table.lists) if name not in skipped)
    if not others:
        raise InputError(f"{table.path} has no label column besides {brief(', '.join(map(str, skipped)))}")
    found = label_columns(table, others, tasks, ignore, answers or {})
    names = names or [held_out(one) for one in inputs.identities()]
    inputs = replace(inputs, ids=() if own is None else tuple(table.columns[own]))
    lines = table.lines if labels is None else [f"row {row + 1}" for row in range(len(inputs))]
    splits = table_splits(str(path), "", (), found.columns, names, found.left_out, inputs=inputs, lines=lines)
    return {
        name: replace(split, notes=(*table.notes, *found.notes), lists=found.lists) for name, split in splits.items()
    }


def id_column(table: LabelTable, inputs: str | None) -> str | None:
    """The column that says what a table calls each row: the first of ``ID_COLUMNS`` that it has, but for the column of inputs."""
    return next((name for name in ID_COLUMNS if name in table.columns and name != inputs), None)


def given_splits(split: Split) -> dict[str, Split]:
    """A split of everything, dealt out: by its column of splits, where it has one, else by a hash of the inputs."""
    assert split.inputs is not None
    said = split.column(SPLIT_COLUMN) if SPLIT_COLUMN in split.label_columns else [None]
    names: list[str | None] = [SPLITS.get(str(one).lower()) for one in said]
    if None in names:
        names = [held_out(one) for one in split.inputs.identities()]
    else:
        split = replace(split, table=split.table.remove_columns(SPLIT_COLUMN))
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(str(name), []).append(row)
    found = {
        name: replace(split.select(rows[name]), name=name) for name in dict.fromkeys(SPLITS.values()) if name in rows
    }
    return found
