"""Binary tasks -> accuracy, balanced accuracy, precision, recall and F1 per task, macro and by group of tasks.

A task is said yes to where yes is more probable than no; equal probabilities are a no. Undefined values follow
scikit-learn (``zero_division=0``) where a convention is needed to rank methods, and are nan where the data cannot tell:

- no predicted yes, but some are due: precision 0.
- no yes among the targets: precision, recall and F1 are nan. No yes or no no among them: balanced accuracy is nan.

Means leave nan out, and say how many tasks they are of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import choose
from .scores import Predictions

BINARY_METRICS = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class RelativeImprovement:
    """Mean over ``counted`` tasks, a fraction (0.028 is 2.8%), and the tasks that could not be counted."""

    mean: float
    counted: int
    ignored: tuple[str, ...]


def binary_metrics(log_probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Metrics of one binary task.

    Args:
        log_probabilities: of no and yes, ``(M, 2)``.
        targets: 0 or 1, ``(M,)``, M > 0.

    Returns:
        BINARY_METRICS as fractions, nan where undefined (see the module), and ``count`` and ``positives``: M, and how many
        targets are yes.

    Raises:
        ValueError: no predictions, not two probabilities each, or a target that is neither 0 nor 1.

    >>> import torch
    >>> binary_metrics(torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2]]).log(), torch.tensor([1, 0, 0]))["precision"]
    0.5
    """
    if not len(targets):
        raise ValueError("no predictions to evaluate")
    if log_probabilities.shape != (len(targets), 2):
        raise ValueError(f"log-probabilities {tuple(log_probabilities.shape)}, expected ({len(targets)}, 2)")
    if bool(((targets != 0) & (targets != 1)).any()):
        raise ValueError("targets of a binary task are 0 or 1; missing labels are left out beforehand")
    said, due = log_probabilities[:, 1] > log_probabilities[:, 0], targets == 1
    hits, yes, positives = int((said & due).sum()), int(said.sum()), int(due.sum())
    negatives = len(targets) - positives
    rejected = negatives - (yes - hits)
    recall = share(hits, positives)
    return {
        "accuracy": (hits + rejected) / len(targets),
        "balanced_accuracy": (recall + share(rejected, negatives)) / 2,
        "precision": math.nan if not positives else hits / yes if yes else 0.0,
        "recall": recall,
        "f1": 2 * hits / (yes + positives) if positives else math.nan,
        "count": len(targets),
        "positives": positives,
    }


def evaluate_binary(
    predictions: Predictions, tasks: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, object]:
    """Metrics per task, their means over tasks, and their means over the tasks of each group.

    Args:
        predictions: of binary tasks, log-probabilities ``(M, 2)``, M > 0.
        tasks: names, of which ``predictions.task`` holds the numbers.
        groups: names of tasks by group; a task may be in none.

    Returns:
        Under ``tasks`` the metrics by task name (tasks without a label are left out), under ``macro`` their means over
        tasks, under ``groups`` their means by group. A mean is over the tasks where the metric is defined, nan without any;
        beside the means, ``counted`` says of how many tasks each is.

    Raises:
        ValueError: no predictions. InputError: a group names an unknown task.
    """
    if not len(predictions):
        raise ValueError("no predictions to evaluate")
    per_task = {}
    for number, name in enumerate(tasks):
        rows = predictions.task == number
        if bool(rows.any()):
            per_task[name] = binary_metrics(predictions.log_probabilities[rows], predictions.target[rows])
    by_group = {
        group: _means(per_task[name] for name in members if choose(name, tasks, "task") in per_task)
        for group, members in (groups or {}).items()
    }
    return {"tasks": per_task, "macro": _means(per_task.values()), "groups": by_group}


def relative_improvement(method: Mapping[str, float], hard: Mapping[str, float]) -> RelativeImprovement:
    """Mean relative improvement over hard sharing, (1/K) sum_k (M_k - M_k^hard) / M_k^hard.

    Args:
        method: a metric, larger is better, by task.
        hard: the same of hard sharing.

    Returns:
        The mean over the tasks where hard sharing's value is not 0 and both are finite, nan without any; the other tasks by
        name.

    Raises:
        ValueError: values of different tasks.

    >>> relative_improvement({"a": 0.75, "b": 0.5, "c": 0.3}, {"a": 0.5, "b": 0.5, "c": 0.0})
    RelativeImprovement(mean=0.25, counted=2, ignored=('c',))
    """
    if method.keys() != hard.keys():
        different = ", ".join(sorted(method.keys() ^ hard.keys()))
        raise ValueError(f"values of different tasks cannot be compared; only on one side: {different}")
    usable = [k for k in hard if hard[k] != 0 and math.isfinite(hard[k]) and math.isfinite(method[k])]
    mean = sum((method[k] - hard[k]) / hard[k] for k in usable) / len(usable) if usable else math.nan
    return RelativeImprovement(mean, len(usable), tuple(k for k in hard if k not in usable))


def share(part: int, whole: int) -> float:
    """``part / whole``, nan where there is nothing to divide by."""
    return part / whole if whole else math.nan


def _means(values: Iterable[Mapping[str, float]]) -> dict[str, object]:
    rows = list(values)
    result: dict[str, object] = {}
    counted = {}
    for metric in BINARY_METRICS:
        defined = [row[metric] for row in rows if not math.isnan(row[metric])]
        result[metric] = sum(defined) / len(defined) if defined else math.nan
        counted[metric] = len(defined)
    return {**result, "counted": counted}
