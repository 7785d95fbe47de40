"""Compute rows part by part, and join the parts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..data.features import FeatureRows
from ..networks.methods import Method
from ..processes import ALONE, Processes


def filled(parts: Iterable[Tensor], count: int) -> Tensor:
    """Parts ``(n, ...)``, at least one, as they come, in one tensor ``(count, ...)``; ``torch.cat`` would hold all of it twice."""
    whole, start = None, 0
    for part in parts:
        whole = part.new_empty(count, *part.shape[1:]) if whole is None else whole
        whole[start : start + len(part)] = part
        start += len(part)
    assert whole is not None
    assert start == count
    return whole


EVALUATION_BATCH = 1024
ACTIVITY_LIMIT = 2**30  # bytes of encoder activity kept in memory; beyond it, it is encoded again each epoch


class Inputs:
    """What a method reads for given images: features, encoder activity, or decoded activity, computed once.

    Args:
        method: decides which.
        features: of the split.
        images: row numbers that may be asked for, sorted, ``(n,)``.
        prepared: what the method reads of these images, where an earlier method on the same layers has computed it.
        processes: compute it between them, each for its share of the images; then all have it.
    """

    def __init__(
        self,
        method: Method,
        features: FeatureRows,
        images: Tensor,
        prepared: Tensor | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.method, self.features, self.images = method, features, images
        self.device = method.head.decoder.weight.device
        self.prepared = prepared
        _, height, width = features.shape
        bytes_each = 4 * method.head.encoder_channels * height * width
        if prepared is None and method.reads != "features" and bytes_each * len(images) <= ACTIVITY_LIMIT:
            own = images[processes.share(len(images)).rows]
            with torch.no_grad():
                parts = filled(map(self._prepare, own.split(EVALUATION_BATCH)), len(own))
            self.prepared = processes.gather(parts, len(images))

    def rows(self, images: Tensor) -> Tensor:
        """Inputs of some images."""
        if self.prepared is not None:
            return self.prepared[torch.searchsorted(self.images, images).to(self.device)]
        with torch.no_grad():
            return self._prepare(images)

    def _prepare(self, images: Tensor) -> Tensor:
        return self.method.prepare(self.features.rows(images).to(self.device))
