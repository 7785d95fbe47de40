"""Train a cell and say how well it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.features import FeatureRows
from ...evaluation import (
    Predictions,
    apply_temperature,
    evaluate_binary,
    evaluate_predictions,
    metrics,
    temperature_of,
)
from ...networks.methods import gains_of
from ...runs import Adapted, Session
from ...tasks import Examples
from ...tensors import write_tensors
from .laboratory import Laboratory
from .mechanism import measure_mechanism
from .numbers import cell_numbers
from .rows import Cell

MEASURED = ("base", "attention", "decoder-gains", "ia3", "comodulation", "paper")  # rows whose mechanism is analysed


@dataclass(frozen=True)
class Measured:
    """A trained cell: its network, what it was tested on, its predictions, and numbers for its file."""

    session: Session
    adapted: Adapted
    features: FeatureRows
    examples: Examples
    tested: Predictions
    numbers: dict[str, Any]


def train_and_test(laboratory: Laboratory, cell: Cell, settings: dict[str, Any]) -> Measured:
    """A cell, trained with some settings and tested on the test split."""
    session, adapted = laboratory.adapt(cell, settings)
    features, examples = laboratory.test_data(session, cell)
    tested = session.answer(adapted, features, examples)
    whole = metrics(tested.log_probabilities, tested.target)
    numbers = cell_numbers(
        cell, whole, adapted.method.num_learnable(), adapted.seconds["tuning"], settings, len(adapted.history)
    )
    return Measured(session, adapted, features, examples, tested, numbers)


def measure_accuracy(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of a cell of which nothing else is kept."""
    return train_and_test(laboratory, cell, settings).numbers


def measure_everything(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of a cell, its mechanism among them; its scores of every test prediction and its gains are kept besides."""
    measured = train_and_test(laboratory, cell, settings)
    session, adapted, tested = measured.session, measured.adapted, measured.tested
    family = laboratory.material.family
    temperature = temperature_of(adapted.validation) or 1.0
    scaled = apply_temperature(tested.log_probabilities, temperature)
    whole = evaluate_predictions(tested, family.tasks)
    numbers: dict[str, Any] = {
        **measured.numbers,
        "outputs": family.num_outputs,
        "tuning_images": len(laboratory.training_data(session, cell).tuning.image.unique()),
        "temperature": temperature,
        "scaled": metrics(scaled, tested.target),
        "validation": metrics(adapted.validation.log_probabilities, adapted.validation.target),
        "tasks": whole["tasks"],
        "macro": whole["macro"],
        "history": adapted.history,
        "pretraining": adapted.pretraining[-1] if adapted.pretraining else {},
    }
    if family.kind == "binary":
        numbers["binary"] = evaluate_binary(tested, family.tasks, laboratory.material.groups)
    if cell.row.method in MEASURED and not cell.row.get("distractors"):
        numbers["mechanism"] = measure_mechanism(session, adapted, measured.features, measured.examples)
    write_tensors(folder / f"{cell.key}.scores.safetensors", scores(tested, scaled))
    if gains := gains_of(adapted.method):
        write_tensors(folder / f"{cell.key}.gains.safetensors", gains)
    return numbers


def scores(tested: Predictions, scaled: Tensor) -> dict[str, Tensor]:
    """What is kept of each test prediction: enough for every metric, paired test and reliability diagram.

    Args:
        tested: M predictions.
        scaled: their log-probabilities after temperature scaling, ``(M, C)``.
    """
    logs = tested.log_probabilities
    hits = torch.nn.functional.one_hot(tested.target, logs.shape[1])

    def nll(values: Tensor) -> Tensor:
        return -values.gather(1, tested.target[:, None])[:, 0].clamp(min=-100)

    return {
        "image": tested.image.int(),
        "task": tested.task.short(),
        "hit": (logs.argmax(1) == tested.target).to(torch.uint8),
        "nll": nll(logs),
        "brier": (logs.exp() - hits).square().sum(1),
        "confidence": logs.max(1).values.exp(),
        "scaled_nll": nll(scaled),
        "scaled_confidence": scaled.max(1).values.exp(),
    }
