"""Properties of a pretrained head: what flows through its skip connections, and how far a controller can move its decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....networks import ComodulatedHead


@torch.no_grad()
def skip_shares(head: ComodulatedHead, features: Tensor) -> dict[str, float]:
    """Share of a layer's variance that comes through its skip connection, before its ReLU.

    With z = block + skip, the share is sum_c Cov(skip_c, z_c) / sum_c Var(z_c) over images and positions, channels c. It and the
    block's share add up to 1; it is 0 without a skip connection, and leaves [0, 1] where skip and block work against each other.

    Args:
        head: in evaluation mode. features: ``(N, C, H, W)``, N H W > 1.

    Returns:
        ``encoder`` and ``decoder`` (its last layer).
    """
    scaled = (features - head.feature_mean[:, None, None]) / head.feature_std[:, None, None]
    projected = head.projection(scaled).relu()
    block = nn.functional.conv2d(projected, head.encoder.weight, head.encoder.bias, padding=head.encoder.padding)
    if head.encoder_normalisation is not None:
        block = head.encoder_normalisation(block)
    reached = head.deepen(head.encode(features))
    drive = head.drive(reached)
    through = torch.zeros_like(drive)
    if head.decoder_skip is not None:
        through = head.skips[1] * head.decoder_skip(reached)
    skip = head.skips[0] * projected
    return {"encoder": _share(skip, block + skip), "decoder": _share(through, drive)}


def _share(part: Tensor, whole: Tensor) -> float:
    part, whole = (values.double() - values.double().mean((0, 2, 3), keepdim=True) for values in (part, whole))
    variance = float(whole.square().sum())
    return float((part * whole).sum()) / variance if variance else float("nan")


@torch.no_grad()
def influence(head: ComodulatedHead, features: Tensor, probes: int = 8, seed: int = 0) -> float:
    """How far couplings move the decoder: norm of the derivative, relative to the activity.

    sqrt(E |J v|^2 / E |d|^2), with d the decoder's pooled activity of an image, J its derivative for the coupling u at 0 and v
    standard normal: |J|_F / |d| over images. Couplings of v times a small number move the decoder by so much of that number.
    Decoder neurons without biases that each read a single encoder neuron have 1; averaging over many lowers it.

    Args:
        head: in evaluation mode. features: ``(N, C, H, W)``. probes: draws of v for each image. seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    activity = head.encode(features)
    moved, size = 0.0, 0.0
    for _ in range(probes):
        v = torch.randn(len(activity), head.encoder_channels, generator=generator).to(activity)
        found = head.statistics(activity, v)
        moved += float(found.slope.double().square().sum())
        size += float(found.mean.double().square().sum())
    return (moved / size) ** 0.5 if size else float("nan")
