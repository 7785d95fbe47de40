"""Fabric for several processes that were started together."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from ..errors import InputError, RunError
from ..processes import Processes
from .launching import Place
from .meeting import Company

# How long one process waits for the others, which may be extracting features. One that dies is noticed at once all the same, and
# one of which nothing more is heard within minutes (meeting.py).
PATIENCE = timedelta(hours=12)


class SharedBatches(DDPStrategy):
    """Fabric's processes, with a module left as it is.

    ``DistributedDataParallel`` gives every process's gradient the same weight and wants one for every parameter that could be
    trained. Here shares of a batch may differ in size, and a method may learn a few of a head's parameters: the training loop sums
    gradients itself (loop.py).
    """

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module


@contextlib.contextmanager
def several(place: Place, others: Company | None = None) -> Iterator[Fabric]:
    """A Fabric on the devices of all processes; see ``fabric.joined``."""
    try:
        fabric = Fabric(
            accelerator="auto", devices=place.local_number, num_nodes=place.number // place.local_number,
            strategy=SharedBatches(timeout=PATIENCE), plugins=[TorchElasticEnvironment()],
        )  # fmt: skip
    except Exception as error:  # Fabric's own kind of error, which has moved between its releases
        raise InputError(f"{place.local_number} processes on this machine: {error}") from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell that it begins
    try:
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the {place.number} processes cannot reach one another: {error}") from error
    yield fabric
    # Only where all went well: a process that fails ends, and is noticed, without waiting for anyone.
    Processes.of(fabric).wait()
    if others is not None:
        others.end(in_order=True)  # from here on they may go
    torch.distributed.destroy_process_group()
