"""A file of labels, csv, tsv, parquet, arrow or xlsx -> its cells as text, the same in all; bounded, and never unpickled."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, refusing
from ..files import check_regular
from .label_lists import Labels, lists_of_texts, lists_of_values
from .labels import label_word
from .spreadsheets import SUFFIXES as SHEETS
from .spreadsheets import read_sheet
from .vectors import arrow_table, is_list

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ARROW = (".arrow", ".feather")
TABLES = (*SEPARATORS, ".parquet", *ARROW, *SHEETS)
_OTHERS = (";", "\t", "|", ",")  # what else stands between cells; ";" where numbers have a comma
_TRIED = 2**16  # characters of a file that are looked at to find out
# A small file can claim to hold more than there is memory for: a run of equal cells takes a few bytes of parquet.
MAX_TABLE, MAX_ROWS, MAX_CELLS = 2**30, 2**24, 2**27  # bytes, rows, cells
MAX_INPUTS = 2**40  # bytes of a file that holds texts or embeddings, too

_BATCH = 65_536  # rows of a parquet file that are read at once
_EXPECTED = "expected .csv, .tsv, .parquet or .xlsx"
_DECIMAL = re.compile(r"\s*[+-]?\d+(,\d+)?\s*")


@dataclass(frozen=True)
class LabelTable:
    """Cells as text, None where missing.

    Attributes:
        path: of the file.
        columns: cells by column, each N of them.
        lines: where each row is in the file, for messages: "line 3" or "row 2".
        unread: columns whose cells are no labels, and what they are.
        lists: columns whose cells hold several labels each: of each cell a set, None where missing.
        notes: how the file was read, where that was not plain; a sentence each, for the user.
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[str]
    unread: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[Labels]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_table(name: str) -> bool:
    """Whether a name is that of a file that can be a table of labels."""
    return Path(name).suffix.lower() in TABLES


def read_label_table(path: Path, inputs: str | None = None, *, least: int | None = None) -> LabelTable:
    """Read a csv, tsv, parquet, arrow or xlsx file.

    Args:
        path: of the file.
        inputs: a column that holds no labels but texts, whose cells stay as they are written.
        least: of a text or a sheet, rows of which every cell is empty count as rows, because their places say what they stand for;
            but of those at its end only so many that there are ``least`` rows. None: such a row is none. A blank line never is.

    Raises:
        InputError: a file that is absent, none of these, damaged or without rows; xlsx without the package openpyxl.
    """
    if not path.exists():
        raise InputError(f"no such labels file: {path}")
    if path.is_dir():
        raise InputError(f"labels {str(path)!r} is a folder, {_EXPECTED}")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path, inputs)
    elif suffix in ARROW:
        table = _read_arrow(path, inputs)
    elif suffix in SHEETS:
        table = _read_excel(path, inputs, least)
    elif suffix in SEPARATORS:
        table = _read_text(path, SEPARATORS[suffix], inputs, least)
    else:
        advice = "; save it as .xlsx" if suffix in (".xls", ".xlsb", ".ods", ".numbers") else ""
        raise InputError(f"labels file {str(path)!r} is not a table that can be read: {_EXPECTED}{advice}")
    if not table.lines:
        raise InputError(f"labels file {path} is empty: it has no rows")
    labels = {name: cells for name, cells in table.columns.items() if name != inputs}
    texts = {name: found for name, cells in labels.items() if (found := lists_of_texts(cells)) is not None}
    return replace(table, lists={**texts, **table.lists})


def encoding_of(path: Path) -> str:
    """UTF-8, or UTF-16 where the file begins with its byte order mark, as tables that spreadsheets write as text do."""
    with open(path, "rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def separator_of(path: Path, usual: str) -> str:
    """What separates the cells of a text: what its suffix says, or what makes a table of its first rows where that does not.

    Raises:
        UnicodeDecodeError, OSError: it cannot be read.
    """
    with open(path, encoding=encoding_of(path), newline="") as file:
        text = file.read(_TRIED)
        whole = not file.read(1)
    widths = {mark: _width(text, mark, whole) for mark in (usual, *_OTHERS)}
    best = max(widths, key=widths.__getitem__)
    return best if widths[usual] < 2 <= widths[best] else usual


def _width(text: str, separator: str, whole: bool) -> int:
    """How many cells the rows of a text have, of which the last may be cut; 0 where they differ or there are none."""
    try:
        rows = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=separator) if row]
    except csv.Error:
        return 0
    widths = {len(row) for row in (rows if whole else rows[:-1])}
    return widths.pop() if len(widths) == 1 else 0


