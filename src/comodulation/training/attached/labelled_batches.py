"""Batches of a loader in one form: inputs, the task of each, and its label, on a device.

A batch is ``(inputs, task_ids, labels)``, or ``(inputs, table)`` with a label ``(B, K)`` for each task, or a dictionary with
``labels`` and, unless these are a table, ``task_ids`` beside the model's own arguments. Missing are -1 and NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ...errors import InputError, brief


@dataclass(frozen=True)
class Labelled:
    """One batch of B inputs.

    Attributes:
        inputs: of the model: a tensor, a tuple of positional or a dictionary of keyword arguments.
        tasks: of each input, ``(B,)``; None where there is a label for each task.
        labels: integers or floating-point numbers: ``(B,)`` or ``(B, positions)`` with ``tasks``, else ``(B, K)``.
    """

    inputs: Any
    tasks: Tensor | None
    labels: Tensor

    def drawn(self, generator: torch.Generator | None) -> Labelled:
        """With one task an input: of a table one of those that it has a label for, or any where it has none; drawn at random."""
        if self.tasks is not None:
            return self
        chances = is_known(self.labels).double().cpu()
        chances[chances.sum(1) == 0] = 1
        tasks = torch.multinomial(chances, 1, generator=generator).to(self.labels.device)
        return Labelled(self.inputs, tasks[:, 0], self.labels.gather(1, tasks)[:, 0])


class LabelledBatches:
    """The batches of a loader, each time they are asked for, on a device.

    Args:
        loader: can be read again and again: a DataLoader, a list.
        what: names it in messages.
        num_tasks: number K of tasks.
        device: where the tensors go.

    Raises:
        InputError: a loader that can be read once; when they are read, batches that are none of the three.
    """

    def __init__(self, loader: Iterable[Any], what: str, num_tasks: int, device: torch.device) -> None:
        if not isinstance(loader, Iterable):
            raise InputError(f"{what} is {brief(loader)}, expected batches: a DataLoader or a list")
        if isinstance(loader, Iterator):
            raise InputError(f"{what} can be read only once; give what can be read each epoch: a DataLoader or a list")
        self.loader, self.what, self.num_tasks, self.device = loader, what, num_tasks, device

    def __iter__(self) -> Iterator[Labelled]:
        for number, batch in enumerate(self.loader):
            # Batches of tokenizers are dictionaries of a class of their own.
            plain = dict(batch) if isinstance(batch, Mapping) else batch
            yield self._labelled(tree_map_only(Tensor, lambda one: one.to(self.device), plain), number)

    def __len__(self) -> int:
        """Number of batches; of a loader that does not know it, they are counted."""
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            return sum(1 for _ in self.loader)

    def pairs(self, generator: Callable[[], torch.Generator]) -> _Pairs:
        """The same inputs with the task of each, as ``store_task_gains`` reads them; can be read again and again."""
        return _Pairs(self, generator)

    def _labelled(self, batch: Any, number: int) -> Labelled:
        if isinstance(batch, Mapping) and "labels" in batch:
            inputs: Any = {name: value for name, value in batch.items() if name not in ("labels", "task_ids")}
            tasks, labels = batch.get("task_ids"), batch["labels"]
        elif isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
            inputs, tasks, labels = (batch[0], None, batch[1]) if len(batch) == 2 else batch
        else:
            raise InputError(
                f"batch {number} of {self.what} is {_shown(batch)}, expected (inputs, task_ids, labels), (inputs, labels "
                "(B, K)), or a dictionary with 'labels' and 'task_ids'"
            )
        where = f"batch {number} of {self.what}"
        if not isinstance(labels, Tensor) or labels.is_complex():
            raise InputError(f"{where} has labels {_shown(labels)}, expected a tensor of numbers")
        if not labels.is_floating_point():  # -1 is 255 in uint8, which may be a class
            labels = labels.long()
        if tasks is None:
            if labels.ndim != 2 or labels.shape[1] != self.num_tasks:
                raise InputError(
                    f"{where} has no task ids and labels {tuple(labels.shape)}, expected a label for each task, "
                    f"(B, {self.num_tasks})"
                )
        elif not isinstance(tasks, Tensor) or tasks.ndim != 1 or labels.ndim < 1 or len(labels) != len(tasks):
            raise InputError(
                f"{where} has task ids {_shown(tasks)} for labels {tuple(labels.shape)}, expected (B,) for B labels"
            )
        return Labelled(inputs, tasks, labels)


class _Pairs:
    def __init__(self, batches: LabelledBatches, generator: Callable[[], torch.Generator]) -> None:
        self.batches, self.generator = batches, generator

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        generator = self.generator()
        for batch in self.batches:
            drawn = batch.drawn(generator)
            assert drawn.tasks is not None
            yield drawn.inputs, drawn.tasks


def is_known(labels: Tensor) -> Tensor:
    """Which labels are there, bool of their shape: all but NaN and -1."""
    return labels != -1 if not labels.is_floating_point() else ~(labels.isnan() | (labels == -1))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
