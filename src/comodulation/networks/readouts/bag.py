"""Several small networks computed at once: one for each fold of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bag(nn.Module):
    """E networks of one hidden layer: logits = relu(x F + f) S + b.

    Args:
        members: number E of networks.
        width: number V of features.
        hidden: number H of hidden units.
        outputs: number C of outputs.
    """

    def __init__(self, members: int, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(members, width, hidden))
        self.first_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.second = nn.Parameter(torch.zeros(members, hidden, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(
        self,
        rows: Tensor,
        *,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standardised rows ``(B, V)``, or of each member its own ``(E, B, V)`` -> logits ``(E, B, C)``."""
        if rows.ndim == 2:
            rows = rows.expand(len(self.first), *rows.shape)
        rows = dropped(rows, input_dropout, generator)
        hidden = dropped(torch.baddbmm(self.first_bias, rows, self.first).relu(), hidden_dropout, generator)
        return torch.baddbmm(self.bias, hidden, self.second)


def dropped(values: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Values with a random share of them set to 0, and the others scaled so that the mean stays; as they are for 0.

    The share is taken in steps of 1/256: a byte at random a value costs an eighth of what a random number for each one does.
    """
    if not share:
        return values
    words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.uint8)[: values.numel()].view(values.shape)
    level = round(256 * share)
    return values * (drawn >= level).to(values.dtype).mul_(256 / (256 - level))
