"""Texts: `comodulate fit --text` against scikit-learn's logistic regression on the same embeddings, the group known and not.

    python benchmarks/texts.py --data utterances.csv --group domain --label intent

Prints accuracy, NLL and ECE of the test split. scikit-learn's strength of L2 is the one with the lowest NLL on the rows of the
split `validation`, which `fit` does not see.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from comodulation import RunConfig, fit
from comodulation.data import class_column, label_names
from comodulation.data.features import TextSettings, cache_folder, extract
from comodulation.evaluation import metrics
from comodulation.runs import open_splits

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--text", default="text")
    parser.add_argument("--group", required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--cache", type=Path, default=None)
    given = parser.parse_args()
    cache = cache_folder(given.cache)
    config = RunConfig(data=given.data, text=TextSettings(given.text), group=given.group, label=given.label)
    splits = open_splits(config, ["train", "validation", "test"])
    encoder = config.encoder.encoder()
    names, groups = (label_names(splits["train"], column) for column in (given.label, given.group))
    rows: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name, split in splits.items():
        found = extract(encoder, split, cache).rows(slice(None)).flatten(1).numpy()
        rows[name] = found, class_column(split, given.label, names), class_column(split, given.group, groups)
    for what, values in logistic(rows, len(names)).items():
        print(f"scikit-learn, {what:34s} {shown(values)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        known = {
            "all classes": {"tasks": [given.label]},
            "the group known": {"group": given.group, "label": given.label},
        }
        for what, tasks in known.items():
            began = time.perf_counter()
            made = RunConfig.model_validate({"data": given.data, "text": {"column": given.text}, **tasks})
            (result,) = fit(made, Path(folder) / what, cache)
            seconds = time.perf_counter() - began
            for name, values in (("auto", result.metrics["test"]), ("linear", result.metrics["linear"]["test"])):
                print(f"comodulate, {f'{what}, {name}':36s} {shown(values)}  {seconds:5.0f} s", flush=True)
            print(json.dumps(result.metrics["readouts"]["weights"]))


def logistic(rows: dict[str, Any], classes: int) -> dict[str, dict[str, float]]:
    """Metrics of logistic regression: among all classes, the same masked to the group's, and one of its own for each group."""
    scaler = StandardScaler().fit(rows["train"][0])
    x = {name: scaler.transform(own[0]) for name, own in rows.items()}
    y, group = ({name: own[place] for name, own in rows.items()} for place in (1, 2))
    member = np.zeros((group["train"].max() + 1, classes), bool)
    member[group["train"], y["train"]] = True
    began = time.perf_counter()
    whole = best(x, y)
    seconds = time.perf_counter() - began
    logs = whole.predict_log_proba(x["test"])
    masked = np.where(member[group["test"]], logs, -np.inf)
    own = np.full_like(logs, -np.inf)
    for number in range(len(member)):
        within = {name: np.flatnonzero(of == number) for name, of in group.items()}
        fitted = best({n: x[n][r] for n, r in within.items()}, {n: y[n][r] for n, r in within.items()})
        own[np.ix_(within["test"], fitted.classes_)] = fitted.predict_log_proba(x["test"][within["test"]])
    truth = torch.from_numpy(y["test"])
    found = {"all classes": logs, "all classes, masked to the group": masked, "one for each group": own}
    return {
        what: {**metrics(torch.from_numpy(values).log_softmax(1), truth), "seconds": seconds}
        for what, values in found.items()
    }


def best(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> LogisticRegression:
    """Of a few strengths the one with the lowest NLL on the validation rows."""
    fitted = [LogisticRegression(C=strength, max_iter=300).fit(x["train"], y["train"]) for strength in STRENGTHS]
    rows = np.arange(len(y["validation"]))
    losses = [
        -one.predict_log_proba(x["validation"])[rows, np.searchsorted(one.classes_, y["validation"])].mean()
        for one in fitted
    ]
    return fitted[int(np.argmin(losses))]


def shown(values: dict[str, float]) -> str:
    return f"{100 * values['accuracy']:5.2f}% / {values['nll']:.4f} / {100 * values['ece']:4.2f}%"


if __name__ == "__main__":
    main()
