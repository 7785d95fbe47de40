"""What a long job tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

from .training import Epoch


class Progress(Protocol):
    """What a fit tells whoever watches it."""

    def message(self, text: str) -> None: ...
    def extraction(self, split: str, done: int, total: int) -> None: ...
    def epoch(self, phase: str, epoch: Epoch) -> None: ...


class Silent:
    """Progress for no one."""

    def message(self, text: str) -> None: ...
    def extraction(self, split: str, done: int, total: int) -> None: ...
    def epoch(self, phase: str, epoch: Epoch) -> None: ...
