"""Progress reports of a long job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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


@dataclass(frozen=True)
class Epoch:
    """What is reported after an epoch: training loss, validation metrics, and the time this and later ones take."""

    number: int
    epochs: int
    loss: float
    validation: dict[str, float]
    seconds: float
    seconds_left: float
