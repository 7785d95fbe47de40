"""What large_blocks_kept does to the memory of a process: `python allocation.py shared|returned`.

In a process of its own: one that has run other things holds free memory, from which a large block may come without the system.
"""

import resource
import sys
from collections.abc import Callable

import torch

from comodulation.data.features.allocator import large_blocks_kept

MEBIBYTE = 1 << 20


def faults_of(call: Callable[[], object]) -> int:
    """Pages that the system had to give during a call."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def shared() -> None:
    """Passes of a network within the context take the memory of the one before, and not much more."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.ReLU(), torch.nn.Tanh(), torch.nn.ReLU())
    images = torch.randn(64, 8, 144, 144)  # 40 MiB, and so is each layer's result

    @torch.no_grad()
    def forward() -> None:
        layers(images)

    forward()
    outside = [faults_of(forward) for _ in range(3)]
    with large_blocks_kept():
        forward()
        before = resident()
        within = [faults_of(forward) for _ in range(6)]
        grown = resident() - before
    assert grown < 90 * MEBIBYTE, grown
    assert min(outside) > 5 * sorted(within)[3], (outside, within)


def returned() -> None:
    """What was taken within the context is given back after it, also where it ends with an error."""

    def interrupted() -> None:
        with large_blocks_kept():
            torch.empty(256 * MEBIBYTE, dtype=torch.uint8).fill_(1)
            assert resident() > before + 200 * MEBIBYTE, (before, resident())
            raise KeyboardInterrupt

    before = resident()
    try:
        interrupted()
    except KeyboardInterrupt:
        assert resident() < before + 60 * MEBIBYTE, (before, resident())
        return
    raise AssertionError("it was not interrupted")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"shared": shared, "returned": returned}[sys.argv[1]]()
    print("held")
