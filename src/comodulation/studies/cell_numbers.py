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


class IllustrationNames(Written):
    """The header of an illustration."""

    kind: str
    tasks: list[str] = Field(min_length=1)
    outputs: list[str] = Field(min_length=1)


def checked_illustration(arrays: dict[str, np.ndarray], names: Any, path: Path) -> None:
    """Raise InputError for arrays that do not fit each other, or the names of tasks and outputs; see ``illustrate``."""
    checked(names, IllustrationNames, path)
    tasks, targets = len(names["tasks"]), 2 if names["kind"] == "binary" else len(names["outputs"])
    shapes = {name: values.shape for name, values in arrays.items()}
    encoder, decoder = (shapes.get(name, ())[1:] for name in ("coupling", "decoder"))
    samples = shapes.get("modulator")
    expected = {
        "coupling": (tasks, *encoder), "encoder": (tasks, *encoder), "encoder_dprime": (tasks, *encoder),
        "decoder": (tasks, *decoder), "decoder_dprime": (tasks, *decoder), "trace": (*(samples or ()), *decoder),
        **{f"share_{name}": (tasks,) for name in ("before", "after", "chance", "control")},
        "before": (targets,), "after": (targets,), "image_task": (), "image_target": (),
    }  # fmt: skip
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise InputError(f"{path} is damaged: {name} is {brief(shapes.get(name))}, expected {brief(shape)}")
    dimensions = {"coupling": 2, "decoder": 2, "modulator": 1, "spectrum_before": 1, "spectrum_after": 1, "image": 3}
    for name, number in dimensions.items():
        if len(shapes.get(name, ())) != number or not arrays[name].size:
            raise InputError(f"{path} is damaged: {name} is {brief(shapes.get(name))}, expected {number} dimensions")
    if arrays["image"].dtype != np.uint8 or shapes["image"][2] != 3:
        raise InputError(
            f"{path} is damaged: image is {brief(shapes['image'])} of {arrays['image'].dtype}, expected RGB"
        )
    for name, end in (("image_task", tasks), ("image_target", targets)):
        if arrays[name].dtype.kind not in "iu" or not 0 <= arrays[name] < end:
            raise InputError(f"{path} is damaged: {name} is {brief(arrays[name].tolist())}, expected 0 to {end - 1}")
