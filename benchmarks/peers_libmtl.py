"""LibMTL's part of peers.py: hard parameter sharing (HPS, equal weighting) on the plain head, by LibMTL's own trainer.

INTERPRETER benchmarks/peers_libmtl.py FOLDER libmtl|libmtl-one-input [LEARNING_RATE]

All layers up to the readout's hidden one are shared and trained; each task has an output layer of its own, begun at the
pretrained one. ``libmtl`` is its way for tasks with images of their own (``multi_input``): one loader per task, a step takes a
part of each. ``libmtl-one-input`` gives it mixed batches as if every image had all labels, with those of other tasks marked as
missing and left out of the loss: one pass a step, the best way to do this work that was found.

The released version (1.1.5) needs three things that today's packages and a machine without a GPU do not give it; they are given
from outside, and nothing in it is changed: a module ``torchvision.models.utils`` (it imports a downloader from there, which is
not called here), a device other than the ``cuda:0`` that its trainer names, and iterators that have a method ``next``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peers_common import (
    Clock,
    Pairs,
    Result,
    Tail,
    Trunk,
    Work,
    inference_ms,
    linear,
    peak_mib,
    read_work,
    resident_mib,
    score,
)
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("libmtl", "libmtl-one-input")
RATES = {"libmtl": 5e-4, "libmtl-one-input": 5e-4}
MISSING = -1


def given_imports() -> None:
    """Stand in for the one name that LibMTL imports from torchvision and that is no longer there."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision.models.utils"].load_state_dict_from_url = None  # type: ignore[attr-defined]


given_imports()

from LibMTL import Trainer  # type: ignore[import-not-found]  # noqa: E402
from LibMTL.architecture import HPS  # type: ignore[import-not-found]  # noqa: E402
from LibMTL.loss import AbsLoss, CELoss  # type: ignore[import-not-found]  # noqa: E402
from LibMTL.metrics import AccMetric  # type: ignore[import-not-found]  # noqa: E402
from LibMTL.weighting import EW  # type: ignore[import-not-found]  # noqa: E402


class Shared(nn.Module):
    """What all tasks share: features -> the readout's hidden layer."""

    def __init__(self, layers: dict[str, Tensor]) -> None:
        super().__init__()
        self.trunk, self.tail = Trunk(layers), Tail(layers)
        del self.tail.output  # each task has its own

    def forward(self, features: Tensor) -> Tensor:
        return self.tail.represent(self.trunk(features))


class KnownLoss(AbsLoss):
    """Cross entropy over the images of a batch that have a label for the task, as a share of the batch's."""

    def compute_loss(self, pred: Tensor, gt: Tensor) -> Tensor:
        return F.cross_entropy(pred, gt, ignore_index=MISSING, reduction="sum") / len(gt)


class Batches:
    """An iterator as torch's loaders had them."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        return next(self.items)

    next = __next__


class Loader:
    """Batches of each epoch, new ones whenever it is iterated, by iterators that have a method ``next``."""

    def __init__(self, number: int, batches: Callable[[int], Iterator[Any]]) -> None:
        self.number, self.batches, self.epoch = number, batches, 0

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Batches:
        self.epoch += 1
        return Batches(self.batches(self.epoch - 1))


class OnProcessor(Trainer):
    """LibMTL's trainer on the CPU; where it would test, it notes how long the epoch's training took."""

    def _prepare_model(self, *arguments: Any) -> None:
        self.device = torch.device("cpu")
        self.clock = Clock()
        self._cpu = 0.0
        super()._prepare_model(*arguments)

    def train(self, *arguments: Any, **options: Any) -> Any:
        self._cpu = time.process_time()
        return super().train(*arguments, **options)

    def test(self, *_: Any, **__: Any) -> None:
        now = time.process_time()
        self.clock.wall.append(self.meter.end_time - self.meter.beg_time)
        self.clock.cpu.append(now - self._cpu)
        self._cpu = now


def task_loaders(work: Work, names: list[str]) -> dict[str, Loader]:
    """A loader per task; a step takes so many images of each that they make a batch."""
    size = -(-work.settings.batch_size // len(names))

    def batches(rows: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in rows[torch.randperm(len(rows), generator=work.generator(epoch))].split(size):
            pairs = work.tuning.take(part)
            yield work.rows(pairs.image), pairs.target

    loaders = {}
    for task, name in enumerate(names):
        rows = (work.tuning.task == task).nonzero()[:, 0]
        loaders[name] = Loader(-(-len(rows) // size), partial(batches, rows))
    return loaders


def mixed_loader(work: Work, names: list[str]) -> Loader:
    """One loader of mixed batches, with a label for the image's own task and none for the others."""

    def labels(pairs: Pairs) -> dict[str, Tensor]:
        return {name: torch.where(pairs.task == task, pairs.target, MISSING) for task, name in enumerate(names)}

    def batches(epoch: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for pairs in work.batches(epoch):
            yield work.rows(pairs.image), labels(pairs)

    return Loader(work.steps, batches)


def measure(folder: Path, kind: str, learning_rate: float | None = None) -> Result:
    """Train with LibMTL on the work in a folder, and measure it."""
    work = read_work(folder)
    settings, rate, several = work.settings, learning_rate or RATES[kind], kind == "libmtl"
    names = [f"task{task}" for task in range(settings.num_tasks)]
    loss = CELoss if several else KnownLoss
    tasks = {name: {"metrics": ["Acc"], "metrics_fn": AccMetric(), "loss_fn": loss(), "weight": [1]} for name in names}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints every task's score
        trainer = OnProcessor(
            tasks, EW, HPS, partial(Shared, work.layers), nn.ModuleDict({n: linear(work.layers, "output") for n in names}),
            False, several, {"optim": "adam", "lr": rate}, {"scheduler": "cos", "T_max": settings.epochs},
            weight_args={}, arch_args={},
        )  # fmt: skip
        start = resident_mib()
        loaders = task_loaders(work, names) if several else mixed_loader(work, names)
        trainer.train(loaders, None, settings.epochs)
    model = trainer.model.eval()
    steps = max(map(len, loaders.values())) if isinstance(loaders, dict) else len(loaders)
    images = steps * settings.num_tasks * -(-settings.batch_size // len(names)) if several else len(work.tuning)

    def answer(features: Tensor, tasks: Tensor) -> Tensor:
        logits = torch.stack([*model(features).values()])  # the shared layers once, then every task's own
        return logits[tasks, torch.arange(len(tasks))].log_softmax(-1)

    accuracy, nll = score(answer, work)
    return Result(
        kind, version("LibMTL"), rate, *trainer.clock.medians(), 0.0, *inference_ms(answer, work), start, peak_mib(),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        accuracy, nll, images, steps,
    )  # fmt: skip


if __name__ == "__main__":
    measure(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None).say()
