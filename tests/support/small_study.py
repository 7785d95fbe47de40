"""A whole small study on the small data set, run once by the command line for all tests that read it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from comodulation.files import read_json, write_json
from comodulation.studies.cells import CELLS, Result, read_results
from comodulation.studies.paper import Study
from support.command import Outcome, comodulate
from support.synthetic import write

SMALL = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "32", "--channels", "16"]
SHORT = ["--seeds", "2", "--trials", "2", "--epochs", "2", "--pretraining-epochs", "2", "--devices", "1"]
CORE = ["--part", "core"]


@dataclass(frozen=True)
class SmallStudy:
    """Where it is, what the command printed, and what was found."""

    data: Path
    out: Path
    cache: Path
    outcome: Outcome

    @property
    def study(self) -> Study:
        return Study.from_json(read_json(self.out / "study.json"))

    @property
    def results(self) -> list[Result]:
        return read_results(self.out / CELLS, self.study.cells)

    def cell(self, variant: str, readout: str, label: str, seed: int = 0) -> Result:
        wanted = (variant, readout, label, seed)
        return next(r for r in self.results if (r.cell.variant, r.cell.readout, r.name, r.cell.seed) == wanted)


def reproduce(name: str, data: Path, out: Path, cache: Path, *options: Any) -> Outcome:
    """``comodulate reproduce`` with the small network; options that are given twice count as given last."""
    return comodulate("reproduce", name, "--data", data, "--out", out, "--cache", cache, *SMALL, *SHORT, *options)


@cache
def small_study() -> SmallStudy:
    """Every part of the CIFAR-100 study but gradient aggregation, run by the first worker that asks; not to be changed."""
    place = Path(os.environ["COMODULATION_TESTS_SHARED"]) / "study"
    data, out, cached, said = place / "data", place / "study", place / "cache", place / "said.json"
    with FileLock(place.with_name("study.lock")):
        if not said.exists():
            outcome = reproduce("cifar100", write(data), out, cached, "--json")
            assert outcome.status == 0, outcome.err
            write_json(said, asdict(outcome))
    return SmallStudy(data, out, cached, Outcome(**read_json(said)))
