"""A family of tasks that share one network: its names, its outputs, and which labels an image has for which task.

Three kinds. ``classes``: the tasks are groups of classes (CIFAR-100: superclasses); an image belongs to one task, and its
target is a class. ``binary``: the tasks are attributes; an image may have a label for each, and task k is output k.
``columns``: the tasks are columns of a label table, each with classes of its own; an image may have a label for each, and
a target is an output, "column=class". Missing labels are missing (image, task) pairs: they enter neither the loss nor a metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, brief, choose

Kind = Literal["classes", "binary", "columns"]
Readout = Literal["open", "restricted"]
NO_YES = ("no", "yes")


@dataclass(frozen=True)
class Examples:
    """Labelled (image, task) pairs, each field an int64 tensor ``(M,)``."""

    image: Tensor
    task: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> Examples:
        """The pairs at ``rows``."""
        return Examples(self.image[rows], self.task[rows], self.target[rows])

    def of_images(self, images: Tensor) -> Examples:
        """The pairs whose image is among ``images`` (row numbers)."""
        return self.take(torch.isin(self.image, images).nonzero()[:, 0])

    def followed_by(self, others: Examples) -> Examples:
        """These pairs, then some others."""
        return Examples(*(torch.cat(pair) for pair in zip(vars(self).values(), vars(others).values(), strict=True)))


@dataclass(frozen=True)
class TaskFamily:
    """Names and kind of a family of tasks.

    Attributes:
        kind: ``classes``, ``binary`` or ``columns``.
        tasks: name of each task, K of them.
        outputs: name of each output of the network, C of them: classes, for ``binary`` the tasks again, for ``columns``
            "column=class", column by column.
        members: the outputs that belong to each task.
    """

    kind: Kind
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        choose(self.kind, get_args(Kind), "kind of task family")
        if len(self.members) != len(self.tasks) or not self.tasks:
            raise InputError(
                f"{len(self.tasks)} tasks and {len(self.members)} lists of members; at least one, and equal"
            )
        for name, group in zip(self.tasks, self.members, strict=True):
            self._check_members(name, group)
        for what, names in (("task", self.tasks), ("output", self.outputs)):
            for name, count in Counter(names).most_common(1):  # none of no outputs
                if count > 1:
                    raise InputError(f"{count} {what}s are named {name!r}; names must differ")
        pairs = [(task, output) for task, group in enumerate(self.members) for output in group]
        if self.kind == "binary" and (self.outputs != self.tasks or pairs != [(k, k) for k in range(len(self.tasks))]):
            raise InputError("in a binary family, task k reads output k, and both have the same names")
        if self.kind == "columns" and (
            [output for _, output in pairs] != list(range(len(self.outputs)))
            or not all(self.outputs[output].startswith(f"{self.tasks[task]}=") for task, output in pairs)
        ):
            raise InputError("in a family of columns, the outputs are 'column=class' of one column after the other")

    def _check_members(self, name: str, group: tuple[int, ...]) -> None:
        number = len(set(group))
        if self.kind != "binary" and number < 2:
            classes = "class" if number == 1 else "classes"
            raise InputError(f"task {name!r} has {number} {classes}; a task needs at least 2 to choose among")
        if number < len(group):
            raise InputError(f"task {name!r} lists a member twice")
        if any(not 0 <= output < len(self.outputs) for output in group):
            raise InputError(f"task {name!r} has members outside [0, {len(self.outputs) - 1}]")

    @classmethod
    def from_groups(
        cls, groups: np.ndarray, labels: np.ndarray, group_names: Sequence[str], label_names: Sequence[str]
    ) -> TaskFamily:
        """Classes within groups, read off a table.

        Args:
            groups: group of each row, integers, -1 where missing, ``(N,)``.
            labels: class of each row, likewise.
            group_names: name of each group.
            label_names: name of each class.

        Raises:
            InputError: a group with fewer than two classes.
        """
        both = (groups >= 0) & (labels >= 0)
        pairs = np.unique(np.stack([groups[both], labels[both]]), axis=1)
        members = tuple(tuple(int(c) for c in pairs[1][pairs[0] == g]) for g in range(len(group_names)))
        return cls("classes", tuple(group_names), tuple(label_names), members)

    @classmethod
    def from_attributes(cls, names: Sequence[str]) -> TaskFamily:
        """One binary task per name; task k reads output k."""
        return cls("binary", tuple(names), tuple(names), tuple((k,) for k in range(len(names))))

    @classmethod
    def from_columns(cls, names: Sequence[str], classes: Sequence[Sequence[str]]) -> TaskFamily:
        """One task per column, each with its own classes.

        Args:
            names: of the columns, K of them.
            classes: names of each column's classes, at least two.

        Raises:
            InputError: a column with fewer than two classes.
        """
        outputs = [f"{name}={one}" for name, own in zip(names, classes, strict=True) for one in own]
        ends = np.cumsum([len(own) for own in classes])
        members = tuple(tuple(range(end - len(own), end)) for end, own in zip(ends.tolist(), classes, strict=True))
        return cls("columns", tuple(names), tuple(outputs), members)

    def answers(self, task: int) -> tuple[str, ...]:
        """Names of what a task chooses among: no and yes, or its classes, without the column's name."""
        if self.kind == "binary":
            return NO_YES
        start = len(self.tasks[task]) + 1 if self.kind == "columns" else 0
        return tuple(self.outputs[output][start:] for output in self.members[task])

    def own_targets(self, task: int) -> tuple[int, ...]:
        """Places of a task's answers among the targets."""
        return (0, 1) if self.kind == "binary" else self.members[task]

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Name of each value that a target may have: no and yes, or what each of the C outputs answers."""
        if self.kind == "columns":
            return tuple(name for task in range(self.num_tasks) for name in self.answers(task))
        return self.outputs if self.kind == "classes" else NO_YES

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def task_id(self, name: str) -> int:
        """Number of a task. Raises InputError with the nearest name."""
        return self.tasks.index(choose(name, self.tasks, "task"))

    def member_mask(self, task_ids: Tensor | None = None) -> Tensor:
        """Which outputs belong to which task, bool ``(K, C)``; or to the task of each input, ``(B, C)`` for ``(B,)``."""
        if task_ids is not None and torch.compiler.is_compiling():  # a graph takes a table, not the tasks of one batch
            return self.member_table[task_ids]
        asked = torch.arange(self.num_tasks) if task_ids is None else task_ids
        distinct, places = asked.unique(return_inverse=True)  # so that the time does not depend on K
        mask = torch.zeros(len(distinct), self.num_outputs, dtype=torch.bool)
        for row, task in enumerate(distinct.tolist()):
            mask[row, list(self.members[task])] = True
        return mask.to(asked.device)[places]

    @cached_property
    def member_table(self) -> Tensor:
        """``member_mask`` of all tasks, kept for graphs; to be asked for before one is made."""
        return self.member_mask()

    def examples(self, columns: Sequence[np.ndarray]) -> Examples:
        """All labelled (image, task) pairs of a table.

        Args:
            columns: for ``classes``, groups and labels, each ``(N,)``; for ``binary``, one 0/1 column per task, ``(N,)``;
                for ``columns``, one per task with places among its answers, ``(N,)``. Integers; -1 is a missing label.

        Returns:
            Examples in the order of images, tasks within an image.
        """
        if self.kind == "classes":
            groups, labels = (torch.as_tensor(column, dtype=torch.int64) for column in columns)
            image = ((groups >= 0) & (labels >= 0)).nonzero()[:, 0]
            return Examples(image, groups[image], labels[image])
        table = self.target_table(columns)
        image, task = (table >= 0).nonzero(as_tuple=True)
        return Examples(image, task, table[image, task])

    def target_table(self, columns: Sequence[np.ndarray]) -> Tensor:
        """Target of every image under every task, -1 where missing, int64 ``(N, K)``; not for ``classes``.

        Args:
            columns: as for ``examples``.
        """
        table = torch.stack([torch.as_tensor(column, dtype=torch.int64) for column in columns], 1)
        if self.kind == "binary":
            return table
        first = torch.tensor([group[0] for group in self.members])
        return torch.where(table < 0, -1, table + first)

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "tasks": self.tasks, "outputs": self.outputs, "members": self.members}

    @classmethod
    def from_json(cls, data: dict) -> TaskFamily:
        """The inverse of ``to_json``. Raises InputError for anything that is not a family."""
        lists = {key: data.get(key) if isinstance(data, dict) else None for key in ("tasks", "outputs", "members")}
        if not all(isinstance(value, (list, tuple)) for value in lists.values()):
            raise InputError(
                f"not a task family: {brief(data)}; expected kind, and lists of tasks, outputs and members"
            )
        tasks, outputs, members = (tuple(value or ()) for value in lists.values())
        if not all(isinstance(name, str) for name in tasks + outputs):
            raise InputError("not a task family: names of tasks and outputs must be strings")
        if not all(isinstance(group, (list, tuple)) and all(type(n) is int for n in group) for group in members):
            raise InputError(f"not a task family: members {brief(members)} are not lists of integers")
        return cls(cast(Kind, str(data.get("kind"))), tasks, outputs, tuple(tuple(group) for group in members))


def task_logits(family: TaskFamily, logits: Tensor, task_ids: Tensor, readout: Readout = "open") -> Tensor:
    """Logits that a task decides by.

    Args:
        family: K tasks, C outputs.
        logits: ``(..., B, C)``.
        task_ids: ``(B,)``.
        readout: ``open`` (all classes) or ``restricted`` (the task's own; the others -inf). Not used by binary tasks, nor by
            columns, whose readout is always restricted: no image could tell "age=old" from "glasses=yes".

    Returns:
        ``(..., B, C)`` for classes and columns. ``(..., B, 2)`` for binary tasks: logits (0, z) of no and yes, z = output k of
        task k, so that a softmax gives the sigmoid's two probabilities.
    """
    if family.kind == "binary":
        yes = logits.gather(-1, task_ids.expand(logits.shape[:-1])[..., None])
        return torch.cat([torch.zeros_like(yes), yes], -1)
    if choose(readout, get_args(Readout), "readout") == "open" and family.kind == "classes":
        return logits
    return logits.masked_fill(~family.member_mask(task_ids), -torch.inf)


def first_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first occurrence of each distinct value, and the distinct values in order."""
    distinct, first = np.unique(values.numpy(), return_index=True)
    return torch.from_numpy(first), torch.from_numpy(distinct)
