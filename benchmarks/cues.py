"""Two objects in two colours, of which the task names a colour: what each method makes of it, with few examples and with more.

    python benchmarks/cues.py --seed 10 --seeds 10 --examples 25 400 --done cues.jsonl
    python benchmarks/cues.py --pictures CIFAR100 --keep FOLDER --seed 10 --seeds 10 --examples 25 400 --done cues.jsonl

Objects are handwritten digits (ten answers), or CIFAR-100's pictures in shades of a colour, seen by EfficientNet-Lite0 at 128 px
(twenty superclasses; their features are kept in FOLDER). For each seed a head is pretrained on single objects in any colour and
frozen; with `--start probe` its layers begin at logistic regression, and pass on all that the features hold. Every method then
learns from the same scenes, so many examples a task, at the learning rate that is best on 300 validation scenes. Accuracy on
2,000 test scenes; then `positions` minus each rival, paired over seeds. One JSON line for each seed, method and number of examples
goes to --done; what is there is not computed again.

`query` is what a deep-learning engineer would write: attention over positions with a learned query a task. `logistic regression`
is fitted for each task on the whole map, its C chosen on the validation scenes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from comodulation import ComodulatedHead, TaskFamily
from comodulation.data import Partition, class_column, label_names, open_split
from comodulation.data.features import Backbone, BackboneSettings, FeatureRows, Features
from comodulation.data.sets import (
    COLOURS,
    CUED,
    Digits,
    SceneFeatures,
    cued_family,
    cued_pairs,
    cued_scenes,
    load_digits,
    patches,
    split_digits,
    tinted,
)
from comodulation.evaluation import metrics, paired_difference
from comodulation.mathematics import derived_seed
from comodulation.networks.methods import Method, make_method
from comodulation.tasks import Examples
from comodulation.training import Inputs, TrainingSettings, Venue, predict, pretrain, tune

TEST, HELD = 2000, 300
RATES = (0.25, 0.8)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
QUERY, REGRESSION = "query", "logistic regression"
LEARNED = (
    "positions", "attention", "comodulation", QUERY, "ia3 rank=1 decoder_rank=1", "ia3", "film", "task-bias", REGRESSION,
)  # fmt: skip
SINGLE = 25  # single objects of each colour, from which couplings in closed form come
PICTURES = {"pretraining": 6000, "tuning": 2000, "held": 600, "test": 2000}  # the last are of CIFAR-100's test split
DIGITS = (0.4, 0.25, 0.1, 0.25)  # shares of the digits that are these parts

Set = tuple[FeatureRows, Examples]


class World(Protocol):
    """Objects of a seed. ``single`` and ``scenes`` draw from a part of them: pretraining, tuning, held or test."""

    family: TaskFamily
    channels: int  # of encoder, decoder and readout

    def single(self, part: str, count: int, name: str) -> Set: ...

    def scenes(self, part: str, count: int, name: str) -> Set: ...


class DigitWorld:
    """Digits of scikit-learn, two in one picture."""

    def __init__(self, seed: int) -> None:
        self.seed, self.family, self.channels = seed, CUED, 64
        parts = split_digits(load_digits(), DIGITS, derived_seed(seed, "digits"))
        self.parts: dict[str, Digits] = dict(zip(PICTURES, parts, strict=True))

    def single(self, part: str, count: int, name: str) -> Set:
        return self._drawn(part, count, name, distractor=False)

    def scenes(self, part: str, count: int, name: str) -> Set:
        return self._drawn(part, count, name, distractor=True)

    def _drawn(self, part: str, count: int, name: str, *, distractor: bool) -> Set:
        scenes = cued_scenes(self.parts[part], count, derived_seed(self.seed, name), distractor=distractor)
        return Features(patches(scenes.images).numpy(), (), f"cued digits {name}"), scenes.examples


class PictureWorld:
    """Pictures of CIFAR-100 in shades of a colour, the maps of two joined."""

    def __init__(self, seed: int, data: str, keep: Path) -> None:
        self.seed, self.channels = seed, 128
        kept = np.load(kept_pictures(data, keep))
        self.family = cued_family("picture", [str(name) for name in kept["names"]])
        self.features, self.labels = {}, {}
        order = np.random.default_rng(derived_seed(seed, "pictures")).permutation(len(kept["train_labels"]))
        cuts = np.cumsum(list(PICTURES.values())[:-1])
        for part, rows in zip(PICTURES, [*np.split(order, cuts)[:-1], np.arange(PICTURES["test"])], strict=True):
            split = "test" if part == "test" else "train"
            maps = kept[f"{split}_maps"][rows]  # (n, 3, C, s, s)
            self.features[part] = Features(maps.reshape(-1, *maps.shape[2:]), (), f"tinted {part} {seed}")
            self.labels[part] = torch.from_numpy(kept[f"{split}_labels"][rows])

    def single(self, part: str, count: int, name: str) -> Set:
        pairs, examples = self._drawn(part, count, name)
        asked = pairs.gather(1, (pairs % len(COLOURS) != examples.task[:, None]).long().argmin(1, keepdim=True))
        return SceneFeatures(self.features[part], asked), examples

    def scenes(self, part: str, count: int, name: str) -> Set:
        pairs, examples = self._drawn(part, count, name)
        return SceneFeatures(self.features[part], pairs), examples

    def _drawn(self, part: str, count: int, name: str) -> tuple[Tensor, Examples]:
        return cued_pairs(self.labels[part], count, derived_seed(self.seed, name))


def kept_pictures(data: str, keep: Path) -> Path:
    """A file of the maps of CIFAR-100's pictures in every colour, and of their superclasses; made where it is not there."""
    path = keep / "tinted.npz"
    if path.exists():
        return path
    keep.mkdir(parents=True, exist_ok=True)
    backbone, found = Backbone(BackboneSettings()), {}
    number = {"train": sum(PICTURES.values()) - PICTURES["test"], "test": PICTURES["test"]}
    for name, count in number.items():
        split = open_split(data, name)
        names = label_names(split, "coarse_label")
        rows = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
        maps = []
        with torch.inference_mode():
            for part in np.array_split(rows, max(1, count // 64)):
                shades = [tinted(split.image(int(row)), colour) for row in part for colour in range(len(COLOURS))]
                batch = torch.stack([backbone.preprocess(shade) for shade in shades])
                maps.append(backbone(batch).half().numpy().reshape(len(part), len(COLOURS), *backbone.feature_shape))
        found[f"{name}_maps"] = np.concatenate(maps)
        found[f"{name}_labels"] = class_column(split, "coarse_label", names)[rows]
    np.savez(path, names=np.array(names), **found)
    return path


class Query(Method):
    """Attention over positions by a learned query a task: softmax of q_k h_p / sqrt(E) weighs the decoder. K E parameters."""

    name = QUERY
    paper = "none: what an engineer would write"
    default_learning_rate = 0.25

    def __init__(self, head: ComodulatedHead, family: TaskFamily) -> None:
        super().__init__(head, family)
        self.queries = nn.Parameter(torch.zeros(family.num_tasks, head.decoder.weight.shape[1]))

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        query = self.queries[task_ids][:, :, None]
        weights = ((query * inputs.flatten(2)).sum(1) / math.sqrt(inputs.shape[1])).softmax(-1)
        decoded = self.head.decode(inputs)
        weights = weights.unflatten(1, decoded.shape[2:])[:, None] * decoded[0, 0].numel()
        return self.head.read(decoded * weights)[None]

    def own_parameters(self) -> list[nn.Parameter]:
        return [self.queries]


class Material:
    """What a seed's methods share: a pretrained head, and scenes to learn from, to choose by and to test on."""

    def __init__(self, world: World, seed: int, start: str) -> None:
        self.world, self.seed, self.start, self.fabric = world, seed, start, Fabric(accelerator="cpu", devices=1)
        self.held, self.test = world.scenes("held", HELD, "held"), world.scenes("test", TEST, "test")
        single, examples = world.single("pretraining", 6600, "single")
        rows = torch.arange(6600).split([6000, 600])
        head = self._new_head()
        settings = TrainingSettings(
            epochs=6, batch_size=64, learning_rate=3e-3 if self.start == "random" else 1e-3, weight_decay=0.01
        )
        parts = Partition(rows[0], rows[1], rows[0], rows[1])
        pretrain(head, single, examples.target, parts, settings, Venue(self.fabric), seed=seed)
        self.layers = {name: tensor.clone() for name, tensor in head.pretrained_tensors().items()}

    def method(self, label: str) -> Method:
        """A method on the pretrained, frozen head; ``rank`` is that of its couplings."""
        name, *pairs = label.split()
        options: dict[str, Any] = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        head = self._new_head(options.pop("rank", None))
        head.load_state_dict(self.layers, strict=False)
        head.freeze().eval()
        return (
            Query(head, self.world.family) if name == QUERY else make_method(name, head, self.world.family, **options)
        )

    def learn(self, label: str, number: int, rate: float) -> Method:
        """A method that has learned from scenes, so many a task."""
        features, examples = self.tuning(number)
        (held, judged), method = self.held, self.method(label)
        maps = torch.cat([features.rows(slice(None)), held.rows(slice(None))])
        both = Features(maps.numpy(), (), f"{features.key} and {held.key}")
        judged = replace(judged, image=judged.image + len(examples))
        steps = max(1, 400 // max(1, len(examples) // 64))
        settings = TrainingSettings(epochs=min(60, max(8, steps)), batch_size=64, learning_rate=rate)
        inputs = Inputs(method, both, torch.arange(len(maps)))
        tune(method, inputs, examples, judged, settings, Venue(self.fabric), seed=self.seed)
        return method

    def tuning(self, number: int) -> Set:
        return self.world.scenes("tuning", number * len(COLOURS), f"tuning {number}")

    def closed(self, kind: str) -> Method:
        """Couplings from a few single objects of each colour; nothing is learned."""
        method = make_method("positions", self.method("base").head, self.world.family, couplings=kind).eval()
        features, examples = self.world.single("tuning", SINGLE * len(COLOURS), "single tuning")
        method.observe([(method.prepare(features.rows(slice(None))), examples.task)])
        return method

    def learned(self, label: str, number: int) -> float:
        """Test accuracy of a method that has learned from scenes, so many a task."""
        if label == REGRESSION:
            return self._regression(number)
        tried = [self.learn(label, number, rate) for rate in RATES]
        best = min(tried, key=lambda method: score(method, self.held)["nll"])
        return score(best, self.test)["accuracy"]

    def fixed(self) -> dict[str, float]:
        """Test accuracy of what learns nothing from scenes."""
        base = self.method("base").eval()
        found = {"single objects, no task": score(base, self.world.single("test", TEST, "single test"))["accuracy"]}
        found["no task"] = score(base, self.test)["accuracy"]
        hits = places(base.head, self.test[0]) == self.test[1].target
        found["each half by itself"] = float(hits.double().mean())
        for kind in ("informativeness", "discriminability", "discriminant"):
            found[f"positions, {kind}, {SINGLE} single objects a task"] = score(self.closed(kind), self.test)[
                "accuracy"
            ]
        return found

    def _regression(self, number: int) -> float:
        from sklearn.linear_model import LogisticRegression

        rows = [
            (own.rows(slice(None)).flatten(1).float().numpy(), ex)
            for own, ex in (self.tuning(number), self.held, self.test)
        ]
        hits, (mean, deviation) = [], (rows[0][0].mean(0), rows[0][0].std(0) + 1e-6)
        for task in range(len(COLOURS)):
            (x, y), (xh, yh), (xt, yt) = (
                ((x[(ex.task == task).numpy()] - mean) / deviation, ex.target[ex.task == task].numpy())
                for x, ex in rows
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tried = [LogisticRegression(C=strength, max_iter=300).fit(x, y) for strength in STRENGTHS]
            hits.append(max(tried, key=lambda model: model.score(xh, yh)).predict(xt) == yt)
        return float(np.concatenate(hits).mean())

    def _new_head(self, rank: int | None = None) -> ComodulatedHead:
        torch.manual_seed(derived_seed(self.seed, "layers"))
        family, wide = self.world.family, self.world.channels
        layers: dict[str, Any] = {"start": "probe", "kernel_size": 1}
        if self.start == "random":
            layers = dict.fromkeys(("encoder_channels", "decoder_channels", "hidden"), wide)
        return ComodulatedHead(
            self.test[0].shape[0], family.num_outputs, family.num_tasks, dropout=0.1, feature_dropout=0.0,
            controller={"rank": rank}, seed=self.seed, **layers,
        )  # fmt: skip


def score(method: Method, scenes: Set) -> dict[str, float]:
    features, examples = scenes
    found = predict(method, Inputs(method, features, examples.image), examples)
    return metrics(found.log_probabilities, found.target)


@torch.no_grad()
def places(head: ComodulatedHead, scenes: FeatureRows) -> Tensor:
    """The readout at each half by itself, probabilities added: right where either half is, if it is the surer one."""
    halves = head.decode(head.encode(scenes.rows(slice(None)))).unflatten(3, (2, -1)).mean((2, 4)).transpose(1, 2)
    return head.readout(halves).softmax(-1).sum(1).argmax(1)


def measured(options: Any, done: dict[tuple[int, str], float]) -> Iterator[tuple[int, str, float]]:
    """What is not measured yet: seed, row and test accuracy."""
    for seed in range(options.seed, options.seed + options.seeds):
        wanted = [f"{label}, {number} scenes a task" for label in LEARNED for number in options.examples]
        missing = [row for row in wanted if (seed, row) not in done]
        fixed = (seed, "no task") not in done
        if not missing and not fixed:
            continue
        world: World = (
            DigitWorld(seed) if options.pictures is None else PictureWorld(seed, options.pictures, options.keep)
        )
        material = Material(world, seed, options.start)
        if fixed:
            yield from ((seed, row, value) for row, value in material.fixed().items())
        for row in missing:
            label, _, number = row.removesuffix(" scenes a task").rpartition(", ")
            yield seed, row, material.learned(label, int(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", help="folder of CIFAR-100 [handwritten digits]")
    parser.add_argument("--keep", type=Path, help="folder for the features of the pictures")
    parser.add_argument("--start", choices=("random", "probe"), default="random", help="of the layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, nargs="+", default=[25, 400])
    parser.add_argument("--done", type=Path, required=True, help="file of results, continued")
    options = parser.parse_args()
    if options.pictures is not None and options.keep is None:
        parser.error("--pictures needs --keep")
    what = ("digits" if options.pictures is None else "pictures") + (" probe" if options.start == "probe" else "")
    lines = [json.loads(line) for line in options.done.read_text().splitlines()] if options.done.exists() else []
    done = {(line["seed"], line["row"]): line["accuracy"] for line in lines if line["what"] == what}
    began = time.process_time()
    for seed, row, value in measured(options, done):
        done[seed, row] = value
        with options.done.open("a") as file:
            file.write(json.dumps({"what": what, "seed": seed, "row": row, "accuracy": value}) + "\n")
        print(f"seed {seed} {row}: {100 * value:.1f} ({time.process_time() - began:.0f} s)", flush=True)
    seeds = sorted({seed for seed, _ in done})
    for row in dict.fromkeys(row for _, row in done):
        values = {seed: done[seed, row] for seed in seeds if (seed, row) in done}
        _, _, number = row.rpartition(", ")
        against = {seed: done.get((seed, f"positions, {number}")) for seed in values}
        line = f"{row:52s} {100 * np.mean(list(values.values())):5.1f}   {len(values):2d} seeds"
        ours = [100 * value for value in against.values() if value is not None]
        if len(values) > 1 and len(ours) == len(values) and not row.startswith("positions"):
            d = paired_difference(ours, [100 * value for value in values.values()])
            line += f"   positions minus it {d.mean:+5.1f} [{d.low:+.1f}, {d.high:+.1f}]"
        print(line)


if __name__ == "__main__":
    main()
