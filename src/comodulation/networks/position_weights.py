"""Weights of a decoder's positions by their labels, in a head and in any network: how strongly labels weigh, and their gains.

The two kinds of weights (docs/mathematics.md, section 8). ``one``: one position shows what is asked for, and positions compete,
(11). ``each``: several do, and each weighs as much as it is likely to, whatever the others say, (12a). Strengths and middles are
found from the labels of inputs whose tasks are known: of whole inputs for ``one``, of their positions for ``each``. Padding is no
part of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..mathematics import (
    DecoderStatistics,
    calibrated_middle,
    calibrated_strength,
    log_posteriors,
    position_gains,
    position_labels,
)
from ..processes import ALONE, Processes

Weights = Literal["one", "each"]  # how many positions are expected to show what a task asks for
LEARNED = "learned"  # couplings that are not in closed form


class Calibration:
    """Collects labels of inputs whose tasks are known, and finds how strongly each task's labels weigh.

    Args:
        num_tasks: number K of tasks. weights: ``one`` or ``each``.
    """

    def __init__(self, num_tasks: int, weights: str) -> None:
        self.num_tasks, self.weights = num_tasks, weights
        self._labels: list[Tensor] = []
        self._tasks: list[Tensor] = []

    def add(self, statistics: Sequence[DecoderStatistics], tasks: Tensor, counts: Tensor | None = None) -> None:
        """More inputs.

        Args:
            statistics: of the positions of B inputs, under each of the K tasks, fields ``(B, P)``.
            tasks: to which the inputs belong, ``(B,)``.
            counts: which positions count, boolean ``(B, P)``; None: all.
        """
        if self.weights == "one":
            self._labels.append(torch.stack([_label_of_input(each, counts) for each in statistics], 1))
            self._tasks.append(tasks)
            return
        # A position of a task's inputs is one that shows what the task asks for.
        labels = torch.stack([position_labels(each) for each in statistics], 2)
        if counts is None:
            counts = torch.ones_like(labels[..., 0], dtype=torch.bool)
        self._labels.append(labels[counts])
        self._tasks.append(tasks[:, None].expand_as(counts)[counts])

    def result(self, processes: Processes = ALONE) -> tuple[Tensor, Tensor | None]:
        """Strengths ``(K,)``, and middles ``(K,)`` for weights of kind ``each``; ``processes`` have the inputs between them."""
        labels, tasks = (processes.join(torch.cat(parts)) for parts in (self._labels, self._tasks))
        own = F.one_hot(tasks, self.num_tasks).bool()
        return calibrated_strength(labels, own), calibrated_middle(labels, own) if self.weights == "each" else None


def _label_of_input(statistics: DecoderStatistics, counts: Tensor | None) -> Tensor:
    """The label of all positions taken together, ``(B,)``."""
    fields = statistics.slope, statistics.mean
    slope, mean = (each if counts is None else torch.where(counts, each, 0) for each in fields)
    whole = statistics._replace(slope=slope.sum(1, keepdim=True), mean=mean.sum(1, keepdim=True))
    return position_labels(whole)[:, 0]


def gains_by_labels(labels: Tensor, strengths: Tensor, middles: Tensor | None, counts: Tensor | None = None) -> Tensor:
    """Gains of positions ``(B, P)``.

    Args:
        labels: of the positions, ``(B, P)``.
        strengths, middles: of each input's task, ``(B,)``; without middles weights are of kind ``one``, with them ``each``.
        counts: which positions count, boolean ``(B, P)``; None: all.
    """
    if middles is None:
        return position_gains(labels, strengths, counts)
    return position_gains(log_posteriors(labels, strengths, middles), counts=counts)
