"""Train the couplings of a network that ``comodulate`` has made: batches in, the best epoch kept, task gains stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DivergedError, InputError
from ...mathematics import derived_seed, drawing_from
from ...networks.attached import Comodulated, arguments
from ..fabric import Alone
from ..loop import Objective, TrainingSettings, Venue
from ..loop import train as train_module
from ..progress import Epoch, Silent
from .labelled_batches import Labelled, LabelledBatches, is_known
from .losses import Loss, binary_loss, classes_loss, is_right, settled_loss

_LOSSES: dict[str, Loss] = {"classes": classes_loss, "binary": binary_loss}


@dataclass(frozen=True)
class Trained:
    """What a training reached.

    Attributes:
        history: a dictionary an epoch, from the first on: ``epoch`` (from 1), ``loss`` (mean of the training batches),
            ``validation`` (mean loss of the labelled validation inputs), ``accuracy`` (unless the loss is your own), ``seconds``.
        best: the epoch that was kept, from 1.
        task_losses: validation loss of each task at that epoch, ``(K,)``, nan for a task without labels there.
    """

    history: list[dict[str, float]]
    best: int
    task_losses: Tensor


def train(
    net: Comodulated,
    loader: Iterable[Any],
    *,
    validation: Iterable[Any] | None = None,
    loss: str | Loss = "auto",
    epochs: int = 10,
    learning_rate: float = 0.12,
    patience: int = 0,
    seed: int = 0,
    device: torch.device | str | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train the couplings of ``net``, leave it at its best epoch in evaluation mode, with its task gains stored.

    Nothing but ``net.controller`` learns: AdamW, one-cycle learning rate. After each epoch the task gains are computed from the
    training data (after ``net.observe`` exactly, without a pass over them), and the validation loss of the network with these
    gains says which epoch is the best. Labels of positions, and gains at level `input`, are computed in each call instead.

    Args:
        net: what ``comodulate`` returns, of K tasks.
        loader: of the training data, a DataLoader or a list of batches, read twice or three times an epoch. A batch is
            ``(inputs, task_ids, labels)``; or ``(inputs, labels)`` with a label for each task ``(B, K)``, of which an epoch draws
            one an input; or a dictionary of the model's arguments with ``labels`` and ``task_ids``. ``inputs`` are a tensor, a
            tuple of positional or a dictionary of keyword arguments. -1 and NaN are missing labels: they enter neither the
            training nor a loss.
        validation: batches, likewise; None takes ``loader`` itself, so that the best epoch is that of the training data.
        loss: ``classes``: cross-entropy, logits ``(B, C)``, or ``(B, C, positions)`` with a label for each position; ``binary``:
            labels of 0 and 1, logits ``(B, 1)`` or, an output a task, ``(B, K)``; ``auto``: which of the two, where that is
            clear. Or a function of (what the network returns, labels ``(B,)``, task ids ``(B,)``) that returns the loss of each
            input ``(B,)``; missing labels are 0 there, and their loss does not count.
        epochs: passes over the data.
        learning_rate: peak; couplings are logarithms of gains, so that 0.05 to 0.25 are right where 0.001 is not.
        patience: stop after this many epochs without a lower validation loss; 0 never does.
        seed: of the order in which a DataLoader shuffles, and of the tasks that are drawn. Equal seeds give equal bits.
        device: where it trains, and where ``net`` is afterwards; None is where it is.
        report: called after each epoch.

    Returns:
        History, best epoch, and the validation loss of each task.

    Raises:
        InputError: batches, labels or settings that are not as above; a loader that can be read once only; couplings in closed
            form; a loss without a gradient.
        ValueError, IndexError: task ids that are out of range.
        DivergedError: the loss is no number any more.

    >>> from comodulation import comodulate
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x, tasks = torch.randn(64, 4), torch.arange(64) % 2
    >>> net = comodulate(model, encoder="1", decoder="3", num_tasks=2, example=x)
    >>> done = train(net, [(x, tasks, (x[:, 0] > 0).long())], loss="classes", epochs=3)
    >>> len(done.history), done.task_losses.shape, net.task_gains.shape
    (3, torch.Size([2]), torch.Size([2, 8]))
    """
    if not isinstance(net, Comodulated):
        raise InputError(f"net is a {type(net).__name__}, expected what comodulate(model, ...) returns")
    if not net.learnable():
        raise InputError(
            f"couplings={net.couplings!r} are computed, by net.observe(batches): there is nothing to train"
        )
    settings = TrainingSettings(epochs=epochs, learning_rate=learning_rate, patience=patience)
    place = torch.device(device) if device is not None else next(net.controller.parameters()).device
    net.to(place)
    batches = LabelledBatches(loader, "loader", net.num_tasks, place)
    judged = batches if validation is None else LabelledBatches(validation, "validation", net.num_tasks, place)
    # What a DataLoader draws for its order is the caller's generator's: it is left as it was.
    with drawing_from(derived_seed(seed, "first look"), place):
        loss = _settled(net, batches, loss)
        steps = len(batches)
    learning = _Learning(net, loss)
    pairs = batches.pairs(lambda: torch.Generator().manual_seed(derived_seed(seed, "tasks of the gains")))
    found: list[Tensor] = []

    def drawn(epoch: int, generator: torch.Generator) -> Iterator[tuple[Labelled]]:
        for batch in batches:
            yield (batch.drawn(generator),)

    def store() -> None:
        if net.response is not None:
            net.store_task_gains()  # exact, at no cost
        elif net.modulation.level == "task" and net.labels != "positions":
            net.store_task_gains(pairs)

    def validate() -> dict[str, float]:
        with drawing_from(derived_seed(seed, "validation"), place):
            store()
            losses, values = learning.judged(judged)
        if not bool(losses.nansum().isfinite()) or "nll" not in values:
            raise DivergedError("the validation loss is no number any more; try a lower learning rate")
        found.append(losses)
        return values

    learnable = [(parameter, 1.0) for parameter in net.learnable()]
    objective = Objective("couplings", learning, learnable, drawn, steps, validate)
    history = train_module(objective, settings, Venue(Alone(place), _Told(report)), seed=seed)
    with drawing_from(derived_seed(seed, "validation"), place):
        store()
    best = min(range(len(history)), key=lambda number: history[number]["nll"])
    told = [{"validation" if name == "nll" else name: value for name, value in entry.items()} for entry in history]
    return Trained(told, best + 1, found[best])


