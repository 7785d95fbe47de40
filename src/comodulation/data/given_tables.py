"""Tables whose rows have inputs of their own, texts or vectors, or of a file beside them in order -> splits.

Labels, splits and what is left out are as in a table of labels beside images (tables.py). Where nothing else says which rows are
for testing, a hash of the input does, so that equal inputs are in one split, and stay there when rows are added.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, choose
from ..files import input_path
from .folder_files import SPLITS
from .label_files import LabelTable, is_table, is_text, read_label_table
from .source import ID_COLUMNS, Split
from .tables import SPLIT_COLUMN, held_out, label_columns, table_splits
from .texts import Texts, texts_in
from .vectors import Vectors, list_column, read_vectors, vectors_of_column


@dataclass(frozen=True)
class TextReader:
    """Finds texts, in a column."""

    column: str

    def column_of(self, schema: Any, source: str | Path) -> str:
        """The column of texts of an Arrow schema. Raises InputError for one that is not there, or holds something else."""
        kind = schema.field(choose(self.column, schema.names, "column of texts")).type
        if not is_text(kind):
            raise InputError(f"column {self.column!r} of {source} holds {kind}, expected texts")
        return self.column

    def of_file(self, path: Path, table: LabelTable | None) -> tuple[Texts, str | None]:
        """Texts of a column of the table, or of the lines of a file that is none. Raises InputError for another column."""
        if table is None:
            return texts_in(path), None
        if kind := table.unread.get(self.column):
            raise InputError(f"column {self.column!r} of {path} holds {kind}, expected texts")
        return Texts(tuple(table.columns[choose(self.column, table.columns, "column of texts")])), self.column

    def of_column(self, column: Any, what: str) -> Texts:
        """Texts of an Arrow column."""
        return Texts(tuple(column.to_pylist()))


@dataclass(frozen=True)
class VectorReader:
    """Finds vectors or maps, in a column of lists or in a file of arrays; None: in the only such column."""

    column: str | None = None

    def column_of(self, schema: Any, source: str | Path) -> str:
        """The column of embeddings of an Arrow schema. Raises InputError as ``list_column``."""
        return list_column(schema, source, self.column)

    def of_file(self, path: Path, table: LabelTable | None) -> tuple[Vectors, str | None]:
        """Embeddings of a file. Raises InputError as ``read_vectors``."""
        if table is not None and self.column in table.columns:
            raise InputError(
                f"column {self.column!r} of {path} holds one value in each row, expected lists of numbers: a column of a parquet "
                "or arrow file, or a .npy or .safetensors file with --labels"
            )
        array, column = read_vectors(path, self.column)
        return Vectors(array), column

    def of_column(self, column: Any, what: str) -> Vectors:
        """Embeddings of an Arrow column, called ``what`` in messages. Raises InputError for vectors of different length."""
        return Vectors(vectors_of_column(column, what))


InputReader = TextReader | VectorReader  # finds the inputs of rows in data that hold them, in a column


def inputs_of_file(path: Path, reader: InputReader) -> tuple[Texts | Vectors, LabelTable | None]:
    """The inputs of a file to predict, called what the file calls its rows; and the file as a table of labels, where it is one."""
    table = read_label_table(path, reader.column, least=0) if is_table(path.name) else None
    inputs, column = reader.of_file(path, table)
    if table is not None and (own := id_column(table.columns, column)) is not None:
        inputs = replace(inputs, ids=tuple(table.columns[own]))
    return inputs, table


def inputs_of_dataset(table: Any, source: str, reader: InputReader) -> tuple[Texts | Vectors, str]:
    """The inputs of a table that `datasets` has read, and their column. Raises InputError as ``column_of`` and ``of_column``."""
    column = reader.column_of(table.features.arrow_schema, source)
    found = table.select_columns([column]).with_format("arrow")[:][column]
    return reader.of_column(found, f"column {column!r} of {source}"), column


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
    own = id_column(table.columns, column)
    single = own is not None and own not in (answers or tasks) and len(set(table.columns[own])) == len(table.lines)
    found = label_columns(table, {column, own if single else None}, tasks, ignore, answers or {})
    names = found.splits or [held_out(one) for one in inputs.identities()]
    inputs = replace(inputs, ids=() if own is None else tuple(table.columns[own]))
    lines = table.lines if labels is None else [f"row {row + 1}" for row in range(len(inputs))]
    return table_splits(str(path), "", (), found.columns, names, inputs=inputs, lines=lines, **found.about())


def id_column(columns: Collection[str], inputs: str | None) -> str | None:
    """The column that says what rows are called: the first of ``ID_COLUMNS`` that is there, but for the column of inputs."""
    return next((name for name in ID_COLUMNS if name in columns and name != inputs), None)


def given_splits(split: Split) -> dict[str, Split]:
    """A split of everything, dealt out: by its column of splits, where it has one, else by a hash of the inputs."""
    assert split.inputs is not None
    said = split.column(SPLIT_COLUMN) if SPLIT_COLUMN in split.label_columns else [None]
    names: list[str | None] = [SPLITS.get(str(one).lower()) for one in said]
    if None in names:
        names = [held_out(one) for one in split.inputs.identities()]
    else:
        split = replace(split, table=split.table.remove_columns(SPLIT_COLUMN))
    return {
        name: replace(split.select(rows), name=name)
        for name in dict.fromkeys(SPLITS.values())
        if (rows := [row for row, own in enumerate(names) if own == name])
    }
