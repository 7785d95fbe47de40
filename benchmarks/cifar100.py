"""CIFAR-100, 20 superclasses as tasks: tune every method on validation data, then one table on the test split.

    python benchmarks/cifar100.py search --data FOLDER --out search.csv     # seed 100, validation only
    python benchmarks/cifar100.py table  --data FOLDER --out table.csv      # seeds 0, 1, 2; chosen settings; test once

Every method gets the same number of trials (eight; hard sharing four; those with nothing to learn need none). The
criterion is the validation NLL. Rows that are there already are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from dataclasses import replace
from pathlib import Path

from lightning_fabric import Fabric

from comodulation.backbone import Backbone
from comodulation.config import RunConfig, make_config
from comodulation.data import available_splits, open_split
from comodulation.evaluation import METRICS, metrics
from comodulation.features import cache_folder, extract
from comodulation.fitting import Session, read_family, read_labels
from comodulation.head import Modulation
from comodulation.progress import Silent
from comodulation.statistics import paired_difference
from comodulation.training import TrainingSettings

EXPONENTIAL, RECTIFIED = Modulation(link="exponential"), Modulation(link="rectified")


def trials() -> dict[str, list[tuple[str, Modulation, TrainingSettings]]]:
    """Eight settings for each method that learns something (hard sharing: four), by name of the row."""

    def settings(rates: tuple[float, ...], decays: tuple[float, ...]) -> list[TrainingSettings]:
        return [TrainingSettings(learning_rate=r, weight_decay=d) for r, d in itertools.product(rates, decays)]

    four = (0.03, 0.06, 0.12, 0.25)
    two = (0.06, 0.12)
    return {
        "task-bias": [("task-bias", EXPONENTIAL, s) for s in settings(four, (0.0, 0.02))],
        "attention": [("attention", EXPONENTIAL, s) for s in settings(four, (0.0, 0.02))],
        "comodulation": [
            ("comodulation", replace(EXPONENTIAL, beta=beta), s)
            for beta in (0.7, 1.0)
            for s in settings(two, (0.0, 0.02))
        ],
        "comodulation, rectified": [
            ("comodulation", replace(RECTIFIED, beta=beta), s)
            for beta in (0.7, 1.0)
            for s in settings(two, (0.0, 0.02))
        ],
        # Trains a hundred times the parameters, without a task signal: a floor, at four times the cost a trial.
        "hard-sharing": [
            ("hard-sharing", EXPONENTIAL, replace(s, epochs=4)) for s in settings((1e-4, 3e-4, 6e-4, 1e-3), (0.1,))
        ],
    }


FREE = ("base", "class-mask")  # nothing to learn


def session(arguments: argparse.Namespace, seed: int, residual: bool, readout: str = "open") -> Session:
    """Features, partition and pretrained layers of one seed."""
    config = make_config(
        {
            "data": arguments.data,
            "group": "coarse_label",
            "label": "fine_label",
            "seed": seed,
            "readout": readout,
            "head": {"residual": residual},
        }
    )
    backbone = Backbone(config.backbone)
    splits = [open_split(config.data, name) for name in available_splits(config.data)]
    family = read_family(config, next(split for split in splits if split.name == "train"))
    labelled = {split.name: read_labels(config, split, family) for split in splits}
    cache = cache_folder()
    features = {split.name: extract(backbone, split, cache) for split in splits}
    fabric = Fabric(accelerator="auto", devices=1)
    return Session(config, family, labelled, features, backbone.fingerprint(), cache, fabric, Silent())


def with_method(config: RunConfig, method: str, modulation: Modulation, tuning: TrainingSettings) -> RunConfig:
    return config.model_copy(update={"method": method, "modulation": modulation, "tuning": tuning})


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open())) if path.exists() else []


def append_row(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)


def described(
    row: str, seed: int, residual: bool, modulation: Modulation, tuning: TrainingSettings
) -> dict[str, object]:
    return {
        "method": row,
        "variant": "residual" if residual else "base",
        "seed": seed,
        "beta": modulation.beta,
        "learning_rate": tuning.learning_rate,
        "weight_decay": tuning.weight_decay,
    }


def known(rows: list[dict[str, str]], what: dict[str, object]) -> bool:
    return any(all(row[key] == str(value) for key, value in what.items()) for row in rows)


def search(arguments: argparse.Namespace) -> None:
    for residual in (True, False):
        shared = session(arguments, 100, residual)
        for row, candidates in trials().items():
            for method, modulation, tuning in candidates:
                what = described(row, 100, residual, modulation, tuning)
                if known(read_rows(arguments.out), what):
                    continue
                began = time.perf_counter()
                found = shared.adapt(with_method(shared.config, method, modulation, tuning)).validation
                numbers = metrics(found.log_probabilities, found.target)
                seconds = time.perf_counter() - began
                append_row(arguments.out, {**what, **{m: numbers[m] for m in METRICS}, "seconds": seconds})


def chosen(search_rows: list[dict[str, str]], row: str, variant: str) -> tuple[str, Modulation, TrainingSettings]:
    """The trial of lowest validation NLL."""
    own = [r for r in search_rows if r["method"] == row and r["variant"] == variant]
    if not own:
        raise SystemExit(f"the search has no finished trial of {row}, {variant}")
    best = min(own, key=lambda r: float(r["nll"]))
    for method, modulation, tuning in trials()[row]:
        what = described(row, 100, variant == "residual", modulation, tuning)
        if all(best[key] == str(value) for key, value in what.items()):
            return method, modulation, tuning
    raise SystemExit(f"the search has no finished trial of {row}, {variant}")


def table(arguments: argparse.Namespace) -> None:
    searched = read_rows(arguments.search)
    for seed, residual in itertools.product(arguments.seeds, (True, False)):
        variant = "residual" if residual else "base"
        shared = session(arguments, seed, residual)
        rows = {name: (name, EXPONENTIAL, TrainingSettings()) for name in FREE}
        rows |= {row: chosen(searched, row, variant) for row in trials()}
        for row, (method, modulation, tuning) in rows.items():
            what = described(row, seed, residual, modulation, tuning)
            if known(read_rows(arguments.out), what):
                continue
            adapted = shared.adapt(with_method(shared.config, method, modulation, tuning))
            tested = shared.test(adapted)
            assert tested is not None
            numbers = metrics(tested.log_probabilities, tested.target)
            extra = {"learnable": adapted.method.num_learnable(), "tuning_seconds": adapted.seconds["tuning"]}
            append_row(arguments.out, {**what, **{m: numbers[m] for m in METRICS}, **extra})
    summarize(read_rows(arguments.out))


def summarize(rows: list[dict[str, str]]) -> None:
    """Means over seeds and the paired differences of each row from attention, as markdown."""
    for variant in ("residual", "base"):
        own = [row for row in rows if row["variant"] == variant]
        print(f"\n{variant} variant; differences from attention, with 95% t intervals over seeds\n")
        print("| method | accuracy | NLL | Brier | ECE | accuracy - attention | NLL - attention |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in dict.fromkeys(row["method"] for row in own):
            values = {m: [float(row[m]) for row in own if row["method"] == name] for m in METRICS}
            cells = [f"{100 * _mean(values['accuracy']):.2f}", f"{_mean(values['nll']):.3f}"]
            cells += [f"{_mean(values['brier']):.3f}", f"{100 * _mean(values['ece']):.2f}"]
            for metric, scale, digits in (("accuracy", 100, 2), ("nll", 1, 3)):
                reference = [float(row[metric]) for row in own if row["method"] == "attention"]
                if name == "attention" or len(reference) < 2:
                    cells.append("")
                    continue
                d = paired_difference(values[metric], reference)
                cells.append(
                    f"{scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"
                )
            print(f"| {name} | {' | '.join(cells)} |")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "table"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--search", type=Path, default=Path("search.csv"), help="the search's rows, for table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    search(arguments) if arguments.what == "search" else table(arguments)
