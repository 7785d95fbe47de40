"""Which images pretrain the layers, which fine-tune the controller, and which validate either."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Partition:
    """Row numbers of the training split, each int64 ``(n,)``, sorted."""

    pretraining: Tensor
    pretraining_validation: Tensor
    tuning: Tensor
    tuning_validation: Tensor


def partition(
    rows: Tensor, strata: Tensor, *, seed: int, validation_fraction: float = 0.1, disjoint: bool = True
) -> Partition:
    """Deal rows into two halves and their validation parts, evenly within each stratum.

    Args:
        rows: row numbers to use, ``(n,)``.
        strata: stratum of each of them (its class), ``(n,)``.
        seed: of the draw.
        validation_fraction: share of each half that validates.
        disjoint: False gives both steps all rows (and the same validation rows).

    Raises:
        InputError: too few rows for four parts.
    """
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    # Rows of a stratum become neighbours; dealing them out in turn spreads each stratum over all parts.
    order = rows.numpy()[shuffled[np.argsort(strata.numpy()[shuffled], kind="stable")]]
    halves = (order[0::2], order[1::2]) if disjoint else (order, order)
    parts = []
    for half in halves:
        place = np.arange(len(half))
        validates = np.floor((place + 1) * validation_fraction) > np.floor(place * validation_fraction)
        parts += [half[~validates], half[validates]]
    if min(len(part) for part in parts) < 1:
        raise InputError(f"{len(rows)} labelled images are too few for two halves with a validation part each")
    return Partition(*(torch.from_numpy(np.sort(part)) for part in parts))
