"""A family of tasks that share one network: its names, its outputs, and which labels an image has for which task.

Two kinds. ``classes``: the tasks are groups of classes (CIFAR-100: superclasses); an image belongs to one task, and its
target is a class. ``binary``: the tasks are attributes; an image may have a label for each, and task k is output k.
Missing labels are missing (image, task) pairs: they enter neither the loss nor a metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, brief, choose

READOUTS = ("open", "restricted")


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


@dataclass(frozen=True)
class TaskFamily:
    """Names and kind of a family of tasks.

    Attributes:
        kind: ``classes`` or ``binary``.
        tasks: name of each task, K of them.
        outputs: name of each output of the network, C of them: classes, or for ``binary`` the tasks again.
        members: the outputs that belong to each task.
    """

    kind: str
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        choose(self.kind, ("classes", "binary"), "kind of task family")
        if len(self.members) != len(self.tasks) or not self.tasks:
            raise InputError(
                f"{len(self.tasks)} tasks and {len(self.members)} lists of members; at least one, and equal"
            )
        for name, group in zip(self.tasks, self.members, strict=True):
            number = len(set(group))
            if self.kind == "classes" and number < 2:
                classes = "class" if number == 1 else "classes"
                raise InputError(f"task {name!r} has {number} {classes}; a task needs at least 2 to choose among")
            if number < len(group):
                raise InputError(f"task {name!r} lists a member twice")
            if any(not 0 <= output < len(self.outputs) for output in group):
                raise InputError(f"task {name!r} has members outside [0, {len(self.outputs) - 1}]")
        for what, names in (("task", self.tasks), ("output", self.outputs)):
            name, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise InputError(f"{count} {what}s are named {name!r}; names must differ")
        if self.kind == "binary" and (
            self.outputs != self.tasks or self.members != tuple((task,) for task in range(len(self.tasks)))
        ):
            raise InputError("in a binary family, task k reads output k, and both have the same names")

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

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def task_id(self, name: str) -> int:
        """Number of a task. Raises InputError with the nearest name."""
        return self.tasks.index(choose(name, self.tasks, "task"))

    def member_mask(self) -> Tensor:
        """Which outputs belong to which task, bool ``(K, C)``."""
        mask = torch.zeros(self.num_tasks, self.num_outputs, dtype=torch.bool)
        for task, group in enumerate(self.members):
            mask[task, list(group)] = True
        return mask

    def examples(self, columns: Sequence[np.ndarray]) -> Examples:
        """All labelled (image, task) pairs of a table.

        Args:
            columns: for ``classes``, groups and labels, each ``(N,)``; for ``binary``, one 0/1 column per task, ``(N,)``.
                Integers; -1 is a missing label.

        Returns:
            Examples in the order of images, tasks within an image.
        """
        if self.kind == "classes":
            groups, labels = (torch.as_tensor(column, dtype=torch.int64) for column in columns)
            image = ((groups >= 0) & (labels >= 0)).nonzero()[:, 0]
            return Examples(image, groups[image], labels[image])
        table = torch.stack([torch.as_tensor(column, dtype=torch.int64) for column in columns], 1)
        image, task = (table >= 0).nonzero(as_tuple=True)
        return Examples(image, task, table[image, task])

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
        return cls(str(data.get("kind")), tasks, outputs, tuple(tuple(group) for group in members))


def task_logits(family: TaskFamily, logits: Tensor, task_ids: Tensor, readout: str = "open") -> Tensor:
    """Logits that a task decides by.

    Args:
        family: K tasks, C outputs.
        logits: ``(..., B, C)``.
        task_ids: ``(B,)``.
        readout: ``open`` (all classes) or ``restricted`` (the task's own; the others -inf). Not used by binary tasks.

    Returns:
        ``(..., B, C)`` for classes. ``(..., B, 2)`` for binary tasks: logits (0, z) of no and yes, z = output k of task k,
        so that a softmax gives the sigmoid's two probabilities.
    """
    if family.kind == "binary":
        yes = logits.gather(-1, task_ids.expand(logits.shape[:-1])[..., None])
        return torch.cat([torch.zeros_like(yes), yes], -1)
    if choose(readout, READOUTS, "readout") == "open":
        return logits
    return logits.masked_fill(~family.member_mask().to(logits.device)[task_ids], -torch.inf)


def first_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first occurrence of each distinct value, and the distinct values in order."""
    distinct, first = np.unique(values.numpy(), return_index=True)
    return torch.from_numpy(first), torch.from_numpy(distinct)
