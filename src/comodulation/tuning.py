"""Step 2 of the protocol: train what a method learns, on the family of tasks, and predict with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import RunConfig
from .evaluation import METRICS, Predictions, metrics
from .features import Features
from .methods import Method
from .progress import Progress
from .tasks import Examples, first_rows
from .training import derived_seed, train

EVALUATION_BATCH = 1024
ACTIVITY_LIMIT = 2**30  # bytes of encoder activity kept in memory; beyond it, it is encoded again each epoch


class Inputs:
    """What a method reads for given images: features if it trains the layers, else encoder activity, computed once.

    Args:
        method: decides which.
        features: of the split.
        images: row numbers that may be asked for, sorted, ``(n,)``.
    """

    def __init__(self, method: Method, features: Features, images: Tensor) -> None:
        self.method, self.features, self.images = method, features, images
        self.device = method.head.decoder.weight.device
        self.activity: Tensor | None = None
        side = features.array.shape[2] * features.array.shape[3]
        if not method.trains_layers and 4 * len(images) * method.head.encoder_channels * side <= ACTIVITY_LIMIT:
            with torch.no_grad():
                parts = [self._encode(part) for part in images.split(EVALUATION_BATCH)]
            self.activity = torch.cat(parts)

    def rows(self, images: Tensor) -> Tensor:
        """Inputs of some images."""
        if self.activity is not None:
            return self.activity[torch.searchsorted(self.images, images).to(self.device)]
        if self.method.trains_layers:
            return self.features.rows(images).to(self.device)
        with torch.no_grad():
            return self._encode(images)

    def _encode(self, images: Tensor) -> Tensor:
        return self.method.head.encode(self.features.rows(images).to(self.device))


def tune(
    method: Method,
    inputs: Inputs,
    examples: Examples,
    validation: Examples,
    config: RunConfig,
    fabric: Any,
    checkpoint: Path | None,
    identity: str,
    tell: Progress,
) -> list[dict[str, float]]:
    """Train what the method learns, on the family's half; [] for a method that learns nothing."""
    settings, device = config.tuning, inputs.device

    def seen() -> Iterable[tuple[Tensor, Tensor]]:
        for rows in torch.arange(len(examples)).split(EVALUATION_BATCH):
            part = examples.take(rows)
            yield inputs.rows(part.image), part.task.to(device)

    method.observe(seen())
    history: list[dict[str, float]] = []
    if method.learnable():

        def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Any, ...]]:
            for part in epoch_examples(examples, generator, settings.batch_size):
                task, target = part.task.to(device), part.target.to(device)
                yield inputs.rows(part.image), task, target, part.image.to(device), epoch + 1

        def validate() -> dict[str, float]:
            method.settle(seen())
            result = predict(method, inputs, validation)
            return {name: metrics(result.log_probabilities, result.target)[name] for name in METRICS}

        history = train(
            method,
            method.learnable(),
            batches,
            -(-len(examples.image.unique()) // settings.batch_size),
            validate,
            settings,
            seed=derived_seed(config.seed, "tuning"),
            fabric=fabric,
            checkpoint=checkpoint,
            identity=identity,
            report=lambda epoch: tell.epoch(method.name, epoch),
        )
    method.eval()
    method.settle(seen())
    return history


def epoch_examples(examples: Examples, generator: torch.Generator, batch_size: int) -> Iterator[Examples]:
    """Batches of one epoch: every image once, each with one of its tasks drawn at random, in random order."""
    order = torch.randperm(len(examples), generator=generator)
    chosen, _ = first_rows(examples.image[order])
    rows = order[chosen]
    for part in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
        yield examples.take(part)


def predict(method: Method, inputs: Inputs, examples: Examples) -> Predictions:
    """Predictions for all pairs of ``examples``, in their order."""
    method.eval()
    logs = []
    for rows in torch.arange(len(examples)).split(EVALUATION_BATCH):
        part = examples.take(rows)
        ids = part.image.to(inputs.device)
        logs.append(method.log_probabilities(inputs.rows(part.image), part.task.to(inputs.device), ids).cpu())
    return Predictions(examples.image, examples.task, examples.target, torch.cat(logs))
