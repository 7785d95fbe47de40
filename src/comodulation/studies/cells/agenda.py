"""What the engine does in a folder: stages in order of importance, and how a search and a cell of them are done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runs import RunConfig, Written
from ...training import Progress
from .laboratory import Laboratory
from .rows import Cell, Row

CELLS, SEARCH, FIGURES = "cells", "search", "figures"


@dataclass(frozen=True)
class Manifest:
    """The file that says what a folder is of: the first one in it.

    Attributes:
        name: of the file. what: a folder that has it, in words.
        content: as JSON. free: its keys that may change while a folder grows, its finished cells staying what they are.
        form: what such a file holds at least, before it is compared with this content.
        derived: names of files that the engine makes from others.
    """

    name: str
    what: str
    content: dict[str, Any]
    free: tuple[str, ...]
    form: type[Written]
    derived: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Cells that are worth about the same, in the order in which they run, after the searches that they need."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Besides:
    """A stage of other work, on what the stages before it have left in the folder.

    Attributes:
        name: of the stage.
        todo: what is left to do, as pieces for so many workers, each picklable.
        do: a piece, in a laboratory; yields a line for whatever is finished. Both functions of a module, which can be sent.
    """

    name: str
    todo: Callable[[Any, Path, int], Sequence[Any]]
    do: Callable[[Any, Laboratory, Path, Any], Iterator[str]]


def stage(name: str, labels: Sequence[str], seeds: Sequence[int]) -> Stage:
    """Rows of some seeds, residual and open; all rows of a seed before the next, so that a process keeps its layers."""
    return Stage(name, tuple(Cell("residual", "open", Row.parse(label), seed) for seed in seeds for label in labels))


class Agenda(ABC):
    """A study as the engine sees it; picklable, and the same in every process.

    Attributes:
        config: what all cells share. trials: of each search.
    """

    config: RunConfig
    trials: int

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """What the folder is of."""

    @abstractmethod
    def stages(self) -> list[Stage | Besides]:
        """Everything to do, in order."""

    @property
    def cells(self) -> list[Cell]:
        """The cells of all stages."""
        return [cell for one in self.stages() if isinstance(one, Stage) for cell in one.cells]

    @abstractmethod
    def laboratory(self, cache: Path, tell: Progress | None = None, engine: str = "auto") -> Laboratory:
        """Where cells are trained. Raises InputError for data that are not what the study needs."""

    @abstractmethod
    def search_of(self, cell: Cell) -> Cell:
        """The search whose settings a cell takes that has something to learn."""

    @abstractmethod
    def tried(self, out: Path, search: Cell) -> int:
        """Number of a search's finished trials."""

    @abstractmethod
    def search(self, laboratory: Laboratory, search: Cell, out: Path) -> Iterator[int]:
        """Run the trials of a search that are missing, one by one; yields how many are finished after each."""

    def searched(self, out: Path) -> None:  # noqa: B027 (not every study keeps anything then)
        """Called when the searches of a stage are over."""

    @abstractmethod
    def settings(self, laboratory: Laboratory, cell: Cell, out: Path) -> dict[str, Any]:
        """Settings of a cell, by what its search has found."""

    @abstractmethod
    def measure(self, laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Train and test a cell, and write what it keeps besides its numbers, which are returned, into a folder."""
