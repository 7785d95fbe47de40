"""Stochastic comodulation: encoder couplings are learned, decoder gains follow from the covariance with the modulator.

As many learnable parameters as attention. Source: arXiv 2311.15053 (2023).
"""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import InputError
from .base import Batches, Method

GAINS = "head.task_gains"  # in an adapter


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

    def state(self) -> dict[str, Tensor]:
        response = {"response_jacobian": self.head.response_jacobian, "response_mean": self.head.response_mean}
        kept = {f"head.{name}": tensor for name, tensor in response.items() if tensor is not None}
        return {**super().state(), **kept}

    def adapter_tensors(self) -> dict[str, Tensor]:
        self.head.check_task_gains()
        tensors, gains = super().adapter_tensors(), self.head.task_gains
        return tensors if gains is None else {**tensors, GAINS: gains}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        if self.head.modulation.level == "task" and GAINS not in tensors:
            raise InputError(f"the adapter does not fit level 'task': it holds no {GAINS}")
        self.head.copy_with_gains(super().adapter_tensors(), tensors, GAINS, f"method {self.name!r}")
