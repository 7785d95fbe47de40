"""A table of labels beside a folder of images: csv, tsv or parquet, a path column, a column per task -> splits.

Read as text or as parquet's plain values, never unpickled. Rows go to train and test by the column ``split``, where there is
one; else by a hash of the image's path, so that an image is a test image for every seed and every method, and stays one
when rows are added.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, choose
from ..files import check_regular, user_path
from .source import Split

TEST_SHARE = 0.2  # of the images, where nothing else says which are for testing
SPLIT_COLUMN = "split"
SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
PATH_NAMES = ("image", "file_name", "filename", "file", "path")  # what an image column is called when no file is there
SEPARATORS = {".csv": ",", ".tsv": "\t"}
# A small file can claim to hold more than there is memory for: a run of equal cells takes a few bytes of parquet.
MAX_TABLE, MAX_ROWS, MAX_CELLS = 2**30, 2**24, 2**27  # bytes, rows, cells

_YES, _NO = {"1", "true", "yes"}, {"0", "-1", "false", "no"}
_TRIED = 100  # cells of a column that are looked for as files
_BATCH = 65_536  # rows of a parquet file that are read at once


@dataclass(frozen=True)
class LabelTable:
    """Cells as text, None where missing.

    Attributes:
        path: of the file.
        columns: cells by column, each N of them.
        lines: where each row is in the file, for messages: "line 3" or "row 2".
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[str]


def read_label_table(path: Path) -> LabelTable:
    """Read a csv, tsv or parquet file. Raises InputError for a file that is absent, none of these, damaged or without rows."""
    if not path.exists():
        raise InputError(f"no such labels file: {path}")
    if path.is_dir():
        raise InputError(f"labels {str(path)!r} is a folder, expected a file: .csv, .tsv or .parquet")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix in SEPARATORS:
        table = _read_text(path, SEPARATORS[suffix])
    else:
        raise InputError(f"labels file {str(path)!r} is not a table that can be read: expected .csv, .tsv or .parquet")
    if not table.lines:
        raise InputError(f"labels file {path} is empty: it has no rows")
    return table


def label_table_splits(
    labels: str, folder: str, image_column: str | None = None, tasks: Sequence[str] = ()
) -> dict[str, Split]:
    """The splits of a folder of images and its table of labels.

    Args:
        labels: the table; where there is no such file, one of this name in ``folder``.
        folder: of the images; the table's paths are relative to it.
        image_column: the column of paths; None finds it.
        tasks: the label columns; none takes all columns but paths and splits.

    Returns:
        By name ``train`` and, where there are such rows, ``test`` and ``validation``. Label columns are integers 0 and 1 for
        no and yes (0/1, -1/1, false/true, no/yes), else ClassLabels whose classes are those of the whole table.

    Raises:
        InputError: a file, column or cell that is not what it should be; it names the first.
    """
    base = user_path(folder)
    if not base.is_dir():
        raise InputError(f"no such data folder: {folder!r}; with --labels, --data is the folder of the images")
    base = Path(os.path.abspath(base))
    path = user_path(labels)
    table = read_label_table(path if path.exists() or not (base / labels).exists() else base / labels)
    image_column = _image_column(table, base, image_column)
    files = _files(table, base, image_column)
    has_splits = SPLIT_COLUMN in table.columns and SPLIT_COLUMN not in tasks
    others = [name for name in table.columns if name != image_column and not (has_splits and name == SPLIT_COLUMN)]
    if not others:
        raise InputError(f"{table.path} has no label column: only {', '.join(table.columns)}")
    named = [choose(name, others, f"task (column of {table.path.name})") for name in tasks]
    columns = {name: _labels(table, name) for name in named or others}
    names = _given_splits(table) if has_splits else [held_out(file) for file in files]
    cells = [{"bytes": None, "path": str(base / file)} for file in files]
    return table_splits(str(table.path), image_column, cells, columns, names)


def table_splits(
    source: str,
    image_column: str,
    cells: Sequence[dict[str, Any]],
    columns: dict[str, tuple[list[str] | None, list[int | None]]],
    names: Sequence[str],
) -> dict[str, Split]:
    """Splits made of rows in memory.

    Args:
        source: what messages call it.
        image_column: its name.
        cells: image cells as Hugging Face has them, N of them.
        columns: for each label column the names of its classes (None: no and yes) and N places among them, None where missing.
        names: split of each row.
    """
    import datasets

    check_text(source, [image_column, *columns, *(cell["path"] or "" for cell in cells)])
    features: dict[str, Any] = {image_column: datasets.Image(decode=False)}
    for name, (classes, _) in columns.items():
        check_text(source, classes or ())
        features[name] = datasets.Value("int64") if classes is None else datasets.ClassLabel(names=classes)
    rows = {name: [row for row, own in enumerate(names) if own == name] for name in dict.fromkeys(SPLITS.values())}
    splits = {}
    for name, own in rows.items():
        if own:
            taken: dict[str, list[Any]] = {image_column: [cells[row] for row in own]}
            taken |= {column: [values[row] for row in own] for column, (_, values) in columns.items()}
            made = datasets.Dataset.from_dict(taken, features=datasets.Features(features))
            splits[name] = Split(source, name, made, image_column)
    return splits


