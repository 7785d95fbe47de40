"""Does it pay to train the controller under the modulator's noise? By images a task, classes a task and depth of the decoder.

What is compared is evaluated alike, with the encoder unmodulated and computed gains in the decoder. In training one has the
modulator's fluctuation in the encoder, whose mean is 1, and the other has not: noise is all that differs (docs/questions.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....tensors import write_tensors
from ...cells import Cell, Inquiry, Laboratory, Question, Row, Stage, train_and_test, usual_settings
from ...cells import stage as plain_stage
from .answer import BOTH, DRAWS, EXACT, IMAGES, NOISY, QUIET, SIGMAS, Condition, answer, base_label

STEPS = 200  # of fine-tuning, at least, however few the images
BATCH = 256
PROBED = 100  # test examples a task whose probabilities are kept


def stages(seeds: Sequence[int]) -> list[Stage]:
    """The comparison first, with few images first; then depth, classes, sigma, and stochasticity in evaluation too."""

    def rows(methods: Sequence[str], **changes: Any) -> list[str]:
        return [
            " ".join(part for part in (method, Condition(images, **changes).options, f"draw={draw}") if part)
            for images in IMAGES
            for draw in DRAWS
            for method in methods
        ]

    def untrained(**changes: Any) -> list[str]:
        return [base_label(Condition(**changes))]

    pair = (QUIET, NOISY)
    return [
        plain_stage("no task", untrained(), seeds),
        plain_stage("images", rows(pair), seeds),
        plain_stage("depth", untrained(depth=2) + rows(pair, depth=2), seeds),
        plain_stage("classes", untrained(classes=2) + rows(pair, classes=2), seeds),
        plain_stage("sigma", rows([f"{NOISY} std={sigma}" for sigma in SIGMAS]), seeds),
        plain_stage("gain", rows((EXACT,)), seeds),
        plain_stage("depth and classes", untrained(depth=2, classes=2) + rows(pair, depth=2, classes=2), seeds),
        plain_stage("evaluation", rows((BOTH,)), seeds),
    ]


def settings(cell: Cell, inquiry: Inquiry, num_tasks: int) -> dict[str, Any]:
    """The usual settings, with as many epochs as give every training ``STEPS`` steps at least."""
    images = cell.row.get("images")
    if not images:
        return usual_settings(cell)
    total = images * num_tasks
    batch = min(BATCH, total)
    epochs = max(inquiry.config.tuning.epochs, math.ceil(STEPS / math.ceil(total / batch)))
    return {**usual_settings(cell), "epochs": epochs, "batch_size": batch}


def searched(row: Row) -> Row:
    """A rate for each training and number of images, shared by all depths, classes and strengths of noise."""
    return row.without("draw", "classes", "depth", "std")


def first_rate(row: Row) -> float:
    """Where the search begins: with few images, many steps on the same ones go astray at a high rate."""
    images = row.get("images") or math.inf
    return 0.02 if images < 10 else 0.06 if images <= 100 else 0.2


def measure(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and test a cell; keep the probabilities of the first test examples of each task, for the decomposition."""
    measured = train_and_test(laboratory, cell, settings)
    tested = measured.tested
    rows = torch.cat([(tested.task == task).nonzero()[:PROBED, 0] for task in tested.task.unique()]).sort().values
    kept = {
        "probabilities": tested.log_probabilities[rows].exp().half(),
        "target": tested.target[rows].int(),
        "image": tested.image[rows].int(),
    }
    write_tensors(folder / f"{cell.key}.probabilities.safetensors", kept)
    return measured.numbers


TRAINING = Question(
    place=f"{__name__}:TRAINING",
    name="training",
    title="Does it pay to train under the modulator's noise?",
    asks="Where does stochastic training of the controller pay: by images a task, classes a task, depth of the decoder?",
    predicts=(
        "The noise has mean 1 and is the same in direction for all images of a task: to second order it penalises the curvature of "
        "the loss along the coupling, which is a regulariser. It should lower variance and raise bias, so that it pays with 5 "
        "images a task, if anywhere, by less than a point, and costs with all images. At sigma 0.1 nothing should be seen. More "
        "decoder layers, and more classes, should make no difference to the sign."
    ),
    stages=stages,
    measure=measure,
    settings=settings,
    answer=answer,
    trials=3,
    first_rate=first_rate,
    searched=searched,
)
