"""Deterministic attention: the encoder multiplied by exp(u) of the task, no decoder gain. K E parameters.

The paper's baseline: the same controller, the same number of learnable parameters, no modulator. Source: arXiv
2311.15053 (2023); as feature-wise gains of an encoder layer also in Lindsay and Miller, eLife 7:e38105 (2018).
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Method


class Attention(Method):
    """Encoder gains alone."""

    name = "attention"
    paper = "arXiv 2311.15053 (2023), deterministic baseline"
    default_learning_rate = 0.25

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.logits(inputs, task_ids, "attention")

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.head.controller.parameters())
