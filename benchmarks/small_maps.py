"""The head's convolution on 2x2 maps, as a convolution and as one matrix product (convolution.py).

python benchmarks/small_maps.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from comodulation.mathematics import convolve, dense_matrix


def milliseconds(function: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - began))
    return sorted(times[3:])[repeats // 2]


def gradients(function: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function().sum(), inputs)


def pairs() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """What is timed: as a convolution, and as a matrix product."""
    maps, kernel = torch.randn(256, 256, 2, 2, requires_grad=True), torch.randn(256, 256, 3, 3, requires_grad=True)
    plain, fixed = maps.detach(), kernel.detach()
    matrix = dense_matrix(fixed, 2, 2)
    return {
        "forward, frozen layer": (lambda: F.conv2d(plain, fixed, padding=1), lambda: convolve(plain, fixed, matrix)),
        "forward and input's gradient, frozen layer": (
            gradients(lambda: F.conv2d(maps, fixed, padding=1), maps),
            gradients(lambda: convolve(maps, fixed, matrix), maps),
        ),
        "forward and both gradients": (
            gradients(lambda: F.conv2d(maps, kernel, padding=1), maps, kernel),
            gradients(lambda: convolve(maps, kernel), maps, kernel),
        ),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    print("B 256, E = D 256, kernel 3x3, map 2x2; milliseconds: convolution, matrix, ratio")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, (slow, fast) in pairs().items():
            before, after = milliseconds(slow), milliseconds(fast)
            print(f"  {threads} thread(s), {name:44s} {before:6.1f} {after:6.1f} {before / after:5.2f}")
