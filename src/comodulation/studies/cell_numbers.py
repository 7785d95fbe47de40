"""What the files of a cell must hold before tables and claims are made of them; see ``Laboratory.run``, which writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ..errors import InputError, brief
from ..written_metrics import Written, checked
from .rows import Cell

SCORES = ("image", "task", "hit", "nll", "brier", "confidence", "scaled_nll", "scaled_confidence")


class Gains(Written):
    """How the gains of one place are spread."""

    movement: float
    auc: float | None = None
    below: dict[str, float]


class Mechanism(Written):
    """The analyses of a network."""

    fisher: float | None = None
    dprime: float | None = None
    encoder: Gains | None = None
    decoder: Gains | None = None
    noise: dict[str, float] = Field(default_factory=dict)


class Binary(Written):
    """Metrics of binary tasks; see ``evaluate_binary``."""

    tasks: dict[str, dict[str, float]]
    macro: dict[str, Any]
    groups: dict[str, dict[str, Any]]


class CellNumbers(Written):
    """KEY.json of a cell."""

    accuracy: float
    nll: float
    brier: float
    ece: float
    seconds: float
    learnable_parameters: int
    tasks: dict[str, dict[str, Any]]
    history: list[dict[str, float]]
    pretraining: dict[str, float]
    settings: dict[str, Any] = Field(default_factory=dict)
    outputs: int | None = None
    tuning_images: int | None = None
    temperature: float | None = None
    scaled: dict[str, float] = Field(default_factory=dict)
    binary: Binary | None = None
    mechanism: Mechanism | None = None


def checked_numbers(cell: Cell, numbers: Any, path: Path) -> dict[str, Any]:
    """The numbers themselves, if they are this cell's. Raises InputError for a file that is damaged or another cell's."""
    checked(numbers, CellNumbers, path)
    own = {
        "variant": cell.variant, "readout": cell.readout, "method": cell.row.method, "options": cell.row.described,
        "seed": cell.seed,
    }  # fmt: skip
    for name, value in own.items():
        if numbers.get(name) != value:
            raise InputError(f"{path} is another cell's: {name} is {brief(numbers.get(name))}, expected {brief(value)}")
    return numbers


def checked_scores(scores: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The scores themselves, each ``(M,)``. Raises InputError for others: names, shapes, values that are not finite."""
    shapes = {name: values.shape for name, values in scores.items()}
    if (
        set(shapes) != set(SCORES)
        or len(set(shapes.values())) != 1
        or len(shapes["image"]) != 1
        or not shapes["image"][0]
    ):
        raise InputError(f"{path} does not hold the scores of a cell: it has {brief(shapes)}")
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise InputError(f"{path} is damaged: it holds scores that are not finite")
    return scores