def _read_text(path: Path, usual: str, inputs: str | None, least: int | None) -> LabelTable:
    with refusing(f"labels file {path} cannot be read", OSError, ValueError):
        check_regular(path, MAX_TABLE)
        try:
            separator = separator_of(path, usual)
            rows = _rows_of_text(path, separator, least)
        except UnicodeDecodeError as error:
            raise InputError(
                f"labels file {path} is not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, or as .xlsx"
            ) from error
        except csv.Error as error:
            raise InputError(f"labels file {path} cannot be read as a table: {error}") from error
    if not rows:
        raise InputError(f"labels file {path} is empty")
    (_, first), *rows = rows
    header = [name.strip() for name in first]
    _check_text_header(header, path)
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"labels file {path}, line {line}: {len(row)} cells, expected {len(header)}")
    columns: dict[str, list[str | None]] = {}
    for place, name in enumerate(header):
        if name:
            texts = [row[place] for _, row in rows]
            columns[name] = [text or None for text in texts] if name == inputs else _words_of_text(texts, separator)
    notes = () if separator == usual else (f"{path}: cells are separated by {separator!r}",)
    return LabelTable(path, columns, [f"line {line}" for line, _ in rows], notes=notes)


def _rows_of_text(path: Path, separator: str, least: int | None) -> list[tuple[int, list[str]]]:
    """Number of the line, and cells, of each row that is not empty, or stands for something; see ``read_label_table``."""
    rows: list[tuple[int, list[str]]] = []
    cells = 0
    with open(path, encoding=encoding_of(path), newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        for row in reader:
            placed = least is not None and rows and len(row) == len(rows[0][1])  # a blank line has no cell
            if placed or any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
                cells += len(row)
                _check_size(len(rows), cells)
    while least is not None and len(rows) - 1 > least and len(rows[-1][1]) > 1 and not any(map(str.strip, rows[-1][1])):
        rows.pop()  # spreadsheets write such rows at the end; an empty cell alone was written on purpose
    return rows


def _check_text_header(header: Sequence[str], path: Path) -> None:
    if any(not name.isprintable() for name in header):
        raise InputError(f"labels file {path} is not a table: its first line holds control characters")
    if len(header) == 1 and (other := next((mark for mark in _OTHERS if mark in header[0]), None)):
        raise InputError(
            f"labels file {path} has one column, {brief(header[0])}; cells seem to be separated by {other!r}, but its rows have "
            "different numbers of them"
        )
    _check_header(header, path)


def _words_of_text(texts: Sequence[str], separator: str) -> list[str | None]:
    """Cells of a column as labels; where ";" separates them, all of its numbers may have a comma."""
    if separator == ";" and all(_DECIMAL.fullmatch(text) or not text.strip() for text in texts):
        texts = [text.replace(",", ".") for text in texts]
    return [label_word(text) for text in texts]


def _read_excel(path: Path, inputs: str | None, least: int | None) -> LabelTable:
    sheet = read_sheet(path, least)
    if not sheet.rows:
        raise InputError(f"labels file {path} is empty")
    (_, first), *rows = sheet.rows
    header = [label_word(value) or "" for value in first]
    _check_header(header, path)
    unread = {header[place]: what for place, what in sheet.unread.items() if header[place]}
    columns = {
        name: [_word(row[place], name == inputs) for _, row in rows]
        for place, name in enumerate(header)
        if name and name not in unread
    }
    others = ", ".join(map(repr, sheet.others))
    notes = (f"{path}: the sheet {sheet.name!r} is read, and not {others}",) if others else ()
    return LabelTable(path, columns, [f"row {number}" for number, _ in rows], unread, notes=notes)


def _read_parquet(path: Path, inputs: str | None) -> LabelTable:
    import pyarrow.parquet as pq

    with refusing(f"labels file {path} cannot be read as parquet", Exception):  # pyarrow raises several kinds
        check_regular(path, MAX_INPUTS)
        with open(path, "rb") as handle:
            file = pq.ParquetFile(handle)
            schema, about = file.schema_arrow, file.metadata
            names, listed, unread = _columns_of(schema, path, inputs)
            _check_size(about.num_rows, about.num_rows * max(1, len(names)))
            _check_claims(about, {*names, *listed} - {inputs}, listed)
            # Equal texts stay one text: a long one on every row would not fit into memory as often as it is there.
            texts = [name for name in names if is_text(schema.field(name).type)]
            columns: dict[str, list[str | None]] = {name: [] for name in names}
            for batch in pq.ParquetFile(handle, read_dictionary=texts).iter_batches(_BATCH, columns=names):
                for name, own in columns.items():
                    own += _cells(batch.column(name), as_written=name == inputs)
            if any(len(cells) != about.num_rows for cells in columns.values()):
                raise ValueError("it holds fewer rows than it says")
            lists = ((name, pq.ParquetFile(handle).read(columns=[name]).column(0)) for name in listed)
            return _with_lists(path, about.num_rows, columns, unread, lists)


def _read_arrow(path: Path, inputs: str | None) -> LabelTable:
    with refusing(f"labels file {path} cannot be read as arrow", Exception):
        check_regular(path, MAX_INPUTS)
        table = arrow_table(path)
        names, listed, unread = _columns_of(table.schema, path, inputs)
        _check_size(table.num_rows, table.num_rows * max(1, len(names)))
        columns = {
            name: [cell for chunk in table[name].chunks for cell in _cells(chunk, as_written=name == inputs)]
            for name in names
        }
        return _with_lists(path, table.num_rows, columns, unread, ((name, table[name]) for name in listed))


def _with_lists(
    path: Path,
    rows: int,
    columns: dict[str, list[str | None]],
    unread: Mapping[str, str],
    lists: Iterable[tuple[str, Any]],
) -> LabelTable:
    """A table of ``columns`` and of those of the Arrow columns ``lists`` that hold labels."""
    found = {name: cells for name, values in lists if (cells := lists_of_values(values.to_pylist())) is not None}
    unread = {name: kind for name, kind in unread.items() if name not in found}
    return LabelTable(path, columns, [f"row {row}" for row in range(1, rows + 1)], unread, found)


def _columns_of(schema: Any, path: Path, inputs: str | None) -> tuple[list[str], list[str], dict[str, str]]:
    """Columns that may hold labels; those that may hold lists of them; what these and others hold. An index of pandas is none."""
    _check_header(schema.names, path)
    names = [name for name in schema.names if name and not re.fullmatch(r"__index_level_\d+__", name)]
    unread = {name: kind for name in names if (kind := _no_label(schema.field(name).type))}
    listed = [name for name in unread if name != inputs and _holds_lists(schema.field(name).type)]
    return [name for name in names if name not in unread], listed, unread


def _check_claims(about: Any, names: set[str], listed: Sequence[str]) -> None:
    """Raise ValueError for columns that claim more bytes than are read, and for lists of too many values."""
    groups = (about.row_group(number) for number in range(about.num_row_groups))
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    claimed = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in names)
    if claimed > MAX_TABLE:
        raise ValueError(f"it claims {claimed} bytes of labels, at most {MAX_TABLE} are read")
    for name in listed:
        _check_size(0, sum(chunk.num_values for chunk in chunks if chunk.path_in_schema.startswith(f"{name}.")))


