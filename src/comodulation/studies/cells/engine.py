"""Runs a question's cells: searches and cells in the order of their worth, on several processes, until they are done or time is up.

The folder: question.json (what is asked), search/*.jsonl (trials), cells/ (a network each), and, made again from these every time:
cells.csv, results.json, figures/, report.html. What is finished is never repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DivergedError, InputError
from ...files import json_bytes, locked, read_json, remove_partials, writable, write_bytes, write_json
from ...runs import deal_images
from ...training import Progress, Silent
from .folder import (
    LOCK,
    QUESTION,
    cell_path,
    claim,
    cleared_if_refused,
    diverged_path,
    is_finished,
    is_over,
    search_of,
    search_path,
    settings_of,
    tried_rates,
)
from .laboratory import Laboratory
from .material import read_material
from .pool import Clock, in_rounds, run_jobs
from .rates import next_rate
from .rows import Cell
from .searches import DIVERGED, FREE, read_trials
from .study import CELLS, FIGURES, SEARCH, Inquiry, Question

Say = Callable[[str], None]


class Budget:
    """Whether there is time for another unit of a kind: never begin what would end after the deadline.

    Args:
        deadline: seconds since the epoch, None for no end.
        longest: seconds that the longest unit of each kind took, of those known so far.
    """

    def __init__(self, deadline: float | None, longest: dict[str, float] | None = None) -> None:
        self.deadline = deadline
        self.longest = dict(longest or {})

    def allows(self, kind: str) -> bool:
        """A kind that has not been seen takes as long as the longest that has; the first unit of all only needs time left."""
        if self.deadline is None:
            return True
        expected = self.longest.get(kind, max(self.longest.values(), default=0.0))
        return time.time() + expected < self.deadline

    def spent(self, kind: str, seconds: float) -> None:
        self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))


def investigate(
    question: Question,
    inquiry: Inquiry,
    out: Path,
    cache: Path,
    *,
    hours: float | None = None,
    devices: int = 1,
    progress: Progress | None = None,
    say: Say | None = None,
) -> list[Cell]:
    """Run what is not finished, as far as the time goes. The answer is ``report.write_answer``.

    Args:
        question, inquiry: what is asked, of which data.
        out: folder, new or of the same inquiry.
        cache: folder of features and pretrained layers.
        hours: time budget of this call; None for no end.
        devices: number of processes.
        progress: told of extraction. say: told a line for whatever is finished, with the time left.

    Returns:
        The cells that time did not reach.

    Raises:
        InputError: bad input, found before anything is trained; ``out`` holds something else or is in use.
        RunError: something failed; what is finished stays.
    """
    deadline = None if hours is None else time.time() + 3600 * hours
    tell, say = progress or Silent(), say or (lambda line: None)
    stages = question.stages(inquiry.seeds)
    claim(inquiry, out)
    with writable(cache), writable(out), locked(out / LOCK, wait=False), cleared_if_refused(out):
        claim(inquiry, out)
        laboratory = laboratory_of(question, inquiry, cache, tell)
        material = laboratory.material
        deal_images(inquiry.config, material.family, material.labelled[inquiry.config.train_split].examples)
        if not _is_over(deadline):
            laboratory.backbone  # noqa: B018 (refused before anything is written)
        for name in (CELLS, SEARCH):
            (out / name).mkdir(exist_ok=True)
        for folder in (out, out / CELLS, out / SEARCH, out / FIGURES):
            remove_partials(folder)
        content = json_bytes(inquiry.to_json())
        # Not without need: what was written last is what a power cut endangers.
        if not (out / QUESTION).exists() or (out / QUESTION).read_bytes() != content:
            write_bytes(out / QUESTION, content)
        if not _is_over(deadline):
            laboratory.features  # noqa: B018 (extracted once, before several processes ask for them)
        del laboratory, material
        budget = Budget(deadline, _seconds_known(out, [cell for stage in stages for cell in stage.cells]))
        for stage in stages:
            arguments = (question, inquiry, str(out), str(cache), budget)
            _search(question, inquiry, stage.name, stage.cells, out, arguments, devices, say)
            _train(question, inquiry, stage.name, stage.cells, out, arguments, devices, say)
    everything = [cell for stage in stages for cell in stage.cells]
    return [cell for cell in everything if not is_over(out, cell)]


def _seconds_known(out: Path, cells: Sequence[Cell]) -> dict[str, float]:
    """The longest of each kind of cell, by what is finished."""
    longest: dict[str, float] = {}
    for cell in cells:
        if is_finished(out, cell):
            seconds = read_json(cell_path(out, cell)).get("seconds_in_all")
            if isinstance(seconds, int | float):
                longest[_kind(cell)] = max(float(seconds), longest.get(_kind(cell), 0.0))
    return longest


def laboratory_of(question: Question, inquiry: Inquiry, cache: Path, tell: Progress | None = None) -> Laboratory:
    """What trains a question's cells. Raises InputError for data that are not what it needs."""
    if question.make_laboratory is not None:
        laboratory = question.make_laboratory(inquiry, cache)
        laboratory.tell = tell or laboratory.tell
    else:
        laboratory = Laboratory(read_material("cifar100", inquiry.config, cache), tell)
    config = inquiry.config
    if config.test_split not in laboratory.material.labelled:
        raise InputError(f"{config.data!r} has no split {config.test_split!r}, whose images a study is tested on")
    return laboratory


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.time() > deadline


