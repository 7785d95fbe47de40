"""This library's part of peers.py: a method fine-tuned by the library's own loop on mixed-task batches.

    python benchmarks/peers_ours.py FOLDER METHOD [LEARNING_RATE]
    python benchmarks/peers_ours.py FOLDER in-turn

The second takes a training step and an inference of each method in turn, so that ratios of a few percent can be told.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from peers_common import Clock, Result, Work, inference_ms, peak_mib, read_work, resident_mib, score
from torch import Tensor

import comodulation
from comodulation.files import read_json
from comodulation.networks.methods import Method
from comodulation.runs import build_head, config_method, load_head, read_config
from comodulation.tasks import TaskFamily
from comodulation.training import EVALUATION_BATCH, Inputs, Objective, TrainingSettings, Venue, train

RATES = {"attention": 0.2, "ia3": 0.18, "comodulation": 0.22, "hard-sharing": 5e-4}  # of docs/results' searches
IN_TURN = ("attention", "ia3", "comodulation")
CONFIG, HEAD, FAMILY = "config.yaml", "head.safetensors", "family.json"


@dataclass(frozen=True)
class Held:
    """The work's features as the library reads features."""

    work: Work
    key: str = "peers"

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.work.features.shape[1:]
        return channels, height, width

    def rows(self, rows: Tensor | slice) -> Tensor:
        return self.work.features[rows].float()


def make(folder: Path, name: str, in_channels: int) -> Method:
    """A method on the pretrained head in the folder."""
    config = read_config(folder / CONFIG).model_copy(update={"method": name})
    family = TaskFamily.from_json(read_json(folder / FAMILY))
    head = build_head(config, family, in_channels)
    load_head(head, folder / HEAD)
    return config_method(config, head, family)


def measure(folder: Path, name: str, learning_rate: float | None = None) -> Result:
    """Train a method on the work in a folder, and measure it."""
    work, fabric = read_work(folder), Fabric(accelerator="cpu", devices=1)
    settings, rate = work.settings, learning_rate or RATES[name]
    method = make(folder, name, work.features.shape[1])
    start, clock, began = resident_mib(), Clock(), time.process_time()
    images = torch.arange(len(work.features))
    inputs = Inputs(method, Held(work), images)

    def seen() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in work.tuning.task.argsort(stable=True).split(EVALUATION_BATCH):  # as `tune` does
            part = work.tuning.take(rows)
            yield inputs.rows(part.image), part.task

    def batches(epoch: int, _: torch.Generator) -> Iterator[tuple[Any, ...]]:
        with clock:
            for part in work.batches(epoch):
                yield inputs.rows(part.image), part.task, part.target, part.image, epoch + 1

    method.observe(seen())
    observed = time.process_time() - began
    falling = iter(range(settings.epochs, 0, -1))  # so that the last epoch is the one that is kept, as with the others
    objective = Objective(
        method.name,
        method,
        list(zip(method.learnable(), method.rate_factors(), strict=True)),
        batches,
        work.steps,
        lambda: {"nll": float(next(falling))},
        gradients=method.gradients,
    )
    rates = TrainingSettings(epochs=settings.epochs, learning_rate=rate, batch_size=settings.batch_size)
    train(objective, rates, Venue(fabric), seed=settings.seed)
    method.settle(seen())

    def answer(features: Tensor, tasks: Tensor) -> Tensor:
        return method.log_probabilities(method.prepare(features), tasks)

    accuracy, nll = score(answer, work)
    return Result(
        name, comodulation.__version__, rate, *clock.medians(), observed, *inference_ms(answer, work), start, peak_mib(),
        method.num_learnable(), accuracy, nll, len(work.tuning), work.steps,
    )  # fmt: skip


def in_turn(folder: Path, rounds: int = 25) -> dict[str, dict[str, float]]:
    """Median processor milliseconds of each method's training step and inference of a mixed batch, in one process, in turn."""
    work = read_work(folder)
    methods = {name: make(folder, name, work.features.shape[1]) for name in IN_TURN}
    batch = work.inference_batch()
    features = work.rows(batch.image)
    clocks = {(what, name): Clock() for what in ("training", "inference") for name in methods}
    with torch.no_grad():
        activity = next(iter(methods.values())).prepare(features)
    optimizers = {name: torch.optim.AdamW(method.learnable(), lr=0.01) for name, method in methods.items()}
    for method in methods.values():
        method.observe([(activity, batch.task)])
    for _ in range(rounds):
        for name, method in methods.items():
            method.train()
            with clocks["training", name]:
                optimizers[name].zero_grad()
                method.loss(activity, batch.task, batch.target).backward()
                optimizers[name].step()
        for name, method in methods.items():
            method.eval().settle([(activity, batch.task)])
            with clocks["inference", name], torch.inference_mode():
                method.log_probabilities(method.prepare(features), batch.task)
    result: dict[str, dict[str, float]] = {"training": {}, "inference": {}}
    for (what, name), clock in clocks.items():
        result[what][name] = 1000 * clock.medians()[0]
    return result


if __name__ == "__main__":
    if sys.argv[2] == "in-turn":
        print(json.dumps(in_turn(Path(sys.argv[1]))))
        sys.exit()
    measure(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None).say()
