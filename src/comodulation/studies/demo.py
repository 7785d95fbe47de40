"""The main job on real images in about a minute: digits, one frozen network, two tasks, several methods, several seeds."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Partition
from ..data.features import Features
from ..data.sets import PARITY, Digits, Scenes, digit_scenes, load_digits, patches, split_digits
from ..errors import InputError, RunError
from ..evaluation import METRICS, PairedDifference, as_family, metrics, paired_difference
from ..files import PARTIAL, read_json, remove_partials, write_bytes, write_json
from ..mathematics import Modulation, derived_seed
from ..networks import ComodulatedHead, save_adapter
from ..networks.methods import Method, ReadoutMethod, make_method
from ..report import gains_figure, svg
from ..runs import ADAPTER, HEAD, HeadSettings, RunConfig, build_head
from ..tensors import write_tensors
from ..training import Alone, Inputs, Silent, TrainingSettings, Venue, predict, pretrain, tune
from ..training.readouts import fit_method

SHARES = (0.4, 0.25, 0.1, 0.25)  # of the digits: pretraining, fine-tuning, validation, test
COUNTS = {"pretraining": 3072, "pretraining_validation": 256, "tuning": 2560, "validation": 512, "test": 2000}
# Peak learning rates, chosen on the validation scenes of seeds 100 and 101 by benchmarks/demo_rates.py.
LEARNING_RATES = {"hard-sharing": 0.03, "task-bias": 0.8, "attention": 0.8, "comodulation": 0.8}
COMPARED = ("linear", "base", "hard-sharing", "class-mask", "task-bias", "local-mask", "attention", "comodulation")
COMPARISONS = (("accuracy", "accuracy", 1), ("nll", "NLL", -1), ("ece", "ECE", -1))  # metric, its name, what is better
RESULTS, CELLS, FIGURE = "results.json", "cells.csv", "gains.svg"
FILES = (RESULTS, CELLS, FIGURE, HEAD, ADAPTER)


def demo_config(seed: int, method: str = "comodulation") -> RunConfig:
    """The demo as a run configuration: a smaller head, shorter training."""
    settings = TrainingSettings(epochs=8, batch_size=64, learning_rate=LEARNING_RATES.get(method, 0.1))
    return RunConfig(
        data="the digits of scikit-learn",
        group="parity",
        label="digit",
        method=method,
        seed=seed,
        head=HeadSettings(encoder_channels=64, decoder_channels=64, hidden=64, dropout=0.1, feature_dropout=0.0),
        modulation=Modulation(),
        pretraining=TrainingSettings(epochs=6, batch_size=64, learning_rate=3e-3, weight_decay=0.01),
        tuning=settings,
    )


def run_demo(
    out: str | Path, *, seeds: int = 5, first_seed: int = 0, report: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run the demo and write its folder: results.json, cells.csv, gains.svg, and the first seed's head and adapter.

    Args:
        out: folder; a demo that is there already, finished or interrupted, is replaced.
        seeds: number of seeds, at least 2 (one gives no interval).
        first_seed: the first of them.
        report: told a line after each seed.

    Raises:
        InputError: fewer than two seeds, a seed out of range, or a folder that holds something else.
    """
    if seeds < 2 or seeds > 1000:
        raise InputError(f"--seeds must be 2 to 1000, got {seeds}: a paired interval needs at least 2")
    if not 0 <= first_seed <= 2**32 - 1 - seeds:
        raise InputError(f"seed {first_seed} is out of range, expected 0 to {2**32 - 1 - seeds}")
    out = Path(out)
    _claim(out)
    began = time.perf_counter()
    cells: list[dict[str, Any]] = []
    for place, seed in enumerate(range(first_seed, first_seed + seeds)):
        methods = fit_seed(seed)
        for name, (method, values) in methods.items():
            cells.append({"seed": seed, "method": name, "learnable_parameters": method.num_learnable(), **values})
        if place == 0:
            comodulation = methods["comodulation"][0].float()
            write_bytes(out / FIGURE, _figure(comodulation).encode())
            write_tensors(out / HEAD, comodulation.head.pretrained_tensors())
            save_adapter(comodulation, out / ADAPTER)
        if report:
            report(f"seed {seed} done ({place + 1}/{seeds}, {time.perf_counter() - began:.0f} s)")
    differences = {
        name: {metric: vars(_difference(cells, name, metric)) for metric in METRICS} for name in COMPARED[:-1]
    }
    found: dict[str, dict[str, Any]] = {}
    for (name, metric), d in judged(cells).items():
        found.setdefault(name, {})[metric] = vars(d)
    result = {
        "cells": cells,
        "comodulation_minus": differences,
        "judged": found,
        "verdict": verdict(cells),
        "seconds": round(time.perf_counter() - began, 1),
        "folder": str(out),
    }
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(cells[0]))
    writer.writeheader()
    writer.writerows(cells)
    write_json(out / RESULTS, result)
    write_bytes(out / CELLS, sink.getvalue().encode())
    return result


