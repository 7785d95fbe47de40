"""A table of labels beside a folder of images: csv, tsv or parquet, a path column, a column per task -> splits.

Read as text or as parquet's plain values, never unpickled. Rows go to train and test by the column ``split``, where there is
one; else by a hash of the image's path, so that an image is a test image for every seed and every method, and stays one
when rows are added.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, choose
from ..files import check_regular, user_path
from ..tasks import NO_YES
from .folder_files import SPLITS, NamedImages
from .labels import distinct_words, label_word, means_no_and_yes, places_of
from .source import Split

TEST_SHARE = 0.2  # of the images, where nothing else says which are for testing
SPLIT_COLUMN = "split"
PATH_NAMES = ("image", "file_name", "filename", "file", "path")  # what an image column is called when no file is there
SEPARATORS = {".csv": ",", ".tsv": "\t"}
# A small file can claim to hold more than there is memory for: a run of equal cells takes a few bytes of parquet.
MAX_TABLE, MAX_ROWS, MAX_CELLS = 2**30, 2**24, 2**27  # bytes, rows, cells

_TRIED = 100  # cells of a column that are looked for as files
_BATCH = 65_536  # rows of a parquet file that are read at once


Column = tuple[
    list[str] | None, list[int | None]
]  # names of its classes (None: no and yes), each row's place among them


@dataclass(frozen=True)
class LabelTable:
    """Cells as text, None where missing.

    Attributes:
        path: of the file.
        columns: cells by column, each N of them.
        lines: where each row is in the file, for messages: "line 3" or "row 2".
        unread: columns whose cells are no labels, and what they are.
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[str]
    unread: dict[str, str] = field(default_factory=dict)


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
    labels: str | Path,
    folder: str | Path,
    image_column: str | None = None,
    tasks: Sequence[str] = (),
    *,
    ignore: Sequence[str] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
    skip_missing: bool = False,
) -> dict[str, Split]:
    """The splits of a folder of images and its table of labels.

    Args:
        labels: the table; where there is no such file, one of this name in ``folder``.
        folder: of the images; the table's paths are relative to it. A column of names without suffix or without folder is read
            where each belongs to one image only.
        image_column: the column of paths; None finds it.
        tasks: the label columns; none takes all columns but paths and splits, and leaves out those that hold no labels.
        ignore: columns that are not read, where ``tasks`` names none.
        answers: the answers of tasks that are known, as of a run, by column. Of these columns, those that the table has are
            read, with these answers as their classes.
        skip_missing: keep rows whose image is not there, as rows whose image cannot be read, where other images are there.

    Returns:
        By name ``train`` and, where there are such rows, ``test`` and ``validation``. Label columns are integers 0 and 1 for
        no and yes (0/1, -1/1, false/true, no/yes), else ClassLabels whose classes are those of the whole table. What was left
        out, and why, is each split's ``left_out``.

    Raises:
        InputError: a file, column or cell that is not what it should be; it names the first.
    """
    base = user_path(folder)
    if not base.is_dir():
        raise InputError(f"no such data folder: {folder!r}; with --labels, --data is the folder of the images")
    base = Path(os.path.abspath(base))
    path = user_path(labels)
    table = read_label_table(path if path.exists() or not (base / labels).exists() else base / labels)
    image_column, known = _image_column(table, base, image_column)
    files = _files(table, base, image_column, known, skip_missing)
    has_splits = SPLIT_COLUMN in table.columns and SPLIT_COLUMN not in (answers or tasks)
    skipped = {image_column, *([SPLIT_COLUMN] if has_splits else [])}
    others = dict.fromkeys(name for name in (*table.columns, *table.unread) if name not in skipped)
    if not others:
        raise InputError(f"{table.path} has no label column: only {', '.join(table.columns)}")
    columns, left_out = _label_columns(table, others, tasks, ignore, answers or {})
    dealt_by = [file or line for file, line in zip(files, table.lines, strict=True)]
    names = _given_splits(table) if has_splits else [held_out(name) for name in dealt_by]
    cells = [{"bytes": None, "path": None if file is None else str(base / file)} for file in files]
    return table_splits(str(table.path), image_column, cells, columns, names, left_out)


