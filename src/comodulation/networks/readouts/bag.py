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
    """Values with a random share of them set to 0, and the others scaled so that the mean stays; as they are for 0."""
    if not share:
        return values
    keep = torch.empty_like(values).bernoulli_(1 - share, generator=generator)
    return values * keep.mul_(1 / (1 - share))
