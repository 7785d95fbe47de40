"""Task bias: one learned bias per task and output, added to the base network's logits. K C parameters.

The second cheap rival: what can be had without touching the network's features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..head import ComodulatedHead
from ..tasks import TaskFamily
from .base import Method


class TaskBias(Method):
    """Base network plus a bias (K, C) on its logits."""

    name = "task-bias"
    paper = "none: a class prior per task"
    default_learning_rate = 0.25

    def __init__(self, head: ComodulatedHead, family: TaskFamily, readout: str = "open") -> None:
        super().__init__(head, family, readout)
        self.bias = nn.Parameter(torch.zeros(family.num_tasks, family.num_outputs))

    def head_logits(self, activity: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.logits(activity, None, "base") + self.bias.index_select(0, task_ids)

    def learnable(self) -> list[nn.Parameter]:
        return [self.bias]
