"""Inputs of a split other than images: texts, or vectors that were computed elsewhere.

A split holds its pictures itself (source.py). Other inputs are objects of this shape, which a split is given: all that is asked of
an input, whatever it is, goes through the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Inputs(Protocol):
    """N inputs, one a row.

    Attributes:
        what: one of them is called in messages: ``text``, ``embedding``.
        ids: what the data call each, where they say; else ().
        fingerprint: hash of their contents in order.
    """

    @property
    def what(self) -> str: ...

    @property
    def ids(self) -> tuple[str | None, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, row: int, where: str) -> Any:
        """One input. Raises BadInputError, which begins with ``where``, for one that cannot be used."""

    def length(self, row: int) -> int:
        """How long an input is, where computing takes longer for longer ones; 0 where all are alike."""

    def usable(self) -> list[Any]:
        """Those that can be read, where their lengths differ; else none."""

    def take(self, rows: Sequence[int]) -> Inputs:
        """Some of them."""

    def identities(self) -> list[str]:
        """Of each input a text that is its own: equal ones are in one split, whatever rows are added."""
