"""The work that three libraries do in peers.py, as each of their processes reads it: no library but torch is imported here.

A folder holds the pretrained head as plain tensors, the features of every image, and the (image, task, target) pairs to train and
to validate on. A contender is a process of its own; it trains, predicts, and prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

TENSORS, SETTINGS = "work.safetensors", "work.json"
EVALUATION_BATCH = 1024
INFERENCE_CALLS = 31


@dataclass(frozen=True)
class Settings:
    """Sizes and the training that all contenders share."""

    num_tasks: int
    num_outputs: int
    batch_size: int
    epochs: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Pairs:
    """Labelled (image, task) pairs, each field int64 ``(M,)``."""

    image: Tensor
    task: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> Pairs:
        return Pairs(self.image[rows], self.task[rows], self.target[rows])


@dataclass(frozen=True)
class Work:
    """Everything a contender needs.

    Attributes:
        features: of every image, float16 ``(N, C, s, s)``.
        tuning, validation: what is trained and validated on.
        layers: the head's weights, by name; skip connections are part of the kernels.
    """

    settings: Settings
    features: Tensor
    tuning: Pairs
    validation: Pairs
    layers: dict[str, Tensor]

    def rows(self, images: Tensor) -> Tensor:
        """Features of some images, float32 ``(B, C, s, s)``."""
        return self.features[images].float()

    def batches(self, epoch: int) -> Iterator[Pairs]:
        """Mixed-task batches of an epoch: every pair once, in an order that depends on (seed, epoch) alone."""
        order = torch.randperm(len(self.tuning), generator=self.generator(epoch))
        for rows in order.split(self.settings.batch_size):
            yield self.tuning.take(rows)

    def generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.settings.seed + epoch)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.tuning) // self.settings.batch_size)

    def inference_batch(self) -> Pairs:
        """One batch of validation pairs, all tasks mixed."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        return self.validation.take(
            torch.randperm(len(self.validation), generator=generator)[: self.settings.batch_size]
        )


@dataclass
class Result:
    """What a contender measured.

    Attributes:
        epoch_cpu_seconds, epoch_wall_seconds: training of one epoch, median over epochs, without validation.
        observe_cpu_seconds: what is done once before training: inputs kept, and the response observed.
        inference_cpu_ms, inference_wall_ms: one mixed batch, from features to log probabilities, median.
        start_mib, peak_mib: resident set once the library and the data are there, and at most.
        learnable: number of learned parameters.
        accuracy, nll: on validation pairs, after training.
        images: pairs trained on in an epoch. steps: optimizer steps of an epoch.
    """

    contender: str
    version: str
    learning_rate: float
    epoch_cpu_seconds: float
    epoch_wall_seconds: float
    observe_cpu_seconds: float
    inference_cpu_ms: float
    inference_wall_ms: float
    start_mib: float
    peak_mib: float
    learnable: int
    accuracy: float
    nll: float
    images: int
    steps: int

    def say(self) -> None:
        """Print as the process's last line."""
        print(json.dumps(asdict(self)), flush=True)


