"""Any Hugging Face dataset, or a folder of parquet files, as splits with images and label columns.

Images stay encoded bytes until they are asked for, so that an unreadable one can be named, and so that opening a data
set costs no decoding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, choose
from ..files import user_path
from ..hub import hub_or_offline

_HASH_ROWS = 1000


class BadImageError(InputError):
    """An image that cannot be read; the message names it."""


@dataclass(frozen=True)
class Split:
    """One split of a data set: N rows, each with an image and labels."""

    source: str
    name: str
    table: Any  # datasets.Dataset with the image column undecoded
    image_column: str

    def __len__(self) -> int:
        return len(self.table)

    @property
    def label_columns(self) -> list[str]:
        return [name for name in self.table.column_names if name != self.image_column]

    def image(self, row: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            BadImageError: missing, truncated or not an image; names source, split, row and file.
        """
        cell = self._images[row][self.image_column]
        return decode_image(cell, f"{self.source} [{self.name}, row {row}]")

    def column(self, name: str) -> list[Any]:
        """Raw values of a label column. Raises InputError for a column that is not there."""
        return list(self.table[choose(name, self.label_columns, "column")])

    def feature(self, name: str) -> Any:
        """The Hugging Face feature (ClassLabel, Value, ...) of a label column."""
        return self.table.features[choose(name, self.label_columns, "column")]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the image contents in order (files outside the table: path, size and time), whatever their place."""
        digest = hashlib.sha256()
        for cell in self._image_cells():
            content = cell.get("bytes") if cell else None
            if content is None and cell and cell.get("path"):
                path = Path(cell["path"])
                stat = path.stat() if path.exists() else None
                content = f"{path} {stat.st_size} {stat.st_mtime_ns}".encode() if stat else str(path).encode()
            digest.update(len(content or b"").to_bytes(8, "little"))
            digest.update(content or b"")
        return digest.hexdigest()

    @cached_property
    def _images(self) -> Any:
        """The images without the labels, which a row of the whole table would be read with."""
        return self.table.select_columns([self.image_column])

    def _image_cells(self) -> Iterator[dict[str, Any] | None]:
        for start in range(0, len(self), _HASH_ROWS):
            yield from self._images[start : start + _HASH_ROWS][self.image_column]


def decode_image(cell: dict[str, Any] | bytes | str | Path | None, where: str) -> Image.Image:
    """Decode encoded bytes, a path, or a Hugging Face image cell to an RGB image; ``where`` names it in errors."""
    if isinstance(cell, dict):
        path = cell.get("path")
        where = f"{where}, {path}" if path else where
        cell = cell.get("bytes") or path
    if cell is None:
        raise BadImageError(f"no image at {where}")
    try:
        with Image.open(io.BytesIO(cell) if isinstance(cell, bytes) else cell, formats=_formats()) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them into
        reason = str(error).split(": <")[0].split(" <")[0] or type(error).__name__
        raise BadImageError(f"unreadable image: {where}: {reason}") from error


@cache
def _formats() -> list[str]:
    """All that Pillow reads by itself: PostScript it would hand to an interpreter, Ghostscript."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def available_splits(source: str) -> list[str]:
    """Names of the splits of a data set, without reading it."""
    import datasets

    _quiet()
    where = _resolve(source)
    try:
        with _reaching(where):
            return [str(name) for name in datasets.get_dataset_split_names(where)]
    except Exception as error:  # the loader raises whatever its file format's reader raises
        known = "" if Path(where).is_dir() else "no such folder; as a data set of the Hugging Face hub: "
        raise InputError(f"cannot read data {source!r}: {known}{_first_line(error)}") from error


def open_split(source: str, split: str, *, image_column: str | None = None) -> Split:
    """Open one split.

    Args:
        source: a folder of parquet files (train-*.parquet, test-*.parquet), or a Hugging Face dataset id.
        split: train, test, ...
        image_column: None finds the one image column.

    Raises:
        InputError: no such folder, data set, split or column, a split without rows, no or several image columns.
    """
    import datasets

    _quiet()
    where = _resolve(source)
    choose(split, available_splits(source), f"split of {source}")
    try:
        with _reaching(where):
            table = datasets.load_dataset(where, split=split)
    except Exception as error:
        # So does `datasets` say that all of a split's files are without rows.
        reason = "it is empty" if "corresponds to no data" in str(error) else _first_line(error)
        raise InputError(f"cannot read split {split!r} of {source!r}: {reason}") from error
    if len(table) == 0:
        raise InputError(f"split {split!r} of {source!r} is empty")
    images = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if image_column is None:
        images = images or [name for name in ("image", "img") if name in table.column_names]
        if len(images) != 1:
            found = f"{len(images)} image columns ({', '.join(images)})" if images else "no image column"
            raise InputError(
                f"{source!r} has {found}; name one with --image-column, of {', '.join(table.column_names)}"
            )
        image_column = images[0]
    else:
        choose(image_column, table.column_names, "image column")
    try:
        table = table.cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:
        raise InputError(f"column {image_column!r} of {source!r} does not hold images: {_first_line(error)}") from error
    return Split(source, split, table, image_column)


def _resolve(source: str) -> str:
    path = user_path(source)
    if path.is_dir():
        return str(path.resolve())
    if path.exists():
        raise InputError(f"data {source!r} is a file; give the folder that holds it, or a Hugging Face dataset id")
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"no such data folder: {source!r}")
    return source


def _reaching(where: str) -> contextlib.AbstractContextManager[None]:
    """What reading a folder (nothing) or a data set of the hub takes."""
    return contextlib.nullcontext() if Path(where).is_dir() else hub_or_offline()


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    text = str(cause).strip() or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _quiet() -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
