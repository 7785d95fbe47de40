"""Predictions -> metrics: accuracy, NLL, Brier score, ECE; overall, per task, macro and worst task; balanced accuracy and
the majority class per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ECE_BINS = 15
BLOCK = 2**14  # predictions looked at together: what is computed on the way takes many times their own memory
METRICS = ("accuracy", "nll", "brier", "ece")
BALANCED = "balanced_accuracy"
MAJORITY = "majority"


@dataclass(frozen=True)
class Predictions:
    """Predicted distributions for labelled (image, task) pairs.

    Attributes:
        image, task, target: int64 ``(M,)``.
        log_probabilities: ``(M, C)`` for classes and columns, ``(M, 2)`` for binary tasks.
        decided: answers that are given, int64 ``(M,)``, where these are not the most probable ones; see ``decisions``.
    """

    image: Tensor
    task: Tensor
    target: Tensor
    log_probabilities: Tensor
    decided: Tensor | None = None

    @property
    def answers(self) -> Tensor:
        """The answer to each pair, ``(M,)``."""
        return self.log_probabilities.argmax(1) if self.decided is None else self.decided

    @property
    def confidence(self) -> Tensor:
        """The probability of each answer, ``(M,)``."""
        return self.log_probabilities.gather(1, self.answers[:, None])[:, 0].exp()

    def __len__(self) -> int:
        return len(self.target)


def metrics(log_probabilities: Tensor, targets: Tensor, answers: Tensor | None = None) -> dict[str, float]:
    """Accuracy, NLL (nats), Brier score (sum over classes, in [0, 2]) and ECE (15 equal bins of confidence).

    Args:
        log_probabilities: normalised, ``(M, C)``; where rounding left them above 0, they count as 0.
        targets: ``(M,)``, M > 0.
        answers: ``(M,)``, whose accuracy and whose confidence it is; None takes the most probable ones.

    Returns:
        accuracy, ece and brier as fractions, nll in nats, and the number of predictions as ``count``.

    Raises:
        ValueError: no predictions.

    >>> round(metrics(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log(), torch.tensor([0, 1]))["ece"], 6)
    0.25
    """
    if not len(targets):
        raise ValueError("no predictions to evaluate")
    blocks = log_probabilities.split(BLOCK), targets.split(BLOCK)
    given = [None] * len(blocks[0]) if answers is None else answers.split(BLOCK)
    parts = [_judged(*block) for block in zip(*blocks, given, strict=True)]
    loss, error, confidence, hit = (torch.cat(values) for values in zip(*parts, strict=True))
    return {
        "accuracy": float(hit.double().mean()),
        "nll": float(loss.mean()),
        "brier": float(error.mean()),
        "ece": calibration_error(confidence, hit),
        "count": len(targets),
    }


def _judged(
    log_probabilities: Tensor, targets: Tensor, answers: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each prediction, ``(M,)``: its NLL, its Brier score, and the confidence of its answer and whether that is right."""
    logs = log_probabilities.double().clamp(max=0)
    probabilities = logs.exp()
    if answers is None:
        confidence, answers = probabilities.max(1)
    else:
        confidence = probabilities.gather(1, answers[:, None])[:, 0]
    loss = -logs.gather(1, targets[:, None])[:, 0].clamp(min=-100)
    of_target = torch.full_like(confidence, -1)[:, None]
    error = probabilities.scatter_add(1, targets[:, None], of_target).square().sum(1)
    return loss, error, confidence, answers == targets


def expected_calibration_error(probabilities: Tensor, targets: Tensor, bins: int = ECE_BINS) -> float:
    """``calibration_error`` of the largest probability.

    Args:
        probabilities: ``(M, C)``, float64.
        targets: ``(M,)``.
        bins: number of bins.
    """
    confidence, predicted = probabilities.max(1)
    return calibration_error(confidence, predicted == targets, bins)


def calibration_error(confidence: Tensor, hit: Tensor, bins: int = ECE_BINS) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, weighted by their predictions.

    Bin i holds [i, i + 1) / bins, the last one also 1. Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural
    networks" (ICML 2017), equation 3.

    Args:
        confidence: ``(M,)``, float64.
        hit: whether each prediction was right, bool ``(M,)``.
        bins: number of bins.
    """
    place = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=confidence.dtype).index_add(
        0, place.cpu(), (hit.to(confidence.dtype) - confidence).cpu()
    )
    return float(gaps.abs().sum() / len(hit))


def balanced_accuracy(log_probabilities: Tensor, targets: Tensor, answers: Tensor | None = None) -> float:
    """Mean over the classes that occur of the share of their predictions that is right.

    Args:
        log_probabilities: ``(M, C)``.
        targets: ``(M,)``, M > 0.
        answers: ``(M,)``; None takes the most probable ones.

    >>> balanced_accuracy(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]).log(), torch.tensor([0, 0, 1]))
    0.5
    """
    counts = torch.bincount(targets)
    said = log_probabilities.argmax(1) if answers is None else answers
    hits = torch.bincount(targets, (said == targets).double())
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def evaluate_predictions(predictions: Predictions, tasks: Sequence[str]) -> dict[str, object]:
    """Metrics over all pairs, per task, their mean over tasks, and the worst task of each.

    Returns:
        The overall metrics, and under ``tasks`` the same by task name (tasks without a label are left out), under
        ``macro`` the mean over tasks, under ``worst`` for each metric the worst task and its value. Tasks and ``macro`` also
        have ``balanced_accuracy``; all but ``worst`` have ``majority``, the accuracy of saying each task's most frequent class
        of these very targets.
    """
    whole = predictions.decided
    result: dict[str, object] = dict(metrics(predictions.log_probabilities, predictions.target, whole))
    per_task = {}
    for number, name in enumerate(tasks):
        rows = predictions.task == number
        if bool(rows.any()):
            own = predictions.log_probabilities[rows], predictions.target[rows], None if whole is None else whole[rows]
            majority = int(own[1].bincount().max()) / len(own[1])
            per_task[name] = {**metrics(*own), BALANCED: balanced_accuracy(*own), MAJORITY: majority}
    result[MAJORITY] = sum(values[MAJORITY] * values["count"] for values in per_task.values()) / len(predictions)
    result["tasks"] = per_task
    result["macro"] = {
        metric: sum(values[metric] for values in per_task.values()) / len(per_task)
        for metric in (*METRICS, BALANCED, MAJORITY)
    }
    worst = {}
    for metric in METRICS:
        pick = min if metric == "accuracy" else max
        name = pick(per_task, key=lambda task: per_task[task][metric])
        worst[metric] = {"task": name, "value": per_task[name][metric]}
    result["worst"] = worst
    return result
