"""One split of a data set: images that stay encoded until they are asked for, or other inputs, and label columns.

So an image that cannot be read can be named, and opening a data set costs no decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, RunError, brief, choose
from ..files import user_path
from .pictures import ABSENT, DECODING, BadImageError, decode_image
from .texts import Texts
from .vectors import Vectors

# Until 0.1.0 images were decoded here: who imports that from here goes on to find it.
__all__ = ["ID_COLUMNS", "BadImageError", "Split", "decode_image"]

_HASH_ROWS = 1000
ID_COLUMNS = ("id", "image_id", "file_name", "filename", "file", "path", "name", "key")  # what tables call a row


@dataclass(frozen=True)
class Split:
    """One split of a data set: N rows, each with an input, which is an image unless said otherwise, and labels.

    Attributes:
        source: folder, file or data set id, for messages.
        name: of the split.
        table: ``datasets.Dataset`` with the image column undecoded.
        image_column: its name; "" where the inputs are no images.
        folder: what paths of images are relative to; None where all are absolute.
        left_out: columns of a table of labels that hold no labels, and why not.
        notes: what else of the data was left out, and why; a sentence each, for the user.
        lists: columns with several labels in a cell, and the label columns of no and yes that stand for them.
        inputs: of the rows, where they are no images.
        lines: where each row is in the file that it is of, for messages; none: a row's number in the split says it.
    """

    source: str
    name: str
    table: Any
    image_column: str
    folder: Path | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: Texts | Vectors | None = None
    lines: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def label_columns(self) -> list[str]:
        return [name for name in self.table.column_names if name != self.image_column]

    @property
    def what(self) -> str:
        """What an input is called in messages: ``image``, ``text``, ``embedding``."""
        return "image" if self.inputs is None else self.inputs.what

    def read(self, row: int) -> Any:
        """One input: an RGB image, or what ``Texts.read`` and ``Vectors.read`` give.

        Raises:
            BadInputError: it cannot be used; names source and row.
            RunError: as ``image``.
        """
        if self.inputs is None:
            return self.image(row)
        return self.inputs.read(row, f"{self.what} of {self.where(row)}")

    def length(self, row: int) -> int:
        """How long an input is, where computing takes longer for longer ones; 0 where all are alike."""
        return 0 if self.inputs is None else self.inputs.length(row)

    def select(self, rows: Sequence[int]) -> Split:
        """Some of its rows."""
        inputs = None if self.inputs is None else self.inputs.take(rows)
        lines = tuple(self.lines[row] for row in rows) if self.lines else ()
        return replace(self, table=self.table.select(rows), inputs=inputs, lines=lines)

    def image(self, row: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            BadImageError: missing, truncated or not an image; names source, split, row and file.
            InputError: its path leads out of the folder.
            RunError: the system cannot read its file.
        """
        return decode_image(self._placed(self._images[row][self.image_column]), self.where(row))

    def where(self, row: int) -> str:
        """A row as messages call it."""
        return f"{self.source}, {self.lines[row]}" if self.lines else f"{self.source} [{self.name}, row {row}]"

    def column(self, name: str) -> list[Any]:
        """Raw values of a label column. Raises InputError for a column that is not there."""
        self.feature(name)
        return self._labels.column(name).to_pylist()

    def feature(self, name: str) -> Any:
        """The Hugging Face feature (ClassLabel, Value, ...) of a label column."""
        if name not in self._features:
            choose(name, self.label_columns, "column")
        return self._features[name]

    @cached_property
    def _labels(self) -> Any:
        """The table's rows in Arrow's own memory: `datasets` copies all features for each column it is asked for."""
        labels = self.table.select_columns(self.label_columns)
        labels.set_format("arrow")  # in place: `with_format` would copy all features once more
        return labels[:]

    @cached_property
    def _features(self) -> dict[str, Any]:
        """Features of the label columns by name; the table's own are copied, all of them, each time they are asked for."""
        return {name: feature for name, feature in self.table.features.items() if name != self.image_column}

    def names(self, folder: str | Path) -> list[str | None]:
        """What the data call each row, ``(N,)``: the image's file, within ``folder`` where it lies there; else the row's id, from
        the first column of ``ID_COLUMNS`` that is there; else None."""
        import pyarrow.compute as pc

        ids = next((self.table[name] for name in ID_COLUMNS if name in self.table.column_names), [None] * len(self))
        if self.inputs is not None:
            return list(self.inputs.ids) or [None if own is None else str(own) for own in ids]
        images = self._images.with_format("arrow")
        found: list[str | None] = []
        for start in range(0, len(self), _HASH_ROWS):  # paths alone: the images may be gigabytes
            cells = images[start : start + _HASH_ROWS].column(self.image_column).combine_chunks()
            found += pc.struct_field(cells, "path").to_pylist()
        base = user_path(folder).absolute()
        return [_short(path, base) or (None if own is None else str(own)) for path, own in zip(found, ids, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the inputs in order; of images outside the table their path, size and time, and of all how they are decoded."""
        if self.inputs is not None:
            return self.inputs.fingerprint
        digest = hashlib.sha256(f"decoding {DECODING}".encode())
        for cell in self._image_cells():
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
            yield from map(self._placed, self._images[start : start + _HASH_ROWS][self.image_column])

    def _placed(self, cell: dict[str, Any] | None) -> dict[str, Any] | None:
        """An image cell whose path, where it has no bytes, is the file's wherever the process stands.

        Raises:
            InputError: a relative path of a data set that is no folder, or one that leads out of its folder: not one picture is bad
                then, but the data are not what they seem, whatever is skipped.
        """
        path = (cell or {}).get("path")
        if cell is None or not path or cell.get("bytes") is not None or os.path.isabs(path):
            return cell
        if self.folder is None:
            raise InputError(
                f"{self.source} [{self.name}] holds the relative path {brief(path)}, but no folder is known for it; expected "
                "images in the table, or a folder of data as --data"
            )
        place = os.path.normpath(self.folder / path)
        if not Path(place).is_relative_to(self.folder):
            raise InputError(
                f"{self.source} [{self.name}]: {brief(path)} is outside the folder {self.folder}; give the folder that holds all "
                "images as --data"
            )
        return {**cell, "path": place}


def _short(path: str | None, base: Path) -> str | None:
    """A path as it is within a folder, where it lies there."""
    if not path or not Path(path).is_relative_to(base):
        return path or None
    return Path(path).relative_to(base).as_posix()


def _identity(path: str) -> bytes:
    """A file's path, size and time; its path alone where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in ABSENT:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error
        return path.encode("utf-8", "surrogateescape")
    return f"{Path(path)} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape")