class Trunk(nn.Module):
    """Features ``(B, C, s, s)`` -> encoder activity ``(B, E, s, s)``."""

    mean: Tensor
    std: Tensor

    def __init__(self, layers: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("mean", layers["mean"])
        self.register_buffer("std", layers["std"])
        self.projection = _convolution(layers, "projection")
        self.encoder = _convolution(layers, "encoder")

    def forward(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean[:, None, None]) / self.std[:, None, None]
        return self.encoder(self.projection(scaled).relu()).relu()


class Tail(nn.Module):
    """Encoder activity ``(B, E, s, s)`` -> hidden layer of the readout ``(B, hidden)`` -> logits ``(B, C)``."""

    def __init__(self, layers: dict[str, Tensor]) -> None:
        super().__init__()
        self.decoder = _convolution(layers, "decoder")
        self.hidden = linear(layers, "hidden")
        self.output = linear(layers, "output")

    def represent(self, activity: Tensor) -> Tensor:
        return self.hidden(self.decoder(activity).relu().mean((-2, -1))).relu()

    def forward(self, activity: Tensor) -> Tensor:
        return self.output(self.represent(activity))


class PlainHead(nn.Module):
    """The pretrained head without anything of this library: features ``(B, C, s, s)`` -> logits ``(B, C)``."""

    def __init__(self, layers: dict[str, Tensor]) -> None:
        super().__init__()
        self.trunk, self.tail = Trunk(layers), Tail(layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.tail(self.trunk(features))


def _convolution(layers: dict[str, Tensor], name: str) -> nn.Conv2d:
    weight = layers[f"{name}.weight"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1], padding=weight.shape[-1] // 2)
    layer.load_state_dict(_weights(layers, name))
    return layer


def linear(layers: dict[str, Tensor], name: str) -> nn.Linear:
    """A layer with the weights of a name."""
    outputs, inputs = layers[f"{name}.weight"].shape
    layer = nn.Linear(inputs, outputs)
    layer.load_state_dict(_weights(layers, name))
    return layer


def _weights(layers: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {part: layers[f"{name}.{part}"] for part in ("weight", "bias")}


def read_work(folder: Path) -> Work:
    """The work in a folder, and as many threads as it asks for."""
    settings = Settings(**json.loads((folder / SETTINGS).read_text()))
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    tensors = load_file(folder / TENSORS)
    pairs = {
        part: Pairs(*(tensors[f"{part}.{name}"] for name in ("image", "task", "target")))
        for part in ("tuning", "validation")
    }
    layers = {name.removeprefix("layers."): value for name, value in tensors.items() if name.startswith("layers.")}
    return Work(settings, tensors["features"], **pairs, layers=layers)


def pieces_of_tasks(tasks: Tensor) -> list[tuple[int, Tensor]]:
    """Places of each task of a batch ``(B,)``, by one sort: what a library with one active task at a time must do."""
    order = tasks.argsort(stable=True)
    distinct, counts = tasks.unique(return_counts=True)
    return list(zip(distinct.tolist(), order.split(counts.tolist()), strict=True))


def score(answer: Callable[[Tensor, Tensor], Tensor], work: Work) -> tuple[float, float]:
    """Accuracy and NLL (nats) on the validation pairs.

    Args:
        answer: (features ``(B, C, s, s)``, task ids ``(B,)``) -> log probabilities ``(B, C)``.
    """
    hits = losses = 0.0
    with torch.inference_mode():
        for rows in torch.arange(len(work.validation)).split(EVALUATION_BATCH):
            part = work.validation.take(rows)
            logs = answer(work.rows(part.image), part.task)
            hits += float((logs.argmax(1) == part.target).sum())
            losses += float(F.nll_loss(logs, part.target, reduction="sum"))
    return hits / len(work.validation), losses / len(work.validation)


def inference_ms(answer: Callable[[Tensor, Tensor], Tensor], work: Work) -> tuple[float, float]:
    """Median processor and wall time of answering one mixed batch; ``answer`` as in ``score``."""
    batch, clock = work.inference_batch(), Clock()
    features = work.rows(batch.image)
    with torch.inference_mode():
        for _ in range(5):  # warms up
            answer(features, batch.task)
        for _ in range(INFERENCE_CALLS):
            with clock:
                answer(features, batch.task)
    cpu, wall = clock.medians()
    return 1000 * cpu, 1000 * wall


class Clock:
    """Wall and processor seconds of each time a block is run."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> Clock:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall.append(time.perf_counter() - self._began[0])
        self.cpu.append(time.process_time() - self._began[1])

    def medians(self) -> tuple[float, float]:
        """Of processor and wall seconds."""
        return statistics.median(self.cpu), statistics.median(self.wall)


def resident_mib() -> float:
    """Resident set of this process now, MiB; where the system does not tell, at most so far."""
    return _status("VmRSS") or peak_mib()


def peak_mib() -> float:
    """Largest resident set of this process so far, MiB.

    Linux's ru_maxrss survives exec: a child's would begin at its parent's. VmHWM belongs to the new program alone.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status(field: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)
