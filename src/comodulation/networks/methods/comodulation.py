"""Stochastic comodulation: encoder couplings are learned, decoder gains follow from the covariance with the modulator.

As many learnable parameters as attention. Source: arXiv 2311.15053 (2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...tensors import copy_checked
from ..stored_gains import check_all
from .base import Batches, Method


class Comodulation(Method):
    """Encoder gains, and decoder gains computed from them."""

    name = "comodulation"
    paper = "arXiv 2311.15053 (2023)"
    default_learning_rate = 0.12

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.logits(inputs, task_ids, "comodulation", sample_ids=sample_ids, step=step)

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.head.controller.parameters())

    def observe(self, batches: Batches, *, shared: bool = False) -> None:
        self.head.observe(batches, shared=shared)

    def settle(self, batches: Batches) -> None:
        self.head.store_task_gains(batches)

    def adapter_tensors(self) -> dict[str, Tensor]:
        check_all(self.head)
        tensors = super().adapter_tensors()
        return tensors if self.head.task_gains is None else {**tensors, "head.task_gains": self.head.task_gains}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        own, gains = super().adapter_tensors(), None
        if self.head.modulation.level == "task":
            if "head.task_gains" not in tensors:
                raise InputError("the adapter does not fit level 'task': it holds no head.task_gains")
            like = self.head.decoder.weight
            gains = torch.ones(self.head.num_tasks, self.head.decoder_channels, device=like.device, dtype=like.dtype)
            own["head.task_gains"] = gains
        copy_checked(own, tensors, f"method {self.name!r}")
        self.head.task_gains = gains  # only now: tensors that do not fit change nothing
