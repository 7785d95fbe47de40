"""The answers of a run to labelled images, by task; its tables, figures and files are made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluation import Predictions
from ..tasks import TaskFamily


@dataclass(frozen=True)
class TaskAnswers:
    """One task's labels and answers.

    Attributes:
        name: of the task. rows: its pairs among the predictions, ``(M,)``.
        classes: names of its own classes, C of them, and then of those of other tasks that it was answered with.
        own: C. target, answer: places among the classes, ``(M,)``. linear: those that logistic regression alone answers.
    """

    name: str
    rows: Tensor
    classes: tuple[str, ...]
    own: int
    target: Tensor
    answer: Tensor
    linear: Tensor | None = None


@dataclass(frozen=True)
class StoredAnswers:
    """What is kept of M predictions; names as in ``Predictions``.

    Attributes:
        image, task, target, answers: int64 ``(M,)``. confidence: probability of each answer, ``(M,)``.
    """

    image: Tensor
    task: Tensor
    target: Tensor
    answers: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Answered:
    """Answers to M pairs of image and task, at the temperature that they are given at, and what they are of.

    Attributes:
        predictions, family: what was answered, of which tasks.
        files: what the data call each image, by its number, ``Split.names``; None where that is not known.
        read: gives an input by its number (``Split.read``): an image, a text or an embedding; None where there are none.
        what: an input is called.
        linear: what logistic regression alone answers to the same pairs, in the same order; None where that is not known.
    """

    predictions: Predictions | StoredAnswers
    family: TaskFamily
    files: Sequence[str | None] | None = None
    read: Callable[[int], Any] | None = None
    what: str = "image"
    linear: Predictions | StoredAnswers | None = None

    def tasks(self) -> list[TaskAnswers]:
        """The tasks that have labels, in the family's order."""
        family, predictions = self.family, self.predictions
        predicted = predictions.answers
        order = predictions.task.argsort(stable=True)
        counts = predictions.task.bincount(minlength=family.num_tasks).tolist()
        found = []
        for task, rows in enumerate(order.split(counts)):
            if not len(rows):
                continue
            own = list(family.own_targets(task))
            said = predicted[rows]
            beside = None if self.linear is None else self.linear.answers[rows]
            all_said = said if beside is None else torch.cat([said, beside])
            foreign = sorted(set(all_said.unique().tolist()) - set(own))
            place = torch.full((len(family.targets),), -1)
            place[own + foreign] = torch.arange(len(own) + len(foreign))
            classes = (*family.answers(task), *(family.targets[one] for one in foreign))
            target = place[predictions.target[rows]]
            line = None if beside is None else place[beside]
            found.append(TaskAnswers(family.tasks[task], rows, classes, len(own), target, place[said], line))
        return found

    def name(self, image: int) -> str:
        """What an image is called on a page."""
        own = None if self.files is None else self.files[image]
        return f"row {image}" if own is None else own
