"""Fine-tuning of everything, with the task's cue: layers, encoder gains, decoder gains and task bias. The ceiling.

Not a published method but the most that these layers can learn when they know the task: hard sharing and IA3 (Liu et al., 2022) at
once. Learnable: the layers, K (E + D) gains and K C biases (binary tasks: K).
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from ...errors import InputError
from ..controller import Controller
from .base import Method


class FineTuning(Method):
    """All layers, with gains exp(u) of the encoder and exp(v) of the decoder, and a bias, per task.

    Args:
        head, family, readout: as in ``Method``; the task bias is always learned.
        gain_rate: learning rate of gains and biases as a multiple of the layers': a positive finite number. Layers want 3e-4
            where gains want 0.03 to 0.1.

    Raises:
        InputError: ``gain_rate`` out of range.
    """

    name = "fine-tuning"
    paper = "all layers and, as in IA3 (Liu et al., 2022), gains; the ceiling"
    trains_layers = True
    reads = "features"
    options: ClassVar[dict[str, object]] = {"gain_rate": 100.0}
    default_learning_rate = 3e-4

    has_bias = True
    gain_rate: float

    def build(self) -> None:
        if not isinstance(self.gain_rate, int | float) or not 0 < self.gain_rate < math.inf:
            raise InputError(f"gain_rate {self.gain_rate!r} is out of range, expected a positive finite number")
        self.decoder_controller = Controller(self.head.num_tasks, self.head.decoder_channels)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        encoder, decoder = (c(task_ids).exp() for c in (self.head.controller, self.decoder_controller))
        return self.head.read(self.head.decode(inputs * encoder[:, :, None, None]), decoder)[None]

    def own_parameters(self) -> list[nn.Parameter]:
        layers = [parameter for layer in self.head.layers for parameter in layer.parameters()]
        return [*layers, *self.head.controller.parameters(), *self.decoder_controller.parameters()]

    def rate_factors(self) -> list[float]:
        layers = sum(len(list(layer.parameters())) for layer in self.head.layers)
        return [1.0] * layers + [self.gain_rate] * (len(self.learnable()) - layers)
