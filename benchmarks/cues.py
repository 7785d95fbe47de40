"""Two coloured digits, of which the task names the colour: what each method makes of it, with few examples and with all.

    python benchmarks/cues.py --seeds 3 --examples 25 400

For each seed a head is pretrained on single digits in any colour and frozen; every method then learns from the same scenes, so many
examples a task, at the learning rate that is best on 300 validation scenes. Accuracy on 2,000 test scenes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from comodulation import ComodulatedHead
from comodulation.data import Partition
from comodulation.data.features import Features
from comodulation.data.sets import COLOURS, CUED, Digits, Scenes, cued_scenes, load_digits, patches, split_digits
from comodulation.evaluation import metrics
from comodulation.mathematics import derived_seed
from comodulation.networks.methods import Method, make_method
from comodulation.training import Inputs, TrainingSettings, Venue, predict, pretrain, tune

SHARES = (0.4, 0.25, 0.1, 0.25)  # of the digits: pretraining, fine-tuning, validation, test
TEST, HELD = 2000, 300
RATES = (0.25, 0.8)
LEARNED = ("attention", "comodulation", "ia3", "positions")
SINGLE = 25  # single digits of each colour, from which couplings in closed form come


class Material:
    """What a seed's methods share: a pretrained head, and scenes to learn from, to choose by and to test on."""

    def __init__(self, seed: int) -> None:
        self.seed, self.fabric = seed, Fabric(accelerator="cpu", devices=1)
        base, self.tuning, held, test = split_digits(load_digits(), SHARES, derived_seed(seed, "digits"))
        self.held, self.test = self._scenes(held, HELD, "held"), self._scenes(test, TEST, "test")
        self.single_test = self._scenes(test, TEST, "single test", distractor=False)
        single = self._scenes(base, 3300, "single", distractor=False)
        rows = torch.arange(3300).split([3000, 300])
        head = self._new_head()
        settings = TrainingSettings(epochs=6, batch_size=64, learning_rate=3e-3, weight_decay=0.01)
        parts = Partition(rows[0], rows[1], rows[0], rows[1])
        venue = Venue(self.fabric)
        pretrain(head, features(single), single.examples.target, parts, settings, venue, seed=seed)
        self.layers = {name: tensor.clone() for name, tensor in head.pretrained_tensors().items()}

    def head(self) -> ComodulatedHead:
        head = self._new_head()
        head.load_state_dict(self.layers, strict=False)
        return head.freeze().eval()

    def learn(self, name: str, examples: int, rate: float) -> Method:
        """A method that has learned from scenes, so many a task."""
        whole = self._scenes(self.tuning, examples * len(COLOURS), f"tuning {examples}")
        method = make_method(name, self.head(), CUED)
        scenes = Scenes(torch.cat([whole.images, self.held.images]), whole.examples)
        rows = torch.arange(len(scenes.images))
        held = replace(self.held.examples, image=self.held.examples.image + len(whole.images))
        steps = max(1, 400 // max(1, len(whole.images) // 64))
        settings = TrainingSettings(epochs=min(60, max(8, steps)), batch_size=64, learning_rate=rate)
        inputs = Inputs(method, features(scenes), rows)
        tune(method, inputs, whole.examples, held, settings, Venue(self.fabric), seed=self.seed)
        return method

    def closed(self, kind: str) -> Method:
        """Couplings from a few single digits of each colour; nothing is learned."""
        method = make_method("positions", self.head(), CUED, couplings=kind).eval()
        single = self._scenes(self.tuning, SINGLE * len(COLOURS), "single tuning", distractor=False)
        method.observe([(method.prepare(patches(single.images)), single.examples.task)])
        return method

    def _new_head(self) -> ComodulatedHead:
        torch.manual_seed(derived_seed(self.seed, "layers"))
        sizes = {"encoder_channels": 64, "decoder_channels": 64, "hidden": 64}
        return ComodulatedHead(
            16 * len(COLOURS), 10, len(COLOURS), dropout=0.1, feature_dropout=0.0, seed=self.seed, **sizes
        )

    def _scenes(self, digits: Digits, count: int, name: str, *, distractor: bool = True) -> Scenes:
        return cued_scenes(digits, count, derived_seed(self.seed, name), distractor=distractor)


def features(scenes: Scenes) -> Features:
    return Features(patches(scenes.images).numpy(), (), "cued digits")


def score(method: Method, scenes: Scenes) -> dict[str, float]:
    found = predict(method, Inputs(method, features(scenes), scenes.examples.image), scenes.examples)
    return metrics(found.log_probabilities, found.target)


@torch.no_grad()
def places(head: ComodulatedHead, scenes: Scenes) -> Tensor:
    """The readout at each half by itself, probabilities added: right where either half is, if it is the surer one."""
    halves = head.decode(head.encode(patches(scenes.images))).unflatten(3, (2, -1)).mean((2, 4)).transpose(1, 2)
    return head.readout(halves).softmax(-1).sum(1).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, nargs="+", default=[25, 400])
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        material = Material(seed)
        base = make_method("base", material.head(), CUED).eval()
        rows.setdefault("single digits, no task", []).append(score(base, material.single_test)["accuracy"])
        rows.setdefault("no task", []).append(score(base, material.test)["accuracy"])
        hits = places(material.head(), material.test) == material.test.examples.target
        rows.setdefault("each half by itself", []).append(float(hits.double().mean()))
        for kind in ("informativeness", "discriminability", "discriminant"):
            found = score(material.closed(kind), material.test)["accuracy"]
            rows.setdefault(f"positions, {kind}, {SINGLE} single digits a task", []).append(found)
        for name in LEARNED:
            for number in options.examples:
                tried = [material.learn(name, number, rate) for rate in RATES]
                best = min(tried, key=lambda method: score(method, material.held)["nll"])
                rows.setdefault(f"{name}, {number} scenes a task", []).append(score(best, material.test)["accuracy"])
        print(f"seed {seed}", flush=True)
        for name, values in rows.items():
            each = " ".join(f"{100 * value:.1f}" for value in values)
            print(f"{name:58s} {100 * np.mean(values):5.1f}   ({each})", flush=True)


if __name__ == "__main__":
    main()
