"""The contents of a cell's files, and their checks before tables and claims are made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from ...errors import InputError, brief
from ...evaluation import METRICS
from ...runs import Written, checked
from ...tensors import read_tensors
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
# A training that diverged leaves no numbers, and a rank correlation or an interval of what is not finite is none.
Finite = Annotated[Number, Field(allow_inf_nan=False)]
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
    auc_activity: Number | None = None
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


class TestedNumbers(Written):
    """KEY.json of a cell, as far as every question needs it; ``read_cell`` adds what one of them measures besides."""

    variant: str
    readout: str
    method: str
    options: str
    seed: Count
    accuracy: Finite
    nll: Finite
    ece: Finite
    brier: Finite
    learnable_parameters: Count
    seconds: Finite
    alone: Finite = Field(default=math.nan)  # accuracy on images without distractors, where a question has them


class CellNumbers(Written):
    """KEY.json of a cell, as far as the paper's claims need it."""

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


def cell_numbers(
    cell: Cell,
    tested: Mapping[str, float],
    learnable: int,
    seconds: float,
    settings: dict[str, Any],
    epochs: int,
) -> dict[str, Any]:
    """What KEY.json of every cell begins with.

    Args:
        cell: it. tested: metrics of its test predictions. learnable: number of its learned parameters.
        seconds, epochs: of its training, where the layers are there. settings: it was trained with.
    """
    return {
        **_identity(cell), **{name: tested[name] for name in METRICS}, "learnable_parameters": learnable,
        "seconds": seconds, "settings": settings, "epochs": epochs,
    }  # fmt: skip


def _identity(cell: Cell) -> dict[str, Any]:
    return {
        "variant": cell.variant, "readout": cell.readout, "method": cell.row.method, "options": cell.row.described,
        "seed": cell.seed,
    }  # fmt: skip


def check_own(cell: Cell, numbers: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for numbers of another cell."""
    for name, value in _identity(cell).items():
        if numbers.get(name) != value:
            raise InputError(f"{path} is another cell's: {name} is {brief(numbers.get(name))}, expected {brief(value)}")


def checked_numbers(cell: Cell, numbers: Any, path: Path) -> dict[str, Any]:
    """The numbers themselves, if they are this cell's. Raises InputError for a file that is damaged or another cell's."""
    checked(numbers, CellNumbers, path)
    check_own(cell, numbers, path)
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


def read_probabilities(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """What N cells kept of the same M test examples. Raises InputError for files that are damaged or do not fit each other.

    Returns:
        Probabilities ``(N, M, C)`` and the targets, classes ``(M,)``.
    """
    found: list[np.ndarray] = []
    answers = shown = np.empty(0)
    for path in paths:
        tensors, _ = read_tensors(path)
        if missing := [name for name in ("probabilities", "target") if name not in tensors]:
            raise InputError(f"{path} is damaged: it has no {missing[0]}, expected probabilities and target")
        p, target = tensors["probabilities"].double().numpy(), tensors["target"].numpy()
        if p.ndim != 2 or not p.size or target.shape != p.shape[:1]:
            raise InputError(
                f"{path} is damaged: probabilities are {p.shape} and target {target.shape}, expected (examples, classes) "
                "and (examples,)"
            )
        if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1.001):  # half precision
            raise InputError(f"{path} is damaged: probabilities from {p.min():g} to {p.max():g}, expected 0 to 1")
        if target.dtype.kind not in "iu" or target.min() < 0 or target.max() >= p.shape[1]:
            raise InputError(
                f"{path} is damaged: target is {target.dtype} from {target.min():g} to {target.max():g}, expected classes "
                f"from 0 to {p.shape[1] - 1}"
            )
        images = tensors["image"].numpy() if "image" in tensors else np.empty(0)
        same = [np.array_equal(*pair) for pair in ((target, answers), (images, shown))] if found else []
        if found and (p.shape != found[0].shape or not all(same)):
            raise InputError(f"{path} has other test examples than {paths[0].name}")
        found.append(p)
        answers, shown = target, images
    return np.stack(found), answers


class IllustrationNames(Written):
    """The header of an illustration."""

    kind: str
    tasks: list[str] = Field(min_length=1)
    outputs: list[str] = Field(min_length=1)
    text: str | None = None  # the input, where it is no image


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
    dimensions = {"coupling": 2, "decoder": 2, "modulator": 1, "spectrum_before": 1, "spectrum_after": 1}
    dimensions |= {"image": 3} if names.get("text") is None else {}
    for name, number in dimensions.items():
        if len(shapes.get(name, ())) != number or not arrays[name].size:
            raise InputError(f"{path} is damaged: {name} is {brief(shapes.get(name))}, expected {number} dimensions")
    if "image" in dimensions and (arrays["image"].dtype != np.uint8 or shapes["image"][2] != 3):
        raise InputError(
            f"{path} is damaged: image is {brief(shapes['image'])} of {arrays['image'].dtype}, expected RGB"
        )
    for name, end in (("image_task", tasks), ("image_target", targets)):
        if arrays[name].dtype.kind not in "iu" or not 0 <= arrays[name] < end:
            raise InputError(f"{path} is damaged: {name} is {brief(arrays[name].tolist())}, expected 0 to {end - 1}")