def table_splits(
    source: str,
    image_column: str,
    cells: Sequence[dict[str, Any]],
    columns: Mapping[str, Column],
    names: Sequence[str],
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Split]:
    """Splits made of rows in memory.

    Args:
        source: what messages call it.
        image_column: its name.
        cells: image cells as Hugging Face has them, N of them.
        columns: for each label column the names of its classes (None: no and yes) and N places among them, None where missing.
        names: split of each row.
        left_out: columns that hold no labels, and why not.
    """
    import datasets
    import pyarrow as pa

    check_text(source, [image_column, *columns, *(cell["path"] or "" for cell in cells)])
    features: dict[str, Any] = {image_column: datasets.Image(decode=False)}
    for name, (classes, _) in columns.items():
        check_text(source, classes or ())
        features[name] = datasets.Value("int64") if classes is None else datasets.ClassLabel(names=classes)
    info = datasets.DatasetInfo(features=datasets.Features(features))
    images = pa.array(cells, features[image_column].pa_type)
    whole = pa.table([images, *(pa.array(values, pa.int64()) for _, values in columns.values())], names=list(features))
    splits = {}
    for name in dict.fromkeys(SPLITS.values()):
        if own := [row for row, split in enumerate(names) if split == name]:
            # Made of the table as it is: `from_dict` looks at all features again for each of them.
            made = datasets.Dataset(whole.take(own), info=info, fingerprint=secrets.token_hex(8))
            splits[name] = Split(source, name, made, image_column, left_out=dict(left_out or {}))
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
        name: [label_word(row[place]) for _, row in rows[1:]] for place, name in enumerate(header) if name
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
            unread = {name: kind for name in names if (kind := _no_label(schema.field(name).type))}
            names = [name for name in names if name not in unread]
            # Equal texts stay one text: a long one on every row would not fit into memory as often as it is there.
            texts = [name for name in names if _is_text(schema.field(name).type)]
            columns: dict[str, list[str | None]] = {name: [] for name in names}
            for batch in pq.ParquetFile(handle, read_dictionary=texts).iter_batches(_BATCH, columns=names):
                for name, own in columns.items():
                    own += _cells(batch.column(name))
            if any(len(cells) != about.num_rows for cells in columns.values()):
                raise ValueError("it holds fewer rows than it says")
    except InputError:
        raise
    except Exception as error:  # pyarrow raises several kinds, OSError among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"labels file {path} cannot be read as parquet: {reason}") from error
    return LabelTable(path, columns, [f"row {row}" for row in range(1, about.num_rows + 1)], unread)


