"""Fabric for the processes that were started together; for one process, made when something needs it.

Importing Fabric takes two seconds (it imports torch's compiler). One process that trains on its CPU never does: there Fabric
would leave the module, the optimizer and the gradients as they are.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .launching import Place
from .meeting import Company


class Alone:
    """One process and its device, and whatever else a ``lightning_fabric.Fabric`` has."""

    global_rank = 0
    world_size = 1

    def __init__(self, device: torch.device | None = None) -> None:
        """``device``: to train on; None for the one that Fabric would choose."""
        self._given = device

    @cached_property
    def _fabric(self) -> Any:
        from lightning_fabric import Fabric

        if (given := self._given) is not None:
            return Fabric(accelerator=given.type, devices=1 if given.type == "cpu" else [given.index or 0])
        # The process's own GPU: with devices=1, Fabric would put every process on the first.
        own = [torch.cuda.current_device()] if torch.cuda.is_available() else 1
        return Fabric(accelerator="auto", devices=own)

    @cached_property
    def device(self) -> torch.device:
        """The device that is given, or that Fabric would choose."""
        if self._given is not None:
            return self._given
        if torch.cuda.is_available() or torch.backends.mps.is_available() or importlib.util.find_spec("torch_xla"):
            return self._fabric.device
        return torch.device("cpu")

    def setup(self, module: nn.Module, optimizer: Optimizer) -> tuple[Any, Optimizer]:
        """The module and its optimizer on the device, as ``Fabric.setup`` gives them."""
        if self.device.type == "cpu":
            return module.to(self.device), optimizer
        return self._fabric.setup(module, optimizer)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those of what it was computed from."""
        if self.device.type == "cpu":
            loss.backward()
        else:
            self._fabric.backward(loss)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._fabric, name)


@contextlib.contextmanager
def joined(others: Company | None = None) -> Iterator[Any]:
    """A Fabric on the devices of all processes that ``launch`` or torchrun started; alone, on one device.

    Args:
        others: which are looked after until all have come to the end.

    Raises:
        InputError: more processes than devices.
        RunError: the others cannot be reached.
    """
    place = Place.of_environment()
    if place.number == 1:
        yield Alone()
        return
    from .several import several

    with several(place, others) as fabric:
        yield fabric
