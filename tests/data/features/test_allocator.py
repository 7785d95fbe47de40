"""Large blocks stay with the process while they are wanted, and go back to the system afterwards."""

import resource
import sys
from collections.abc import Callable

import pytest
import torch

from comodulation.data.features.allocator import _glibc, large_blocks_kept

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or _glibc() is None, reason="another C library than glibc"
)
MEBIBYTE = 1 << 20


def faults_of(call: Callable[[], object]) -> int:
    """Pages that the system had to give during a call."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_freed_memory_serves_the_next_activations():
    """Above 32 MiB glibc asks the system each time; within the context a network's passes share their memory.

    Not to the last page: a small block that stays behind a large one can make it too short for the next of its size.
    """
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
        assert resident() < before + 90 * MEBIBYTE
    assert min(outside) > 5 * sorted(within)[3]


def test_what_is_free_goes_back_at_the_end():
    """Also where the context ends with an error."""

    def interrupted() -> None:
        with large_blocks_kept():
            torch.empty(256 * MEBIBYTE, dtype=torch.uint8).fill_(1)
            assert resident() > before + 200 * MEBIBYTE
            raise KeyboardInterrupt

    before = resident()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert resident() < before + 60 * MEBIBYTE
