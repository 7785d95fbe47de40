"""Dropout of a batch that several processes have between them: each draws the mask of all rows and takes its own.

The masks are then those that one process draws from the same generator: they do not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from .processes import Share


class Dropout(nn.Dropout):
    """As torch's, of single activities ``(B, ...)``."""

    share: Share | None = None

    def forward(self, activity: Tensor) -> Tensor:
        if self.share is None or not self.training:
            return super().forward(activity)
        return _dropped(activity, activity.shape[1:], F.dropout, self.p, self.share)


class ChannelDropout(nn.Dropout2d):
    """As torch's ``Dropout2d``, of whole channels of maps ``(B, C, H, W)``."""

    share: Share | None = None

    def forward(self, activity: Tensor) -> Tensor:
        if self.share is None or not self.training:
            return super().forward(activity)
        return _dropped(activity, (activity.shape[1], 1, 1), F.dropout2d, self.p, self.share)


def _dropped(activity: Tensor, size: tuple[int, ...], drop: Callable[..., Tensor], p: float, share: Share) -> Tensor:
    return activity * drop(activity.new_ones(share.total, *size), p)[share.rows]


@contextlib.contextmanager
def taking(share: Share | None, module: nn.Module) -> Iterator[None]:
    """While it is open, the module's inputs are those rows of the batch; None: all of it."""
    if share is None:
        yield
        return
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout | ChannelDropout)]
    for layer in layers:
        layer.share = share
    try:
        yield
    finally:
        for layer in layers:
            layer.share = None
