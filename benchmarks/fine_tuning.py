"""Where the time of fine-tuning goes, against what the machine needs for the operations it cannot do without.

    python benchmarks/fine_tuning.py [attention comodulation ...]

20 tasks, 256 encoder and decoder neurons on 2x2 maps, batches of 256, as with CIFAR-100; random features and random layers, which
take as long as real ones. CPU seconds of one thread. The floor of a step: two products of the batch with the decoder's matrix (once
forward, once for the gradient of the activity), the readout's likewise, and a copy for each activity that must be read and written,
at the rates of this machine, measured in turn with the steps. The floor of observing: decoding, and as many products again.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import Method, make_method
from comodulation.tasks import TaskFamily

TASKS, CLASSES, CHANNELS, SIDE, BATCH, IMAGES, REPEATS = 20, 100, 256, 2, 256, 4096, 60
FLAT = CHANNELS * SIDE * SIDE
READOUT = CHANNELS * CHANNELS + CHANNELS * CLASSES
PASSES = (
    10  # activities read or written: gain, decoder, rectification, mean forward; the same and the gain's own backward
)


def cpu(call: Callable[[], object]) -> float:
    """CPU milliseconds of this thread."""
    began = time.thread_time()
    call()
    return 1000 * (time.thread_time() - began)


def make(name: str) -> Method:
    members = tuple(tuple(range(5 * task, 5 * task + 5)) for task in range(TASKS))
    family = TaskFamily("classes", tuple(map(str, range(TASKS))), tuple(map(str, range(CLASSES))), members)
    torch.manual_seed(0)
    return make_method(name, ComodulatedHead(320, CLASSES, TASKS), family)


def measure(method: Method, activity: Tensor, tasks: Tensor) -> tuple[dict[str, float], float]:
    """Median milliseconds of the parts of a step, of what its floor is made of, and milliseconds of observing all images."""
    given = activity if method.reads == "activity" else method.head.decode(activity).mean((-2, -1))
    targets, matrix = tasks * 5, torch.randn(FLAT, FLAT) / FLAT**0.5
    order = tasks.argsort(stable=True)
    observing = cpu(lambda: method.observe((given[rows], tasks[rows]) for rows in order.split(1024)))
    method.train()
    optimizer = torch.optim.AdamW(method.learnable(), lr=1e-3)
    size = torch.zeros(BATCH * FLAT)
    other = torch.zeros_like(size)
    times: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(REPEATS + 5):
        rows = torch.randint(IMAGES, (BATCH,), generator=generator)
        part, own, said = given[rows], tasks[rows], targets[rows]
        kept: list[Tensor] = []
        flat = activity[rows].flatten(1)
        parts = {
            "rows": cpu(lambda rows=rows: given[rows]),
            "forward": cpu(lambda p=part, o=own, s=said, k=kept: k.append(method.loss(p, o, s))),
            "backward": cpu(lambda k=kept: (optimizer.zero_grad(), k[0].backward())),
            "optimizer": cpu(optimizer.step),
            "products": cpu(lambda f=flat: (f @ matrix) @ matrix.T),
            "copy": cpu(lambda: [other.copy_(size) for _ in range(10)]) / 10,
        }
        for name, value in parts.items():
            times.setdefault(name, []).append(value)
    return {name: statistics.median(values[5:]) for name, values in times.items()}, observing


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    activity = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    activity = (activity - 0.5).relu()
    tasks = torch.arange(IMAGES) % TASKS
    print("| method | rows | forward | backward | optimizer | step, ms | floor, ms | ratio | observe / floor |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        found, observing = measure(make(name), activity, tasks)
        rate = 4 * BATCH * FLAT * FLAT / found["products"]  # operations a millisecond
        floor = found["products"] + 4 * BATCH * READOUT / rate + PASSES * found["copy"]
        step = sum(found[part] for part in ("rows", "forward", "backward", "optimizer"))
        needed = 4 * IMAGES * FLAT * FLAT / rate
        seen = f"{observing:.0f} / {needed:.0f} ms" if observing > 1 else "-"
        parts = " | ".join(f"{found[part]:.2f}" for part in ("rows", "forward", "backward", "optimizer"))
        print(f"| {name} | {parts} | {step:.1f} | {floor:.1f} | {step / floor:.2f} | {seen} |")
    copied = 8e-6 * BATCH * FLAT / found["copy"]
    print(f"{rate / 1e6:.0f} billion operations/s in the products, {copied:.0f} GB/s copied; torch {torch.__version__}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["attention", "ia3", "comodulation"])
