"""The column of a table that says which image each row is for: by paths relative to a folder, or by names of the images in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, brief, choose
from .folder_files import NamedImages
from .label_files import LabelTable, read_label_table

PATH_NAMES = ("image", "file_name", "filename", "file", "path")  # what an image column is called when no file is there
_TRIED = 100  # different cells of a column that are looked for as files


@dataclass(frozen=True)
class ImageColumn:
    """A table's column of images.

    Attributes:
        name: of the column.
        base: folder that its paths are relative to. known: the images in it.
        by_name: whether cells may be names of these, without suffix or folder, besides paths.
    """

    name: str
    base: Path
    known: NamedImages
    by_name: bool

    def named(self, cell: str, where: str) -> str | None:
        """Path of the image that a cell names, if it does. Raises InputError where it may be two."""
        found = self.known.files(cell) if self.by_name else []
        if len(found) > 1:
            raise InputError(f"{where}: {brief(cell)} may be {found[0]} or {found[1]} in {self.base}; give paths")
        return found[0] if found else None

    def find(self, cell: str, where: str) -> tuple[str, bool]:
        """Path of the image that a cell is for, relative to the folder, and whether it is there.

        Raises:
            InputError: it would be outside the folder, or may be one of two.
        """
        path = os.path.relpath(os.path.normpath(self.base / cell), self.base) if "\0" not in cell else cell
        if path == os.pardir or path.startswith(os.pardir + os.sep):
            raise InputError(f"{where}: {brief(cell)} is outside the folder {self.base}")
        path = self.named(cell, where) or path
        if _is_name(cell) and (self.base / path).is_file():
            return path, True
        spelled = None if cell.isascii() else self.known.spelling(path)
        return spelled or path, spelled is not None


def find_image_column(
    table: LabelTable, base: Path, given: str | None, advice: str = "name the one with --set image_column=NAME, of"
) -> ImageColumn:
    """The column of images: of paths, or else of names of the images below the folder."""
    columns = {given: table.columns[choose(given, table.columns, "image column")]} if given else table.columns
    tried = {name: [cell for cell in dict.fromkeys(cells) if cell][:_TRIED] for name, cells in columns.items()}
    found = [name for name, cells in tried.items() if any(_is_name(cell) and (base / cell).is_file() for cell in cells)]
    known = NamedImages(base)
    if len(found) == 1:
        return ImageColumn(found[0], base, known, by_name=False)
    # Where no file is found at all, a telling name lets the message say which are missing. Elsewhere names of images stand for
    # one row each, which numbers that happen to be names of images (an age, a sender) seldom do.
    telling = [name for name in columns if name == given or name.lower() in PATH_NAMES][:1]
    single = [name for name, cells in columns.items() if len(set(cells)) == len(cells)]
    found = found or telling or [name for name in single if any(known.files(cell) for cell in tried[name])]
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns ({', '.join(found)})"
        raise InputError(
            f"{table.path} has {what} of paths to files in {base}{known.example()}; {advice} {', '.join(table.columns)}"
        )
    return ImageColumn(found[0], base, known, by_name=True)


def _is_name(cell: str) -> bool:
    """Whether the system can be asked for a file of this name."""
    return "\0" not in cell and all(len(os.fsencode(part)) < 256 for part in cell.split("/")) and len(cell) < 2048


def image_files(table: LabelTable, images: ImageColumn, skip_missing: bool) -> tuple[list[str | None], list[str]]:
    """Path of each row's image relative to the folder, None where the cell is empty; and what to say of them."""
    files: list[str | None] = []
    lines: dict[str, str] = {}  # of each file, where it is listed
    missing: list[tuple[str, str]] = []  # place and cell
    by_name: list[tuple[str, str]] = []  # cell and file
    for line, cell in zip(table.lines, table.columns[images.name], strict=True):
        where = f"{table.path}, {line}"
        if cell is None:
            if not skip_missing:
                raise InputError(f"{where}: column {images.name!r} is empty, expected the path of an image")
            files.append(None)
            missing.append((where, ""))
            continue
        file, there = images.find(cell, where)
        if file in lines:
            raise InputError(f"{where}: image {brief(cell)} is listed twice, also on {lines[file]}")
        lines[file] = line
        files.append(file)
        if not there:
            missing.append((where, cell))
        if images.named(cell, where) == file != os.path.normpath(cell):
            by_name.append((cell, file))
    return files, [*_by_name_note(images, by_name), *_missing_note(images, missing, len(files), skip_missing)]


def _by_name_note(images: ImageColumn, by_name: Sequence[tuple[str, str]]) -> list[str]:
    if not by_name:
        return []
    cell, file = by_name[0]
    return [
        f"column {images.name!r} names {len(by_name)} images without their folder or suffix: {brief(file)} in {images.base} for "
        f"{brief(cell)}"
    ]


def _missing_note(images: ImageColumn, missing: Sequence[tuple[str, str]], rows: int, skip_missing: bool) -> list[str]:
    """A sentence on rows without their images. Raises InputError for them, unless they are skipped and others are there."""
    if not missing:
        return []
    where, cell = missing[0]
    there = rows > len(missing)
    if not (skip_missing and there):
        more = "; --skip-bad leaves their rows out" if there else images.known.example()
        raise InputError(
            f"{len(missing)} of {rows} images are not in {images.base}; first {brief(cell)} ({where}){more}"
        )
    return [
        f"{len(missing)} of {rows} rows are left out: their images are not in {images.base}, first {brief(cell)} ({where})"
    ]


def pictures_of_table(path: Path) -> Iterator[Path]:
    """The pictures that a table names, row by row, whether they are there or not.

    Args:
        path: of the table. The paths in its column of pictures are relative to its folder; names without suffix or without folder
            are read where each belongs to one picture only.

    Raises:
        InputError: a table that cannot be read, without one column of pictures, or with a cell that is none.
    """
    base, table = Path(os.path.abspath(path.parent)), read_label_table(path)
    images = find_image_column(table, base, None, "expected one, among")
    for line, cell in zip(table.lines, table.columns[images.name], strict=True):
        if cell is None or not _is_name(cell):
            raise InputError(
                f"{path}, {line}: column {images.name!r} holds {brief(cell or '')}, expected the path of an image"
            )
        yield base / (images.named(cell, f"{path}, {line}") or cell)
