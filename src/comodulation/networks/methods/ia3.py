"""Encoder and decoder gains, both learned: exp(u) and exp(v) of the task. K (E + D) parameters, twice comodulation's.

IA3 style: learned vectors that rescale the activations of several frozen layers. Source: Liu, Tam, Muqeeth, Mohta, Huang, Bansal,
Raffel, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning" (NeurIPS 2022).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ...errors import InputError
from ...mathematics import derived_seed, drawing_from
from ..controller import Controller
from .decoder_gains import DecoderGains


class IA3(DecoderGains):
    """Encoder gains and decoder gains, learned.

    Args:
        head, family, readout, task_bias: as in ``Method``.
        decoder_rank: of the decoder's log gains, of which one factor begins at draws by the head's seed; 0: full. With
            ``controller.rank`` it makes the parameters of both as few as comodulation's.

    Raises:
        InputError: a rank that is no whole number from 0 to D.
    """

    name = "ia3"
    paper = "Liu et al. (2022), IA3"
    reads = "activity"
    options: ClassVar[dict[str, object]] = {"decoder_rank": 0}
    default_learning_rate = 0.12

    decoder_rank: int

    def build(self) -> None:
        super().build()
        rank, most = self.decoder_rank, self.head.decoder_channels
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank <= most:
            raise InputError(f"decoder_rank must be a whole number from 0 to {most}, got {rank!r}")
        if rank:
            with drawing_from(derived_seed(self.head.seed, "decoder gains")):
                self.decoder_controller = Controller(self.head.num_tasks, most, rank=rank)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        encoder_gain = self.head.controller(task_ids).exp()[:, :, None, None]
        decoded = self.head.decode(inputs * encoder_gain).mean((-2, -1))
        return super().head_logits(decoded, task_ids, sample_ids, step)

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.head.controller.parameters()) + super().own_parameters()
