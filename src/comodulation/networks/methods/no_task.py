"""The pretrained network as it is: no task signal, nothing learned. The floor every method must leave."""

from __future__ import annotations

from torch import Tensor

from .base import Method


class NoTask(Method):
    """Base network without a task."""

    name = "base"
    paper = "none: the pretrained network itself"
    reads = "decoded"
    default_learning_rate = 0.25  # of a task bias, if it is asked for

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.readout(inputs)[None]
