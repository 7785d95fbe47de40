"""peft's part of peers.py: IA3, one adapter per task, on the plain head.

python benchmarks/peers_peft.py FOLDER peft|peft-tail|peft-one-task [LEARNING_RATE]

IA3 scales the input of the decoder convolution (the encoder's activity) and that of the readout's hidden layer (the pooled
decoder activity): K (E + D) numbers, the function of this library's `ia3` with gains in place of their logarithms. peft supports
Conv2d and Linear for IA3. It has one active adapter at a time: ``adapter_names``, which mixes adapters within a batch, is for
inference with other kinds of adapter and is not read by IA3's layers. So a mixed batch is sorted by task, and every task's part
runs after ``set_adapter``, with the gradients added up, as one step of the optimizer.

``peft`` wraps the whole head. ``peft-tail`` wraps what lies behind the encoder and keeps the encoder's activity by hand, which
is the best way to do this work that was found. ``peft-one-task`` is the same with batches of one task: not the same steps (a
task's adapter gets a twentieth of them), but as fast as peft can go.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import torch
from peers_common import (
    EVALUATION_BATCH,
    Clock,
    Pairs,
    PlainHead,
    Result,
    Work,
    inference_ms,
    peak_mib,
    pieces_of_tasks,
    read_work,
    resident_mib,
    score,
)
from torch import Tensor, nn
from torch.nn import functional as F

from comodulation.training import one_cycle

KINDS = ("peft", "peft-tail", "peft-one-task")
RATES = {"peft": 0.12, "peft-tail": 0.12, "peft-one-task": 0.12}


def adapted(module: nn.Module, num_tasks: int) -> peft.PeftModel:
    """A module with an IA3 adapter per task."""

    def config() -> peft.IA3Config:
        return peft.IA3Config(target_modules=["decoder", "hidden"], feedforward_modules=["decoder", "hidden"])

    model = peft.get_peft_model(module, config(), adapter_name=adapter_name(0))
    for task in range(1, num_tasks):
        model.add_adapter(adapter_name(task), config())
    return model


def adapter_name(task: int) -> str:
    return f"task-{task}"


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The vectors of all adapters; peft marks those of the active one alone as learnable."""
    return [parameter for name, parameter in model.named_parameters() if "ia3_l" in name]


def one_task_batches(work: Work, epoch: int) -> list[Pairs]:
    """An epoch's pairs in batches of one task, in random order."""
    generator = work.generator(epoch)
    order = torch.randperm(len(work.tuning), generator=generator)
    parts = [
        order[place]
        for _, places in pieces_of_tasks(work.tuning.task[order])
        for place in places.split(work.settings.batch_size)
    ]
    return [work.tuning.take(parts[place]) for place in torch.randperm(len(parts), generator=generator).tolist()]


def run_tasks(model: peft.PeftModel, inputs: Tensor, tasks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Places of each task in a batch, and the model's logits of them with its adapter."""
    for task, places in pieces_of_tasks(tasks):
        model.set_adapter(adapter_name(task))
        yield places, model(inputs[places])


def answers(model: peft.PeftModel, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """(features, task ids) -> log probabilities in the batch's order."""

    def answer(features: Tensor, tasks: Tensor) -> Tensor:
        places, logits = zip(*run_tasks(model, encode(features), tasks), strict=True)
        result = torch.empty(len(tasks), logits[0].shape[1])
        result[torch.cat(places)] = torch.cat(logits).log_softmax(-1)
        return result

    return answer


def measure(folder: Path, kind: str, learning_rate: float | None = None) -> Result:
    """Train adapters on the work in a folder, and measure them."""
    work = read_work(folder)
    settings, rate, whole = work.settings, learning_rate or RATES[kind], kind == "peft"
    head = PlainHead(work.layers).requires_grad_(False).eval()
    model = adapted(head if whole else head.tail, settings.num_tasks)
    learned = adapter_parameters(model)
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.0)
    start, clock, began = resident_mib(), Clock(), time.process_time()
    activity = None
    if not whole:
        with torch.no_grad():
            images = torch.arange(len(work.features))
            activity = torch.empty(len(images), *head.trunk(work.rows(images[:1])).shape[1:])
            for part in images.split(EVALUATION_BATCH):
                activity[part] = head.trunk(work.rows(part))

    def batches(epoch: int) -> list[Pairs]:
        return one_task_batches(work, epoch) if kind == "peft-one-task" else list(work.batches(epoch))

    kept = time.process_time() - began
    steps, step = len(batches(0)), 0
    for epoch in range(settings.epochs):
        with clock:
            for batch in batches(epoch):
                for group in optimizer.param_groups:
                    group["lr"] = one_cycle(step, settings.epochs * steps, rate, 0.3)
                optimizer.zero_grad()
                inputs = work.rows(batch.image) if activity is None else activity[batch.image]
                for places, logits in run_tasks(model, inputs, batch.task):
                    loss = F.cross_entropy(logits, batch.target[places], reduction="sum") / len(batch)
                    loss.backward()
                optimizer.step()
                step += 1
    model.eval()
    answer = answers(model, (lambda features: features) if whole else head.trunk)
    accuracy, nll = score(answer, work)
    return Result(
        kind, peft.__version__, rate, *clock.medians(), kept, *inference_ms(answer, work), start, peak_mib(),
        sum(vector.numel() for vector in learned), accuracy, nll,
        len(work.tuning), steps,
    )  # fmt: skip


if __name__ == "__main__":
    measure(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None).say()
