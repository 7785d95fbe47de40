"""What the head's layers are made of beyond one convolution: dropout, batch normalisation, deeper layers.

Dropout of a batch that several processes have between them: each draws the mask of all rows and takes its own, so that the masks
are those that one process draws from the same generator. Batch normalisation is linear once it is frozen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..mathematics import convolve
from ..processes import Share


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


class SignParts(nn.Module):
    """Each channel twice, as it is and with its sign changed: rectified, what is positive and what is negative of it.

    relu(x) - relu(-x) = x, so a linear readout of the two can say whatever a linear readout of x can.
    """

    def forward(self, activity: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, 2 C, H, W)``."""
        return torch.cat([activity, -activity], 1)


def normalisation_scale(normalisation: nn.BatchNorm2d) -> Tensor:
    """Factor of each channel ``(D,)`` by which frozen batch normalisation multiplies its input."""
    assert normalisation.running_var is not None
    return normalisation.weight * (normalisation.running_var + normalisation.eps).rsqrt()


def normalised_bias(bias: Tensor, normalisation: nn.BatchNorm2d) -> Tensor:
    """What frozen batch normalisation adds to the scaled output of a layer that has this bias: ``(D,) -> (D,)``."""
    assert normalisation.running_mean is not None
    return (bias - normalisation.running_mean) * normalisation_scale(normalisation) + normalisation.bias


class RectifiedLayer(nn.Module):
    """A decoder layer below the one that has gains: h -> relu(normalised(K h + b) + skip h), E channels in and out.

    Args:
        channels: E. kernel_size: odd. skip: factor of the skip connection; 0 for none. batch_norm: whether K h + b is normalised.
    """

    def __init__(self, channels: int, kernel_size: int, *, skip: float, batch_norm: bool) -> None:
        super().__init__()
        self.skip = skip
        self.convolution = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.normalisation = nn.BatchNorm2d(channels) if batch_norm else None

    def forward(self, activity: Tensor) -> Tensor:
        """``(N, E, H, W) -> (N, E, H, W)``, rectified."""
        block = self.convolution(activity)
        if self.normalisation is not None:
            block = self.normalisation(block)
        return (block + self.skip * activity if self.skip else block).relu()

    def tangent(self, after: Tensor, tangent: Tensor) -> Tensor:
        """Change of the output for a change of the input, both ``(N, E, H, W)``, of a frozen layer.

        Args:
            after: the layer's output; where it is 0, it stays 0. tangent: change of the input.
        """
        change = convolve(tangent, self.convolution.weight)
        if self.normalisation is not None:
            change = change * normalisation_scale(self.normalisation)[:, None, None]
        if self.skip:
            change = change + self.skip * tangent
        return torch.where(after > 0, change, 0)
