"""What pieces of work run on, and how work is cut into pieces for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Worker = Callable[[Any], Iterator[Any]]  # called with a piece; yields what is heard of it
Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Resources:
    """What pieces run on.

    Attributes:
        workers: how many of them run at the same time, at most; on a cluster, as far as it went when the command began. On this
            machine each has a GPU of its own where there are any, as far as they go, and as many threads as there are CPU cores
            for each.
        cores, gpus: of a cluster, that each of them takes.
        cluster: address of the Ray cluster that they run on; None: this machine.
    """

    workers: int = 1
    cores: int = 1
    gpus: int = 0
    cluster: str | None = None

    @property
    def several(self) -> bool:
        """Whether pieces may run in other processes than this one."""
        return self.cluster is not None or self.workers > 1


def usable_devices() -> int:
    """How many pieces run at the same time unless told: one a GPU, else one a CPU core."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def in_rounds(units: Sequence[Sequence[Unit]], workers: int) -> list[Sequence[Unit]]:
    """Units of work as pieces: whole ones as long as there is one for each worker, the rest cut so that each has a part of it.

    A worker that goes on with another unit must prepare for it: no more is cut than is needed for none to be idle.

    >>> in_rounds(["aaaa", "bbbb", "cccc"], 2)
    ['aaaa', 'bbbb', 'cc', 'cc']
    >>> in_rounds(["a", "bbb"], 3)
    ['a', 'b', 'b', 'b']
    """
    whole = len(units) - len(units) % workers
    parts = list(units[:whole])
    for unit in units[whole:]:
        cuts = [len(unit) * place // workers for place in range(workers + 1)]
        parts += [unit[start:end] for start, end in itertools.pairwise(cuts) if start < end]
    return parts
