"""Learned decoder gains: each decoder neuron times exp(v) of the task. K D parameters.

What comodulation computes from its couplings, learned freely instead: as many parameters where D = E, the same place of action.
Source: one of the comparisons of SPEC's prototypes; gains of hidden units per task as in Rebuffi, Bilen, Vedaldi, "Learning
multiple visual domains with residual adapters" (NeurIPS 2017), in their simplest form.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..controller import Controller
from .base import Method


class DecoderGains(Method):
    """Decoder gains alone, learned."""

    name = "decoder-gains"
    paper = "learned gains of hidden units; Rebuffi et al. (2017) in their simplest form"
    reads = "decoded"
    default_learning_rate = 0.12

    def build(self) -> None:
        self.decoder_controller = Controller(self.head.num_tasks, self.head.decoder_channels)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        return self.head.readout(inputs * self.decoder_controller(task_ids).exp())[None]

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.decoder_controller.parameters())
