"""Small trainings that any number of processes can do together, and what they must agree in.

``main`` is what one process of several does: every training; it writes what it ended with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comodulation.data import partition
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import METHODS, make_method
from comodulation.processes import Processes
from comodulation.runs import RunConfig
from comodulation.tasks import TaskFamily
from comodulation.tensors import read_tensors, write_tensors
from comodulation.training import (
    Epoch,
    Inputs,
    Objective,
    Silent,
    TrainingSettings,
    Venue,
    joined,
    pretrain,
    pretraining_targets,
    train,
    tune,
)

IMAGES, BATCH = 37, 9  # the last batch has one image: with several processes, some have no row of it
CLASSES = TaskFamily("classes", ("p", "q"), ("a", "b", "c", "d"), ((0, 1), (2, 3)))
BINARY = TaskFamily.from_attributes(("p", "q", "r"))
COLUMNS = TaskFamily.from_columns(["p", "q"], [("no", "yes"), ("s", "m", "l")])
MODULATIONS: dict[str, dict[str, Any]] = {
    "exact task gains": {},
    "quadrature": {"estimator": "quadrature", "link": "rectified"},
    "correlation": {"estimator": "quadrature", "link": "rectified", "normalizer": "correlation"},
    "after the gain": {"after_gain": True},
    "of each input": {"level": "input"},
    "stochastic": {"encoder": "stochastic", "num_samples": 3},
    "sampled": {"estimator": "monte_carlo", "num_samples": 8},
}


class Rows:
    """Features in any precision."""

    key, bad_rows, shape = "rows", (), (5, 2, 2)

    def __init__(self, kind: torch.dtype) -> None:
        self.values = torch.randn(IMAGES, 5, 2, 2, generator=torch.Generator().manual_seed(0)).to(kind)

    def rows(self, rows: Tensor | slice) -> Tensor:
        return self.values[rows]


def columns(family: TaskFamily, missing: bool = True) -> list[np.ndarray]:
    """Labels of every kind, some of them missing."""
    rng = np.random.default_rng(1)
    if family.kind == "classes":
        label = rng.integers(4, size=IMAGES)
        return [label // 2, label]
    table = [rng.integers(len(family.answers(task)), size=IMAGES) for task in range(family.num_tasks)]
    if missing:
        table[1][3:20] = -1
    return table


class Keep(Silent):
    """Keeps the checkpoint of the second epoch beside the checkpoint, as `half.safetensors`."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def epoch(self, phase: str, epoch: Epoch) -> None:
        if epoch.number == 2:
            shutil.copyfile(self.checkpoint, self.checkpoint.with_name("half.safetensors"))


def small_head(family: TaskFamily, kind: torch.dtype, **options: Any) -> ComodulatedHead:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = ComodulatedHead(
            5, family.num_outputs, family.num_tasks, encoder_channels=6, decoder_channels=7, hidden=8, **options
        )
    return head.to(kind)


def tuned(
    fabric: Any, method: str = "comodulation", family: TaskFamily = CLASSES, kind: torch.dtype = torch.float64,
    *, balance: str = "none", missing: bool = True, epochs: int = 2, options: dict[str, Any] | None = None,
    checkpoint: Path | None = None, **modulation: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """Fine-tune one method; what it learned and its validation losses."""
    examples = family.examples(columns(family, missing))
    head = small_head(family, kind, **METHODS[method].modulation, **modulation)
    adapted = make_method(method, head, family, **(options or {})).to(kind)
    described = {"classes": {"group": "g", "label": "l"}, "binary": {"attributes": family.tasks}}
    config = RunConfig(
        data="d", method=method, balance=balance, **described.get(family.kind, {"tasks": family.tasks}),
        tuning=TrainingSettings(epochs=epochs, learning_rate=0.01, batch_size=BATCH),
    )  # fmt: skip
    inputs = Inputs(adapted, Rows(kind), examples.image.unique(), processes=Processes.of(fabric))
    tell = Silent() if checkpoint is None else Keep(checkpoint)
    venue = Venue(fabric, tell, checkpoint, "tuned")
    history = tune(adapted, inputs, examples, examples, config.tuning, venue, seed=config.seed, balance=config.balance)
    losses = torch.tensor([[entry["loss"], entry["nll"], entry["ece"]] for entry in history], dtype=torch.float64)
    return {**adapted.adapter_tensors(), "losses": losses}


def pretrained(fabric: Any, family: TaskFamily, kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Pretrain the layers, dropout included; what they are then, and the losses."""
    head = small_head(family, kind, dropout=0.4, feature_dropout=0.3)
    parts = partition(torch.arange(IMAGES), torch.zeros(IMAGES), seed=0, validation_fraction=0.3)
    config = RunConfig(data="d", tasks=("p",), pretraining=TrainingSettings(epochs=3, batch_size=4, weight_decay=0.1))
    targets = pretraining_targets(family, columns(family))
    history = pretrain(head, Rows(kind), targets, parts, config.pretraining, Venue(fabric), family, seed=config.seed)  # type: ignore[arg-type]
    losses = torch.tensor([[entry["loss"], entry["nll"]] for entry in history], dtype=torch.float64)
    return {**head.pretrained_tensors(), "losses": losses}


class Parabola(torch.nn.Module):
    """Two numbers, of which a loss concerns one."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))

    def loss(self, factor: Tensor) -> Tensor:
        return (factor * self.used.square()).sum()


def unused_parameters(fabric: Any) -> dict[str, Tensor]:
    """A parameter without a gradient stays as it is, weight decay included, as in one process."""
    module, processes = Parabola(), Processes.of(fabric)

    def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor]]:
        whole = torch.rand(5, 3, generator=generator, dtype=torch.float64)
        yield (whole[processes.share(5).rows].sum(0),)

    settings = TrainingSettings(epochs=2, weight_decay=0.5)
    learnable = [(module.unused, 1.0), (module.used, 1.0)]
    objective = Objective("parabola", module, learnable, batches, 1, lambda: {"nll": 0.0})
    train(objective, settings, Venue(fabric), seed=0)
    return {"used": module.used.detach(), "unused": module.unused.detach()}


