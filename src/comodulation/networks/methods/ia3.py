"""Encoder and decoder gains, both learned: exp(u) and exp(v) of the task. K (E + D) parameters, twice comodulation's.

IA3 style: learned vectors that rescale the activations of several frozen layers. Source: Liu, Tam, Muqeeth, Mohta, Huang, Bansal,
Raffel, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning" (NeurIPS 2022).
"""

from __future__ import annotations

from torch import Tensor, nn

from .decoder_gains import DecoderGains


class IA3(DecoderGains):
    """Encoder gains and decoder gains, learned."""

    name = "ia3"
    paper = "Liu et al. (2022), IA3"
    reads = "activity"
    default_learning_rate = 0.12

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        encoder_gain = self.head.controller(task_ids).exp()[:, :, None, None]
        decoded = self.head.decode(inputs * encoder_gain).mean((-2, -1))
        return super().head_logits(decoded, task_ids, sample_ids, step)

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.head.controller.parameters()) + super().own_parameters()
