"""The paper's claims as a study: one command from data to verdicts, in a folder that can be continued.

The folder: study.json (what it is), search/*.jsonl (trials), settings.json (what they chose), cells/ (one network each), and, made
again from these at the end or by `comodulate report`: cells.csv, comparisons.csv, results.json, figures/, report.html.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ...data.features import ENGINES
from ...errors import InputError, brief, choose
from ...files import write_json
from ...processes import Resources
from ...runs import MAX_SEED, RunConfig, Written, make_config
from ...training import Progress
from ..cells import (
    SEARCH,
    STUDIES,
    Agenda,
    Besides,
    Cell,
    Laboratory,
    Manifest,
    Row,
    Stage,
    ablate,
    best_settings,
    cell_path,
    measure_everything,
    read_changes,
    read_material,
    read_trials,
    run_stages,
    search,
)
from .illustration import illustrate, read_illustration
from .plan import Plan, attributes_plan, cifar100_plan, clinc_plan, narrowed

STUDY, SETTINGS, ILLUSTRATION = "study.json", "settings.json", "illustration.safetensors"


@dataclass(frozen=True)
class Study(Agenda):
    """What is reproduced.

    Attributes:
        name: cifar100, clinc, celeba or attributes.
        config: what all cells share: data, backbone, head, training.
        seeds: compared; the rows beyond the core take the first few.
        trials: of each search.
        methods, parts, variants: of the plan; none means all.
    """

    name: str
    config: RunConfig
    seeds: tuple[int, ...]
    trials: int = 16
    methods: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    def plan(self) -> Plan:
        return self._plan

    @cached_property  # the engine asks for it with every cell
    def _plan(self) -> Plan:
        plans = {"cifar100": cifar100_plan, "clinc": clinc_plan}
        whole = plans.get(self.name, attributes_plan)()
        return narrowed(whole, self.methods, self.parts, self.variants)

    @property
    def same_halves(self) -> bool:
        """Whether all seeds have the same halves of the training split."""
        return self.config.split_seed is not None

    def to_json(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        return {
            "schema": 1, "name": self.name, "config": config, "seeds": list(self.seeds), "trials": self.trials,
            "methods": list(self.methods), "parts": list(self.parts), "variants": list(self.variants),
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
            tuple(given.methods), tuple(given.parts), tuple(given.variants),
        )  # fmt: skip
        study.plan()  # refuses methods and parts that are not known
        return study

    # ---- for the engine ----

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            STUDY, "a study", self.to_json(), ("seeds", "methods", "parts", "variants"), Written, (SETTINGS,)
        )

    def stages(self) -> list[Stage | Besides]:
        first, *rest = self.plan().stages(self.seeds, same_halves=self.same_halves)
        besides = [Besides("illustration", _to_illustrate, _illustrate), Besides("defaults", _to_ablate, _ablate)]
        return [first, besides[0], *rest, besides[1]]

    def laboratory(self, cache: Path, tell: Progress | None = None, engine: str = "auto") -> Laboratory:
        return Laboratory(read_material(self.name, self.config, cache), tell, engine)

    def search_of(self, cell: Cell) -> Cell:
        return self.plan().searched_for(cell)

    def tried(self, out: Path, search: Cell) -> int:
        return len(read_trials(search_path(out, search)))

    def search(self, laboratory: Laboratory, cell: Cell, out: Path) -> Iterator[int]:
        yield from search(laboratory, cell, self.trials, search_path(out, cell))

    def searched(self, out: Path) -> None:
        everything = {search_path(out, cell) for cell in self.plan().searches()}
        write_json(out / SETTINGS, {path.stem: best_settings(path) for path in sorted(everything)})

    def settings(self, laboratory: Laboratory, cell: Cell, out: Path) -> dict[str, Any]:
        """What the search chose; {} where there was none."""
        return best_settings(search_path(out, self.search_of(cell)))

    def measure(self, laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
        return measure_everything(laboratory, cell, settings, folder)


class StudyFile(Written):
    """study.json, as far as it is read."""

    name: str
    config: dict[str, Any]
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1, max_length=1000)]
    trials: int = Field(ge=0, le=1000)
    methods: list[str]
    parts: list[str]
    variants: list[str] = Field(default_factory=list)


def reproduce(
    study: Study,
    out: Path,
    cache: Path,
    *,
    resources: Resources | None = None,
    engine: str = "auto",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Run what is not finished of a study; see ``run_stages``. Tables and report are ``report.write_report``.

    Raises:
        InputError: as there, and for an unknown engine of extraction, or a package that the study would miss later.
    """
    choose(engine, ENGINES, "engine")
    check_extras(study)
    run_stages(study, out, cache, resources=resources, engine=engine, progress=progress, say=say)


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


def search_path(out: Path, cell: Cell) -> Path:
    """File of a search's trials."""
    return out / SEARCH / f"{cell.variant}-{cell.row.label.replace(' ', '_').replace('=', '-')}.jsonl"


# ---- besides searches and cells ----


def _to_illustrate(study: Study, out: Path, workers: int) -> list[Cell]:
    """The first seed's comodulation, from which the figures of the mechanism are, unless they are there."""
    cell = Cell("residual", "open", Row("comodulation"), study.seeds[0])
    with contextlib.suppress(InputError):  # damaged: made again
        if read_illustration(out / ILLUSTRATION) is not None:
            return []
    return [cell] if cell_path(out, cell).exists() else []


def _illustrate(study: Study, laboratory: Laboratory, out: Path, cell: Cell) -> Iterator[str]:
    yield "one network followed through"
    illustrate(laboratory, cell, study.settings(laboratory, cell, out), out / ILLUSTRATION)


def ablated(out: Path) -> dict[str, dict[str, Any]]:
    """What single changes of the defaults do on validation images, by row."""
    files = sorted((out / SEARCH).glob("ablation-*.jsonl"))
    return {line["row"]: line for path in files for line in read_changes(path)}


def _to_ablate(study: Study, out: Path, workers: int) -> list[tuple[int, list[Row]]]:
    """Rows of single changes, for each worker with the number of its file."""
    rows = [row for row in study.plan().ablation if study.trials and row.label not in ablated(out)]
    return [(place, rows[place::workers]) for place in range(min(workers, len(rows)))]


def _ablate(study: Study, laboratory: Laboratory, out: Path, piece: tuple[int, list[Row]]) -> Iterator[str]:
    place, rows = piece

    def settings(row: Row) -> dict[str, Any]:
        return study.settings(laboratory, Cell("residual", "open", row, 0), out)

    yield from ablate(laboratory, rows, settings, out / SEARCH / f"ablation-{place}.jsonl")