def trainings(folder: Path) -> dict[str, Callable[[Any], dict[str, Tensor]]]:
    """Every training by name. Those in float32 say so; the others are in float64."""
    several = {name: kind for name, kind in METHODS.items() if not kind.one_process}
    found: dict[str, Callable[[Any], dict[str, Tensor]]] = {
        **{f"method {name}": lambda fabric, name=name: tuned(fabric, name) for name in several},
        **{f"gains {name}": lambda fabric, own=own: tuned(fabric, **own) for name, own in MODULATIONS.items()},
        "two layers": lambda fabric: tuned(fabric, depth=2),
        "shared response": lambda fabric: tuned(fabric, response="shared"),
        "closed form": lambda fabric: tuned(fabric, "positions", options={"couplings": "informativeness"}),
        "binary": lambda fabric: tuned(fabric, family=BINARY),
        "binary, all labels": lambda fabric: tuned(fabric, family=BINARY, missing=False),
        "columns, balanced": lambda fabric: tuned(fabric, family=COLUMNS, balance="classes"),
        "two gains, balanced": lambda fabric: tuned(fabric, "fine-tuning", BINARY, balance="classes"),
        **{f"pretraining {f.kind}": lambda fabric, f=f: pretrained(fabric, f) for f in (CLASSES, BINARY, COLUMNS)},
        "unused parameters": unused_parameters,
        "float32": lambda fabric: tuned(fabric, kind=torch.float32, epochs=20),
        "float32 pretraining": lambda fabric: pretrained(fabric, CLASSES, torch.float32),
        # The first leaves half.safetensors for another number of processes to resume from, the second resumes from theirs.
        "interrupted": lambda fabric: tuned(fabric, "ia3", epochs=4, checkpoint=folder / "checkpoint.safetensors"),
        "resumed": lambda fabric: tuned(
            fabric, "ia3", epochs=4, checkpoint=folder / "given" / "checkpoint.safetensors"
        ),
    }
    return found


def exchanges(processes: Processes) -> None:
    """What is known of the exchanges themselves."""
    whole = torch.arange(7.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0])
    assert torch.equal(processes.gather(whole[processes.share(7).rows], 7), whole)
    assert torch.equal(processes.gather(whole[:1][processes.share(1).rows], 1), whole[:1])
    assert torch.equal(processes.join(whole[processes.share(7).rows]), whole)
    told = {"nll": float("inf"), "name": "ü", "parts": [0.1, None]}
    assert processes.agree(told if processes.first else "not read") == told
    mine = torch.full((2,), float(processes.rank))
    processes.follow(mine)
    assert mine.tolist() == [0, 0]
    # Each process's loss is the square of the sum over all: the gradient is that of all their losses together.
    own = torch.tensor([1.0 + processes.rank], requires_grad=True)
    total = processes.sum(own)
    total.square().sum().backward()
    expected = sum(1.0 + rank for rank in range(processes.number))
    assert total.tolist() == [expected]
    assert own.grad is not None
    assert own.grad.tolist() == [2 * expected * processes.number]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined() as fabric:
        processes = Processes.of(fabric)
        exchanges(processes)
        found = {}
        for name, training in trainings(folder).items():
            for key, tensor in training(fabric).items():
                found[f"{name}: {key}"] = tensor
        write_tensors(folder / f"process {processes.rank}.safetensors", found, {})


def results(folder: Path, rank: int) -> dict[str, Tensor]:
    """What a process ended with, by training and name."""
    return read_tensors(folder / f"process {rank}.safetensors")[0]
