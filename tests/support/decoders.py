"""Decoders and inputs that the tests of the gains share."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from comodulation.mathematics import ESTIMATORS, LINKS, NORMALIZERS, decoder_gains

DEVICE = torch.device(os.environ.get("COMODULATION_TEST_DEVICE", "cpu"))
Decode = Callable[[Tensor], Tensor]

# Everything that is offered: correlation not with derivative, the exponential link only with relative.
OFFERED = [
    (estimator, normalizer, link)
    for estimator, normalizer, link in product(ESTIMATORS, NORMALIZERS, LINKS)
    if (estimator, normalizer) != ("derivative", "correlation") and (link == "rectified" or normalizer == "relative")
]
STATISTICS = [(normalizer, link) for normalizer, link in product(NORMALIZERS, LINKS)
              if link == "rectified" or normalizer == "relative"]  # fmt: skip


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator(DEVICE).manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def dense(
    encoder: int, decoder: int, dtype: torch.dtype = torch.float64, *, bias: float = 0.3, seed: int = 0
) -> Decode:
    """A rectified fully connected decoder."""
    weight = randn(decoder, encoder, seed=seed, dtype=dtype) / encoder**0.5
    offset = bias * randn(decoder, seed=seed + 1, dtype=dtype)
    return lambda h: torch.relu(h @ weight.T + offset)


def residual(channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Decode:
    """The paper's decoder: relu(K h + b + h), 3x3."""
    kernel = randn(channels, channels, 3, 3, seed=seed, dtype=dtype) / (9 * channels) ** 0.5
    offset = 0.1 * randn(channels, seed=seed + 1, dtype=dtype)
    return lambda h: torch.relu(F.conv2d(h, kernel, offset, padding=1) + h)


def smooth(encoder: int, decoder: int, seed: int = 0) -> Decode:
    """A positive decoder without kinks, strongly curved."""
    weight, offset = randn(decoder, encoder, seed=seed), randn(decoder, seed=seed + 1)
    return lambda h: F.softplus(h @ weight.T + offset)


def everything(decode: Decode, activity: Tensor, coupling: Tensor, std: float = 0.3, **options: object) -> Tensor:
    """decoder_gains with reproducible samples."""
    return decoder_gains(decode, activity, coupling, std, generator=noise(), **options)  # type: ignore[arg-type]
