"""A list of pictures on the disk, in the order of their names, in parts that can be read alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...files import replacing
from ..asked import pictures_in

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
