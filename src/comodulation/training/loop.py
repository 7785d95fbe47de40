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
from torch.optim import Optimizer

from ..errors import DivergedError, InputError
from ..mathematics import derived_seed, drawing_from
from ..processes import Processes
from .checkpoint import State
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
    module, fabric = objective.module, venue.fabric
    processes = Processes.of(fabric)
    wrapped, optimizer = _set_up(objective, settings, fabric)
    parameters = [parameter for parameter, _ in objective.learnable]
    state = State(parameters, objective.state, optimizer, processes)
    state.resume(venue.checkpoint, venue.identity)
    for epoch in range(len(state.history), settings.epochs):
        if _stalled(state.history, settings.patience):
            break
        began = time.perf_counter()
        module.train()
        losses = _run_epoch(epoch, objective, settings, wrapped, optimizer, fabric, seed)
        loss = float(processes.sum(torch.stack(losses).mean()))
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss became {loss} in epoch {epoch + 1}; try a lower learning rate")
        module.eval()
        with torch.no_grad():
            validation = processes.agree(objective.validate())
        if validation["nll"] < min([objective.begin, *(entry["nll"] for entry in state.history)]):
            state.mark_best()
        seconds = time.perf_counter() - began
        state.history.append({"epoch": epoch + 1, "loss": loss, **validation, "seconds": seconds})
        if processes.first:
            if venue.checkpoint is not None:
                state.save(venue.checkpoint, venue.identity)
            left = (settings.epochs - epoch - 1) * seconds
            venue.tell.epoch(objective.name, Epoch(epoch + 1, settings.epochs, loss, validation, seconds, left))
    state.return_to_best()
    module.eval()
    return state.history


def _set_up(objective: Objective, settings: TrainingSettings, fabric: Any) -> tuple[Any, Optimizer]:
    """Module and optimizer, as Fabric gives them."""
    # Neighbours with the same factor share a group, so that parameters keep their order in the optimizer's state.
    groups = [
        {"params": [parameter for parameter, _ in same], "factor": factor}
        for factor, same in itertools.groupby(objective.learnable, lambda item: item[1])
    ]
    optimizer = AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    wrapped, optimizer = fabric.setup(objective.module, optimizer)
    if hasattr(wrapped, "mark_forward_method"):  # Fabric's
        wrapped.mark_forward_method("loss")
    return wrapped, optimizer


def _run_epoch(
    epoch: int,
    objective: Objective,
    settings: TrainingSettings,
    wrapped: Any,
    optimizer: Optimizer,
    fabric: Any,
    seed: int,
) -> list[Tensor]:
    """One pass over the data; the losses of its batches."""
    processes, losses = Processes.of(fabric), []
    total = settings.epochs * objective.steps_per_epoch
    with drawing_from(derived_seed(seed, "dropout", epoch), fabric.device):
        generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
        for step, batch in enumerate(objective.batches(epoch, generator), epoch * objective.steps_per_epoch):
            rate = one_cycle(step, total, settings.learning_rate, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.zero_grad()
            loss = objective.gradients(wrapped, fabric, batch)
            if processes.several:
                sum_gradients([parameter for parameter, _ in objective.learnable], processes)
            optimizer.step()
            if objective.after_step is not None:
                objective.after_step(step + 1)
            losses.append(loss.detach())
    return losses


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
