"""One command from data to verdicts: features, searches, cells, tables and report, in a folder that can be continued.

The folder: study.json (what it is), search/*.jsonl (trials), settings.json (what they chose), cells/ (one network each), and, made
again from these at the end or by `comodulate report`: cells.csv, comparisons.csv, results.json, figures/, report.html.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ...data.features import ENGINES
from ...errors import InputError, brief, choose, first_difference
from ...files import PARTIAL, json_bytes, locked, read_json, remove_partials, torn, writable, write_bytes, write_json
from ...runs import (
    MAX_SEED,
    RunConfig,
    Written,
    deal_images,
    make_config,
    written_in_full,
)
from ...training import Progress, Silent
from ..cells import (
    STUDIES,
    Cell,
    Clock,
    Laboratory,
    Row,
    ablate,
    best_settings,
    in_rounds,
    read_changes,
    read_material,
    read_trials,
    run_jobs,
    search,
)
from .illustration import illustrate, read_illustration
from .plan import REST_SEEDS, Plan, attributes_plan, cifar100_plan, narrowed

ILLUSTRATION = "illustration.safetensors"
STUDY, SETTINGS, CELLS, SEARCH, FIGURES, LOCK = "study.json", "settings.json", "cells", "search", "figures", ".lock"


@dataclass(frozen=True)
class Study:
    """What is reproduced.

    Attributes:
        name: cifar100, celeba or attributes.
        config: what all cells share: data, backbone, head, training.
        seeds: compared; the rows beyond the core take the first few.
        trials: of each search.
        methods, parts: of the plan; none means all.
    """

    name: str
    config: RunConfig
    seeds: tuple[int, ...]
    trials: int = 16
    methods: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def plan(self) -> Plan:
        whole = cifar100_plan() if self.name == "cifar100" else attributes_plan()
        return narrowed(whole, self.methods, self.parts)

    def stages(self) -> list[tuple[str, list[Cell]]]:
        return self.plan().stages(self.seeds, REST_SEEDS)

    def to_json(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        return {
            "schema": 1, "name": self.name, "config": config, "seeds": list(self.seeds), "trials": self.trials,
            "methods": list(self.methods), "parts": list(self.parts),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Any) -> Study:
        """The inverse of ``to_json``. Raises InputError for anything else."""
        try:
            given = StudyFile.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"not a study: {where}: {first['msg']} (given: {brief(first['input'])})") from error
        study = cls(
            choose(given.name, STUDIES, "study"), make_config(given.config), tuple(given.seeds), given.trials,
            tuple(given.methods), tuple(given.parts),
        )  # fmt: skip
        study.plan()  # refuses methods and parts that are not known
        return study


class StudyFile(Written):
    """study.json, as far as it is read."""

    name: str
    config: dict[str, Any]
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1, max_length=1000)]
    trials: int = Field(ge=0, le=1000)
    methods: list[str]
    parts: list[str]


def reproduce(
    study: Study,
    out: Path,
    cache: Path,
    *,
    devices: int = 1,
    engine: str = "auto",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Run what is not finished of a study. Tables and report are ``report.write_report``.

    Args:
        study: what is reproduced.
        out: folder, new or of the same study.
        cache: folder of features and pretrained layers.
        devices: number of processes.
        engine: of extraction; see ``extract``.
        progress: told of extraction. say: told a line for whatever is finished, with the time left.

    Raises:
        InputError: bad input, found before anything is trained; ``out`` holds another study or is in use.
        RunError: something failed; what is finished stays.
    """
    tell, say = progress or Silent(), say or (lambda line: None)
    choose(engine, ENGINES, "engine")
    check_extras(study)
    claim(study, out)
    with writable(cache), writable(out), locked(out / LOCK, wait=False), _begun(out):
        claim(study, out)  # again: another process may have begun a study before the lock was ours
        for folder in (out, out / CELLS, out / SEARCH, out / FIGURES):
            remove_partials(folder)
        material = read_material(study.name, study.config, cache)
        deal_images(study.config, material.family, material.labelled[study.config.train_split].examples)
        laboratory = Laboratory(material, tell, engine)
        laboratory.backbone  # noqa: B018 (refused before anything is written)
        content = json_bytes(study.to_json())
        # Not without need: what was written last is what a power cut endangers.
        if not (out / STUDY).exists() or (out / STUDY).read_bytes() != content:
            write_bytes(out / STUDY, content)
        (out / CELLS).mkdir(exist_ok=True)
        (out / SEARCH).mkdir(exist_ok=True)
        laboratory.features  # noqa: B018 (extracted once, before several processes ask for them)
        del material, laboratory
        for name, cells in study.stages():
            _search(study, cells, out, cache, engine, devices, say)
            _train(study, name, cells, out, cache, engine, devices, say)
            if name == "core":
                _illustrate(study, out, cache, engine, say)
        _ablate(study, out, cache, engine, devices, say)


