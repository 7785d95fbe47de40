"""Class mask: the base network's logits, masked to the classes of the task. Nothing learned.

The cheapest rival in the open readout: it knows which classes belong to the task, and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Method


class ClassMask(Method):
    """Base network, the outputs of other tasks at -inf."""

    name = "class-mask"
    paper = "none: the trivial use of a task cue"
    reads = "decoded"
    kinds = ("classes",)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        logits = self.head.readout(inputs)[None]
        return logits.masked_fill(~self.family.member_mask(task_ids), -torch.inf)
