"""Tables of a run by class, as files: classes.csv and confusions.csv."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..evaluation import class_scores, confusions
from .answered import Answered, TaskAnswers
from .folder import CLASSES, CONFUSIONS
from .plain_tables import write_csv

CLASS_COLUMNS = ("task", "class", "precision", "recall", "f1", "support", "answered")
CONFUSION_COLUMNS = ("task", "truth", "answer", "count")


def write_class_files(folder: Path, answered: Answered) -> None:
    """Write classes.csv (a row for each class of each task) and confusions.csv (a row for each pair that occurs, right ones,
    too)."""
    tasks = answered.tasks()
    write_csv(folder / CLASSES, CLASS_COLUMNS, (row for task in tasks for row in _classes(task)))
    write_csv(folder / CONFUSIONS, CONFUSION_COLUMNS, (row for task in tasks for row in _pairs(task)))


def _classes(task: TaskAnswers) -> Iterable[Sequence[object]]:
    for name, own in zip(task.classes, class_scores(task.target, task.answer, len(task.classes)), strict=True):
        shares = ("" if math.isnan(value) else f"{value:.6g}" for value in own[:3])
        yield [task.name, name, *shares, own.support, own.answered]


def _pairs(task: TaskAnswers) -> Iterable[Sequence[object]]:
    for truth, answer, count in confusions(task.target, task.answer):
        yield [task.name, task.classes[truth], task.classes[answer], count]
