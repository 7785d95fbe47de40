"""One split of a data set: images that stay encoded until they are asked for, and label columns.

So an image that cannot be read can be named, and opening a data set costs no decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import RunError, choose
from .pictures import DECODING, BadImageError, decode_image

__all__ = ["BadImageError", "Split", "decode_image"]

_HASH_ROWS = 1000


@dataclass(frozen=True)
class Split:
    """One split of a data set: N rows, each with an image and labels.

    Attributes:
        source: what messages call the data set.
        name: train, test, ...
        table: datasets.Dataset with the image column undecoded: bytes, or paths of files.
        image_column: its name.
        folder: what relative paths of images are relative to.
        notes: what of the data was left out, and why; a sentence each, for the user.
    """

    source: str
    name: str
    table: Any
    image_column: str
    folder: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def label_columns(self) -> list[str]:
        return [name for name in self.table.column_names if name != self.image_column]

    def image(self, row: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            BadImageError: missing, truncated or not an image; names source, split, row and file.
            RunError: the system cannot read its file.
        """
        return decode_image(self._cell(self._images[row][self.image_column]), f"{self.source} [{self.name}, row {row}]")

    def column(self, name: str) -> list[Any]:
        """Raw values of a label column. Raises InputError for a column that is not there."""
        return list(self.table[choose(name, self.label_columns, "column")])

    def feature(self, name: str) -> Any:
        """The Hugging Face feature (ClassLabel, Value, ...) of a label column."""
        return self.table.features[choose(name, self.label_columns, "column")]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the image contents in order (files outside the table: path, size and time), and of how they are decoded."""
        digest = hashlib.sha256(f"decoding {DECODING}".encode())
        for cell in map(self._cell, self._image_cells()):
            content = cell.get("bytes") if cell else None
            if content is None and cell and cell.get("path"):
                content = _identity(cell["path"])
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

    def _cell(self, cell: dict[str, Any] | None) -> dict[str, Any] | None:
        """A cell whose path does not depend on where the process stands."""
        if not cell or cell.get("bytes") is not None or not cell.get("path"):
            return cell
        return {**cell, "path": os.path.join(self.folder, cell["path"])}


def _identity(path: str) -> bytes:
    """A file's path, size and time; its path alone where there is no such file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return path.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    return f"{Path(path)} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape")