def _learns(cell: Cell) -> bool:
    return cell.row.method not in FREE


def _search(
    question: Question,
    inquiry: Inquiry,
    stage: str,
    cells: Sequence[Cell],
    out: Path,
    arguments: Any,
    devices: int,
    say: Say,
) -> None:
    """Every row's trials, before its cells."""
    unfinished = [cell for cell in cells if not is_finished(out, cell) and _learns(cell)]
    rows = list(dict.fromkeys(search_of(question, cell) for cell in unfinished))
    todo = [row for row in rows if len(tried_rates(out, row)) < inquiry.trials]
    budget: Budget = arguments[-1]
    if not todo or _is_over(budget.deadline):
        return
    left = {_kind(row): inquiry.trials - len(tried_rates(out, row)) for row in todo}
    clock = Clock(left, devices)

    def on_event(event: Any) -> None:
        row, number, seconds = event
        clock.finish(_kind(row), seconds)
        budget.spent(_kind(row), seconds)
        if number == inquiry.trials:
            say(f"{stage}, search: {row.row.label}: {number} trials{_left(clock, budget.deadline)}")

    jobs = [(f"search of {row.row.label}", ("search", row)) for row in todo]
    run_jobs(jobs, _worker, arguments, devices, on_event)


def _train(
    question: Question,
    inquiry: Inquiry,
    stage: str,
    cells: Sequence[Cell],
    out: Path,
    arguments: Any,
    devices: int,
    say: Say,
) -> None:
    def ready(cell: Cell) -> bool:
        searched = (
            not inquiry.trials
            or not _learns(cell)
            or len(tried_rates(out, search_of(question, cell))) >= inquiry.trials
        )
        return searched and not is_over(out, cell)

    there = sum(is_finished(out, cell) for cell in cells)
    todo = [cell for cell in cells if ready(cell)]
    say(f"{stage}: {there} of {len(cells)} cells are there")
    budget: Budget = arguments[-1]
    if not todo or _is_over(budget.deadline):
        return
    # Cells on the same layers go to one process, as long as none would be idle; the order of their worth is kept otherwise.
    units: dict[Any, list[Cell]] = {}
    for cell in todo:
        units.setdefault((cell.variant, cell.seed, cell.row.layers(inquiry.config.head)), []).append(cell)
    left = {_kind(cell): 0 for cell in todo}
    for cell in todo:
        left[_kind(cell)] += 1
    clock = Clock(left, devices)

    def on_event(event: Any) -> None:
        nonlocal there
        cell, numbers, seconds = event
        clock.finish(_kind(cell), seconds)
        budget.spent(_kind(cell), seconds)
        if isinstance(numbers, str):
            say(f"{stage}: seed {cell.seed}, {cell.row.label} failed: {numbers}")
            return
        there += 1
        say(
            f"{stage} {there}/{len(cells)}: seed {cell.seed}, {cell.row.label}: {100 * numbers['accuracy']:.2f}%, "
            f"NLL {numbers['nll']:.3f}, ECE {100 * numbers['ece']:.2f}%{_left(clock, budget.deadline)}"
        )

    parts = in_rounds(list(units.values()), devices)
    jobs = [(f"seed {part[0].seed}, {part[0].row.label}", ("cells", part)) for part in parts]
    run_jobs(jobs, _worker, arguments, devices, on_event)


