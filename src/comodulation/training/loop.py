"""One training loop, on Lightning Fabric, for both steps: pretraining of the added layers, then the controller alone.

After every epoch all of its state (parameters, optimizer, history, best parameters so far) goes to one checkpoint file.
Order and dropout of an epoch depend on (seed, epoch) alone, so a training that was interrupted and resumed ends with
the same bits as one that was not.

Several processes share each batch (processes/together.py): each computes the gradients of its rows' part of the batch's mean loss,
and every optimizer uses their sum. A checkpoint does not depend on the number of processes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergedError, InputError
from ..mathematics import derived_seed
from ..processes import Processes
from ..tensors import read_tensors, write_tensors
from .optimizers import AdamW
from .progress import Epoch, Progress, Silent

LARGEST = 1e6  # of learning rate and weight decay: their product with an average must fit into a float


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the data.
        learning_rate: peak of a one-cycle schedule: cosine up over ``warmup``, cosine down to 0 (Smith and Topin, 2018).
        batch_size: inputs per step.
        weight_decay: decoupled (AdamW).
        warmup: share of the steps that go up, in [0, 1).
        patience: stop after this many epochs without a lower validation NLL; 0 never stops early.
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 256
    weight_decay: float = 0.0
    warmup: float = 0.3
    patience: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": (1 <= self.epochs <= 60_000, "1 to 60000"),
            "learning_rate": (0 < self.learning_rate <= LARGEST, f"a positive number up to {LARGEST:g}"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "weight_decay": (0 <= self.weight_decay <= LARGEST, f"0 to {LARGEST:g}"),
            "warmup": (0 <= self.warmup < 1, "at least 0 and below 1"),
            "patience": (self.patience >= 0, "at least 0"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise InputError(f"{name} {getattr(self, name)!r} is out of range, expected {expected}")


Batch = tuple[Any, ...]
# (module, fabric, batch) -> loss, with gradients left on the parameters
Gradients = Callable[[Any, Any, Batch], Tensor]


def loss_gradients(module: Any, fabric: Any, batch: Batch) -> Tensor:
    """Gradients of ``module.loss(*batch)``."""
    loss = module.loss(*batch)
    fabric.backward(loss)
    return loss


@dataclass(frozen=True)
class Objective:
    """What a training lowers, and by what.

    Attributes:
        name: what it is called where its epochs are reported.
        module: has ``loss(*batch) -> scalar``. In several processes, the part of the whole batch's mean loss that is due to
            this process's rows.
        learnable: what to train, each with its learning rate as a multiple of the settings'.
        batches: (epoch, generator) -> the epoch's batches, or this process's shares of them; random choices are drawn from the
            generator.
        steps_per_epoch: number of batches of an epoch.
        validate: metrics after an epoch, with ``nll`` among them; called in eval mode, without gradients.
        gradients: computes a batch's gradients and returns its loss; by default those of the loss itself.
        after_step: called with the number of steps done, after each.
        state: what else changes in training, in place, by ``after_step`` or as running statistics do: belongs to an epoch as the
            parameters do.
        begin: validation NLL before training; where no epoch has a lower one, the parameters stay as they are given.
    """

    name: str
    module: nn.Module
    learnable: Sequence[tuple[nn.Parameter, float]]
    batches: Callable[[int, torch.Generator], Iterable[Batch]]
    steps_per_epoch: int
    validate: Callable[[], dict[str, float]]
    gradients: Gradients = loss_gradients
    after_step: Callable[[int], None] | None = None
    state: Sequence[Tensor] = ()
    begin: float = math.inf


@dataclass(frozen=True)
class Venue:
    """Where a training runs.

    Attributes:
        fabric: ``Alone``, or a ``lightning_fabric.Fabric``; of several processes where ``joined`` made it.
        tell: who is told of every epoch, by the first process.
        checkpoint: file to write after every epoch, and to continue from if it is there; the first process does.
        identity: what the checkpoint must belong to.
    """

    fabric: Any
    tell: Progress = field(default_factory=Silent)
    checkpoint: Path | None = None
    identity: str = ""


def train(objective: Objective, settings: TrainingSettings, venue: Venue, *, seed: int) -> list[dict[str, float]]:
    """Train parameters to lower ``module.loss(*batch)``; leave them at the epoch of lowest validation NLL.

    Args:
        objective: what is trained, on what. settings: epochs, learning rate, ... venue: where. seed: of order and dropout.

    Returns:
        One dict per epoch: epoch, loss, the validation metrics, seconds.

    Raises:
        DivergedError: the loss is not finite (nothing is saved then).
        InputError: the checkpoint belongs to another training.
        LostProcess: another process is gone.
    """
    module, fabric, checkpoint = objective.module, venue.fabric, venue.checkpoint
    processes = Processes.of(fabric)
    parameters = [parameter for parameter, _ in objective.learnable]
    # Neighbours with the same factor share a group, so that parameters keep their order in the optimizer's state.
    groups = [
        {"params": [parameter for parameter, _ in same], "factor": factor}
        for factor, same in itertools.groupby(objective.learnable, lambda item: item[1])
    ]
    optimizer = AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    wrapped, optimizer = fabric.setup(module, optimizer)
    if hasattr(wrapped, "mark_forward_method"):  # Fabric's
        wrapped.mark_forward_method("loss")
    history: list[dict[str, float]] = []
    kept = [*parameters, *objective.state]  # what an epoch leaves
    for tensor in kept:
        processes.follow(tensor)
    best = [tensor.detach().clone() for tensor in kept]
    stored = None
    if checkpoint is not None and processes.first:
        stored = _read_checkpoint(checkpoint, venue.identity, len(kept), len(parameters))
    if (stored := _followed(stored, kept, parameters, processes)) is not None:
        history, best = _restore(*stored, kept, len(parameters), optimizer)
    total = settings.epochs * objective.steps_per_epoch
    for epoch in range(len(history), settings.epochs):
        if _stalled(history, settings.patience):
            break
        began = time.perf_counter()
        module.train()
        losses: list[Tensor] = []
        with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
            torch.manual_seed(derived_seed(seed, "dropout", epoch))
            generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
            for step, batch in enumerate(objective.batches(epoch, generator), epoch * objective.steps_per_epoch):
                for group in optimizer.param_groups:
                    rate = one_cycle(step, total, settings.learning_rate, settings.warmup)
                    group["lr"] = rate * group["factor"]
                optimizer.zero_grad()
                loss = objective.gradients(wrapped, fabric, batch)
                if processes.several:
                    sum_gradients(parameters, processes)
                optimizer.step()
                if objective.after_step is not None:
                    objective.after_step(step + 1)
                losses.append(loss.detach())
        mean_loss = float(processes.sum(torch.stack(losses).mean()))
        if not math.isfinite(mean_loss):
            raise DivergedError(f"the training loss became {mean_loss} in epoch {epoch + 1}; try a lower learning rate")
        module.eval()
        with torch.no_grad():
            validation = processes.agree(objective.validate())
        if validation["nll"] < min([objective.begin, *(entry["nll"] for entry in history)]):
            best = [tensor.detach().clone() for tensor in kept]
        seconds = time.perf_counter() - began
        history.append({"epoch": epoch + 1, "loss": mean_loss, **validation, "seconds": seconds})
        if checkpoint is not None and processes.first:
            _save(checkpoint, venue.identity, kept, best, optimizer, history)
        if processes.first:
            left = (settings.epochs - epoch - 1) * seconds
            told = Epoch(epoch + 1, settings.epochs, mean_loss, validation, seconds, left)
            venue.tell.epoch(objective.name, told)
    with torch.no_grad():
        for tensor, value in zip(kept, best, strict=True):
            tensor.copy_(value)
    module.eval()
    return history


def sum_gradients(parameters: list[nn.Parameter], processes: Processes) -> None:
    """Replace the gradients of parameters by their sums over processes, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    total = processes.sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: cosine from peak / 25 up to the peak over ``warmup``, then cosine down to 0."""
    place, turn = step / max(1, total), warmup
    if place < turn:
        return peak * (1 - 0.96 * (1 + math.cos(math.pi * place / turn)) / 2)
    return peak * (1 + math.cos(math.pi * (place - turn) / (1 - turn))) / 2


def _stalled(history: list[dict[str, float]], patience: int) -> bool:
    if not patience or len(history) <= patience:
        return False
    losses = [entry["nll"] for entry in history]
    return losses.index(min(losses)) < len(losses) - patience


def _save(
    path: Path,
    identity: str,
    kept: list[Tensor],
    best: list[Tensor],
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> None:
    tensors: dict[str, Tensor] = {}
    for place, (now, then) in enumerate(zip(kept, best, strict=True)):
        tensors[f"now.{place}"], tensors[f"best.{place}"] = now, then
    for place, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in state.items()})
    write_tensors(path, tensors, {"identity": identity, "history": history})


def _read_checkpoint(
    path: Path, identity: str, num_kept: int, num_parameters: int
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """A checkpoint's content; None if there is none or it is damaged, and training starts over. Raises InputError if foreign."""
    try:
        tensors, metadata = read_tensors(path)
    except InputError:
        return None
    if metadata.get("identity") != identity:
        raise InputError(
            f"the checkpoint {path} belongs to a training with other settings or data; remove it to start over"
        )
    names = {f"{key}.{place}" for place in range(num_kept) for key in ("now", "best")}
    names |= {
        f"optimizer.{place}.{key}" for place in range(num_parameters) for key in ("exp_avg", "exp_avg_sq", "step")
    }
    return (tensors, metadata) if set(tensors) == names else None


