"""Local mask: the frozen readout at each position of the decoder, its probabilities added up and masked. Nothing learned.

The cheapest rival where a second object distracts: what the objects are is read where they are, before pooling mixes them, and
the mask drops those that the task does not ask for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Method


class LocalMask(Method):
    """Base network read at each position: mean probabilities over positions, the outputs of other tasks at -inf."""

    name = "local-mask"
    paper = "none: the trivial use of a task cue, before pooling"
    kinds = ("classes",)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        places = self.head.decode(inputs).flatten(2).transpose(1, 2)  # (B, H W, D)
        summed = self.head.readout(places).log_softmax(-1).logsumexp(1)
        return summed.masked_fill(~self.family.member_mask(task_ids), -torch.inf)[None]
