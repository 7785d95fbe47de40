"""Hard sharing: the same layers without any task signal, all of them trained further on the family.

The classical multi-task network (Caruana, "Multitask learning", Machine Learning 28, 1997): one network, one set of
outputs, the tasks' data pooled.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Method


class HardSharing(Method):
    """The head's own layers, trained on the family's data."""

    name = "hard-sharing"
    paper = "Caruana (1997)"
    trains_layers = True
    reads = "features"
    default_learning_rate = 3e-4

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.logits(inputs, None, "base")

    def own_parameters(self) -> list[nn.Parameter]:
        return [parameter for layer in self.head.layers for parameter in layer.parameters()]
