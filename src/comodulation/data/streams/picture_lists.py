"""A list of pictures on the disk, in the order of their names, in parts that can be read alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import InputError
from ...files import replacing
from ..asked import refuse_bucket
from ..folder_files import SUFFIXES
from ..label_files import is_table
from ..tables import pictures_of_table

COLUMN = "image"


def write_picture_list(given: Sequence[Path], path: Path, part: int) -> int:
    """Write the paths of image files, of all images in folders and of those that tables name, and return how many there are.

    Args:
        given: files, folders and tables. path: of the list. part: paths of a row group.

    Raises:
        InputError: a file that is not there, a folder without images or one that cannot be read. RunError: the list cannot be
            written.
    """
    number, some = 0, []
    schema = pa.schema([(COLUMN, pa.binary())])
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for one in pictures_in(given):
            some.append(os.fsencode(one))
            if len(some) == part:
                writer.write_table(pa.table({COLUMN: some}, schema), part)
                number, some = number + len(some), []
        if some:
            writer.write_table(pa.table({COLUMN: some}, schema), part)
    return number + len(some)


def listed_pictures(path: Path, part: int) -> list[Path]:
    """The paths of one part of a list."""
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        return [Path(os.fsdecode(one)) for one in file.read_row_group(part)[COLUMN].to_pylist()]


def pictures_in(given: Sequence[Path]) -> Iterator[Path]:
    """Image files as they are given, all images in folders, and those that tables name, in order.

    Raises:
        InputError: as ``write_picture_list``.
    """
    for path in given:
        refuse_bucket(path)
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"no such image: {path}")
            yield from pictures_of_table(path) if is_table(path.name) else [path]
            continue
        empty = True
        for one in _inside(path):
            empty = False
            yield one
        if empty:
            raise InputError(f"{path} holds no images; expected files that end with {', '.join(SUFFIXES)}")


def _inside(folder: Path) -> Iterator[Path]:
    """As ``images_in`` of a folder, with no more in memory than the names of one folder at a time."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except OSError as error:
        raise InputError(f"cannot list the images in {folder}: {error.strerror or error}") from error
    for name, is_folder in entries:
        if name.startswith((".", "__MACOSX")):
            continue
        path = folder / name
        if is_folder:
            yield from _inside(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
