"""Large blocks stay with the process while they are wanted, and go back to the system afterwards."""

import resource
import sys

import pytest
import torch

from comodulation.allocator import _glibc, large_blocks_kept

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or _glibc() is None, reason="another C library than glibc"
)
MEBIBYTE = 1 << 20


def faults_of(size: int) -> int:
    """Pages that the system had to give for one more tensor of some bytes, written once and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_freed_memory_serves_the_next_allocation():
    """Above 32 MiB glibc asks the system each time; within the context once."""
    each = [faults_of(64 * MEBIBYTE) for _ in range(4)]
    with large_blocks_kept():
        first, *later = [faults_of(64 * MEBIBYTE) for _ in range(4)]
    assert min(each) > 10 * max(later)
    assert first > 10 * max(later)


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
