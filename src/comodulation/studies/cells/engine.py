"""The engine of studies: searches and cells in order of importance, on several processes, until all is done or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...data.features import Source, extract_in_pieces, settled_engine
from ...errors import DivergedError
from ...files import locked, read_json, remove_partials, writable, write_bytes, write_json
from ...processes import Resources, in_rounds, run
from ...runs import deal_images
from ...training import Progress, Silent
from .agenda import CELLS, FIGURES, SEARCH, Agenda, Besides, Stage
from .clock import Budget, Clock, kind_of
from .folder import (
    LOCK,
    cell_path,
    claim,
    cleared_if_refused,
    diverged_path,
    is_finished,
    is_over,
    write_manifest,
)
from .laboratory import Laboratory
from .rows import Cell
from .searches import FREE

Say = Callable[[str], None]


def run_stages(
    study: Agenda,
    out: Path,
    cache: Path,
    *,
    hours: float | None = None,
    resources: Resources | None = None,
    engine: str = "auto",
    progress: Progress | None = None,
    say: Say | None = None,
) -> list[Cell]:
    """Run what is not finished of a study, as far as the time goes.

    Args:
        study: what is to be done.
        out: folder, new or of the same study.
        cache: folder of features and pretrained layers.
        hours: time budget of this call; None for no end.
        resources: what its pieces of work run on; None: this process.
        engine: of extraction; see ``extract``.
        progress: told of extraction. say: told a line for whatever is finished, with the time left.

    Returns:
        The cells that time did not reach.

    Raises:
        InputError: bad input, found before anything is trained; ``out`` holds something else or is in use.
        RunError: something failed; what is finished stays.
    """
    budget = Budget(None if hours is None else time.time() + 3600 * hours)
    tell, say = progress or Silent(), say or (lambda line: None)
    claim(study, out)
    with writable(cache), writable(out), locked(out / LOCK, wait=False), cleared_if_refused(study.manifest, out):
        claim(study, out)  # again: another process may have begun a study before the lock was ours
        for folder in (out, out / CELLS, out / SEARCH, out / FIGURES):
            remove_partials(folder)
        _begin(study, out, cache, engine, budget, resources or Resources(), tell)
        budget.longest = _seconds_known(study, out)
        works = _Works(study, out, cache, engine, budget, resources or Resources(), say)
        for stage in study.stages():
            if isinstance(stage, Besides):
                works.besides(stage)
            else:
                works.search(stage)
                works.train(stage)
    return [cell for cell in study.cells if not is_over(out, cell)]


def _begin(
    study: Agenda, out: Path, cache: Path, engine: str, budget: Budget, resources: Resources, tell: Progress
) -> None:
    """Everything that may be refused, and what all processes need, before the first of them starts."""
    laboratory = study.laboratory(cache, tell, engine)
    material = laboratory.material
    deal_images(material.config, material.family, material.labelled[material.config.train_split].examples)
    if not budget.over:
        laboratory.encoder  # noqa: B018 (refused before anything is written)
    for name in (CELLS, SEARCH):
        (out / name).mkdir(exist_ok=True)
    write_manifest(study.manifest, out)
    if not budget.over:
        if resources.cluster is not None:
            _extract_together(study, laboratory, out, cache, resources, tell)
        laboratory.features  # noqa: B018 (extracted once, before several processes ask for them)


def _extract_together(
    study: Agenda, laboratory: Laboratory, out: Path, cache: Path, resources: Resources, tell: Progress
) -> None:
    """Have the nodes of a cluster extract what this process then finds in the cache."""
    source = laboratory.source()
    if source is None:
        return
    device = "cuda" if resources.gpus else "cpu"
    engines = {
        name: settled_engine(
            laboratory.engine, source.encoder, split, cache, device=device, precision=source.precision, say=tell.message
        )
        for name, split in source.splits.items()
    }
    shared = [out / study.manifest.name, *study.config.places]
    extract_in_pieces(engines, cache, resources, partial(_source, study, cache), tell.extraction, shared)


def _source(study: Agenda, cache: Path) -> Source:
    source = study.laboratory(cache).source()
    assert source is not None
    return source


def _seconds_known(study: Agenda, out: Path) -> dict[str, float]:
    """The longest of each kind of cell, by what is finished."""
    longest: dict[str, float] = {}
    for cell in study.cells:
        if is_finished(out, cell):
            seconds = read_json(cell_path(out, cell)).get("seconds_in_all")
            if isinstance(seconds, int | float):
                longest[kind_of(cell)] = max(float(seconds), longest.get(kind_of(cell), 0.0))
    return longest


class _Works:
    """One call's stages, one after the other; what they have in common."""

    def __init__(
        self, study: Agenda, out: Path, cache: Path, engine: str, budget: Budget, resources: Resources, say: Say
    ) -> None:
        self.study, self.out, self.budget, self.resources, self.say = study, out, budget, resources, say
        self.devices, self.shared = resources.workers, [out / study.manifest.name, *study.config.places]
        self.make_worker = partial(_Worker, study, out, cache, engine, budget)

    def run(self, pieces: Sequence[Any], on_event: Callable[[Any], None]) -> None:
        run(pieces, self.resources, self.make_worker, on_event, shared=self.shared)

    def besides(self, stage: Besides) -> None:
        pieces = [] if self.budget.over else stage.todo(self.study, self.out, self.devices)
        self.run([("besides", (stage, piece)) for piece in pieces], lambda line: self.say(f"{stage.name}: {line}"))

    def search(self, stage: Stage) -> None:
        """Every row's trials, before its cells."""
        study, budget = self.study, self.budget
        wanted = dict.fromkeys(study.search_of(cell) for cell in stage.cells if _learns(cell))
        left = {search: study.trials - study.tried(self.out, search) for search in wanted}
        todo = [search for search, number in left.items() if number > 0]
        clock = Clock((kind_of(search) for search in todo for _ in range(left[search])), self.devices)

        def on_event(event: Any) -> None:
            search, number, seconds = event
            clock.finish(kind_of(search), seconds)
            budget.spent(kind_of(search), seconds)
            if number == study.trials:
                self.say(f"{stage.name}, search: {search.row.label}: {number} trials{clock.words(budget)}")

        if not budget.over:
            self.run([("search", search) for search in todo], on_event)
        study.searched(self.out)

    def train(self, stage: Stage) -> None:
        budget = self.budget
        there = sum(self._is_finished(cell) for cell in stage.cells)
        todo = [cell for cell in stage.cells if self._is_ready(cell)]
        self.say(f"{stage.name}: {there} of {len(stage.cells)} cells are there")
        clock, name = Clock(map(kind_of, todo), self.devices), _namer(stage.cells)

        def on_event(event: Any) -> None:
            nonlocal there
            cell, numbers, seconds = event
            clock.finish(kind_of(cell), seconds)
            budget.spent(kind_of(cell), seconds)
            if isinstance(numbers, str):
                self.say(f"{stage.name}: {name(cell)} failed: {numbers}")
                return
            there += 1
            accuracy, nll, ece = numbers
            self.say(
                f"{stage.name} {there}/{len(stage.cells)}: {name(cell)}: {100 * accuracy:.2f}%, NLL {nll:.3f}, "
                f"ECE {100 * ece:.2f}%{clock.words(budget)}"
            )

        # Cells on the same layers go to one process, as long as none would be idle; the order of their worth is kept otherwise.
        units: dict[Any, list[Cell]] = {}
        for cell in todo:
            units.setdefault((cell.variant, cell.seed, cell.row.layers(self.study.config.head)), []).append(cell)
        if not budget.over:
            self.run([("cells", part) for part in in_rounds(list(units.values()), self.devices)], on_event)

    def _is_finished(self, cell: Cell) -> bool:
        path = cell_path(self.out, cell)
        if is_finished(self.out, cell):
            return True
        if path.exists():
            self.say(f"{path.name} is damaged: trained again")
        return False

    def _is_ready(self, cell: Cell) -> bool:
        """Whether a cell is still to be trained, and its search complete."""
        study = self.study
        searched = not (study.trials and _learns(cell)) or study.tried(self.out, study.search_of(cell)) >= study.trials
        return searched and not is_over(self.out, cell)


