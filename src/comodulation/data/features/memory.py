"""How much memory there is, and whether a network fits into it, before any of it is taken."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from torch import nn

from ...errors import InputError

TRAINED_COPIES = 4  # of what is trained: values, gradients, and the two averages of the optimiser
_GIB = 2**30


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, of its container, and under its own limit (``ulimit -v``)."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    found = pages * size
    try:
        # What programs can get, with what the system would give up for them; Linux alone says so.
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            found = min(found, int(most) - int((group / "memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass  # what is known without them
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * size
        except (OSError, ValueError):
            used = 0
        found = min(found, limit - used)
    return max(0, found)


def check_fits(network: nn.Module, what: str, copies: int = 1) -> None:
    """Raise InputError for a network that is larger than the memory there is.

    Args:
        network: on the device ``meta``, where it takes none.
        what: its name in the message.
        copies: of its parameters that are held at once.
    """
    tensors = [*network.parameters(), *network.buffers()]
    needed, there = copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors), available_memory()
    if needed > there:
        raise InputError(
            f"{what} has {sum(t.numel() for t in tensors):,} parameters and takes {needed / _GIB:.1f} GiB of memory, but only "
            f"{there / _GIB:.1f} GiB are free; choose a smaller one"
        )
