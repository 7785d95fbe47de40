"""Two objects under two cues, of which the task names one: what each method makes of it, with few examples and with more.

    python benchmarks/cues.py --seed 10 --seeds 10 --examples 25 400 --done cues.jsonl
    python benchmarks/cues.py --what tinted --data CIFAR100 --keep FOLDER --start probe --seed 10 --seeds 10 --done cues.jsonl
    python benchmarks/cues.py --what turned --data CIFAR100 --keep FOLDER --start probe --seed 10 --seeds 10 --done cues.jsonl
    python benchmarks/cues.py --what messages --data TABLE --keep FOLDER --start probe --seed 10 --seeds 10 --done cues.jsonl

Objects are handwritten digits (ten answers); CIFAR-100's pictures in shades of a colour, or turned, seen by EfficientNet-Lite0 at
128 px (twenty superclasses); or messages of CLINC150, of which a name says who wrote them, seen token by token by MiniLM (ten
domains). Features are kept in FOLDER. For each seed a head is pretrained on single objects under any cue and frozen; with `--start
probe` its layers begin at logistic regression, and pass on all that the features hold. Every method then learns from the same
scenes, so many examples a task, at the learning rate that is best on 300 validation scenes. Accuracy on 2,000 test scenes; then
`positions` minus each rival, paired over seeds. One JSON line for each seed, method and number of examples goes to --done; what is
there is not computed again.

`query` is what a deep-learning engineer would write: attention over positions with a learned query a task. `logistic regression`
is fitted for each task on the whole map, its C chosen on the validation scenes. `regression of the cue` sees the single objects
that closed forms see.
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
from typing import Any

import numpy as np
import torch
from cues_worlds import CUES, KINDS, DigitWorld, KeptWorld, Set, World
from lightning_fabric import Fabric
from torch import Tensor, nn

from comodulation import ComodulatedHead, TaskFamily
from comodulation.data import Partition
from comodulation.data.features import FeatureRows, Features
from comodulation.evaluation import metrics, paired_difference
from comodulation.mathematics import derived_seed, position_gains
from comodulation.networks.methods import Method, make_method
from comodulation.training import Inputs, TrainingSettings, Venue, predict, pretrain, tune

TEST, HELD = 2000, 300
RATES = (0.25, 0.8)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
QUERY, REGRESSION, CUE_REGRESSION = "query", "logistic regression", "regression of the cue"
LEARNED = (
    "positions", "attention", "comodulation", QUERY, "ia3 rank=1 decoder_rank=1", "ia3", "film", "task-bias", REGRESSION,
)  # fmt: skip
CLOSED = (  # couplings, and weights of kind `each`; from as many single objects, not scenes
    "informativeness", "discriminability", "discriminant", "informativeness each", "discriminability each", "discriminant each",
)  # fmt: skip
FIXED = ("single objects, no task", "no task", "each half by itself")  # learn nothing
SINGLES, SCENES = " single objects a task", " scenes a task"


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


class CueReader(Method):
    """Weights of positions by a logistic regression of the cue, fitted to the means of single objects and read at each position.

    What an engineer would write who has single objects, as closed forms have. K E + K numbers; C is scikit-learn's usual one.
    """

    name = CUE_REGRESSION
    paper = "none: what an engineer would write"
    weight: Tensor
    bias_of_cue: Tensor

    def fitted(self, activity: Tensor, tasks: Tensor) -> CueReader:
        from sklearn.linear_model import LogisticRegression

        means = activity.mean((2, 3))
        shift, scale = means.mean(0), means.std(0) + 1e-6
        model = LogisticRegression(max_iter=1000).fit(((means - shift) / scale).numpy(), tasks.numpy())
        found, intercept = torch.from_numpy(model.coef_).to(means) / scale, torch.from_numpy(model.intercept_).to(means)
        if len(found) == 1:  # of two tasks, the log odds of the second
            found, intercept = torch.cat([-found, found]) / 2, torch.cat([-intercept, intercept]) / 2
        # Of few objects, a task may have none: no position is likely to be its own.
        weight, bias = (
            means.new_zeros(self.family.num_tasks, len(shift)),
            means.new_full((self.family.num_tasks,), -20.0),
        )
        weight[model.classes_], bias[model.classes_] = found, intercept - found @ shift
        self.register_buffer("weight", weight)
        self.register_buffer("bias_of_cue", bias)
        return self

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        scores = torch.einsum("ke,bep->bkp", self.weight, inputs.flatten(2)) + self.bias_of_cue[:, None]
        shown = scores.log_softmax(1)[torch.arange(len(inputs)), task_ids]  # (B, P)
        gains = position_gains(shown).unflatten(1, inputs.shape[2:])
        return self.head.read(self.head.decode(inputs) * gains[:, None])[None]


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
        return self.world.scenes("tuning", number * CUES, f"tuning {number}")

    def closed(self, kind: str, number: int) -> Method:
        """Couplings from so many single objects of each cue; nothing is learned."""
        features, examples = self.world.single("tuning", number * CUES, "single tuning")
        maps = features.rows(slice(None))
        if kind == CUE_REGRESSION:
            reader = CueReader(self.method("base").head, self.world.family).eval()
            return reader.fitted(reader.prepare(maps), examples.task)
        couplings, _, weights = kind.partition(" ")
        head = self.method("base").head
        method = make_method("positions", head, self.world.family, couplings=couplings, weights=weights or "one").eval()
        method.observe([(method.prepare(maps), examples.task)])
        return method

    def accuracy(self, row: str) -> float:
        """Test accuracy of a row."""
        if row == FIXED[0]:
            return score(self.method("base").eval(), self.world.single("test", TEST, "single test"))["accuracy"]
        if row == FIXED[1]:
            return score(self.method("base").eval(), self.test)["accuracy"]
        if row == FIXED[2]:
            return float((places(self.method("base").head, self.test[0]) == self.test[1].target).double().mean())
        label, _, number = row.removesuffix(SCENES).removesuffix(SINGLES).rpartition(", ")
        if row.endswith(SINGLES):
            return score(self.closed(label.removeprefix("positions, "), int(number)), self.test)["accuracy"]
        if label == REGRESSION:
            return self._regression(int(number))
        tried = [self.learn(label, int(number), rate) for rate in RATES]
        best = min(tried, key=lambda method: score(method, self.held)["nll"])
        return score(best, self.test)["accuracy"]

    def _regression(self, number: int) -> float:
        from sklearn.linear_model import LogisticRegression

        rows = [
            (own.rows(slice(None)).flatten(1).float().numpy(), ex)
            for own, ex in (self.tuning(number), self.held, self.test)
        ]
        hits, (mean, deviation) = [], (rows[0][0].mean(0), rows[0][0].std(0) + 1e-6)
        for task in range(CUES):
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
    kinds = [*(f"positions, {kind}" for kind in CLOSED), CUE_REGRESSION]
    closed = [f"{kind}, {number}{SINGLES}" for number in options.examples for kind in kinds]
    learned = [f"{label}, {number}{SCENES}" for label in options.methods for number in options.examples]
    for seed in range(options.seed, options.seed + options.seeds):
        missing = [row for row in (*FIXED, *closed, *learned) if (seed, row) not in done]
        if missing:
            world = (
                DigitWorld(seed)
                if options.what == "digits"
                else KeptWorld(seed, options.what, options.data, options.keep)
            )
            material = Material(world, seed, options.start)
            yield from ((seed, row, material.accuracy(row)) for row in missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--what", choices=("digits", *KINDS), default="digits")
    parser.add_argument("--data", help="folder of CIFAR-100, or CLINC150 as a table")
    parser.add_argument("--keep", type=Path, help="folder for the features of pictures or messages")
    parser.add_argument("--methods", nargs="+", choices=LEARNED, default=LEARNED)
    parser.add_argument("--start", choices=("random", "probe"), default="random", help="of the layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, nargs="+", default=[25, 400])
    parser.add_argument("--done", type=Path, required=True, help="file of results, continued")
    options = parser.parse_args()
    if options.what != "digits" and (options.data is None or options.keep is None):
        parser.error(f"--what {options.what} needs --data and --keep")
    # Lines of the first pictures call the tinted ones so.
    what = {"tinted": "pictures"}.get(options.what, options.what) + (" probe" if options.start == "probe" else "")
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
