"""The part of a page about each task: metrics by class, confusions, and reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..evaluation import (
    BALANCED,
    Predictions,
    Reliability,
    answer_reliability,
    class_scores,
    confusions,
    labels_needed,
    wilson_interval,
    yes_from,
)
from ..report import (
    Block,
    Details,
    Figure,
    Section,
    Table,
    Text,
    confidence_accuracy_figure,
    confusion_figure,
    svg,
)
from ..tasks import NO_YES
from .answered import Answered, StoredAnswers, TaskAnswers
from .decisions import METRIC_WORDS, stored_offsets

MOST_TASKS = 12  # that a page shows one by one
MOST_CLASSES = 30  # in a matrix, and in a table that is not folded away
MOST_PAIRS = 20  # of confused classes
POINTS = 0.05  # half width of an interval that is narrow enough


def sure_section(result: Mapping[str, Any], split: str) -> Section:
    """How sure each task's accuracy is, and how many labels it would take.

    Args:
        result: the content of metrics.json. split: `test` or `validation`.
    """
    few: list[str] = []
    rows: list[tuple[str, int, float, float, float, int]] = []
    for name, values in result[split]["tasks"].items():
        accuracy, count = values["accuracy"], values["count"]
        needed = labels_needed(accuracy, POINTS)
        low, high = wilson_interval(accuracy, count)
        rows.append((name, count, accuracy, float(low), float(high), needed))
        if count < needed:
            few.append(f"{name} ({count:,} of {needed:,})")
    rows.sort(key=lambda row: row[1] - row[5])
    named = ", ".join(few[:MOST_TASKS]) + (f" and {len(few) - MOST_TASKS} more" if len(few) > MOST_TASKS else "")
    said = (
        f"**Few labels.** The accuracy of {len(few)} of {len(rows)} tasks is less precise than plus or minus 5 points: the "
        f"{split} split has too few labels for {named}."
        if few
        else f"The accuracy of each task is precise to plus or minus 5 points or better: the {split} split has enough labels."
    )
    table = Table(
        ("task", f"{split} labels", "accuracy", "from", "to", "labels needed"),
        rows,
        "**Precision of the accuracy.** How to read it: with 95% confidence the accuracy lies in the interval (Wilson's); with the "
        f"number of {split} labels in the last column, the interval would be plus or minus 5 points, if the accuracy stayed the "
        "same. Images are taken to be independent.",
        formats=dict.fromkeys(("accuracy", "from", "to"), ".3f"),
    )
    return Section("How many labels", [Text(said), table])


def task_sections(answered: Answered, result: Mapping[str, Any], split: str) -> list[Section]:
    """A section for each task, the lowest balanced accuracy first; of more than ``MOST_TASKS``, those of the lowest.

    Args:
        answered: predictions of the split. result: the content of metrics.json. split: `test` or `validation`.
    """
    numbers = result[split]["tasks"]
    tasks = answered.tasks()
    tasks.sort(key=lambda task: numbers.get(task.name, {}).get(BALANCED, math.inf))
    sections = [Section(f"Task: {task.name}", _blocks(answered, task, result, split)) for task in tasks[:MOST_TASKS]]
    if sections and len(tasks) > MOST_TASKS:
        note = (
            f"Here follow the {MOST_TASKS} of {len(tasks)} tasks with the lowest balanced accuracy; `classes.csv` and "
            "`confusions.csv` beside this page hold all."
        )
        sections[0] = Section(sections[0].title, [Text(note), *sections[0].blocks])
    return sections


def _blocks(answered: Answered, task: TaskAnswers, result: Mapping[str, Any], split: str) -> list[Block]:
    blocks: list[Block] = []
    own, linear = (numbers.get("tasks", {}).get(task.name) for numbers in (
        result[split], result.get("linear", {}).get(split, {}),
    ))  # fmt: skip
    if own and linear:
        blocks.append(_beside(own, linear, split))
    blocks += _decision(task, result)
    classes = _classes(task, split)
    blocks.append(classes if task.own <= MOST_CLASSES else Details(f"{task.own} classes", [classes]))
    blocks.append(_matrix(task) if task.own <= MOST_CLASSES else _pairs(task))
    blocks.append(_calibration(answered, task))
    return blocks


def _beside(own: Mapping[str, Any], linear: Mapping[str, Any], split: str) -> Table:
    columns = (BALANCED, "accuracy", "nll", "brier", "ece", "count")
    return Table(
        ("answers of", "balanced accuracy", *columns[1:]),
        [
            [name, *(values.get(key) for key in columns)]
            for name, values in (("this run", own), ("linear alone", linear))
        ],
        f"**Comparison with linear**, on the {split} split: logistic regression alone.",
        formats=dict.fromkeys(("balanced accuracy", *columns[1:-1]), ".3f"),
    )


def _decision(task: TaskAnswers, result: Mapping[str, Any]) -> list[Block]:
    """From which probability a task answers what, where it does not answer the most probable."""
    offsets = stored_offsets(result, task.name)
    if offsets is None:
        return []
    what = (
        f"which has the highest {METRIC_WORDS[result['decisions']['metric']]} on images that were not used for training"
    )
    if tuple(offsets) == NO_YES:
        yes = yes_from(torch.tensor(list(offsets.values())))
        return [Text(f"**The answer is yes from a probability of {100 * yes:.1f}% on**, {what}.")]
    table = Table(
        ("class", "factor"),
        [(name, math.exp(value)) for name, value in offsets.items()],
        f"**Factors of the classes.** The answer is the class with the highest product of probability and factor, {what}.",
        formats={"factor": ".2f"},
    )
    return [Details("How the answer is chosen", [table])]


def _classes(task: TaskAnswers, split: str) -> Table:
    scores = class_scores(task.target, task.answer, len(task.classes))[: task.own]
    rows = [[name, *own] for name, own in zip(task.classes, scores, strict=False)]
    columns, note = ["class", "precision", "recall", "F1", "labels", "answers"], ""
    if task.linear is not None:
        beside = class_scores(task.target, task.linear, len(task.classes))[: task.own]
        for row, own in zip(rows, beside, strict=True):
            row[4:4] = [own.f1]
        columns[4:4] = ["F1, linear"]
        note = " **F1, linear**: that of logistic regression alone."
    return Table(
        columns,
        rows,
        f"**Each class**, on the {split} split. How to read it: precision is the share of the answers that name the class that are "
        f"right, recall the share of the labels of the class that are answered with it, F1 their harmonic mean (1 is best for all "
        f"three).{note}",
        formats=dict.fromkeys(("precision", "recall", "F1", *(["F1, linear"] if note else [])), ".2f"),
    )


def _matrix(task: TaskAnswers) -> Figure:
    """Truth by answer; answers that are classes of other tasks share a column."""
    foreign = bool((task.answer >= task.own).any())
    counts = torch.zeros(task.own, task.own + foreign, dtype=torch.int64)
    counts.index_put_((task.target, task.answer.clamp(max=task.own)), torch.tensor(1), accumulate=True)
    names = task.classes[: task.own]
    columns = (*names, *(["of another task"] if foreign else []))
    return Figure(
        svg(confusion_figure(counts.numpy(), names, columns)),
        "How to read it: a row holds the labels of a class, a column the answers with it; correct answers are on the diagonal. "
        "The darker a cell, the larger its share of the row.",
        "Confusion matrix",
    )


def _pairs(task: TaskAnswers) -> Table:
    found = [one for one in confusions(task.target, task.answer) if one.truth != one.answer]
    found.sort(key=lambda one: -one.number)
    support = task.target.bincount(minlength=len(task.classes)).tolist()
    return Table(
        ("truth", "answer", "count", "of the labels"),
        [
            (task.classes[one.truth], task.classes[one.answer], one.number, one.number / support[one.truth])
            for one in found[:MOST_PAIRS]
        ],
        f"**The {MOST_PAIRS} pairs of classes that are confused most often.** `confusions.csv` beside this page holds all.",
        formats={"of the labels": ".0%"},
    )


def _calibration(answered: Answered, task: TaskAnswers) -> Figure:
    beside = None if answered.linear is None else _bins(answered.linear, task)
    note = " Orange: logistic regression alone." if beside else ""
    return Figure(
        svg(confidence_accuracy_figure(_bins(answered.predictions, task), beside)),
        "How to read it: on the broken line, accuracy equals confidence; below it, answers are overconfident. Bars are 95% "
        f"intervals, the area of a dot its share of the answers.{note}",
        "Reliability",
    )


def _bins(given: Predictions | StoredAnswers, task: TaskAnswers) -> Reliability:
    hit = given.answers[task.rows] == given.target[task.rows]
    return answer_reliability(given.confidence[task.rows], hit)