def _word(value: Any, as_written: bool) -> str | None:
    """A cell as a label, or as the text that it is."""
    return value if as_written and isinstance(value, str) else label_word(value)


def _check_size(rows: int, cells: int) -> None:
    if rows > MAX_ROWS or cells > MAX_CELLS:
        raise ValueError(f"it has more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells, which is the limit")


def is_text(kind: Any) -> bool:
    """Whether cells of an Arrow type are texts."""
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _no_label(kind: Any) -> str | None:
    """What the cells of a column are, where they are no labels; asked before any of them is read."""
    import pyarrow as pa

    types = pa.types
    plain = is_text(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    others = types.is_temporal(kind) and not types.is_interval(kind)
    if types.is_dictionary(kind):
        return _no_label(kind.value_type)
    if plain or others or types.is_decimal(kind) or types.is_null(kind):
        return None
    return re.split(r"[<\[(]", str(kind))[0]


def _holds_lists(kind: Any) -> bool:
    """Whether the cells of a column are lists of what may be labels."""
    import pyarrow as pa

    if not is_list(kind):
        return False
    own = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    return is_text(own) or pa.types.is_integer(own)


def _cells(values: Any, *, as_written: bool = False) -> list[str | None]:
    """Cells of a column of a parquet file, or of a part of it, as a csv file would hold them; texts as they are written."""
    import pyarrow as pa

    if not pa.types.is_dictionary(values.type):
        return [_word(value, as_written) for value in values.to_pylist()]
    known = [_word(value, as_written) for value in values.dictionary.to_pylist()]
    return [None if place is None else known[place] for place in values.indices.to_pylist()]


def _check_header(header: Sequence[str], path: Path) -> None:
    if twice := next((name for name, number in Counter(header).items() if name and number > 1), None):
        raise InputError(f"labels file {path} has several columns named {twice!r}; names must differ")
    if not any(header):
        raise InputError(f"labels file {path} is not a table with named columns: its first line names none")