def _check_size(rows: int, cells: int) -> None:
    if rows > MAX_ROWS or cells > MAX_CELLS:
        raise ValueError(f"it has more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells, which is the limit")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _no_label(kind: Any) -> str | None:
    """What the cells of a column are, where they are no labels; asked before any of them is read."""
    import pyarrow as pa

    types = pa.types
    plain = _is_text(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    others = types.is_temporal(kind) and not types.is_interval(kind)
    if types.is_dictionary(kind):
        return _no_label(kind.value_type)
    if plain or others or types.is_decimal(kind) or types.is_null(kind):
        return None
    return re.split(r"[<\[(]", str(kind))[0]


def _cells(values: Any) -> list[str | None]:
    """Cells of a column of a parquet file, or of a part of it, as a csv file would hold them."""
    import pyarrow as pa

    if not pa.types.is_dictionary(values.type):
        return [label_word(value) for value in values.to_pylist()]
    known = [label_word(value) for value in values.dictionary.to_pylist()]
    return [None if place is None else known[place] for place in values.indices.to_pylist()]


def _check_header(header: Sequence[str], path: Path) -> None:
    if twice := [name for name in dict.fromkeys(header) if name and list(header).count(name) > 1]:
        raise InputError(f"labels file {path} has several columns named {twice[0]!r}; names must differ")
    if not any(header):
        raise InputError(f"labels file {path} is not a table with named columns: its first line names none")


# ---- cells -> images, labels, splits ----


def _image_column(table: LabelTable, base: Path, given: str | None) -> tuple[str, NamedImages | None]:
    """The column of images, and the images below the folder by name where its cells are names and not paths."""
    columns = {given: table.columns[choose(given, table.columns, "image column")]} if given else table.columns
    tried = {name: [cell for cell in cells if cell][:_TRIED] for name, cells in columns.items()}
    found = [name for name, cells in tried.items() if any(_is_name(cell) and (base / cell).is_file() for cell in cells)]
    if len(found) == 1:
        return found[0], None
    known = NamedImages(base)
    # Where no file is found at all, a telling name lets the message say which are missing. Elsewhere names of images stand for
    # one row each, which numbers that happen to be names of images (an age, a sender) seldom do.
    telling = [name for name in columns if name == given or name.lower() in PATH_NAMES][:1]
    single = [name for name, cells in columns.items() if len(set(cells)) == len(cells)]
    found = found or telling or [name for name in single if any(known.files(cell) for cell in tried[name])]
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns ({', '.join(found)})"
        raise InputError(
            f"{table.path} has {what} of paths to files in {base}{known.example()}; name the one with --image-column, of "
            f"{', '.join(table.columns)}"
        )
    return found[0], known


def _is_name(cell: str) -> bool:
    """Whether the system can be asked for a file of this name."""
    return "\0" not in cell and all(len(os.fsencode(part)) < 256 for part in cell.split("/")) and len(cell) < 2048


def _files(
    table: LabelTable, base: Path, column: str, known: NamedImages | None, skip_missing: bool
) -> list[str | None]:
    """Path of each row's image relative to the folder; None where the cell is empty."""
    files: list[str | None] = []
    first_line: dict[str, str] = {}
    missing: list[tuple[str, str]] = []
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        where = f"{table.path}, {line}"
        if cell is None:
            if not skip_missing:
                raise InputError(f"{where}: column {column!r} is empty, expected the path of an image")
            files.append(None)
            continue
        relative = os.path.relpath(os.path.normpath(base / cell), base) if "\0" not in cell else cell
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise InputError(f"{where}: {brief(cell)} is outside the folder {base}")
        if known and len(named := known.files(cell)) > 0:
            if len(named) > 1:
                raise InputError(f"{where}: {brief(cell)} may be {named[0]} or {named[1]} in {base}; give paths")
            relative = named[0]
        if relative in first_line:
            raise InputError(f"{where}: image {brief(cell)} is there twice, also on {first_line[relative]}")
        first_line[relative] = line
        if not _is_name(cell) or not (base / relative).is_file():
            missing.append((where, cell))
        files.append(Path(relative).as_posix())
    there = sum(file is not None for file in files) - len(missing)
    if missing and not (skip_missing and there):
        where, cell = missing[0]
        more = "; --skip-bad leaves their rows out" if there else (known or NamedImages(base)).example()
        raise InputError(
            f"{len(missing)} of {len(files)} images are not in {base}; first {brief(cell)} ({where}){more}"
        )
    return files


def _label_columns(
    table: LabelTable,
    others: Mapping[str, None],
    tasks: Sequence[str],
    ignore: Sequence[str],
    answers: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Column], dict[str, str]]:
    """The columns that are asked for, read; and those left out that nobody asked for by name, with what they hold instead."""
    what = f"column of {table.path.name}"
    if answers:
        named = [name for name in answers if name in others] or [choose(name, others, what) for name in answers]
        return {name: _labels(table, name, answers[name]) for name in named}, {}
    if tasks:
        return {name: _labels(table, name) for name in _chosen(tasks, others, f"task ({what})")}, {}
    columns, left_out = {}, {}
    ignored = set(_chosen(ignore, others, what))
    for name in [name for name in others if name not in ignored]:
        try:
            columns[name] = _labels(table, name)
        except InputError as error:
            left_out[name] = str(error)
    if not columns:
        only = next(iter(left_out.values()), f"--ignore leaves none of {', '.join(others)}")
        raise InputError(f"{table.path} has no label column that can be read: {only}")
    return columns, left_out


def _chosen(names: Sequence[str], known: Mapping[str, None], what: str) -> list[str]:
    return [name if name in known else choose(name, known, what) for name in names]


def _labels(table: LabelTable, column: str, answers: Sequence[str] | None = None) -> Column:
    """A column's classes, or the ``answers`` that it is to be read by, and each row's place among them."""
    what = f"column {column!r} of {table.path}"
    if kind := table.unread.get(column):
        advice = "; for several labels an image make a column of no and yes for each of them" if "list" in kind else ""
        raise InputError(f"{what} holds {kind}, expected one label (number or text) a row{advice}")
    words = table.columns[column]
    if answers is None:
        binary = means_no_and_yes({word for word in words if word is not None})
        answers = NO_YES if binary else distinct_words(words, what, table.lines.__getitem__)
    places = places_of(words, answers, what, table.lines.__getitem__)
    return None if tuple(answers) == NO_YES else list(answers), places


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
