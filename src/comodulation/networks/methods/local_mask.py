"""Local mask: the frozen readout at each column of the decoder's map, its probabilities added up and masked. Nothing learned.

The cheapest rival where a second object stands beside the one that the task asks for: what the objects are is read where they
are, before pooling mixes them, and the mask drops those that the task does not ask for. A column is what is pooled at one
horizontal place, since the objects of the scenes here stand side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Method


class LocalMask(Method):
    """Base network read at each column: mean probabilities over columns, the outputs of other tasks at -inf."""

    name = "local-mask"
    paper = "none: the trivial use of a task cue, before pooling"
    kinds = ("classes",)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        columns = self.head.decode(inputs).mean(-2).transpose(1, 2)  # (B, W, D)
        summed = self.head.readout(columns).log_softmax(-1).logsumexp(1)
        return summed.masked_fill(~self.family.member_mask(task_ids), -torch.inf)[None]
