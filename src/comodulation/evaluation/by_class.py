"""What a task's answers are class by class: which are mistaken for which, precision and recall."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .binary import share


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
    """Labels of class ``truth`` that were answered ``answer``, ``number`` of them; places among the classes."""

    truth: int
    answer: int
    number: int


def class_scores(target: Tensor, answer: Tensor, number: int) -> list[ClassScores]:
    """Scores of each class.

    Args:
        target, answer: places among the classes, int64 ``(M,)``. number: C of classes.

    >>> import torch
    >>> class_scores(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]), 2)[0]
    ClassScores(precision=1.0, recall=0.75, f1=0.8571428571428571, support=4, answered=3)
    """
    support, answered = target.bincount(minlength=number), answer.bincount(minlength=number)
    hits = target[target == answer].bincount(minlength=number)
    return [
        ClassScores(share(hit, said), share(hit, held), share(2 * hit, held + said), held, said)
        for hit, held, said in zip(hits.tolist(), support.tolist(), answered.tolist(), strict=True)
    ]


def confusions(target: Tensor, answer: Tensor) -> list[Confusion]:
    """How often each class was answered as each, by truth, then answer; the pairs that occur, those of equal classes among them.

    Args:
        target, answer: places among the classes, int64 ``(M,)``.
    """
    pairs, counts = torch.stack([target, answer]).unique(dim=1, return_counts=True)
    return [Confusion(*row) for row in torch.cat([pairs, counts[None]]).T.tolist()]