def _worker(
    question: Question, inquiry: Inquiry, out: str, cache: str, budget: Budget
) -> Callable[[Any, Callable[[Any], None]], None]:
    """What a process does with a job: as much of it as the time allows."""
    folder = Path(out)
    laboratory = laboratory_of(question, inquiry, Path(cache))

    def work(job: Any, send: Callable[[Any], None]) -> None:
        kind, what = job
        if kind == "search":
            while len(tried := tried_rates(folder, what)) < inquiry.trials and budget.allows(_kind(what)):
                began = time.perf_counter()
                _trial(question, inquiry, laboratory, what, tried, folder)
                budget.spent(_kind(what), time.perf_counter() - began)
                send((what, len(tried) + 1, time.perf_counter() - began))
            return
        for cell in what:
            if not budget.allows(_kind(cell)):
                continue  # a cheaper one may still fit
            began = time.perf_counter()
            settings = settings_of(question, inquiry, folder, cell, laboratory.material.family.num_tasks)
            try:
                numbers = question.measure(laboratory, cell, settings, folder / CELLS)
            except DivergedError as error:  # one cell's failure, which the others must not share
                write_bytes(diverged_path(folder, cell), f"{error}\n".encode())
                send((cell, str(error), time.perf_counter() - began))
                continue
            seconds = time.perf_counter() - began
            write_json(cell_path(folder, cell), {**numbers, "seconds_in_all": round(seconds, 2)})
            budget.spent(_kind(cell), seconds)
            send((cell, {metric: numbers[metric] for metric in ("accuracy", "nll", "ece")}, seconds))

    return work


def _trial(
    question: Question, inquiry: Inquiry, laboratory: Laboratory, row: Cell, tried: dict[float, float], folder: Path
) -> None:
    """One trial of a row's search, added to its file."""
    rate = next_rate(tried, question.first_rate(row.row))
    settings = {**question.settings(row, inquiry, laboratory.material.family.num_tasks), "learning_rate": rate}
    line: dict[str, Any] = {"params": {"learning_rate": rate}, "diverged": False}
    try:
        _, adapted = laboratory.adapt(row, settings)
        line["nll"] = min(entry["nll"] for entry in adapted.history)
    except DivergedError:
        line |= {"diverged": True, "nll": DIVERGED}
    path = search_path(folder, row)
    lines = [*read_trials(path), line]
    write_bytes(path, "".join(json.dumps(entry) + "\n" for entry in lines).encode())


def _kind(cell: Cell) -> str:
    """Cells of a kind take about the same time."""
    return cell.row.without("draw").label


def _left(clock: Clock, deadline: float | None) -> str:
    remaining = clock.remaining()
    if deadline is not None:
        until = max(0.0, deadline - time.time())
        remaining = until if remaining is None else min(remaining, until)
    if remaining is None:
        return ""
    return f"; {remaining:.0f} s left" if remaining < 120 else f"; {remaining / 60:.0f} min left"
