"""The answers of a run where its metric is not accuracy: offsets of log probabilities by task and class, in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..evaluation import Predictions, decide, decision_score, evaluate_predictions, find_offsets
from ..tasks import NO_YES, TaskFamily

METRIC_WORDS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1"}


@dataclass(frozen=True)
class Decisions:
    """How a run answers.

    Attributes:
        metric: that the answers are chosen for, of ``DecisionMetric``.
        family: the tasks.
        offsets: by number of the task, of its own classes, in their order; a task that is not named answers the most probable.
    """

    metric: str
    family: TaskFamily
    offsets: Mapping[int, Tensor] = field(default_factory=dict)

    def of_task(self, task: int) -> Tensor | None:
        """Offsets of all V targets ``(V,)``, 0 for those of other tasks; None where the most probable is answered."""
        if task not in self.offsets:
            return None
        found = torch.zeros(len(self.family.targets), dtype=torch.float64)
        found[list(self.family.own_targets(task))] = self.offsets[task]
        return found

    def decided(self, predictions: Predictions) -> Predictions:
        """The same probabilities, with the answers that are given."""
        answers = predictions.log_probabilities.argmax(1)
        for task in predictions.task.unique().tolist():
            if (offsets := self.of_task(task)) is not None:
                rows = predictions.task == task
                answers[rows] = decide(predictions.log_probabilities[rows], offsets)
        return replace(predictions, decided=answers)

    def scores(self, predictions: Predictions) -> dict[str, dict[str, float]]:
        """The metric of each task's answers as they are ``decided``, and of the ``most_probable`` ones."""
        found: dict[str, dict[str, float]] = {}
        for name, given in (
            ("decided", self.decided(predictions)),
            ("most_probable", replace(predictions, decided=None)),
        ):
            answers = given.answers
            for task in predictions.task.unique().tolist():
                rows, binary = predictions.task == task, is_binary(self.family, task)
                pair = predictions.target[rows], answers[rows]
                if binary:  # whether it is yes, wherever yes stands among the targets
                    yes = self.family.own_targets(task)[1]
                    pair = (pair[0] == yes).long(), (pair[1] == yes).long()
                score = decision_score(self.metric, *pair, binary=binary)
                found.setdefault(self.family.tasks[task], {})[name] = score
        return found

    def to_json(self) -> dict[str, Any]:
        """The metric, and offsets by the names of task and class."""
        named = {
            self.family.tasks[task]: dict(zip(self.family.answers(task), map(float, values), strict=True))
            for task, values in self.offsets.items()
        }
        return {"metric": self.metric, "offsets": named}


def find_decisions(predictions: Predictions, family: TaskFamily, metric: str) -> Decisions | None:
    """Decisions for a metric, from answers to inputs that taught nothing; None for accuracy: the most probable answer is best.

    Args:
        predictions: of validation or out of fold, at the temperature of the run. family: of their tasks.
        metric: of ``DecisionMetric``.
    """
    if metric == "accuracy":
        return None
    offsets = {}
    for task in predictions.task.unique().tolist():
        rows, own = predictions.task == task, list(family.own_targets(task))
        place = torch.full((len(family.targets),), -1)
        place[own] = torch.arange(len(own))
        logs = predictions.log_probabilities[rows][:, own].log_softmax(1)
        offsets[task] = find_offsets(logs, place[predictions.target[rows]], metric, binary=is_binary(family, task))
    return Decisions(metric, family, offsets)


def stored_decisions(metrics: Mapping[str, Any], family: TaskFamily) -> Decisions | None:
    """The decisions of a run and of the tasks that were added to it, from its metrics.json; None where there are none.

    Raises:
        InputError: they name other tasks or classes than the run has.
    """
    stored = [entry["decisions"] for entry in (metrics, *metrics.get("added", [])) if entry.get("decisions")]
    if not stored:
        return None
    offsets = {}
    for name, values in ((name, values) for entry in stored for name, values in entry["offsets"].items()):
        classes = family.answers(family.task_id(name))
        if set(values) != set(classes):
            raise InputError(
                f"metrics.json is damaged: it has decisions of {name!r} among other classes than the task has"
            )
        offsets[family.task_id(name)] = torch.tensor([values[one] for one in classes], dtype=torch.float64)
    return Decisions(stored[0]["metric"], family, offsets)


def stored_offsets(metrics: Mapping[str, Any], task: str) -> dict[str, float] | None:
    """Offsets of a task's classes by name, from metrics.json; None where the most probable is answered."""
    entries = (metrics, *metrics.get("added", []))
    found = [(entry.get("decisions") or {}).get("offsets", {}).get(task) for entry in entries]
    return next((offsets for offsets in found if offsets is not None), None)


def decided(predictions: Predictions, decisions: Decisions | None) -> Predictions:
    """Predictions with the answers that are given; None leaves the most probable ones."""
    return predictions if decisions is None else decisions.decided(predictions)


def judged(
    predictions: Mapping[str, Predictions], family: TaskFamily, metric: str
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Predictions of splits with the answers that are given, and what metrics.json says of these: decisions, and each split.

    Args:
        predictions: by split, at the temperature of the run; decisions come from those of ``validation``.
        family: of their tasks. metric: of ``DecisionMetric``.
    """
    decisions = find_decisions(predictions["validation"], family, metric)
    given = {name: decided(found, decisions) for name, found in predictions.items()}
    measured = {name: evaluate_predictions(found, family.tasks) for name, found in given.items()}
    return given, {**decision_entry(decisions, given), **measured}


def decision_entry(decisions: Decisions | None, measured: Mapping[str, Predictions]) -> dict[str, Any]:
    """What metrics.json says of decisions, and what they came to on each split; nothing where there are none."""
    if decisions is None:
        return {}
    return {"decisions": {**decisions.to_json(), **{name: decisions.scores(found) for name, found in measured.items()}}}


def decision_note(metrics: Mapping[str, Any], split: str) -> str:
    """What readers of a run's metrics.json must know of its answers, as a sentence; empty where the most probable is answered."""
    found = metrics.get("decisions")
    if not found or not found.get(split):
        return ""
    scores = found[split].values()
    mean = {name: sum(score[name] for score in scores) / len(scores) for name in ("decided", "most_probable")}
    what = METRIC_WORDS[found["metric"]]
    return (
        f"Answers are chosen for {what}, mean over tasks {mean['decided']:.3f} ({split}); the most probable answers have "
        f"{mean['most_probable']:.3f}. Probabilities are the same."
    )


def is_binary(family: TaskFamily, task: int) -> bool:
    """Whether a task answers no or yes."""
    return tuple(family.answers(task)) == NO_YES
