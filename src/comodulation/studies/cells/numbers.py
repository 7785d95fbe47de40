"""What the files of a cell must hold before tables and claims are made of them; see ``Laboratory.run``, which writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from ...errors import InputError, brief
from ...runs import Written, checked
from .rows import Cell

# Of each score: whether it is a whole number, the smallest and the largest, with room for rounding.
SCORES = {
    "image": (True, 0, 2**31 - 1), "task": (True, 0, 2**31 - 1), "hit": (True, 0, 1), "nll": (False, -1e-3, 1e3),
    "brier": (False, -1e-3, 2.001), "confidence": (False, 0, 1.001), "scaled_nll": (False, -1e-3, 1e3),
    "scaled_confidence": (False, 0, 1.001),
}  # fmt: skip
LARGEST = 1e100  # beyond any metric; larger numbers overflow in a variance


def _bounded(value: float) -> float:
    if math.isfinite(value) and abs(value) > LARGEST:
        raise ValueError(f"Input should be a number that can be squared and summed, at most {LARGEST:g}")
    return value


def _present(value: Any) -> Any:
    if value is None:
        raise ValueError("Input should be absent where there is none")
    return value


# NaN and infinity are what a network that diverged has: they are left out further on.
Number = Annotated[float, AfterValidator(_bounded)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Present = BeforeValidator(_present)  # readers ask whether a section is there; a default is not validated


class Below(Written):
    """Shares of gains below thresholds."""

    below_001: Number = Field(alias="0.01")
    below_003: Number = Field(alias="0.03")
    below_01: Number = Field(alias="0.1")
    below_03: Number = Field(alias="0.3")


class Gains(Written):
    """How the gains of one place are spread."""

    movement: Number
    auc: Number | None = None
    below: Below


class Mechanism(Written):
    """The analyses of a network."""

    fisher: Number | None = None
    dprime: Number | None = None
    encoder: Annotated[Gains | None, Present] = None
    decoder: Annotated[Gains | None, Present] = None
    noise: dict[str, Number] = Field(default_factory=dict)


class BinaryMetrics(Written):
    """Metrics of a binary task, or their means over tasks."""

    accuracy: Number
    balanced_accuracy: Number
    precision: Number
    recall: Number
    f1: Number


class Binary(Written):
    """Metrics of binary tasks; see ``evaluate_binary``."""

    tasks: dict[str, BinaryMetrics]
    macro: BinaryMetrics
    groups: dict[str, BinaryMetrics]


class Epoch(Written):
    """What was found after an epoch of fine-tuning."""

    epoch: Count
    nll: Number
    accuracy: Number


class CellNumbers(Written):
    """KEY.json of a cell."""

    accuracy: Number
    nll: Number
    brier: Number
    ece: Number
    seconds: Number
    learnable_parameters: Count
    tasks: dict[str, dict[str, Any]]
    history: list[Epoch]
    pretraining: dict[str, Number]
    settings: dict[str, Any] = Field(default_factory=dict)
    outputs: Annotated[int, Field(ge=1, le=10**9)] = Field(default=1)
    tuning_images: Count = Field(default=0)
    temperature: Number | None = None
    scaled: dict[str, Number] = Field(default_factory=dict)
    binary: Annotated[Binary | None, Present] = None
    mechanism: Annotated[Mechanism | None, Present] = None


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


def check_alike(numbers: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise InputError unless all cells with binary metrics, by path, have them of the same tasks and groups."""
    have = {path: found["binary"] for path, found in numbers.items() if "binary" in found}
    for path, found in have.items():
        first, expected = next(iter(have.items()))
        for name in ("tasks", "groups"):
            if found[name].keys() != expected[name].keys():
                differing = sorted(found[name].keys() ^ expected[name].keys())
                raise InputError(f"{path} has binary metrics of other {name} than {first.name}: {brief(differing)}")


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
    for name, (whole, low, high) in SCORES.items():
        values = scores[name]
        if (whole and values.dtype.kind not in "iu") or values.min() < low or values.max() > high:
            expected = f"{'whole numbers' if whole else 'numbers'} from {low:g} to {high:g}"
            raise InputError(
                f"{path} is damaged: {name} is {values.dtype} from {values.min():g} to {values.max():g}, expected {expected}"
            )
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