def fit_seed(seed: int, rates: dict[str, float] | None = None) -> dict[str, tuple[Method, dict[str, float]]]:
    """One seed: a base network pretrained on single digits, then each method on scenes with a distractor.

    All of it is in double precision: training makes of a last bit of single precision, which is another one on another processor or
    number of threads, half a point of accuracy; of one of double precision, nothing that is printed.

    Args:
        seed: of everything.
        rates: learning rates to try instead of the defaults; metrics are then of the validation scenes.

    Returns:
        By name, the fitted method and its metrics on the test scenes.
    """
    fabric = Alone(torch.device("cpu"))
    base, tuning, validation, test = split_digits(load_digits(), SHARES, derived_seed(seed, "digits"))
    config = demo_config(seed)
    head = build_head(config, PARITY, 16).double()
    _pretrain(head, base, config, fabric)
    layers = {name: tensor.clone() for name, tensor in head.pretrained_tensors().items()}

    train_scenes = _join(
        digit_scenes(tuning, COUNTS["tuning"], derived_seed(seed, "tuning scenes"), distractor=True),
        digit_scenes(validation, COUNTS["validation"], derived_seed(seed, "validation scenes"), distractor=True),
    )
    test_scenes = digit_scenes(test, COUNTS["test"], derived_seed(seed, "test scenes"), distractor=True)
    rows = torch.arange(len(train_scenes.images))
    tuned, held = (train_scenes.examples.take(part) for part in rows.split([COUNTS["tuning"], COUNTS["validation"]]))
    final_scenes, final = (train_scenes, held) if rates else (test_scenes, test_scenes.examples)
    results = {}
    for name in COMPARED:
        own = demo_config(seed, name)
        if rates:
            own = own.model_copy(update={"tuning": replace(own.tuning, learning_rate=rates[name])})
        if name == "linear":  # on all labelled scenes, the held-out ones included: it holds out by itself
            method = _linear(train_scenes, own)
            results[name] = (method, _numbers(method, final_scenes, final))
            continue
        head = build_head(own, PARITY, 16).double()
        head.load_state_dict(layers, strict=False)
        method = make_method(name, head, PARITY)
        inputs = Inputs(method, _features(train_scenes), rows)
        tune(method, inputs, tuned, held, own.tuning, Venue(fabric), seed=own.seed, balance=own.balance)
        results[name] = (method, _numbers(method, final_scenes, final))
    return results


def _numbers(method: Method, scenes: Scenes, examples: Any) -> dict[str, float]:
    predictions = predict(method, Inputs(method, _features(scenes), examples.image), examples)
    numbers = metrics(predictions.log_probabilities, predictions.target)
    return {metric: numbers[metric] for metric in METRICS}


def _linear(scenes: Scenes, config: RunConfig) -> Method:
    """Logistic regression on the scenes' features; which of its outputs belong to a task is known."""
    features = _features(scenes)
    method = make_method("linear", build_head(config, PARITY, features.shape[0]), PARITY)
    assert isinstance(method, ReadoutMethod)
    fit_method(method, features, scenes.examples, config.seed, Silent())
    return method.double()


def judged(cells: list[dict[str, Any]]) -> dict[tuple[str, str], PairedDifference]:
    """What is shown together, by rival and metric: comodulation minus it in accuracy, minus attention in NLL and ECE too."""
    shown = [(name, "accuracy") for name in COMPARED[:-1]] + [("attention", "nll"), ("attention", "ece")]
    found = as_family([_difference(cells, *pair) for pair in shown])
    return {pair: d for pair, d in zip(shown, found, strict=True) if d is not None}


def verdict(cells: list[dict[str, Any]]) -> str:
    """What was found, in sentences that the intervals decide."""
    found = judged(cells)
    cheap = max(("class-mask", "task-bias"), key=lambda name: _mean(cells, name, "accuracy"))
    routing, local = found[cheap, "accuracy"], found["local-mask", "accuracy"]
    matters = routing.decided and routing.mean > 0
    first = (
        f"Routing {'matters here' if matters else 'does not show here'}: comodulation is {_points(routing)} from {cheap}, the "
        "better rival that only changes outputs."
    )
    second = f"Against local-mask, which learns nothing and reads at each column ({_points(local)}): accuracy"
    words = [f"{name} {_told(found['attention', metric], better)}" for metric, name, better in COMPARISONS]
    nll, ece = found["attention", "nll"], found["attention", "ece"]
    scale = f"{_points(found['attention', 'accuracy'])}, NLL {nll.mean:+.3f}, ECE {100 * ece.mean:+.1f} points"
    return (
        f"{first} {second} {_told(local, 1)}. Against attention, with as many parameters ({scale}): {', '.join(words)}."
    )


