"""All tasks of an image at once: time against one task, and whether the number of tasks in the family matters.

    python benchmarks/all_tasks.py

A ResNet18 of timm with random weights at 224 px, features 7x7, and a head of 256 encoder and decoder neurons with stored task
gains (comodulation, level task). First: one image, 1 task, 40 tasks in one call, and 40 calls. Second: one image, one task, in
families of 10 to 10,000 binary tasks, each of which has an output of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from comodulation.data.features import Backbone, BackboneSettings
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import Method, all_tasks, make_method
from comodulation.tasks import TaskFamily

SIZES = (10, 100, 1_000, 10_000)


def alternately(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call, taken in turn, so that what else the machine does falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: sorted(values[2:])[repeats // 2] for name, values in times.items()}


def make(num_tasks: int, backbone: Backbone) -> Method:
    """Comodulation with gains stored, for binary tasks."""
    torch.manual_seed(0)
    family = TaskFamily.from_attributes([f"attribute {number}" for number in range(num_tasks)])
    head = ComodulatedHead(backbone.feature_shape[0], num_tasks, num_tasks)
    torch.nn.init.normal_(head.controller.embedding.weight, std=0.3)
    head.task_gains = torch.rand(num_tasks, head.decoder_channels) + 0.5
    return make_method("comodulation", head, family).eval()


@torch.no_grad()
def main(repeats: int) -> None:
    backbone = Backbone(BackboneSettings("resnet18", "random", 224, feature_size=0))
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; medians of {repeats}, milliseconds")
    method, one = make(40, backbone), torch.tensor([7])

    def each() -> None:
        for task in range(40):
            all_tasks(method, backbone(image), torch.tensor([task]))

    calls: dict[str, Callable[[], Any]] = {
        "backbone alone": lambda: backbone(image),
        "1 task": lambda: all_tasks(method, backbone(image), one),
        "40 tasks, one call": lambda: all_tasks(method, backbone(image)),
    }
    times = alternately(calls, repeats)
    times |= alternately({"40 calls": each}, max(1, repeats // 10))
    for name, value in times.items():
        print(f"    {name:20s} {value:8.1f}   {value / times['1 task']:5.2f} times one task")
    print("one task of K, one image")
    methods = {size: make(size, backbone) for size in SIZES}
    asked = {f"K = {size}": lambda m=m: all_tasks(m, backbone(image), one) for size, m in methods.items()}
    for name, value in alternately(asked, repeats).items():
        print(f"    {name:20s} {value:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
