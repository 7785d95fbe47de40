"""Step 2 of the protocol: train what a method learns, on the family of tasks, and predict with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DivergedError
from ..evaluation import METRICS, Predictions, metrics
from ..mathematics import derived_seed
from ..networks.methods import Method
from ..processes import ALONE, Processes
from ..tasks import Examples, TaskFamily, first_rows
from .inputs import EVALUATION_BATCH, Inputs, filled
from .loop import Objective, TrainingSettings, Venue, train


def tune(
    method: Method,
    inputs: Inputs,
    examples: Examples,
    validation: Examples,
    settings: TrainingSettings,
    venue: Venue,
    *,
    seed: int,
    balance: str = "none",
) -> list[dict[str, float]]:
    """Train what the method learns, on the family's half; [] for a method that learns nothing.

    With ``balance`` `classes` the loss, and the validation NLL that chooses the epoch, are weighted by ``class_weights``.
    Where ``venue`` has several processes, all of them call this with the same arguments and end with the same method.
    """
    processes = Processes.of(venue.fabric)
    with method.head.among(processes):
        weights = class_weights(method.family, examples) if balance == "classes" else None
        tuning = _Tuning(method, inputs, examples, validation, settings, processes, weights)
        tuning.observe()
        history: list[dict[str, float]] = []
        if method.learnable():
            history = train(tuning.objective(), settings, venue, seed=derived_seed(seed, "tuning"))
        method.eval()
        method.settle(tuning.seen())
        return history


@dataclass(frozen=True)
class _Tuning:
    """What ``tune`` is given, as a training sees it; ``weights`` of classes ``(K, V)``, or None."""

    method: Method
    inputs: Inputs
    examples: Examples
    validation: Examples
    settings: TrainingSettings
    processes: Processes
    weights: Tensor | None

    def seen(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the training pairs: what the method reads, and task ids."""
        # Few tasks in a batch: what is summed by task is summed at once.
        own = self.examples.task.argsort(stable=True)[self.processes.share(len(self.examples)).rows]
        for rows in own.split(EVALUATION_BATCH):
            part = self.examples.take(rows)
            yield self.inputs.rows(part.image), part.task.to(self.inputs.device)

    def observe(self) -> None:
        """Show the method its training inputs, those that all tasks share once for all."""
        images = self.examples.image.unique()
        # As many pairs as images times tasks: every image has a label for every task.
        if len(self.examples) > len(images) and len(self.examples) == len(images) * self.method.family.num_tasks:
            shown = images[self.processes.share(len(images)).rows].split(EVALUATION_BATCH)
            rows = ((self.inputs.rows(part), torch.zeros_like(part).to(self.inputs.device)) for part in shown)
            self.method.observe(rows, shared=True)
        else:
            self.method.observe(self.seen())

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[tuple[Any, ...]]:
        """An epoch's batches, as ``Method.loss`` takes them."""
        device, processes = self.inputs.device, self.processes
        for whole in epoch_examples(self.examples, generator, self.settings.batch_size):
            share = processes.share(len(whole)) if processes.several else None
            part = whole if share is None else whole.take(torch.arange(len(whole))[share.rows])
            batch = (part.task.to(device), part.target.to(device), part.image.to(device), epoch + 1)
            weight = None if self.weights is None else self.weights[part.task, part.target].to(device)
            yield (self.inputs.rows(part.image), *batch, weight, share)

    def validate(self) -> dict[str, float]:
        """Metrics of the validation examples. Raises DivergedError where predictions are no numbers."""
        self.method.settle(self.seen())
        result = predict(self.method, self.inputs, self.validation, self.processes)
        if bool(result.log_probabilities.isnan().any()):
            raise DivergedError(
                f"the predictions of {self.method.name} are no longer numbers; try a lower learning rate"
            )
        values = metrics(result.log_probabilities, result.target)
        if self.weights is not None:  # the epoch that is kept must be the best at what is trained
            values["nll"] = weighted_nll(result, self.weights)
        return {name: values[name] for name in METRICS}

    def objective(self) -> Objective:
        method, steps_per_epoch = self.method, -(-len(self.examples.image.unique()) // self.settings.batch_size)
        total = self.settings.epochs * steps_per_epoch
        learnable = list(zip(method.learnable(), method.rate_factors(), strict=True))
        return Objective(
            method.name, method, learnable, self.batches, steps_per_epoch, self.validate, method.gradients,
            after_step=lambda steps: method.after_step(steps, total), state=list(method.state().values()),
        )  # fmt: skip


def class_weights(family: TaskFamily, examples: Examples) -> Tensor:
    """Weight of an example of each class under each task: the inverse of the class's frequency within its task.

    A task of n examples and c classes gives each of a class's m examples n / (c m): mean 1 over the task's examples, and every
    class weighs the same in all. Minimising the weighted loss makes the predicted probabilities those of a population in which
    the classes are equally frequent: p(class | image) times its weight, normalised. So the likeliest class is the one whose image
    this is if all were equally common, which is what raises balanced accuracy, and the probabilities are *not* calibrated for data
    as imbalanced as the training set's: NLL and ECE there get worse, and the rare class is said too often. Dividing the
    probabilities by the weights would undo just that, and with it the balance, so it is not done.

    Args:
        family: K tasks, whose targets have V values.
        examples: of the training set, M of them.

    Returns:
        ``(K, V)``, 0 for a class without an example.

    >>> family = TaskFamily.from_attributes(["striped"])
    >>> class_weights(family, family.examples([[1, 0, 0, 0]]))
    tensor([[0.6667, 2.0000]])
    """
    values = len(family.targets)
    counts = torch.bincount(examples.task * values + examples.target, minlength=family.num_tasks * values)
    table = counts.view(family.num_tasks, values).double()
    present = (table > 0).sum(1, keepdim=True)
    weights = table.sum(1, keepdim=True) / (present * table)
    return torch.where(table > 0, weights, 0.0).float()


def weighted_nll(predictions: Predictions, weights: Tensor) -> float:
    """Mean negative log likelihood of M predictions, weighted by the weight ``(K, V)`` of their task and class."""
    own = weights[predictions.task, predictions.target].double()
    losses = -predictions.log_probabilities.double().gather(1, predictions.target[:, None])[:, 0].clamp(min=-100)
    return float((own * losses).sum() / own.sum())


def epoch_examples(examples: Examples, generator: torch.Generator, batch_size: int) -> Iterator[Examples]:
    """Batches of one epoch: every image once, each with one of its tasks drawn at random, in random order."""
    order = torch.randperm(len(examples), generator=generator)
    chosen, _ = first_rows(examples.image[order])
    rows = order[chosen]
    for part in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
        yield examples.take(part)


def predict(method: Method, inputs: Inputs, examples: Examples, processes: Processes = ALONE) -> Predictions:
    """Predictions for all pairs of ``examples``, in their order; each of the processes predicts its share, and has all."""
    method.eval()
    own = torch.arange(len(examples))[processes.share(len(examples)).rows]

    def predicted(rows: Tensor) -> Tensor:
        part = examples.take(rows)
        ids = part.image.to(inputs.device)
        return method.log_probabilities(inputs.rows(part.image), part.task.to(inputs.device), ids).cpu()

    found = processes.gather(filled(map(predicted, own.split(EVALUATION_BATCH)), len(own)), len(examples))
    return Predictions(examples.image, examples.task, examples.target, found)
