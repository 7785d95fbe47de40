"""The state of a training, in memory and in the one file from which it goes on as if it had not been interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import InputError
from ..processes import Processes
from ..tensors import read_tensors, write_tensors

Stored = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, and metadata
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, beside its number of steps


class State:
    """All that moves in a training by AdamW.

    Args:
        parameters: what is trained. others: what else an epoch leaves, changed in place.
        optimizer: of the parameters. processes: train together; they begin with what the first of them has.

    Attributes:
        history: one dict per epoch.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], others: Sequence[Tensor], optimizer: Optimizer, processes: Processes
    ) -> None:
        self.parameters, self.kept = parameters, [*parameters, *others]
        self.optimizer, self.processes = optimizer, processes
        self.history: list[dict[str, float]] = []
        for tensor in self.kept:
            processes.follow(tensor)
        self.mark_best()

    def mark_best(self) -> None:
        """The best epoch so far is the last one."""
        self.best = [tensor.detach().clone() for tensor in self.kept]

    @torch.no_grad()
    def return_to_best(self) -> None:
        for tensor, value in zip(self.kept, self.best, strict=True):
            tensor.copy_(value)

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint of a training that is called so."""
        tensors = self._now_and_best()
        for place, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in state.items()})
        write_tensors(path, tensors, {"identity": identity, "history": self.history})

    def resume(self, path: Path | None, identity: str) -> None:
        """Go on from the first process's checkpoint, if it has one; the others need not see the file. Raises as ``read``."""
        stored = self.read(path, identity) if path is not None and self.processes.first else None
        if self.processes.several:
            stored = self._followed(stored)
        if stored is None:
            return
        tensors, metadata = stored
        with torch.no_grad():
            for place, tensor in enumerate(self.kept):
                tensor.copy_(tensors[f"now.{place}"])
        state: dict[int, dict[str, Tensor]] = {place: {} for place in range(len(self.parameters))}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                state[int(number)][key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.best = [tensors[f"best.{place}"].to(now.device) for place, now in enumerate(self.kept)]
        self.history = metadata["history"]

    def read(self, path: Path, identity: str) -> Stored | None:
        """A checkpoint's content; None if there is none or it is damaged, and training starts over.

        Raises:
            InputError: it belongs to another training.
        """
        try:
            tensors, metadata = read_tensors(path)
        except InputError:
            return None
        if metadata.get("identity") != identity:
            raise InputError(
                f"the checkpoint {path} belongs to a training with other settings or data; remove it to start over"
            )
        return (tensors, metadata) if set(tensors) == set(self._like()) else None

    def _followed(self, stored: Stored | None) -> Stored | None:
        """What the first process has read, in every process."""
        metadata = self.processes.agree(None if stored is None else stored[1])
        if metadata is None:
            return None
        tensors = {}
        for name, tensor in self._like().items():
            tensors[name] = torch.zeros_like(tensor) if stored is None else stored[0][name]
            self.processes.follow(tensors[name])
        return tensors, metadata

    def _now_and_best(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for place, (now, best) in enumerate(zip(self.kept, self.best, strict=True)):
            tensors[f"now.{place}"], tensors[f"best.{place}"] = now, best
        return tensors

    def _like(self) -> dict[str, Tensor]:
        """A tensor of the kind of each one in a checkpoint, by name."""
        like = self._now_and_best()
        for place, parameter in enumerate(self.parameters):
            like |= {f"optimizer.{place}.{key}": parameter for key in MOMENTS}
            like[f"optimizer.{place}.step"] = torch.zeros(())  # where torch keeps it: on the CPU
        return like
