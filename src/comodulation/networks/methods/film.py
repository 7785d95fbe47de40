"""FiLM: scale and shift of every decoder neuron by the task, before its rectification. 2 K D parameters.

Source: Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: Visual reasoning with a general conditioning layer" (AAAI 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Method


class FiLM(Method):
    """Decoder activity relu((1 + scale) z + shift), z its drive."""

    name = "film"
    paper = "Perez et al. (2018)"
    default_learning_rate = 0.06

    def build(self) -> None:
        self.scale = nn.Parameter(torch.zeros(self.head.num_tasks, self.head.decoder_channels))
        self.shift = nn.Parameter(torch.zeros(self.head.num_tasks, self.head.decoder_channels))

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        scale, shift = (table.index_select(0, task_ids)[:, :, None, None] for table in (self.scale, self.shift))
        drive = self.head.drive(self.head.deepen(inputs)) + self.head.decoder_bias[:, None, None]
        return self.head.read((drive * (1 + scale) + shift).relu())[None]

    def own_parameters(self) -> list[nn.Parameter]:
        return [self.scale, self.shift]