def check_text(source: str, names: Iterable[str]) -> None:
    """Raise InputError for a name that is no text: file systems take any bytes, tables only UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{source}: {brief(name)} is not text in UTF-8; rename it") from error


def held_out(file: str) -> str:
    """Split of an image by its path relative to the folder: test with probability TEST_SHARE, else train.

    >>> sum(held_out(f"{number}.png") == "test" for number in range(1000))
    203
    """
    number = int.from_bytes(hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return "test" if number < TEST_SHARE * 2**64 else "train"


# ---- files -> cells ----


def _read_text(path: Path, separator: str) -> LabelTable:
    rows: list[tuple[int, list[str]]] = []
    cells = 0
    try:
        check_regular(path, MAX_TABLE)
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append((reader.line_num, row))
                    cells += len(row)
                    _check_size(len(rows), cells)
    except UnicodeDecodeError as error:
        raise InputError(f"labels file {path} is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise InputError(f"labels file {path} cannot be read as a table: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"labels file {path} cannot be read: {reason}") from error
    if not rows:
        raise InputError(f"labels file {path} is empty")
    header = [name.strip() for name in rows[0][1]]
    if any(not name.isprintable() for name in header):
        raise InputError(f"labels file {path} is not a table: its first line holds control characters")
    if len(header) == 1 and (other := next((mark for mark in ";\t|," if mark in header[0]), None)):
        raise InputError(
            f"labels file {path} has one column, {brief(header[0])}; cells seem to be separated by {other!r}, expected "
            f"{separator!r} in a {path.suffix} file"
        )
    _check_header(header, path)
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"labels file {path}, line {line}: {len(row)} cells, expected {len(header)}")
    columns: dict[str, list[str | None]] = {
        name: [_text(row[place]) for _, row in rows[1:]] for place, name in enumerate(header) if name
    }
    return LabelTable(path, columns, [f"line {line}" for line, _ in rows[1:]])


def _read_parquet(path: Path) -> LabelTable:
    import pyarrow.parquet as pq

    try:
        check_regular(path, MAX_TABLE)
        with open(path, "rb") as handle:
            file = pq.ParquetFile(handle)
            schema, about = file.schema_arrow, file.metadata
            _check_size(about.num_rows, about.num_rows * max(1, about.num_columns))
            claimed = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
            if claimed > MAX_TABLE:
                raise ValueError(f"it claims {claimed} bytes, at most {MAX_TABLE} are read")
            _check_header(schema.names, path)
            # The index that pandas writes is left out.
            names = [name for name in schema.names if name and not re.fullmatch(r"__index_level_\d+__", name)]
            for name in names:
                _check_type(schema.field(name).type, name, path)
            # Equal texts stay one text: a long one on every row would not fit into memory as often as it is there.
            texts = [name for name in names if _is_text(schema.field(name).type)]
            columns: dict[str, list[str | None]] = {name: [] for name in names}
            for batch in pq.ParquetFile(handle, read_dictionary=texts).iter_batches(_BATCH, columns=names):
                for name in names:
                    columns[name] += _cells(batch.column(name), name, path)
            if any(len(cells) != about.num_rows for cells in columns.values()):
                raise ValueError("it holds fewer rows than it says")
    except InputError:
        raise
    except Exception as error:  # pyarrow raises several kinds, OSError among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"labels file {path} cannot be read as parquet: {reason}") from error
    return LabelTable(path, columns, [f"row {row}" for row in range(1, about.num_rows + 1)])


def _check_size(rows: int, cells: int) -> None:
    if rows > MAX_ROWS or cells > MAX_CELLS:
        raise ValueError(f"it has more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells, which is the limit")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _check_type(kind: Any, column: str, path: Path) -> None:
    """Raise InputError for a column whose cells are no labels, before any of them is read."""
    import pyarrow as pa

    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise _no_labels(str(kind), column, path)
    if pa.types.is_fixed_size_binary(kind):  # of any size that it claims
        raise _no_labels(str(kind), column, path)


def _cells(values: Any, column: str, path: Path) -> list[str | None]:
    """Cells of a column of a parquet file, or of a part of it, as a csv file would hold them."""
    import pyarrow as pa

    if not pa.types.is_dictionary(values.type):
        return [_cell(value, column, path) for value in values.to_pylist()]
    known = [_cell(value, column, path) for value in values.dictionary.to_pylist()]
    return [None if place is None else known[place] for place in values.indices.to_pylist()]


def _check_header(header: Sequence[str], path: Path) -> None:
    if twice := [name for name in dict.fromkeys(header) if name and list(header).count(name) > 1]:
        raise InputError(f"labels file {path} has several columns named {twice[0]!r}; names must differ")
    if not any(header):
        raise InputError(f"labels file {path} is not a table with named columns: its first line names none")


def _text(cell: str) -> str | None:
    """A cell of a text file: None if it is empty; whole numbers in one spelling ("1.0" is what pandas makes of 1)."""
    text = cell.strip()
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text) or None


def _cell(value: Any, column: str, path: Path) -> str | None:
    """A value of a parquet file as the text a csv file would hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (bool, int, float, str)):
        return _text(str(value))
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    raise _no_labels(type(value).__name__, column, path)


