"""What a task's answers are class by class: which are mistaken for which, precision and recall."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class ClassScores(NamedTuple):
    """Of one class: nan where there is nothing to divide by.

    Attributes:
        precision: share of the answers that name it that are right; nan where none does.
        recall: share of its labels that are answered so; nan where it has none.
        f1: harmonic mean of the two, 2 hits / (labels + answers); nan where it has neither.
        support: its labels. answered: answers that name it.
    """

    precision: float
    recall: float
    f1: float
    support: int
    answered: int


class Confusion(NamedTuple):
    """Labels of class ``truth`` that were answered ``answer``, ``count`` of them; places among the classes."""

    truth: int
    answer: int
    count: int


def confusion_counts(target: Tensor, answer: Tensor, number: int) -> NDArray[np.int64]:
    """How often each class was answered as each: rows are the truth, columns the answer.

    Args:
        target, answer: places among the classes, int64 ``(M,)``. number: C of classes.

    Returns:
        ``(C, C)``.
    """
    cells = target.cpu().numpy().astype(np.int64) * number + answer.cpu().numpy()
    return np.bincount(cells, minlength=number**2).reshape(number, number)


def class_scores(counts: NDArray[np.int64]) -> list[ClassScores]:
    """Scores of each class.

    Args:
        counts: ``(C, C)``, of ``confusion_counts``.

    >>> class_scores(np.array([[3, 1], [0, 0]]))[0]
    ClassScores(precision=1.0, recall=0.75, f1=0.8571428571428571, support=4, answered=3)
    """
    hits, support, answered = counts.diagonal(), counts.sum(1), counts.sum(0)
    return [
        ClassScores(_share(hit, said), _share(hit, held), _share(2 * hit, held + said), held, said)
        for hit, held, said in zip(hits.tolist(), support.tolist(), answered.tolist(), strict=True)
    ]


def most_confused(counts: NDArray[np.int64], most: int) -> list[Confusion]:
    """The pairs of different classes that were confused most often, the most frequent first; pairs that never were are left out.

    Args:
        counts: ``(C, C)``. most: how many.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Confusion(int(a), int(b), int(wrong[a, b])) for a, b in pairs if wrong[a, b]]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
