"""Batches of inputs of similar length: what is padded is padded little, and features come back in the order of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .encoder import Encoder
from .engines import BATCH, Forward
from .extraction import features_of

SORTED = 512  # inputs that are sorted at once, where their lengths differ


@dataclass(frozen=True)
class Batches:
    """N preprocessed inputs.

    Attributes:
        parts: as ``Encoder.collate`` gives them. order: places of the inputs in the parts, one part behind the other; None: as they
            came.
    """

    parts: Sequence[tuple[Tensor, ...]]
    order: Tensor | None = None

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self.parts)

    def features(
        self,
        forward: Forward,
        precision: str = "float32",
        kept: torch.dtype = torch.float16,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Features in the order of the inputs, ``(N, C, s, s)``; see ``features_of``."""
        found = [features_of(forward, [one.to(device) for one in part], precision, kept) for part in self.parts]
        together = found[0] if len(found) == 1 else torch.cat(found)
        return together if self.order is None else together[self.order.argsort().to(together.device)]


def in_batches(encoder: Encoder, prepared: Sequence[Tensor]) -> Batches:
    """Batches of at most ``BATCH`` preprocessed inputs, the shortest first where their lengths differ."""
    order = list(range(len(prepared)))
    if encoder.longest:
        order.sort(key=lambda place: len(prepared[place]))
    parts = [
        encoder.collate([prepared[place] for place in order[start : start + BATCH]])
        for start in range(0, len(order), BATCH)
    ]
    return Batches(parts, torch.tensor(order) if encoder.longest else None)


def at_once(encoder: Encoder) -> int:
    """How many inputs are worth waiting for, before they are put in batches."""
    return SORTED if encoder.longest else BATCH