def _followed(
    stored: tuple[dict[str, Tensor], dict[str, Any]] | None,
    kept: list[Tensor],
    parameters: list[nn.Parameter],
    processes: Processes,
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The first process's checkpoint, in every process: the others need not see the file."""
    if not processes.several:
        return stored
    metadata = processes.agree(None if stored is None else stored[1])
    if metadata is None:
        return None
    like = {f"{key}.{place}": tensor for place, tensor in enumerate(kept) for key in ("now", "best")}
    for place, parameter in enumerate(parameters):
        like |= {f"optimizer.{place}.{key}": parameter for key in ("exp_avg", "exp_avg_sq")}
        like[f"optimizer.{place}.step"] = torch.zeros(())  # where torch keeps it: on the CPU
    tensors = {}
    for name, tensor in like.items():
        tensors[name] = torch.zeros_like(tensor) if stored is None else stored[0][name]
        processes.follow(tensors[name])
    return tensors, metadata


def _restore(
    tensors: dict[str, Tensor],
    metadata: dict[str, Any],
    kept: list[Tensor],
    num_parameters: int,
    optimizer: torch.optim.Optimizer,
) -> tuple[list[dict[str, float]], list[Tensor]]:
    with torch.no_grad():
        for place, tensor in enumerate(kept):
            tensor.copy_(tensors[f"now.{place}"])
    state: dict[int, dict[str, Tensor]] = {place: {} for place in range(num_parameters)}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state[int(number)][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return metadata["history"], [tensors[f"best.{place}"].to(now.device) for place, now in enumerate(kept)]
