"""What a family of tasks asks of its training images, counted before anything is trained: classes, missing labels, imbalance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError, brief, printable
from ..tasks import NO_YES, Examples, TaskFamily
from .suitability import several_labels

FEW_IMAGES = 5  # of a class; fewer leave none for some of training, fine-tuning and their validation
SHOWN = 40  # tasks in the table
_LOOKS_MISSING = ("na", "n/a", "nan", "null", "none", "missing", "?", "-")


@dataclass(frozen=True)
class TaskSummary:
    """One task in the training split.

    Attributes:
        task: its name.
        kind: ``binary``, ``categorical`` or ``group``.
        counts: labelled images of each class, by name.
        missing: share of the split's images that have no label for the task; nan for a group, which others are not of.
    """

    task: str
    kind: str
    counts: dict[str, int]
    missing: float

    @property
    def labelled(self) -> int:
        return sum(self.counts.values())

    @property
    def smallest(self) -> str:
        return min(self.counts, key=self.counts.__getitem__)

    @property
    def largest(self) -> str:
        return max(self.counts, key=self.counts.__getitem__)

    @property
    def imbalance(self) -> float:
        """Images of the largest class for each one of the smallest; inf where that has none."""
        smallest = self.counts[self.smallest]
        return self.counts[self.largest] / smallest if smallest else math.inf


def summarize(family: TaskFamily, examples: Examples, images: int) -> tuple[TaskSummary, ...]:
    """Count the classes of every task.

    Args:
        family: K tasks.
        examples: the labelled (image, task) pairs of a split, M of them.
        images: how many images the split has, labelled or not.

    Returns:
        One summary per task, in their order.
    """
    values = len(family.targets)
    if family.kind == "columns":  # each target is of one task
        counts = torch.bincount(examples.target, minlength=values)
    else:
        counts = torch.bincount(examples.task * values + examples.target, minlength=family.num_tasks * values)
    table = counts.view(-1, values).tolist()
    summaries = []
    for task, name in enumerate(family.tasks):
        answers, row = family.answers(task), table[0 if family.kind == "columns" else task]
        own = {answer: row[place] for answer, place in zip(answers, family.own_targets(task), strict=True)}
        kind = "group" if family.kind == "classes" else "binary" if answers == NO_YES else "categorical"
        missing = math.nan if kind == "group" else 1 - sum(own.values()) / max(1, images)
        summaries.append(TaskSummary(name, kind, own, missing))
    return tuple(summaries)


def refuse_unlearnable(summaries: Sequence[TaskSummary], *, named: bool) -> None:
    """Refuse columns that nothing can be learned from.

    Args:
        summaries: of the training split.
        named: the columns were chosen by name; then one with a class for every image is taken as meant.

    Raises:
        InputError: names the first column that is constant, or seems to identify the images.
    """
    for one in summaries:
        present = [name for name, count in one.counts.items() if count]
        if len(present) < 2:
            only = f"every label is {present[0]!r}" if present else "no image has a label"
            raise InputError(f"nothing to learn from column {one.task!r}: in the training split {only}")
        if not named and len(present) == one.labelled:
            raise InputError(
                f"column {one.task!r} has a class of its own for every image ({one.labelled}): an identifier? --task names "
                "the columns to learn"
            )


def warnings_of(summaries: Sequence[TaskSummary]) -> list[str]:
    """What a user should know before training, a sentence each."""
    said = []
    for one in summaries:
        few = {name: count for name, count in one.counts.items() if count < FEW_IMAGES}
        if few:
            shown = ", ".join(f"{name!r} {count}" for name, count in list(few.items())[:5])
            more = f", and {len(few) - 5} more" if len(few) > 5 else ""
            said.append(f"task {one.task!r}: classes with fewer than {FEW_IMAGES} training images: {shown}{more}")
        if one.kind == "categorical":
            if several := several_labels(one.counts):
                _, example, labels = several
                said.append(
                    f"task {one.task!r} seems to hold several labels in a cell, such as {brief(example)}; each combination is a "
                    f"class of its own. For one task a label, make a column of no and yes for each: {brief(', '.join(labels))}"
                )
            said += [
                f"task {one.task!r} has a class {name!r}; only empty cells are missing labels"
                for name in one.counts
                if name.lower() in _LOOKS_MISSING
            ]
    return said


def summary_table(summaries: Sequence[TaskSummary], images: Mapping[str, int], what: str = "image") -> str:
    """The summaries as text of at most 79 characters a line.

    Args:
        summaries: of the training split.
        images: number of inputs by split. what: one of them is called.
    """
    splits = ", ".join(f"{count:,} in {name!r}" for name, count in images.items())
    lines = [
        f"{len(summaries)} task{'s' if len(summaries) > 1 else ''}; {what}s: {splits}",
        f"{'task':19s} {'kind':11s} {'classes':>7s} {'labelled':>8s} {'missing':>7s} {'smallest':>8s} {'largest':>7s} "
        f"{'ratio':>5s}",
    ]
    for one in summaries[:SHOWN]:
        missing = "" if math.isnan(one.missing) else f"{100 * one.missing:.1f}%"
        ratio = "-"  # to a class without a training label there is none
        if math.isfinite(one.imbalance):
            ratio = f"{one.imbalance:.1f}" if one.imbalance < 1000 else f"{one.imbalance:.0f}"
        shown = printable(one.task)
        name = shown if len(shown) <= 19 else f"{shown[:16]}..."
        lines.append(
            f"{name:19s} {one.kind:11s} {len(one.counts):7d} {one.labelled:8d} {missing:>7s} "
            f"{one.counts[one.smallest]:8d} {one.counts[one.largest]:7d} {ratio:>5s}"
        )
    if len(summaries) > SHOWN:
        lines.append(f"... and {len(summaries) - SHOWN} more tasks")
    return "\n".join(lines)
