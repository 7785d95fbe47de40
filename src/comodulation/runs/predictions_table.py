"""Files and folders in, a table of answers out: what `predict` reads and writes beside the network."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import SUFFIXES
from ..errors import InputError
from ..files import write_bytes

COLUMNS = ("image", "task", "prediction", "confidence", "error")


def images_in(given: Sequence[Path]) -> list[Path]:
    """Files as they are given, and for a folder all images in it and in its folders, in order of their names.

    Hidden files, what macOS packs beside the files of an archive, and files that are no images by their name are left out.

    Raises:
        InputError: a file that is not there, a folder without images.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"no such image: {path}")
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if _is_image(file, path)]
        if not inside:
            raise InputError(f"{path} holds no images; expected files that end with {', '.join(SUFFIXES)}")
        found += inside
    return found


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


class PredictionsTable:
    """Answers as a table with the columns ``COLUMNS``: a row for each image and task, and one for each image that failed.

    Args:
        path: *.csv or *.parquet, not there yet.

    Raises:
        InputError: another ending, or a file that is there: known before anything is predicted.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(
                f"cannot tell the format of {path.name!r}; expected a name that ends with .csv or .parquet"
            )
        if path.exists():
            raise InputError(f"{path} is there already; remove it or choose another --out")
        if not path.absolute().parent.is_dir():
            raise InputError(f"no such folder: {path.absolute().parent}")
        self.path = path
        self.rows: list[tuple[str, str | None, str | None, float | None, str | None]] = []

    def add(self, result: dict[str, Any]) -> None:
        """The answers for one image, as ``Run.predict`` gives them."""
        for task, answer in result["tasks"].items():
            self.rows.append((_text(result["image"]), task, answer["prediction"], answer["confidence"], None))

    def write(self, bad: Sequence[dict[str, str]]) -> None:
        """Write the file, whole or not at all, with the images that failed at its end.

        Raises:
            RunError: it cannot be written.
        """
        rows = self.rows + [(_text(each["image"]), None, None, None, _text(each["error"])) for each in bad]
        if self.path.suffix == ".csv":
            text = io.StringIO(newline="")
            csv.writer(text).writerows([COLUMNS, *rows])
            write_bytes(self.path, text.getvalue().encode())
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.string())
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, names=list(COLUMNS)), sink)
        write_bytes(self.path, sink.getvalue().to_pybytes())


def _text(name: str) -> str:
    """A file's name as UTF-8 can hold it: what is not UTF-8 in it becomes a question mark."""
    return name.encode("utf-8", "replace").decode()
