"""Checks of metrics files before anything is read from them: a JSON file from someone else can contain anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, brief
from ..files import read_json


class Written(BaseModel):
    """Numbers are numbers, not texts of them; what is not named may be anything."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Measured(Written):
    """Metrics of some predictions."""

    accuracy: float
    nll: float
    brier: float
    ece: float
    count: int


class Evaluated(Measured):
    """Metrics overall, by task, and their means over tasks; see ``evaluate_predictions``."""

    tasks: dict[str, Measured]
    macro: dict[str, float] = {}


class Weighed(Written):
    """How a method of readouts came about; see ``training.readouts.fit_method``."""

    nll_out_of_fold: dict[str, float] = {}
    weights: dict[str, float] = {}
    l2: dict[str, list[float]] = {}
    committees: dict[str, list[dict[str, float]]] = {}


class Decided(Written):
    """How a run answers where its metric is not accuracy; see ``decisions``."""

    metric: str
    offsets: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]]


def _there(value: Evaluated | None) -> Evaluated | None:
    if value is None:
        raise ValueError("expected metrics, or no such key")
    return value


OfTest = Annotated[Evaluated | None, AfterValidator(_there)]  # absent where there is no test split, never null


class AddedTasks(Written):
    """What metrics.json says of tasks that were added together; see ``added_tasks``."""

    tasks: list[str]
    validation: Evaluated
    test: OfTest = None
    readouts: Weighed | None = None
    decisions: Decided | None = None


class RunMetrics(Written):
    """metrics.json of a run."""

    method: str
    validation: Evaluated
    test: OfTest = None
    temperature: float | None = None
    unscaled: dict[str, Measured] = {}
    readouts: Weighed | None = None
    linear: dict[str, Evaluated] = {}
    decisions: Decided | None = None
    added: list[AddedTasks] = []


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a run's metrics.json. Raises InputError for a file that is none: what is wrong, and where."""
    return checked(read_json(path), RunMetrics, path)


def checked(value: Any, expected: type[Written], path: Path) -> dict[str, Any]:
    """The value itself, if it holds what is expected. Raises InputError: one line, with the place and what was found."""
    try:
        expected.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path} is damaged: {where}: {reason} (found: {brief(first['input'])})") from error
    return value


def metrics_by_task(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Metrics of each task on a split, by its name; of an added task that has none there, those of validation."""
    found = dict(metrics[split]["tasks"])
    for entry in metrics.get("added", []):
        found |= entry.get(split, entry["validation"])["tasks"]
    return found
