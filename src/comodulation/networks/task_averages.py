"""Decoder statistics averaged over the inputs of each task, batch by batch: what stored task gains are computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mathematics import DecoderStatistics, average_over_tasks
from ..processes import ALONE, Processes


class TaskAverages:
    """Totals over batches, at one coupling, of K tasks.

    Deviations are averaged as variances, as ``average_over_tasks`` does within a batch. Totals are float64: squares leave the
    range of float32 long before deviations do.
    """

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self._totals: Tensor | None = None  # (3, K, D): slope, mean and variance, summed over inputs
        self._counts: Tensor | None = None  # (K, 1)
        self._dtype = torch.float32  # of the result; half precision ends at 65,504

    @property
    def empty(self) -> bool:
        """Whether no batch has been added."""
        return self._totals is None

    def add(self, statistics: DecoderStatistics, task_ids: Tensor) -> TaskAverages:
        """Count a batch's statistics ``(B, D)``, of the tasks ``(B,)``."""
        part = average_over_tasks(statistics, task_ids, self.num_tasks)
        number = torch.bincount(task_ids, minlength=self.num_tasks)[:, None].double()
        totals = torch.stack([part.slope.double(), part.mean.double(), part.deviation.double().square()]) * number
        self._dtype = torch.promote_types(self._dtype, part.mean.dtype)
        self._totals = totals if self._totals is None else self._totals + totals
        self._counts = number if self._counts is None else self._counts + number
        return self

    def result(self, processes: Processes = ALONE) -> tuple[DecoderStatistics, Tensor]:
        """Statistics ``(K, D)`` over all inputs, 0 for a task without any, and how many inputs each task has, ``(K,)``.

        Args:
            processes: have the batches between them; each of them has added at least one, which may be empty.

        Raises:
            ValueError: no batch has been added.
        """
        if self._totals is None or self._counts is None:
            raise ValueError("no inputs to estimate task gains from")
        totals, counts = processes.sum(self._totals), processes.sum(self._counts)
        slope, mean, variance = totals / counts.clamp(min=1)
        positive = variance > 0  # where it is 0, the root has no gradient
        deviation = torch.where(positive, torch.where(positive, variance, 1).sqrt(), 0)
        return DecoderStatistics(*(each.to(self._dtype) for each in (slope, mean, deviation))), counts[:, 0]