def _learns(cell: Cell) -> bool:
    return cell.row.method not in FREE


def _namer(cells: Sequence[Cell]) -> Callable[[Cell], str]:
    """How a stage's cells are told apart in messages."""
    several = [name for name in ("variant", "readout") if len({getattr(cell, name) for cell in cells}) > 1]
    return lambda cell: ", ".join([*(getattr(cell, name) for name in several), f"seed {cell.seed}", cell.row.label])


# ---- in a process that works ----


class _Worker:
    """What a process does with a piece, as much of it as the time allows: a search, cells, or something besides."""

    def __init__(self, study: Agenda, out: Path, cache: Path, engine: str, budget: Budget) -> None:
        self.study, self.out, self.budget = study, out, budget
        self.laboratory = study.laboratory(cache, engine=engine)

    def __call__(self, piece: Any) -> Iterator[Any]:
        kind, what = piece
        if kind == "search":
            yield from self.search(what)
        elif kind == "cells":
            for cell in what:
                if not is_over(self.out, cell):  # by a process that was lost in the middle of this piece
                    yield from self.train(cell)
        else:
            stage, content = what
            yield from stage.do(self.study, self.laboratory, self.out, content)

    def search(self, search: Cell) -> Iterator[tuple[Cell, int, float]]:
        """Trials of a search; yields how many are finished, and the seconds of each."""
        numbers, kind = self.study.search(self.laboratory, search, self.out), kind_of(search)
        for _ in range(self.study.tried(self.out, search), self.study.trials):
            if not self.budget.allows(kind):
                return
            began = time.perf_counter()
            number = next(numbers)
            seconds = time.perf_counter() - began
            self.budget.spent(kind, seconds)
            yield search, number, seconds

    def train(self, cell: Cell) -> Iterator[tuple[Cell, tuple[float, ...] | str, float]]:
        """A cell; yields its accuracy, NLL and ECE, or why it failed, and its seconds."""
        if not self.budget.allows(kind_of(cell)):
            return  # a cheaper one may still fit
        began = time.perf_counter()
        settings = self.study.settings(self.laboratory, cell, self.out)
        try:
            numbers = self.study.measure(self.laboratory, cell, settings, self.out / CELLS)
        except DivergedError as error:  # one cell's failure, which the others must not share
            write_bytes(diverged_path(self.out, cell), f"{error}\n".encode())
            yield cell, str(error), time.perf_counter() - began
            return
        seconds = time.perf_counter() - began
        write_json(cell_path(self.out, cell), {**numbers, "seconds_in_all": round(seconds, 2)})
        self.budget.spent(kind_of(cell), seconds)
        yield cell, (numbers["accuracy"], numbers["nll"], numbers["ece"]), seconds
