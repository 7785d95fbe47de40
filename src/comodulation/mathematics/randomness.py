"""Counter-based noise: a value depends only on (seed, sample, task, layer, draw), never on batch order or device.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
written in 64-bit integer tensor operations, so the same bits come out on every device; normal deviates follow by the
Box-Muller transform in float64.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit counter words and two key words in, four random words out.

    Args:
        counter: four int64 tensors with values in [0, 2^32), broadcastable against one another.
        key: two int64 tensors with values in [0, 2^32).

    Returns:
        Four int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low 32-bit words of the product of two 32-bit words, without leaving int64."""
    low, high = a & 0xFFFF, a >> 16
    first = low * b  # below 2^48
    second = high * b + (first >> 16)  # below 2^49
    return second >> 16, ((second & 0xFFFF) << 16) | (first & 0xFFFF)


def modulator_noise(
    sample_ids: Tensor, task_ids: Tensor, num_samples: int, *, seed: int, layer: int = 0, step: int = 0
) -> Tensor:
    """Standard normal modulator values, one per modulator sample and input.

    Args:
        sample_ids: identity of each input in its data set, integers >= 0, ``(B,)``.
        task_ids: task of each input, integers in [0, 2^32), ``(B,)``.
        num_samples: number T of modulator samples.
        seed: in [0, 2^32).
        layer: which modulated layer the noise is for, in [0, 2^16).
        step: which pass over the data (an epoch), in [0, 2^16); new noise for each.

    Returns:
        ``(T, B)``, float32, mean 0 and variance 1 over any of the five coordinates.

    Raises:
        ValueError: for shapes that differ, ids that are not integers, or ids, a seed, layer or step out of range.
    """
    if sample_ids.shape != task_ids.shape or sample_ids.ndim != 1:
        raise ValueError(
            f"sample_ids and task_ids must both be (B,), got {tuple(sample_ids.shape)} and {tuple(task_ids.shape)}"
        )
    if sample_ids.is_floating_point() or (sample_ids < 0).any():
        raise ValueError("sample_ids must be integers >= 0")
    tasks = task_ids.to(torch.int64)  # before the comparison: a narrow type cannot hold the bound
    if task_ids.is_floating_point() or ((tasks < 0) | (tasks > _MASK)).any():
        raise ValueError("task_ids must be integers in [0, 2^32)")
    if not 0 <= seed <= _MASK or not 0 <= layer < 2**16 or not 0 <= step < 2**16:
        raise ValueError(f"seed, layer or step out of range: {seed}, {layer}, {step}")
    ids = sample_ids.to(torch.int64)
    draws = torch.arange((num_samples + 1) // 2, device=ids.device)[:, None]
    counter = (ids & _MASK, tasks, draws, torch.full_like(ids, layer << 16 | step))
    words = philox(counter, (torch.full_like(ids, seed), ids >> 32))
    # 53 random bits, shifted by half a unit so that the logarithm never sees zero.
    radius_bits = (words[0] << 21) | (words[1] >> 11)
    radius = torch.sqrt(-2 * torch.log((radius_bits.double() + 0.5) / 2**53))
    angle = 2 * math.pi * words[2].double() / 2**32
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return pairs.flatten(0, 1)[:num_samples].float()


def derived_seed(seed: int, *what: object) -> int:
    """A seed for one purpose, independent of the others: a hash of the run's seed and the purpose."""
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:6], "little")


@contextlib.contextmanager
def drawing_from(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """While it lasts, torch draws from a seed; afterwards it goes on where it was, on every device.

    ``torch.manual_seed`` alone would begin the generators of all devices anew, and nothing would bring those back.

    Args:
        seed: of what is drawn. device: where, besides the CPU.
    """
    with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device is not None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device is not None and device.type != "cpu":
            torch.manual_seed(seed)
        yield
