"""The network of the study of location: four residual stages, small enough to be pretrained by the study, modulated between two.

    images -> stem -> stage 1 -> stage 2 -> stage 3 -> stage 4 -> mean over positions (and moments) -> classes

At location k the encoder is the output of stage k and the decoder that of stage k + 1. Stages are convolutions with one set of
weights for all positions, and for all frames of a sequence, which are joined only by the mean: so gains of channels alone cannot
tell places or moments apart (docs/questions.md), whatever their values.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ....data.sets import MEMBERS
from ....networks.attached import Comodulated, comodulate

WIDTHS = (24, 48, 96, 192)  # channels of the stages, each with half the side of the one before
LOCATIONS = (1, 2, 3)
NEURONS = ("channel", "position", "moment")
MEAN, SPREAD = 0.5, 0.25  # of pixels in [0, 1], about


class Stage(nn.Module):
    """A residual block, ``(B, C, H, W) -> (B, D, H', W')``, rectified."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.first_norm: nn.Module = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm: nn.Module = nn.BatchNorm2d(width)
        same = before == width and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(before, width, 1, stride, bias=False)
        self.skip_norm: nn.Module = nn.Identity() if same else nn.BatchNorm2d(width)

    def forward(self, activity: Tensor) -> Tensor:
        inner = self.first_norm(self.first(activity)).relu()
        return (self.second_norm(self.second(inner)) + self.skip_norm(self.skip(activity))).relu()


class LocationNetwork(nn.Module):
    """Classes of single images, and of what is made of several of the same size or larger.

    Args:
        num_classes: number C of outputs. widths: channels of the stages.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.stem_norm: nn.Module = nn.BatchNorm2d(widths[0])
        before = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            Stage(a, b, 1 if place == 0 else 2) for place, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(B, C)`` of images, uint8 ``(B, 3, H, W)``."""
        return self.classifier(self.upto(pixels, len(self.stages)).mean((2, 3)))

    def upto(self, pixels: Tensor, stage: int) -> Tensor:
        """Output of a stage, from 1: uint8 ``(B, 3, H, W)`` -> ``(B, D, h, w)``."""
        images = (pixels.float() / 255 - MEAN) / SPREAD
        activity = self.stem_norm(self.stem(images.contiguous(memory_format=torch.channels_last))).relu()
        for place in range(stage):
            activity = self.stages[place](activity)
        return activity

    def loss(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Mean NLL of classes ``(B,)``."""
        return F.cross_entropy(self(pixels), targets)


@torch.no_grad()
def frozen(network: LocationNetwork) -> LocationNetwork:
    """The same function with every normalisation folded into the convolution before it, in evaluation mode, not to be trained."""
    fused = copy.deepcopy(network).eval()
    pairs: list[tuple[nn.Module, str, str]] = [(fused, "stem", "stem_norm")]
    for stage in fused.stages:
        pairs += [(stage, name, f"{name}_norm") for name in ("first", "second", "skip")]
    for module, name, norm in pairs:
        if isinstance(getattr(module, norm), nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(getattr(module, name), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Images mirrored at random and shifted by up to an eighth of their side: ``(B, 3, s, s)``."""
    side = pixels.shape[-1]
    reach = side // 8
    turned = torch.where(torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5, pixels, pixels.flip(-1))
    padded = F.pad(turned, (reach, reach, reach, reach))
    y, x = torch.randint(2 * reach + 1, (2, len(pixels)), generator=generator)
    steps = torch.arange(side)
    rows = (y[:, None] + steps)[:, None, :, None]
    columns = (x[:, None] + steps)[:, None, None, :]
    return padded[torch.arange(len(pixels))[:, None, None, None], torch.arange(3)[:, None, None], rows, columns]


class Framed(nn.Module):
    """Stages applied to each frame of a sequence with the same weights.

    Args:
        stages: ``(B, C, H, W) -> (B, D, h, w)``. frames: number T of them; 1 for a canvas.
        by_moment: whether the channels of each moment are channels of their own.
    """

    def __init__(self, stages: nn.Module, frames: int, by_moment: bool) -> None:
        super().__init__()
        self.stages, self.frames, self.by_moment = stages, frames, by_moment

    def forward(self, activity: Tensor) -> Tensor:
        """``(B, T C, H, W) -> (B, T D, h, w)`` by moment, else ``(B, C, T, H, W) -> (B, D, T, h, w)``; a canvas has no T."""
        if self.frames == 1:
            return self.stages(activity)
        return arranged(self.stages(frames_of(activity, self.frames, self.by_moment)), self.frames, self.by_moment)


def frames_of(activity: Tensor, frames: int, by_moment: bool) -> Tensor:
    """Frames by themselves, ``(B T, C, H, W)``: the inverse of ``arranged``."""
    if by_moment:
        return activity.unflatten(1, (frames, -1)).flatten(0, 1)
    return activity.transpose(1, 2).flatten(0, 1)


def arranged(activity: Tensor, frames: int, by_moment: bool) -> Tensor:
    """Frames ``(B T, C, H, W)`` as a sequence, ``(B, T C, H, W)`` by moment, else ``(B, C, T, H, W)``."""
    sequence = activity.unflatten(0, (-1, frames))
    return sequence.flatten(1, 2) if by_moment else sequence.transpose(1, 2)


class FromEncoder(nn.Module):
    """A frozen network from the encoder's activity on, under names that ``comodulate`` can be told: ``encoder``, ``decoder``.

    Args:
        network: frozen. location: the stage whose output the encoder is. sequences: whether its inputs are sequences.
        by_moment: as in ``Framed``.
    """

    def __init__(self, network: LocationNetwork, location: int, sequences: bool, by_moment: bool = False) -> None:
        super().__init__()
        self.frames, self.by_moment = MEMBERS if sequences else 1, by_moment
        self.encoder = nn.Identity()
        self.decoder = Framed(network.stages[location], self.frames, by_moment)
        self.rest = Framed(nn.Sequential(*network.stages[location + 1 :]), self.frames, by_moment)
        self.classifier = network.classifier

    def forward(self, activity: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the encoder's activity, arranged as ``Framed`` takes it."""
        last = self.rest(self.decoder(self.encoder(activity)))
        if self.by_moment:
            last = last.unflatten(1, (self.frames, -1)).transpose(1, 2)
        return self.classifier(last.flatten(2).mean(2))


def modulated(
    network: LocationNetwork,
    location: int,
    neurons: str,
    sequences: bool,
    num_tasks: int,
    example: Tensor,
) -> Comodulated:
    """Task modulation of a network at a location.

    Args:
        network: frozen. location: 1 to 3. neurons: ``channel``; ``position`` (channel and position, of canvases); ``moment``
            (channel and moment, of sequences). sequences: whether inputs are sequences.
        num_tasks: number K of tasks. example: activity of the encoder, as ``FromEncoder`` takes it.
    """
    model = FromEncoder(network, location, sequences, by_moment=neurons == "moment")
    by_place = neurons == "position"
    return comodulate(
        model, encoder="encoder", decoder="decoder", num_tasks=num_tasks, example=example,
        neurons="position" if by_place else "channel", neuron_dim=None if by_place else 1,
    )  # fmt: skip
