"""Which answer to give where mistakes do not all cost the same: offsets of the log probabilities, one set a task.

The answer to an input is ``argmax_c log p(c | x) + b_c``. The probabilities stay as they are; b = 0 is the most probable answer,
which is best for accuracy. docs/mathematics.md, section 10, derives what is best for the others.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .scores import balanced_accuracy

DecisionMetric = Literal["accuracy", "balanced_accuracy", "f1"]
DECISION_METRICS = get_args(DecisionMetric)
STEPS = 41  # of the strength, from 0 (accuracy) by 1 (balanced accuracy of calibrated answers) to 2
CERTAIN = 80.0  # log odds beyond which no threshold is looked for
MOST_ROWS = 20_000  # answers that a decision over classes is fitted to


def decide(log_probabilities: Tensor, offsets: Tensor) -> Tensor:
    """The answers at some offsets, ``(M,)``.

    Args:
        log_probabilities: ``(M, C)``. offsets: ``(C,)``, or ``(M, C)``.
    """
    return (log_probabilities.double() + offsets).argmax(-1)


def decision_score(metric: str, targets: Tensor, answers: Tensor, *, binary: bool) -> float:
    """Accuracy, balanced accuracy or F1 of some answers.

    F1 is 2 hits / (labels + answers): of yes in a binary task, else its mean over the classes that occur as a label or an answer.

    Args:
        metric: of ``DECISION_METRICS``. targets, answers: ``(M,)``, M > 0. binary: whether they are no (0) and yes (1).

    >>> decision_score("f1", torch.tensor([1, 0, 0, 0]), torch.tensor([1, 1, 0, 0]), binary=True)
    0.6666666666666666
    """
    if metric == "accuracy":
        return float((targets == answers).double().mean())
    if metric == "balanced_accuracy":
        return balanced_accuracy(torch.empty(0), targets, answers)
    number = 1 + int(max(answers.max(), targets.max(), torch.tensor(1)))
    held, said = targets.bincount(minlength=number), answers.bincount(minlength=number)
    shares = 2 * targets[targets == answers].bincount(minlength=number).double() / (held + said).clamp(min=1)
    return float(shares[1] if binary else shares[held + said > 0].mean())


def find_offsets(log_probabilities: Tensor, targets: Tensor, metric: str, *, binary: bool) -> Tensor:
    """Offsets at which a task's answers have the highest metric, as far as its answers can tell.

    A binary task has any threshold of the probability of yes. A task of classes has one number, the strength a of the offsets
    -a log(share of the class): 0 is best for accuracy and 1 for balanced accuracy where probabilities are right. Both are chosen by
    the metric that labels and probabilities together foretell: each answer counts half as the class it is labelled with, and half
    as the classes that its own probabilities say. The labels alone would follow the chance of the few that are rare, the
    probabilities alone would be blind to what is wrong with them.

    Args:
        log_probabilities: ``(M, C)`` of calibrated answers to inputs that taught nothing, of the task's own classes.
        targets: ``(M,)``. metric: of ``DECISION_METRICS``. binary: whether the classes are no and yes.

    Returns:
        ``(C,)``, float64, 0 for the most probable class of all; zeros where fewer than two classes have a label.
    """
    logs = log_probabilities.double()
    zero = torch.zeros(logs.shape[1], dtype=torch.float64)
    if metric == "accuracy" or len(targets.unique()) < 2:
        return zero
    if len(logs) > MOST_ROWS and not binary:
        kept = torch.linspace(0, len(logs) - 1, MOST_ROWS).long()
        logs, targets = logs[kept], targets[kept]
    expected = logs.exp() / 2
    expected[torch.arange(len(targets)), targets] += 0.5
    if binary:
        zero[1] = _yes_offset(logs[:, 1] - logs[:, 0], expected[:, 1], metric)
        return zero
    share = expected.mean(0).clamp(min=1 / (len(targets) + logs.shape[1]))
    direction = -(share / share.max()).log()
    strengths = torch.linspace(0, 2, STEPS, dtype=torch.float64)
    scores = torch.stack([_expected_score(expected, decide(logs, a * direction), metric) for a in strengths])
    return strengths[_middle(scores)] * direction


def yes_from(offsets: Tensor) -> float:
    """The probability of yes from which a binary task answers yes, at offsets of no and yes.

    >>> yes_from(torch.tensor([0.0, 0.0]))
    0.5
    """
    return float(torch.sigmoid(offsets[0] - offsets[1]))


def _yes_offset(odds: Tensor, yes: Tensor, metric: str) -> Tensor:
    """The offset of yes, from log odds ``(M,)`` and what is expected of each answer: the best threshold, between two inputs."""
    odds = odds.clamp(-CERTAIN, CERTAIN)
    order = odds.argsort(descending=True)
    odds, yes = odds[order], yes[order]
    answered = torch.arange(1, len(odds), dtype=torch.float64)  # so many are answered yes, the surest first
    hits, labels = yes.cumsum(0)[:-1], yes.sum()
    if metric == "f1":
        scores = 2 * hits / (answered + labels)
    else:
        scores = (hits / labels + 1 - (answered - hits) / (len(odds) - labels)) / 2
    scores = scores.masked_fill(odds[:-1] == odds[1:], -1)  # no threshold lies between equals
    best = int(scores.argmax())
    return -(odds[best] + odds[best + 1]) / 2


def _expected_score(expected: Tensor, answers: Tensor, metric: str) -> Tensor:
    """Balanced accuracy or mean F1 over classes, from the share of each class ``(M, C)`` that an answer is expected to be."""
    labels, said = expected.sum(0), answers.bincount(minlength=expected.shape[1])
    own = expected.gather(1, answers[:, None])[:, 0]
    hits = torch.zeros_like(labels).index_add(0, answers, own)
    real = labels > 0
    shares = hits / labels if metric == "balanced_accuracy" else 2 * hits / (labels + said)
    return shares[real].mean()


def _middle(scores: Tensor) -> int:
    """The place of the highest score; of several, the first but one that is alike in the middle."""
    best = (scores >= scores.max() - 1e-12).nonzero()[:, 0]
    return int(best[len(best) // 2])
