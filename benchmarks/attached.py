"""What modulation inside a network costs: passes of the part between the layers, and of the whole network with stored gains.

    python benchmarks/attached.py [REPETITIONS]

CPU seconds of one thread (so that other work on the machine counts little), medians; timm's ResNet18 with random weights, 8 images
of 224 px, 20 tasks. Three pairs of layers.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

from comodulation import comodulate

PAIRS = (("layer1", "layer2"), ("layer2", "layer4"), ("layer3", "layer4"))


def main() -> None:
    import timm

    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False)
    images, tasks = torch.rand(8, 3, 224, 224), torch.randint(0, 20, (8,))
    print(f"torch {torch.__version__}, {repetitions} repetitions")
    print(
        "encoder -> decoder: whole network, part between (ms); derivative, quadrature in parts; stored gains in wholes"
    )
    for encoder, decoder in PAIRS:
        kinds = {}
        for estimator in ("derivative", "quadrature"):
            net = comodulate(
                model, encoder=encoder, decoder=decoder, num_tasks=20, estimator=estimator, example=images[:1]
            )
            nn.init.normal_(net.controller.embedding.weight, std=0.3)
            kinds[estimator] = net.eval()
        stored = comodulate(model, encoder=encoder, decoder=decoder, num_tasks=20, example=images[:1])
        stored.controller.load_state_dict(kinds["derivative"].controller.state_dict())
        stored.eval().store_task_gains([(images, tasks)])
        activity = model.forward_intermediates(images, indices=[int(encoder[-1])], intermediates_only=True)[0]
        names = [f"layer{number}" for number in range(int(encoder[-1]) + 1, int(decoder[-1]) + 1)]
        between = nn.Sequential(*[model.get_submodule(name) for name in names])
        calls = {
            "whole": lambda: model(images),
            "part": lambda: between(activity),  # noqa: B023
            "derivative": lambda: kinds["derivative"](images, tasks),  # noqa: B023
            "quadrature": lambda: kinds["quadrature"](images, tasks),  # noqa: B023
            "stored": lambda: stored(images, tasks),  # noqa: B023
        }
        seconds = _in_turn(calls, repetitions)
        part, whole = seconds["part"], seconds["whole"]
        times = {name: (seconds[name] - (whole - part)) / part for name in ("derivative", "quadrature")}
        print(
            f"{encoder} -> {decoder}: {1e3 * whole:.0f}, {1e3 * part:.0f}; {times['derivative']:.2f}, {times['quadrature']:.2f}; "
            f"{seconds['stored'] / whole:.3f}"
        )


@torch.no_grad()
def _in_turn(calls: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median CPU seconds of each call, taken in turn, so that a slow minute counts for all of them."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if repetition:  # the first warms up
                spent[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in spent.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
