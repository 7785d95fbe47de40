"""A question asked of one data set, as the engine sees it; its finished trials and cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from ...errors import DivergedError, InputError
from ...files import read_json
from ...runs import Written, checked
from ...training import Progress
from .agenda import SEARCH, Agenda, Besides, Manifest, Stage
from .folder import cell_path, is_finished
from .laboratory import Laboratory
from .material import read_material
from .measure import measure_accuracy
from .numbers import Finite, Number, TestedNumbers, check_own
from .rates import at_an_end, next_rate
from .results import Result
from .rows import YARDSTICK, Cell
from .searches import DIVERGED, SEARCH_SEED, read_trials, write_lines
from .study import Inquiry, Question

# A search multiplies and divides the best rate until a neighbour is new: for 0 and infinity none ever is.
Rate = Annotated[float, Field(ge=1e-100, le=1e100)]


class Tried(Written):
    """Parameters of a trial."""

    learning_rate: Rate


class RateTrial(Written):
    """A line of a search for a learning rate."""

    params: Tried
    nll: Number


class Asked(Agenda):
    """A question, and what it is asked of."""

    def __init__(self, question: Question, inquiry: Inquiry) -> None:
        self.question, self.inquiry = question, inquiry
        self.config, self.trials = inquiry.config, inquiry.trials

    @property
    def manifest(self) -> Manifest:
        return self.inquiry.manifest

    def stages(self) -> list[Stage | Besides]:
        """The question's; after the first of them the yardsticks, which take a fit of seconds each."""
        first, *rest = own = self.question.stages(self.inquiry.seeds)
        if not self.question.has_yardstick:
            return [*own]
        cells = [cell for one in own for cell in one.cells]
        yardsticks = dict.fromkeys(Cell(cell.variant, cell.readout, cell.row.yardstick, cell.seed) for cell in cells)
        return [first, Stage("yardstick", tuple(yardsticks)), *rest]

    def laboratory(self, cache: Path, tell: Progress | None = None, engine: str = "auto") -> Laboratory:
        if self.question.make_laboratory is not None:
            laboratory = self.question.make_laboratory(self.inquiry, cache)
            laboratory.tell = tell or laboratory.tell
        else:
            laboratory = Laboratory(read_material("cifar100", self.config, cache), tell, engine)
        if self.config.test_split not in laboratory.material.labelled:
            raise InputError(
                f"{self.config.data!r} has no split {self.config.test_split!r}, whose images a study is tested on"
            )
        return laboratory

    def search_of(self, cell: Cell) -> Cell:
        return search_of(self.question, cell)

    def tried(self, out: Path, search: Cell) -> int:
        return len(tried_rates(out, search))

    def search(self, laboratory: Laboratory, search: Cell, out: Path) -> Iterator[int]:
        while len(tried := tried_rates(out, search)) < self.trials:
            rate = next_rate(tried, self.question.first_rate(search.row))
            settings = {**self._usual(laboratory, search), "learning_rate": rate}
            line: dict[str, Any] = {"params": {"learning_rate": rate}, "diverged": False}
            try:
                _, adapted = laboratory.adapt(search, settings)
                line["nll"] = min(entry["nll"] for entry in adapted.history)
            except DivergedError:
                line |= {"diverged": True, "nll": DIVERGED}
            path = search_path(out, search)
            write_lines(path, [*read_trials(path), line])
            yield len(tried) + 1

    def settings(self, laboratory: Laboratory, cell: Cell, out: Path) -> dict[str, Any]:
        """The usual ones, with the learning rate that the row's search chose where there was one."""
        if cell.row.method == YARDSTICK:
            return {}
        tried = tried_rates(out, self.search_of(cell))
        chosen = {"learning_rate": min(tried, key=lambda rate: tried[rate])} if tried else {}
        return {**self._usual(laboratory, cell), **chosen}

    def _usual(self, laboratory: Laboratory, cell: Cell) -> dict[str, Any]:
        return self.question.settings(cell, self.inquiry, laboratory.material.family.num_tasks)

    def measure(self, laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
        measure = measure_accuracy if cell.row.method == YARDSTICK else self.question.measure
        return measure(laboratory, cell, settings, folder)


def finished(question: Question, inquiry: Inquiry, out: Path) -> list[Result]:
    """Results of the cells that are there, in the order of their worth. Raises InputError for a cell of something else."""
    cells = [cell for cell in Asked(question, inquiry).cells if is_finished(out, cell)]
    return [Result(cell, read_cell(out, cell, question.columns)) for cell in cells]


def read_cell(out: Path, cell: Cell, columns: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of a finished cell. Raises InputError for a file that lacks some or is another cell's.

    Args:
        columns: what comodulation's cells have besides, numbers.
    """
    path = cell_path(out, cell)
    numbers = checked(read_json(path), TestedNumbers, path)
    if columns and cell.row.method == "comodulation":
        measured: dict[str, Any] = dict.fromkeys(columns, (Finite, ...))
        checked(numbers, create_model("Columns", __base__=Written, **measured), path)
    check_own(cell, numbers, path)
    return numbers


def search_of(question: Question, cell: Cell) -> Cell:
    """The search whose rate a cell takes."""
    return Cell(cell.variant, cell.readout, question.searched(cell.row), SEARCH_SEED)


def search_path(out: Path, search: Cell) -> Path:
    return out / SEARCH / f"{search.key}.jsonl"


def tried_rates(out: Path, search: Cell) -> dict[float, float]:
    """Learning rate -> validation NLL of a search's finished trials; infinite where training diverged."""
    path = search_path(out, search)
    found = {}
    for line in read_trials(path):
        checked(line, RateTrial, path)
        found[line["params"]["learning_rate"]] = math.inf if line["diverged"] else line["nll"]
    return found


def rates_at_an_end(question: Question, out: Path, cells: Sequence[Cell]) -> list[str]:
    """Names of rows whose best rate is the smallest or largest that was tried."""
    searches = dict.fromkeys(search_of(question, cell) for cell in cells)
    return [search.row.label for search in searches if (tried := tried_rates(out, search)) and at_an_end(tried)]