def _points(d: PairedDifference) -> str:
    return f"{100 * d.mean:+.1f} points of accuracy [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def _told(d: PairedDifference, better: int) -> str:
    """The word for a difference, of which ``better`` is the sign that is good."""
    if d.at_the_edge:
        return "is at the edge"
    return "cannot be told apart" if not d.decided else "is better" if d.mean * better > 0 else "is worse"


def describe(result: dict[str, Any]) -> str:
    """The table and the verdict as text."""
    cells, names = result["cells"], [name for name in COMPARED]
    count = len({cell["seed"] for cell in cells})
    lines = [
        "Two overlapping handwritten digits, one even and one odd; the task names the one to report.",
        f"One network, pretrained on single digits and frozen; {count} seeds, mean on test scenes.",
        "",
        f"{'':14s}{'accuracy':>9s}{'NLL':>8s}{'ECE':>8s}{'learned':>9s}   comodulation minus it [95%, all together]",
    ]
    for name in names:
        own = [cell for cell in cells if cell["method"] == name]
        line = (
            f"{name:14s}{100 * _mean(cells, name, 'accuracy'):8.1f}%{_mean(cells, name, 'nll'):8.3f}"
            f"{100 * _mean(cells, name, 'ece'):7.1f}%{own[0]['learnable_parameters']:9,d}"
        )
        if name in result["judged"]:
            d = result["judged"][name]["accuracy"]
            line += f"   {100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        lines.append(line)
    lines += [
        "",
        result["verdict"],
        "",
        f"{result['folder']}: results.json, cells.csv, gains.svg ({result['seconds']:.0f} s)",
    ]
    return "\n".join(lines)


def _pretrain(head: ComodulatedHead, digits: Digits, config: RunConfig, fabric: Any) -> None:
    counts = [COUNTS["pretraining"], COUNTS["pretraining_validation"]]
    scenes = digit_scenes(digits, sum(counts), derived_seed(config.seed, "single digits"), distractor=False)
    pretraining, validation = torch.arange(sum(counts)).split(counts)
    parts = Partition(pretraining, validation, pretraining, validation)
    pretrain(
        head, _features(scenes), scenes.examples.target, parts, config.pretraining, Venue(fabric), seed=config.seed
    )


def _features(scenes: Scenes) -> Features:
    return Features(patches(scenes.images).double().numpy(), (), "digits")


def _join(first: Scenes, second: Scenes) -> Scenes:
    images = torch.cat([first.images, second.images])
    examples = type(first.examples)(
        torch.arange(len(images)),
        torch.cat([first.examples.task, second.examples.task]),
        torch.cat([first.examples.target, second.examples.target]),
    )
    return Scenes(images, examples)


def _difference(cells: list[dict[str, Any]], name: str, metric: str) -> PairedDifference:
    return paired_difference(_values(cells, "comodulation", metric), _values(cells, name, metric))


def _values(cells: list[dict[str, Any]], name: str, metric: str) -> list[float]:
    return [cell[metric] for cell in cells if cell["method"] == name]


def _mean(cells: list[dict[str, Any]], name: str, metric: str) -> float:
    return float(np.mean(_values(cells, name, metric)))


@torch.no_grad()
def _figure(method: Method) -> str:
    head = method.head
    encoder = head.controller(torch.arange(PARITY.num_tasks)).exp()
    assert head.task_gains is not None
    title = "Gains that answer two questions with one frozen network"
    return svg(gains_figure(encoder.numpy(), head.task_gains.numpy(), PARITY.tasks, title=title))


def _claim(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder")
    try:
        if out.exists() and any(out.iterdir()) and not _is_demo(out):
            raise InputError(f"{out} is not empty and not a demo's folder; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        remove_partials(out)
        write_bytes(out / CELLS, b"")
    except (OSError, RunError) as error:
        raise InputError(f"cannot write to {out}: {getattr(error, 'strerror', None) or error}") from error


def _is_demo(out: Path) -> bool:
    """Whether a folder holds a demo, finished or not: studies have a results.json and a cells.csv, too.

    A demo that was interrupted has its own files alone, and an empty table.
    """
    if (out / RESULTS).exists():
        try:
            found = read_json(out / RESULTS)
        except InputError:
            return False
        return isinstance(found, dict) and {"cells", "comodulation_minus", "verdict"} <= set(found)
    names = {path.name for path in out.iterdir() if not path.name.endswith(PARTIAL)}
    return names <= set(FILES) and (not names or ((out / CELLS).is_file() and not (out / CELLS).stat().st_size))