def check_extras(study: Study) -> None:
    """Raise InputError for unknown methods and parts, and for an extra package that the study would miss later."""
    plan = study.plan()
    needed = {}
    if study.trials:
        needed["optuna"] = "studies"
    if plan.aggregation:
        needed["torchjd"] = "aggregation"
    for package, extra in needed.items():
        if importlib.util.find_spec(package) is None:
            raise InputError(f"this study needs {package}: pip install 'comodulation[{extra}]'")


@contextlib.contextmanager
def _begun(out: Path) -> Iterator[None]:
    """Where bad input turns up before anything is finished in a new folder, leave nothing in it."""
    fresh = not (out / STUDY).exists()
    try:
        yield
    except InputError:
        if fresh and not _finished(out):
            for name in (CELLS, SEARCH):
                with contextlib.suppress(OSError):
                    (out / name).rmdir()
            for name in (SETTINGS, STUDY, LOCK):
                (out / name).unlink(missing_ok=True)
        raise


def _finished(out: Path) -> bool:
    """Whether a study's folder holds a trial or a cell."""
    return any(path.is_file() for name in (CELLS, SEARCH) for path in (out / name).glob("*"))


def claim(study: Study, out: Path) -> None:
    """Raise InputError for a folder that is something else, or another study."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder to write the study to")
    found = [path.name for path in out.iterdir()] if out.exists() else []
    found = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
    if not found:
        return
    if STUDY not in found:
        raise InputError(f"{out} is not empty and not a study; choose another --out")
    if not _finished(out) and torn(out / STUDY, json_bytes(study.to_json())):
        return  # a power cut when nothing else had been written
    # More seeds, methods or parts may be added to a study: finished cells stay what they are.
    free = ("seeds", "methods", "parts")
    before, now = read_json(out / STUDY), study.to_json()
    if not isinstance(before, dict):
        raise InputError(f"{out / STUDY} is not a study: it holds {brief(before)}; choose another --out")
    before = {**before, "config": written_in_full(before.get("config"))}
    fixed = [{key: value for key, value in side.items() if key not in free} for side in (before, now)]
    if differing := first_difference(fixed[0], fixed[1]):
        key, then, here = differing
        raise InputError(
            f"{out} holds a study with another {key} ({brief(then)}, now {brief(here)}); choose another --out"
        )


def settings_of(study: Study, out: Path, cell: Cell) -> dict[str, Any]:
    """What the search chose for a cell; {} where there was none."""
    return best_settings(search_path(out, study.plan().searched_for(cell)))


def ablated(out: Path) -> dict[str, dict[str, Any]]:
    """What single changes of the defaults do on validation images, by row."""
    files = sorted((out / SEARCH).glob("ablation-*.jsonl"))
    return {line["row"]: line for path in files for line in read_changes(path)}


def search_path(out: Path, cell: Cell) -> Path:
    """File of a search's trials."""
    return out / SEARCH / f"{cell.variant}-{cell.row.label.replace(' ', '_').replace('=', '-')}.jsonl"


def _search(
    study: Study, cells: Sequence[Cell], out: Path, cache: Path, engine: str, devices: int, say: Callable[[str], None]
) -> None:
    """The searches that some cells need."""
    needed = study.plan().searches(cells)
    todo = [cell for cell in needed if len(read_trials(search_path(out, cell))) < study.trials]
    if study.trials and todo:
        left = {_kind(c): 0 for c in todo}
        for cell in todo:
            left[_kind(cell)] += study.trials - len(read_trials(search_path(out, cell)))
        clock = Clock(left, devices)

        def on_event(event: Any) -> None:
            label, number, kind, seconds = event
            clock.finish(kind, seconds)
            if number == study.trials:
                say(f"search: {label}: {number} trials{_left(clock)}")

        jobs = [(f"search of {cell.row.label}", ("search", cell)) for cell in todo]
        run_jobs(jobs, _worker, (study, str(out), str(cache), engine), devices, on_event)
    everything = {search_path(out, cell) for cell in study.plan().searches()}
    write_json(out / SETTINGS, {path.stem: best_settings(path) for path in sorted(everything)})