class _Told(Silent):
    """Progress for a function of the user's."""

    def __init__(self, report: Callable[[Epoch], None] | None) -> None:
        self.report = report

    def epoch(self, phase: str, epoch: Epoch) -> None:
        if self.report is not None:
            self.report(epoch)


class _Learning(nn.Module):
    """A network with the loss that it is trained by."""

    def __init__(self, net: Comodulated, loss: str | Loss) -> None:
        super().__init__()
        self.net, self.named = net, loss if isinstance(loss, str) else ""
        self.each = _LOSSES[loss] if isinstance(loss, str) else _own(loss)

    def loss(self, batch: Labelled) -> Tensor:
        """Mean loss of the labelled inputs of a batch with one task an input; 0 where there is none."""
        assert batch.tasks is not None
        args, kwargs = arguments(batch.inputs)
        losses = self.each(self.net(*args, task_ids=batch.tasks, **kwargs), batch.labels, batch.tasks)
        if not losses.requires_grad:
            raise InputError(
                "the loss has no gradient, so that no coupling could learn: train outside torch.no_grad(), torch.inference_mode() "
                "and net.disabled(), with net.controller.requires_grad_(True), and with a loss of your own that detaches nothing"
            )
        known = _known(batch.labels)
        return losses.where(known, 0).sum() / known.sum().clamp(min=1)

    def judged(self, batches: Iterable[Labelled]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of each task ``(K,)``, nan without labels; and over all labelled inputs ``nll`` and ``accuracy``."""
        sums = torch.zeros(3, self.net.num_tasks, dtype=torch.float64)  # losses, right answers, labels
        for batch in batches:
            args, kwargs = arguments(batch.inputs)
            if batch.tasks is None:
                asked = _known(batch.labels.T).nonzero()[:, 0]
                if not len(asked):
                    continue
                outputs = self.net.all_tasks(*args, tasks=asked, **kwargs)
                labels, tasks = batch.labels[:, asked].T.flatten(), asked.repeat_interleave(len(batch.labels))
            else:
                outputs, labels, tasks = self.net(*args, task_ids=batch.tasks, **kwargs), batch.labels, batch.tasks
            known = _known(labels)
            losses = self.each(outputs, labels, tasks)
            right = is_right(self.named, outputs, labels, tasks) if self.named else torch.zeros_like(losses)
            rows = torch.stack([losses.double(), right.double(), torch.ones_like(losses, dtype=torch.float64)])
            sums.index_add_(1, tasks[known].cpu(), rows[:, known].cpu())
        total = sums.sum(1)
        if not total[2]:
            raise InputError("the validation batches have no labels: every one is missing")
        values = {"nll": float(total[0] / total[2])}
        return sums[0] / sums[2], values | ({"accuracy": float(total[1] / total[2])} if self.named else {})


def _settled(net: Comodulated, batches: LabelledBatches, loss: str | Loss) -> str | Loss:
    """The loss, tried on the first batch: what does not fit is said before anything is trained."""
    first = next(iter(batches), None)
    if first is None:
        raise InputError("loader has no batches")
    with torch.no_grad():
        batch = first.drawn(None)
        assert batch.tasks is not None
        args, kwargs = arguments(batch.inputs)
        outputs = net.eval()(*args, task_ids=batch.tasks, mode="attention", **kwargs)
        if isinstance(loss, str):
            loss = settled_loss(loss, outputs, first.labels, net.num_tasks)
        each = _LOSSES[loss] if isinstance(loss, str) else _own(loss)
        each(outputs, batch.labels, batch.tasks)
    return loss


def _own(loss: Loss) -> Loss:
    """A loss of the user's, with its result checked."""

    def each(outputs: Any, labels: Tensor, tasks: Tensor) -> Tensor:
        given = labels.where(is_known(labels), 0) if labels.ndim == 1 else labels
        found = loss(outputs, given, tasks)
        if not isinstance(found, Tensor) or found.shape != tasks.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"loss returns {shape}, expected the loss of each input, ({len(tasks)},)")
        return found

    return each


def _known(labels: Tensor) -> Tensor:
    """Inputs ``(B,)`` of which any label is there."""
    known = is_known(labels)
    return known if known.ndim == 1 else known.flatten(1).any(1)
