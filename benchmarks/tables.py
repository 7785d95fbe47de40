"""Label tables: `auto` and `linear` beside scikit-learn on the same image features.

    python benchmarks/tables.py --clothing ../shared/data/clothing/labels.csv --cifar100 ../shared/data/cifar100 --cache CACHE

Features are those that `fit` reads: pre-logits, mean and 2 x 2 map of EfficientNet-Lite0, at its own 224 px for the photos, at
128 px for CIFAR-100. Tables are drawn from the two data sets by size, number of classes, imbalance, share of missing labels and
share of wrong ones (in training alone). Features are extracted once, into the cache. A table that holds all of its data set
goes through `comodulation.runs.fit`, as a user's does; one that is drawn goes through `fit_method` on the features. Rivals read
the pooled features of the same rows, standardised: logistic regression, C by cross-validated NLL over eight values (three with
more than 5,000 rows); k nearest neighbours, k likewise; an MLP that stops early. Each table's own test images judge; of several
columns, figures are means over columns. A class that a rival has not seen has 1e-6 of its probability; what k neighbours say is
k answers beside one that is even.

Seconds are those of one thread of the processor, the search of the settings included.

One JSON line for each table and method that is done goes to --done; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from comodulation.data.features import Features, extract
from comodulation.evaluation import metrics
from comodulation.networks.methods import NoLayers, make_method
from comodulation.runs import RunConfig, fit, make_config, open_splits, read_family, read_labels
from comodulation.tasks import TaskFamily
from comodulation.training import Silent
from comodulation.training.readouts import fit_method

RIVALS = ("logistic regression", "k neighbours", "MLP")
METHODS = ("linear", "auto")
FIGURES = ("accuracy", "balanced_accuracy", "nll", "ece", "seconds")
STRENGTHS = tuple(10.0**power for power in range(-5, 3))  # C of scikit-learn
NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200)
MOST_TESTED = 5000
MOST_SEARCHED = 10_000  # rows for which logistic regression tries all strengths; for more they take hours
FEW_STRENGTHS = (1e-3, 1e-2, 1e-1)
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Label tables"


@dataclass(frozen=True)
class Spec:
    """What is drawn.

    Attributes:
        source: `clothing` or `cifar100`. columns: that are tasks.
        rows: of training; None takes all, and the table goes through `fit`.
        classes: number of classes of the first column, drawn at random; None takes all.
        imbalance: the most frequent of these has so many times the examples of the rarest. missing, noise: shares.
        split: number of a split of its own: the rows of training and test together, a fifth of them, drawn at random, for the test.
        per_class: as many rows of each class of the first column, which are `rows` in all.
    """

    source: str
    columns: tuple[str, ...]
    rows: int | None
    classes: int | None = None
    imbalance: float = 1.0
    missing: float = 0.0
    noise: float = 0.0
    split: int | None = None
    per_class: int | None = None

    @property
    def name(self) -> str:
        parts = [f"{self.source} {'+'.join(self.columns)}", "all rows" if self.rows is None else f"{self.rows:,} rows"]
        parts += [] if self.classes is None else [f"{self.classes} classes"]
        parts += [f"1:{self.imbalance:g}"] if self.imbalance > 1 else []
        parts += [f"{100 * self.missing:.0f}% missing"] if self.missing else []
        parts += [f"{100 * self.noise:.0f}% wrong"] if self.noise else []
        parts += [] if self.split is None else [f"split {self.split}"]
        parts += [] if self.per_class is None else [f"{self.per_class} of each class"]
        return ", ".join(parts)


FINE, COARSE, BOTH = ("fine_label",), ("coarse_label",), ("coarse_label", "fine_label")
SUITE = (
    Spec("clothing", ("label",), None),
    Spec("clothing", ("label", "kids"), None),
    Spec("clothing", ("label",), 30, 2),
    Spec("clothing", ("label",), 100, 5),
    Spec("clothing", ("label",), 300, 10),
    Spec("clothing", ("label",), 1000),
    Spec("clothing", ("kids",), 100),
    Spec("clothing", ("kids",), 1000),
    Spec("clothing", ("label",), 300, 5, noise=0.2),
    Spec("clothing", ("label",), 1000, 10, noise=0.2),
    Spec("clothing", ("label", "kids"), 1500, missing=0.5),
    Spec("clothing", ("label", "kids"), 1500, missing=0.8),
    Spec("clothing", ("label", "kids"), 1500, missing=0.95),
    *(Spec("clothing", (column,), None, split=split) for column in ("label", "kids") for split in range(5)),
    Spec("cifar100", FINE, 30, 3),
    Spec("cifar100", FINE, 100, 10),
    Spec("cifar100", FINE, 300, 2),
    Spec("cifar100", FINE, 1000, 100),
    Spec("cifar100", FINE, 1000, 10, imbalance=50),
    Spec("cifar100", FINE, 500, 2, imbalance=20),
    Spec("cifar100", COARSE, 3000, 20),
    Spec("cifar100", FINE, 5000, 100),
    Spec("cifar100", FINE, 5000, 50, noise=0.2),
    Spec("cifar100", BOTH, 2000, missing=0.5),
    Spec("cifar100", BOTH, 5000, missing=0.8),
    Spec("cifar100", BOTH, 5000, missing=0.95),
    *(Spec("cifar100", FINE, 100 * number, 100, per_class=number) for number in (5, 20, 100)),
    Spec("cifar100", FINE, 20_000, 100),
    Spec("cifar100", FINE, 45_000, 100),
    Spec("cifar100", FINE, None),
)


@dataclass(frozen=True)
class Source:
    """Features and columns of both splits of a data set; -1 is a missing label."""

    config: RunConfig
    features: dict[str, Features]
    pooled: int  # features, from the first, that a row has without the map
    columns: dict[str, dict[str, np.ndarray]]

    @classmethod
    def open(cls, name: str, path: Path, names: tuple[str, ...], cache: Path) -> Source:
        where = {"data": str(path.parent), "labels": str(path)} if name == "clothing" else {"data": str(path)}
        config = make_config({**where, "tasks": names})
        splits = open_splits(config, ["train", "test"])
        settings, _ = config.encoder.settled(splits["train"])
        encoder = settings.encoder()
        family = read_family(config, splits["train"])
        features, columns = {}, {}
        for split, opened in splits.items():
            features[split] = extract(encoder, opened, cache, engine="auto")
            columns[split] = dict(zip(names, read_labels(config, opened, family).columns, strict=True))
        return cls(config, features, encoder.pooled_width, columns)

    def split_anew(self, number: int) -> Source:
        """All rows, a fifth of them drawn for the test."""
        array = np.concatenate([self.features[split].array for split in ("train", "test")])
        names = self.columns["train"]
        columns = {name: np.concatenate([self.columns[split][name] for split in ("train", "test")]) for name in names}
        order = np.random.default_rng([number, len(array)]).permutation(len(array))
        parts = {"test": np.sort(order[: len(order) // 5]), "train": np.sort(order[len(order) // 5 :])}
        features = {split: Features(array[rows], (), "") for split, rows in parts.items()}
        return replace(
            self,
            features=features,
            columns={split: {name: own[rows] for name, own in columns.items()} for split, rows in parts.items()},
        )

    def rows(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Features of some rows of a split, float32 ``(n, V)``."""
        return np.asarray(self.features[split].array[rows], dtype=np.float32).reshape(len(rows), -1)


