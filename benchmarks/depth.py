"""Gains through several decoder layers: exact by the response, or estimated from each batch.

    python benchmarks/depth.py FEATURES --depth 2 --seeds 3 --keep FOLDER

FEATURES as for benchmarks/positions.py. For each seed a network is pretrained on the classes of one half of the training images;
on the other half a controller learns the superclasses (open readout), each method at its default learning rate. Accuracy and NLL on
the test images.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from positions import asked, base_network, family_of

from comodulation.evaluation import metrics
from comodulation.networks.methods import METHODS, Comodulation, Method
from comodulation.tasks import Examples
from comodulation.training import Inputs, TrainingSettings, Venue, predict, tune


class Estimated(Comodulation):
    """Comodulation whose gains are those of the task's images in a batch, and afterwards of all its images."""

    def observe(self, batches: Any, *, shared: bool = False) -> None:
        self.head.response = None


class OneResponse(Comodulation):
    """Comodulation whose decoder's response is averaged over the images of all tasks."""

    def observe(self, batches: Any, *, shared: bool = False) -> None:
        self.head.observe(batches, shared=True)


KINDS: dict[str, type[Method]] = {
    "no task": METHODS["base"],
    "attention": METHODS["attention"],
    "comodulation, gains from batches": Estimated,
    "comodulation, exact gains": Comodulation,
    "comodulation, one response for all tasks": OneResponse,
}


def main() -> None:
    options, train, test = asked(__doc__, 2)
    family, fabric = family_of(train), Fabric(accelerator="cpu", devices=1)
    everything = torch.arange(len(test.label))
    tested = Examples(everything, test.group, test.label)
    kinds = {name: kind for name, kind in KINDS.items() if options.only in (None, name)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for seed in range(options.seeds):
        for name, kind in kinds.items():
            began = time.perf_counter()
            head, parts = base_network(train, family, seed, options.depth, options.epochs, options.keep)
            method = kind(head, family)
            images = torch.cat(parts).sort().values
            tuning, held = (Examples(part, train.group[part], train.label[part]) for part in parts)
            settings = TrainingSettings(epochs=options.epochs, learning_rate=kind.default_learning_rate)
            inputs = Inputs(method, train.features, images)
            tune(method, inputs, tuning, held, settings, Venue(fabric), seed=seed)
            answers = predict(method, Inputs(method, test.features, everything), tested)
            numbers = metrics(answers.log_probabilities, answers.target)
            found[name].append((100 * numbers["accuracy"], numbers["nll"]))
            print(f"seed {seed} {name}: {found[name][-1]} ({time.perf_counter() - began:.0f} s)", flush=True)
    for name, values in found.items():
        accuracy, nll = np.mean(values, 0)
        print(f"{name:34s} {accuracy:5.1f}  {nll:.3f}   ({' '.join(f'{value:.1f}' for value, _ in values)})")


if __name__ == "__main__":
    main()
