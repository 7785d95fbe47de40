"""The first sheet of an .xlsx file as rows of plain values, by openpyxl; bounded, and nothing in it is computed or run."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, refusing
from ..files import check_regular

SUFFIXES = (".xlsx", ".xlsm")
MAX_UNPACKED, MAX_CELLS = 2**26, 2**24  # bytes and cells; openpyxl takes some fifty times as much memory


@dataclass(frozen=True)
class Sheet:
    """Rows, as a rule those that are not empty.

    Attributes:
        rows: of each its number in the sheet, from 1, and its values; numbers, texts, dates, bools, None where empty.
        unread: by the place of a column why it is not read.
        others: names of sheets that are not read.
        name: of the sheet.
    """

    rows: list[tuple[int, tuple[Any, ...]]]
    unread: dict[int, str]
    others: list[str]
    name: str


def read_sheet(path: Path, least: int | None = None) -> Sheet:
    """The first sheet that is not empty.

    Args:
        path: of the file.
        least: which rows without any value there are; see ``read_label_table``.

    Raises:
        InputError: without openpyxl; a file that is none, is damaged or too large; merged cells.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"labels file {path}: .xlsx needs the package openpyxl (pip install 'comodulation[excel]'); or save it as .csv"
        ) from error
    with refusing(
        f"labels file {path} cannot be read as xlsx", Exception
    ):  # openpyxl raises what a damaged file leads it into
        _check_unpacked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and the like, which are not read
            values, sources = openpyxl.load_workbook(path, data_only=True), openpyxl.load_workbook(path)
        sheets = [one for one in values.worksheets if one.max_row > 1 or one["A1"].value is not None]
        sheet = (sheets or values.worksheets)[0]
        if sheet.max_row * sheet.max_column > MAX_CELLS:
            raise ValueError(f"it has more than {MAX_CELLS:,} cells, which is the limit; save it as .csv or .parquet")
        if sheet.merged_cells.ranges:
            raise ValueError(
                f"sheet {sheet.title!r} has merged cells, {min(map(str, sheet.merged_cells.ranges))}; unmerge them"
            )
        unread = _unread(sheet, sources[sheet.title])
        return Sheet(_rows(sheet, least), unread, [one.title for one in sheets[1:]], sheet.title)


def _check_unpacked(path: Path) -> None:
    check_regular(path, MAX_UNPACKED)
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > MAX_UNPACKED:
        raise ValueError(f"it unpacks to {claimed} bytes, at most {MAX_UNPACKED} are read; save it as .csv or .parquet")


def _unread(sheet: Any, formulas: Any) -> dict[int, str]:
    """By the place of a column the first of its errors, or of its formulas that nobody has computed."""
    unread: dict[int, str] = {}
    for row in formulas.iter_rows():
        for place, source in enumerate(row):
            value = sheet.cell(source.row, source.column).value if source.data_type in "ef" else None
            if source.data_type == "e" or (isinstance(value, str) and value.startswith("#")):
                unread.setdefault(place, f"the error {value} in cell {source.coordinate}")
            elif source.data_type == "f" and value is None:
                unread.setdefault(
                    place, f"a formula without a value in cell {source.coordinate} (save the file in a spreadsheet)"
                )
    return unread


def _rows(sheet: Any, least: int | None) -> list[tuple[int, tuple[Any, ...]]]:
    rows: list[tuple[int, tuple[Any, ...]]] = []
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        if any(map(_filled, row)) or (least is not None and rows):
            rows.append((number, row))
    while least is not None and len(rows) - 1 > least and not any(map(_filled, rows[-1][1])):
        rows.pop()
    return rows


def _filled(value: Any) -> bool:
    return value is not None and (not isinstance(value, str) or bool(value.strip()))