def _no_labels(found: str, column: str, path: Path) -> InputError:
    kind = re.split(r"[<\[(]", found)[0]
    return InputError(f"column {column!r} of {path} holds {kind}, expected one label (number or text) a row")


# ---- cells -> images, labels, splits ----


def _image_column(table: LabelTable, base: Path, given: str | None) -> str:
    if given is not None:
        return choose(given, table.columns, "image column")
    found = [
        name
        for name, cells in table.columns.items()
        if any((base / cell).is_file() for cell in [cell for cell in cells if cell][:_TRIED] if _is_name(cell))
    ]
    # Where no file is found at all, a telling name lets the message say which are missing.
    found = found or [name for name in table.columns if name.lower() in PATH_NAMES][:1]
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns ({', '.join(found)})"
        raise InputError(
            f"{table.path} has {what} of paths to files in {base}; name the one with --image-column, of "
            f"{', '.join(table.columns)}"
        )
    return found[0]


def _is_name(cell: str) -> bool:
    """Whether the system can be asked for a file of this name."""
    return "\0" not in cell and all(len(os.fsencode(part)) < 256 for part in cell.split("/")) and len(cell) < 2048


def _files(table: LabelTable, base: Path, column: str) -> list[str]:
    """Path of each row's image relative to the folder."""
    files: list[str] = []
    first_line: dict[str, str] = {}
    missing: list[tuple[str, str]] = []
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        where = f"{table.path}, {line}"
        if cell is None:
            raise InputError(f"{where}: column {column!r} is empty, expected the path of an image")
        relative = os.path.relpath(os.path.normpath(base / cell), base) if "\0" not in cell else cell
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise InputError(f"{where}: {brief(cell)} is outside the folder {base}")
        if relative in first_line:
            raise InputError(f"{where}: image {brief(cell)} is there twice, also on {first_line[relative]}")
        first_line[relative] = line
        if not _is_name(cell) or not (base / relative).is_file():
            missing.append((where, cell))
        files.append(Path(relative).as_posix())
    if missing:
        where, cell = missing[0]
        raise InputError(f"{len(missing)} of {len(files)} images are not in {base}; first {brief(cell)} ({where})")
    return files


def _labels(table: LabelTable, column: str) -> tuple[list[str] | None, list[int | None]]:
    """Names of a column's classes (None: no and yes), and each row's place among them."""
    cells = table.columns[column]
    values = {cell for cell in cells if cell is not None}
    if not values:
        raise InputError(f"column {column!r} of {table.path} has no labels: every cell is missing")
    words = {value: value.lower() for value in values}
    if set(words.values()) <= _YES | _NO:
        if {"0", "-1"} <= values:
            raise InputError(
                f"column {column!r} of {table.path} holds both 0 and -1, so that -1 may mean no or missing; missing labels "
                "are empty cells"
            )
        return None, [None if cell is None else int(words[cell] in _YES) for cell in cells]
    numbers = [_number(value) for value in values]
    if all(number is not None for number in numbers):
        for line, value in zip(table.lines, cells, strict=True):
            if value is not None and not re.fullmatch(r"\+?\d{1,4000}", value):  # Python reads 4300 digits
                unclear = re.fullmatch(r"-\d+|[+-]?nan", value.lower())
                expected = "missing labels are empty cells" if unclear else "expected classes"
                raise InputError(
                    f"column {column!r} of {table.path} holds numbers that are no classes, first {value[:60]} ({line}); "
                    f"{expected}; --task names the columns to learn"
                )
        classes = sorted(values, key=lambda value: (int(value), value))
    else:
        classes = sorted(values)
    places = {name: place for place, name in enumerate(classes)}
    return classes, [None if cell is None else places[cell] for cell in cells]


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _given_splits(table: LabelTable) -> list[str]:
    names = []
    for line, cell in zip(table.lines, table.columns[SPLIT_COLUMN], strict=True):
        name = SPLITS.get((cell or "").lower())
        if name is None:
            raise InputError(
                f"{table.path}, {line}: split {brief(cell or '')} is unknown, expected train, test or validation "
                f"(a label of this name: --task {SPLIT_COLUMN})"
            )
        names.append(name)
    return names
