"""Texts as inputs: a column of a table, or lines of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import BadInputError, InputError, refusing
from ..files import read_bounded

MAX_FILE = 2**31  # bytes of a file of lines


@dataclass(frozen=True)
class Texts:
    """Inputs that are texts.

    Attributes:
        values: the texts as they are written, N of them; None where missing.
        ids: what the data call each, where they say.
    """

    values: tuple[str | None, ...]
    ids: tuple[str | None, ...] = ()
    what = "text"

    def __len__(self) -> int:
        return len(self.values)

    def read(self, row: int, where: str) -> str:
        """One text. Raises BadInputError where it is missing, or nothing but blanks."""
        text = self.values[row]
        if text is None or not text.strip():
            raise BadInputError(f"{where} is missing: the cell is empty")
        return text

    def length(self, row: int) -> int:
        """Its characters."""
        return len(self.values[row] or "")

    def usable(self) -> list[str]:
        """Those that can be read."""
        return [value for value in self.values if value and value.strip()]

    def take(self, rows: Sequence[int]) -> Texts:
        """Some of them."""
        ids = tuple(self.ids[row] for row in rows) if self.ids else ()
        return Texts(tuple(self.values[row] for row in rows), ids)

    def identities(self) -> list[str]:
        """Of each a text that is its own: equal ones are in one split, whatever rows are added."""
        return [value or "" for value in self.values]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the texts in order."""
        digest = hashlib.sha256(b"texts")
        for value in self.values:
            content = (value or "").encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()


def texts_in(path: Path) -> Texts:
    """The lines of a file as texts, without those that are blank. Raises InputError for a file that is no text in UTF-8."""
    if path.suffix.lower() not in ("", ".txt"):
        raise InputError(
            f"{path} is no file of texts that can be read: expected a table with their column, or .txt with one text on each line"
        )
    with refusing(f"{path} cannot be read", OSError, ValueError):
        content = read_bounded(path, MAX_FILE)
    try:
        whole = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}); expected one text on each line, or a table"
        ) from error
    lines = [line for line in whole.split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty, expected one text on each line")
    return Texts(tuple(line.removesuffix("\r") for line in lines))
