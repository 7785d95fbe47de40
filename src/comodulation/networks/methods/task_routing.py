"""Task routing: fixed random binary masks of the encoder's and the decoder's neurons, one per task. All layers train.

Source: Strezoski, van Noord, Worring, "Many task learning with task routing" (ICCV 2019). A neuron's map is multiplied by 0 or
1; what is kept is not rescaled, and the masks are never learned. In the authors' code, which is followed here, every task keeps
the same number of neurons of a layer, drawn independently of the other tasks' (tasks overlap by chance, by ``sharing`` of their
neurons on average). The sharing ratio of the paper's text can also be read as a block of neurons that all tasks keep, the rest
divided among them; either way 1 is hard sharing. Learnable: the layers. Stored besides: K (E + D) bits.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...errors import InputError
from .hard_sharing import HardSharing


class TaskRouting(HardSharing):
    """Hard sharing in which a task sees some of the neurons.

    Args:
        head, family, readout, task_bias: as in ``Method``; the head's seed draws the masks.
        sharing: share of a layer's neurons that every task keeps, in (0, 1]; rounded, at least one neuron.

    Raises:
        InputError: ``sharing`` out of range.
    """

    name = "task-routing"
    paper = "Strezoski et al. (2019)"
    options: ClassVar[dict[str, object]] = {"sharing": 0.8}
    share_option: ClassVar[str] = "sharing"  # the option that says which share of a layer's neurons a task keeps

    encoder_mask: Tensor
    decoder_mask: Tensor

    def build(self) -> None:
        generator = torch.Generator().manual_seed(self.head.seed)
        for name, units in (("encoder_mask", self.head.encoder_channels), ("decoder_mask", self.head.decoder_channels)):
            kept = self._kept(units)
            self.register_buffer(name, visiting_order(self.head.num_tasks, units, generator) < kept)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        encoder, decoder = (mask.index_select(0, task_ids) for mask in (self.encoder_mask, self.decoder_mask))
        return self.head.read(self.head.decode(inputs * encoder[:, :, None, None]), decoder)[None]

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "encoder_mask": self.encoder_mask, "decoder_mask": self.decoder_mask}

    def _kept(self, units: int) -> int:
        """How many of a layer's units a task keeps. Raises InputError for a share outside (0, 1]."""
        share = getattr(self, self.share_option)
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(f"{self.share_option} {share!r} is out of range, expected a number above 0 and at most 1")
        return max(1, round(share * units))


def visiting_order(num_tasks: int, units: int, generator: torch.Generator) -> Tensor:
    """Place of each unit in a random order of the task's own: a permutation of 0 ... U - 1 in every row, ``(K, U)``."""
    return torch.stack([torch.randperm(units, generator=generator) for _ in range(num_tasks)])
