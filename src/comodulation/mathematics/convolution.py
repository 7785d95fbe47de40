"""A convolution over a map of a few positions, as one matrix product.

On a map of P positions with P at most k^2, every position reaches most others, and half of what a k x k convolution multiplies is
padding (2x2 maps, 3x3 kernel: 36 products a pair of neurons where 16 are not with zero). The layer is then one matrix (E P, D P)
whose blocks are the kernel's taps, and its product with the batch does the same sums in another order: equal to the convolution
up to rounding, and about twice as fast on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FEW_ROWS = 32


def convolve(activity: Tensor, kernel: Tensor, dense: Tensor | None = None) -> Tensor:
    """Convolution with stride 1, zero padding that keeps the map's size, and no bias.

    Args:
        activity: ``(N, E, H, W)``.
        kernel: ``(D, E, k, k)``, k odd.
        dense: ``dense_matrix(kernel, H, W)`` where it is at hand.

    Returns:
        ``(N, D, H, W)``.
    """
    height, width = activity.shape[2:]
    size = kernel.shape[-1]
    pays = dense is not None or len(activity) >= FEW_ROWS  # to build the matrix may cost more than it saves
    if size == 1 or not is_small(height, width, size) or not pays:
        return F.conv2d(activity, kernel, padding=size // 2)
    matrix = dense_matrix(kernel, height, width) if dense is None else dense
    return (activity.flatten(1) @ matrix).unflatten(1, (len(kernel), height, width))


def is_small(height: int, width: int, size: int) -> bool:
    """Whether a map is small enough for one matrix product to be the cheaper way."""
    return height * width < size * size


def dense_matrix(kernel: Tensor, height: int, width: int) -> Tensor:
    """The convolution as a matrix on flattened maps, ``(E H W, D H W)``; differentiable in the kernel.

    Args:
        kernel: ``(D, E, k, k)``, k odd.
        height, width: of the map.
    """
    outputs, inputs, size, _ = kernel.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows, columns = (
        place[:, None] - place[None, :] + size // 2 for place in (y, x)
    )  # the tap from input p to output q
    within = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    taps = F.one_hot(torch.where(within, rows * size + columns, size * size).flatten(), size * size + 1)[:, :-1]
    # Products with 0 and 1 are exact, and their gradient is again a matrix product. Not under autocast: the matrix may be kept.
    with torch.autocast(kernel.device.type, enabled=False):
        blocks = kernel.flatten(2) @ taps.T.to(kernel)
    return blocks.unflatten(2, (len(y), len(y))).permute(1, 2, 0, 3).reshape(inputs * len(y), outputs * len(y))