def _ablate(study: Study, out: Path, cache: Path, engine: str, devices: int, say: Callable[[str], None]) -> None:
    """Single changes of the defaults."""
    rows = [row for row in study.plan().ablation if row.label not in ablated(out)]
    if study.trials and rows:
        say(f"defaults: {len(rows)} changes, one at a time")
        halves = [rows[place::devices] for place in range(devices)]
        changes = [("changes", ("ablation", (place, half))) for place, half in enumerate(halves) if half]
        run_jobs(
            changes, _worker, (study, str(out), str(cache), engine), devices, lambda label: say(f"defaults: {label}")
        )


def _train(
    study: Study,
    stage: str,
    cells: Sequence[Cell],
    out: Path,
    cache: Path,
    engine: str,
    devices: int,
    say: Callable[[str], None],
) -> None:
    todo = [cell for cell in cells if not _is_there(out / CELLS / f"{cell.key}.json", say)]
    say(f"{stage}: {len(cells) - len(todo)} of {len(cells)} cells are there")
    if not todo:
        return
    units: dict[tuple[str, int], list[Cell]] = {}
    for cell in todo:
        units.setdefault((cell.variant, cell.seed), []).append(cell)
    left = {_kind(cell): 0 for cell in todo}
    for cell in todo:
        left[_kind(cell)] += 1
    clock, done = Clock(left, devices), len(cells) - len(todo)

    def on_event(event: Any) -> None:
        nonlocal done
        cell, numbers, seconds = event
        done += 1
        clock.finish(_kind(cell), seconds)
        say(
            f"{stage} {done}/{len(cells)}: {cell.variant}, {cell.readout}, seed {cell.seed}, {cell.row.label}: "
            f"{100 * numbers['accuracy']:.2f}%, NLL {numbers['nll']:.3f}, ECE {100 * numbers['ece']:.2f}%{_left(clock)}"
        )

    parts = in_rounds(list(units.values()), devices)
    jobs = [(f"{part[0].variant}, seed {part[0].seed}", ("cells", part)) for part in parts]
    run_jobs(jobs, _worker, (study, str(out), str(cache), engine), devices, on_event)


def _is_there(path: Path, say: Callable[[str], None]) -> bool:
    """Whether a cell is finished. Its numbers are written last: where a power cut has torn them, it is trained again."""
    if not path.exists():
        return False
    try:
        return isinstance(read_json(path), dict)
    except InputError:
        say(f"{path.name} is damaged: trained again")
        return False


def _illustrate(study: Study, out: Path, cache: Path, engine: str, say: Callable[[str], None]) -> None:
    """What the figures of the mechanism need, from the first seed's comodulation."""
    cell = Cell("residual", "open", Row("comodulation"), study.seeds[0])
    with contextlib.suppress(InputError):  # damaged: made again
        if read_illustration(out / ILLUSTRATION) is not None:
            return
    if not (out / CELLS / f"{cell.key}.json").exists():
        return
    say("one network followed through")
    illustrate(
        Laboratory(read_material(study.name, study.config, cache), engine=engine),
        cell,
        settings_of(study, out, cell),
        out / ILLUSTRATION,
    )


def _worker(study: Study, out: str, cache: str, engine: str) -> Callable[[Any, Callable[[Any], None]], None]:
    """What a process of a study does with a job."""
    laboratory = Laboratory(read_material(study.name, study.config, Path(cache)), engine=engine)
    folder = Path(out)

    def work(job: Any, send: Callable[[Any], None]) -> None:
        kind, what = job
        began = time.perf_counter()
        if kind == "search":

            def report(number: int) -> None:
                nonlocal began
                send((what.row.label, number, _kind(what), time.perf_counter() - began))
                began = time.perf_counter()

            search(laboratory, what, study.trials, search_path(folder, what), report)
            return
        if kind == "ablation":
            place, rows = what

            def settings(row: Row) -> dict[str, Any]:
                return settings_of(study, folder, Cell("residual", "open", row, 0))

            ablate(laboratory, rows, settings, folder / SEARCH / f"ablation-{place}.jsonl", send)
            return
        for cell in what:
            numbers = laboratory.run(cell, settings_of(study, folder, cell), folder / CELLS)
            send((cell, {name: numbers[name] for name in ("accuracy", "nll", "ece")}, time.perf_counter() - began))
            began = time.perf_counter()

    return work


def _kind(cell: Cell) -> str:
    """Cells of a kind take about the same time."""
    return cell.row.without("link", "beta").label


def _left(clock: Clock) -> str:
    remaining = clock.remaining()
    if remaining is None:
        return ""
    return f"; {remaining:.0f} s left" if remaining < 120 else f"; {remaining / 60:.0f} min left"