@dataclass(frozen=True)
class Table:
    """Images of training and test, by row of the source, and their answers ``(n, Q)``."""

    train: np.ndarray
    answers: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    sizes: tuple[int, ...]


def draw(spec: Spec, source: Source, seed: int = 0) -> Table:
    """The table of a specification; equal seeds give equal tables."""
    rng = np.random.default_rng([seed, *spec.name.encode()])
    own, tested = (np.stack([source.columns[s][c] for c in spec.columns], 1) for s in ("train", "test"))
    train, test = ((table >= 0).any(1).nonzero()[0] for table in (own, tested))
    if spec.rows is None:
        return _numbered(train, own[train].copy(), test, tested[test].copy())
    if spec.classes is not None:
        counts = np.bincount(own[own[:, 0] >= 0, 0])
        possible = (counts >= max(2, counts.max() // 20)).nonzero()[0]
        chosen = rng.permutation(possible)[: spec.classes]
        train, test = train[np.isin(own[train, 0], chosen)], test[np.isin(tested[test, 0], chosen)]
        if spec.imbalance > 1:
            place = np.argsort(chosen)[np.searchsorted(np.sort(chosen), own[train, 0])]
            keep = spec.imbalance ** (-place / (len(chosen) - 1))
            train = train[rng.random(len(train)) < keep]
    if spec.per_class is not None:
        train = rng.permutation(train)
        train = np.concatenate([train[own[train, 0] == c][: spec.per_class] for c in np.unique(own[train, 0])])
    train = np.sort(rng.permutation(train)[: spec.rows])
    test = np.sort(rng.permutation(test)[:MOST_TESTED])
    answers = own[train].copy()
    for column in range(answers.shape[1]):
        wrong = (rng.random(len(train)) < spec.noise) & (answers[:, column] >= 0)
        answers[wrong, column] = rng.choice(np.unique(answers[:, column][answers[:, column] >= 0]), wrong.sum())
        answers[rng.random(len(train)) < spec.missing, column] = -1
    return _numbered(train, answers, test, tested[test].copy())


def _numbered(train: np.ndarray, answers: np.ndarray, test: np.ndarray, truth: np.ndarray) -> Table:
    """Answers as places among those of the training; what it has none of is not asked in the test."""
    sizes = []
    for column in range(answers.shape[1]):
        known = np.unique(answers[:, column][answers[:, column] >= 0])
        for table in (answers, truth):
            place = np.searchsorted(known, table[:, column]).clip(max=len(known) - 1)
            table[:, column] = np.where(known[place] == table[:, column], place, -1)
        sizes.append(max(2, len(known)))
    asked = (answers >= 0).any(1)
    return Table(train[asked], answers[asked], test, truth, tuple(sizes))


# ---- rivals ----

Probabilities = Callable[[np.ndarray], np.ndarray]


def whole(model: Any, size: int, even: float = 0.0) -> Probabilities:
    """Probabilities ``(n, size)`` of a fitted model of scikit-learn, of the classes that it has not seen, too."""

    def ask(rows: np.ndarray) -> np.ndarray:
        found = np.full((len(rows), size), 1e-6)
        found[:, model.classes_] += model.predict_proba(rows)
        found = found / found.sum(1, keepdims=True)
        return found * (1 - even) + even / size

    return ask


def logistic(strength: float) -> Callable[[np.ndarray, np.ndarray, int], Probabilities]:
    def make(x: np.ndarray, y: np.ndarray, size: int) -> Probabilities:
        if len(np.unique(y)) < 2:
            return lambda rows: np.eye(size)[np.full(len(rows), y[0])].clip(1e-6)
        return whole(LogisticRegression(C=strength, max_iter=500).fit(x, y), size)

    return make


def neighbours(number: int) -> Callable[[np.ndarray, np.ndarray, int], Probabilities]:
    def make(x: np.ndarray, y: np.ndarray, size: int) -> Probabilities:
        taken = min(number, len(x))
        return whole(KNeighborsClassifier(taken).fit(x, y), size, 1 / (taken + 1))

    return make


def network(x: np.ndarray, y: np.ndarray, size: int) -> Probabilities:
    # Stopping early keeps a tenth of each class out, and needs two examples of each.
    early = len(y) >= 20 and np.bincount(y)[np.unique(y)].min() >= 2 and len(y) / 10 >= len(np.unique(y))
    return whole(MLPClassifier(early_stopping=bool(early), random_state=0).fit(x, y), size)


def chosen(
    makers: list[Callable[[np.ndarray, np.ndarray, int], Probabilities]], x: np.ndarray, y: np.ndarray, size: int
) -> Probabilities:
    """The one of the lowest cross-validated NLL, fitted to all rows."""
    folds = min(5 if len(x) <= 5000 else 3, len(x))
    rare = np.bincount(y)[np.unique(y)].min() < folds
    split = (KFold if rare else StratifiedKFold)(folds, shuffle=True, random_state=0)
    nll = np.zeros(len(makers))
    for fitted, held in split.split(x, y):
        for place, make in enumerate(makers):
            found = make(x[fitted], y[fitted], size)(x[held])
            nll[place] -= np.log(found[np.arange(len(held)), y[held]].clip(min=1e-12)).sum()
    print(f"out of fold: {', '.join(f'{value / len(x):.4f}' for value in nll)}", flush=True)
    return makers[int(nll.argmin())](x, y, size)


def rival(name: str, x: np.ndarray, y: np.ndarray, size: int) -> Probabilities:
    if name == "MLP":
        return network(x, y, size)
    if name == "k neighbours":
        return chosen([neighbours(k) for k in NEIGHBOURS], x, y, size)
    return chosen([logistic(c) for c in (STRENGTHS if len(x) <= MOST_SEARCHED else FEW_STRENGTHS)], x, y, size)


def answers_of_rival(name: str, table: Table, source: Source) -> list[Tensor]:
    """Log-probabilities of each column's answers to all test images."""
    x, z = (
        source.rows(split, rows)[:, : source.pooled] for split, rows in (("train", table.train), ("test", table.test))
    )
    scaler, found = StandardScaler().fit(x), []
    x, z = scaler.transform(x), scaler.transform(z)
    for column, size in enumerate(table.sizes):
        known = table.answers[:, column] >= 0
        ask = rival(name, x[known], table.answers[known, column], size)
        found.append(torch.from_numpy(ask(z)).clamp(min=1e-12).log().log_softmax(1))
    return found


# ---- ours ----


def answers_of_method(name: str, table: Table, source: Source) -> list[Tensor]:
    """As ``answers_of_rival``, of a method of readouts."""
    train, test = (source.rows(s, rows)[:, :, None, None] for s, rows in (("train", table.train), ("test", table.test)))
    names = [f"column{place}" for place in range(len(table.sizes))]
    family = TaskFamily.from_columns(names, [[str(answer) for answer in range(size)] for size in table.sizes])
    method = make_method(name, NoLayers(train.shape[1], family.num_outputs, family.num_tasks), family)
    examples = family.examples(list(table.answers.T))
    fit_method(method, Features(train, (), ""), examples, 0, Silent(), pooled=source.pooled)
    found = []
    for task, members in enumerate(family.members):
        logs = [
            method.log_probabilities(part, torch.full((len(part),), task))[:, list(members)]
            for part in torch.from_numpy(test).split(1024)
        ]
        found.append(torch.cat(logs))
    return found


def fitted_as_a_user(name: str, spec: Spec, source: Source, cache: Path) -> dict[str, float]:
    """Figures of the test split, from the run folder that `fit` writes."""
    config = source.config.model_copy(update={"method": name, "tasks": spec.columns})
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        (result,) = fit([config], Path(folder) / "run", cache)
    tasks = result.metrics["test"]["tasks"].values()
    found = {figure: float(np.mean([own[figure] for own in tasks])) for figure in FIGURES[:-1]}
    return {**found, "seconds": time.process_time() - began}


def figures(answers: list[Tensor], truth: np.ndarray) -> dict[str, float]:
    """Means over columns of what test images say."""
    columns = []
    for logs, own in zip(answers, truth.T, strict=True):
        known = torch.from_numpy(own >= 0)
        if not known.any():
            continue
        target = torch.from_numpy(own)[known]
        hit = (logs[known].argmax(1) == target).double()
        share = [float(hit[target == one].mean()) for one in target.unique()]
        columns.append({**metrics(logs[known], target), "balanced_accuracy": float(np.mean(share))})
    return {figure: float(np.mean([one[figure] for one in columns])) for figure in FIGURES[:-1]}


# ---- the suite ----


def measured(
    spec: Spec, source: Source, cache: Path, done: dict[str, dict[str, Any]], seed: int
) -> Iterator[dict[str, Any]]:
    """A line for each method that is not done yet."""
    if spec.split is not None:
        source = source.split_anew(spec.split)
    table = draw(spec, source, seed)
    for name in (*RIVALS, *METHODS):
        if f"{spec.name}: {name}" in done:
            continue
        began = time.process_time()
        if name in METHODS and spec.rows is None and spec.split is None:
            found = fitted_as_a_user(name, spec, source, cache)
        else:
            ask = answers_of_method if name in METHODS else answers_of_rival
            answers = ask(name, table, source)
            found = {**figures(answers, table.truth), "seconds": time.process_time() - began}
        yield {
            "table": spec.name, "method": name, "rows": len(table.train), "tested": len(table.test),
            "columns": len(table.sizes), "classes": list(table.sizes), **found,
        }  # fmt: skip


def markdown(lines: list[dict[str, Any]]) -> str:
    """A row a table; in each cell accuracy, balanced accuracy, NLL, ECE and seconds; then the means over tables."""
    names = (*RIVALS, *METHODS)
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        tables.setdefault(line["table"], {})[line["method"]] = line
    rows = [
        "In each cell: accuracy and balanced accuracy in %, **NLL**, ECE in %, seconds.", "",
        f"| table | {' | '.join(names)} |", "|" + " --- |" * (1 + len(names)),
    ]  # fmt: skip
    rows += [f"| {table} | {' | '.join(_cell(own.get(name)) for name in names)} |" for table, own in tables.items()]
    full = [own for own in tables.values() if len(own) == len(names)]
    if full:
        means = {name: {figure: np.mean([own[name][figure] for own in full]) for figure in FIGURES} for name in names}
        rows.append(f"| mean of {len(full)} tables | {' | '.join(_cell(means[name]) for name in names)} |")
        for figure, sign in (("nll", 1), ("accuracy", -1)):
            best = [min(names, key=lambda name: sign * own[name][figure]) for own in full]
            rows.append(f"| best {figure} | {' | '.join(str(best.count(name)) for name in names)} |")
    return "\n".join(rows)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f"{100 * found['accuracy']:.1f}, {100 * found['balanced_accuracy']:.1f}, **{found['nll']:.3f}**, "
        f"{100 * found['ece']:.1f}, {found['seconds']:.1f}"
    )


def write_section(path: Path, text: str) -> None:
    """The section of this benchmark, in the place of an earlier one or at the end."""
    before, found, after = path.read_text().partition(f"{HEADING}\n") if path.exists() else ("", "", "")
    _, heading, rest = after.partition("\n## ")
    section = f"{HEADING}\n\n    python benchmarks/tables.py {' '.join(sys.argv[1:])}\n\n{text}\n"
    gap = "" if found or not before else "\n"
    path.write_text(f"{before}{gap}{section}{heading}{rest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clothing", type=Path, help="labels.csv beside its folder of images")
    parser.add_argument("--cifar100", type=Path, help="folder of parquet files")
    parser.add_argument("--cache", type=Path, required=True, help="folder of features")
    parser.add_argument("--largest", type=int, default=5000, help="no table of more rows")
    parser.add_argument("--only", default="", help="no table whose name lacks these words")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; one file of lines for each")
    parser.add_argument("--done", type=Path, help="JSON lines of what is done [CACHE/tables.jsonl]")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="Markdown file whose section the whole suite writes"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)  # scikit-learn's: OMP_NUM_THREADS=1
    warnings.simplefilter("ignore")  # solvers that stop at their limit
    places = {name: path for name in ("clothing", "cifar100") if (path := getattr(given, name)) is not None}
    path = given.done or given.cache / "tables.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {f"{line['table']}: {line['method']}": line for line in lines}
    names = {"clothing": ("label", "kids"), "cifar100": BOTH}
    sources = {name: Source.open(name, place, names[name], given.cache) for name, place in places.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for spec in SUITE:
        if spec.source not in sources:
            continue
        if (spec.rows or len(sources[spec.source].features["train"])) > given.largest:
            continue
        if given.only not in spec.name:
            continue
        for line in measured(spec, sources[spec.source], given.cache, done, given.seed):
            lines.append(line)
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{line['table']}: {line['method']}: {_cell(line)}", flush=True)
    text = markdown(lines)
    print(f"\n{text}")
    if not given.only and not given.seed:
        write_section(given.results, text)


if __name__ == "__main__":
    main()
