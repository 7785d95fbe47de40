"""Extraction by each engine and precision: milliseconds an input, all but the translation included; and what becomes of features.

    python benchmarks/engines.py DATA --label fine_label         # EfficientNet-Lite0 at 128 px, one thread, CPU time
    python benchmarks/engines.py DATA --backbone resnet18 --weights random
    python benchmarks/engines.py texts.csv --text text --label intent
    python benchmarks/engines.py DATA --threads 2 --wall         # on a machine that does nothing else

DATA is what `fit --data` takes. The engines take turns, and the fastest of several runs counts. With --label also the accuracy of
logistic regression on each one's features, of the rows of the split `test`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction import cpu_seconds
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from comodulation import RunConfig
from comodulation.data import Split, class_column, label_names
from comodulation.data.features import Backbone, BackboneSettings, Encoder, TextSettings, extract, forward_of
from comodulation.runs import open_splits

KINDS = tuple(
    (engine, precision)
    for precision in ("float32", "bfloat16")
    for engine in ("torch", "onnx", "openvino")
    if (engine, precision) != ("onnx", "bfloat16")
)


def main(given: Any) -> None:
    torch.set_num_threads(given.threads)
    clock = time.perf_counter if given.wall else cpu_seconds
    of_texts = {"text": TextSettings(given.text)} if given.text else {}
    config = RunConfig(data=given.data, labels=given.labels, tasks=(given.label,) if given.label else (), **of_texts)
    splits = open_splits(config, ["train", "test"])
    generator = np.random.default_rng(0)
    wanted = {"train": given.rows, "test": given.rows}
    splits = {name: rows_of(split, wanted[name], generator) for name, split in splits.items()}
    for size in given.sizes[: 1 if given.text else None]:
        encoder: Encoder = (
            config.encoder.encoder()
            if given.text
            else Backbone(BackboneSettings(given.backbone, given.weights, size, output="vector"))
        )
        what = config.encoder.name if given.text else f"{given.backbone}, {size} px"
        print(f"{what}, {given.threads} threads, {given.rows} rows, {'time' if given.wall else 'CPU time'}", flush=True)
        seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
        found, translation = {}, {}
        for kind in KINDS:
            began = clock()
            forward_of(encoder, kind[0], precision=kind[1])
            translation[kind] = clock() - began
            for name, split in splits.items():
                for _ in range(given.repeats if name == "train" else 1):
                    with tempfile.TemporaryDirectory() as cache:
                        split.fingerprint  # noqa: B018  # once a process
                        began = clock()
                        array = extract(encoder, split, Path(cache), engine=kind[0], precision=kind[1]).array
                        if name == "train":
                            seconds[kind].append(clock() - began)
                        found[*kind, name] = torch.from_numpy(array.copy()).float().flatten(1)
        exact = found["torch", "float32", "train"]
        spread = exact.std(0).clamp_min(1e-6)
        for kind in KINDS:
            least = min(seconds[kind]) / len(exact)
            difference = (found[*kind, "train"] - exact).abs() / spread
            faster = min(seconds["torch", "float32"]) / min(seconds[kind])
            line = f"    {kind[0]:9s} {kind[1]:9s} {1000 * least:6.2f} ms ({faster:.2f} times as fast), "
            line += f"translation {translation[kind]:5.1f} s; "
            line += f"differs by {difference.mean():.1e} standard deviations, {difference.max():.1e} at most"
            if given.label:
                line += (
                    f"; probe {100 * probe({name: found[*kind, name] for name in splits}, splits, given.label):.2f}%"
                )
            print(line, flush=True)


def rows_of(split: Split, number: int, generator: np.random.Generator) -> Split:
    rows = np.sort(generator.permutation(len(split))[:number])
    texts = split.inputs
    inputs = None if texts is None else replace(texts, values=tuple(texts.values[row] for row in rows), ids=())
    return replace(split, table=split.table.select(rows), inputs=inputs)


def probe(features: dict[str, torch.Tensor], splits: dict[str, Split], label: str) -> float:
    """Accuracy of logistic regression on the test rows."""
    names = label_names(splits["train"], label)
    y = {name: class_column(split, label, names) for name, split in splits.items()}
    scaler = StandardScaler().fit(features["train"].numpy())
    x = {name: scaler.transform(own.numpy()) for name, own in features.items()}
    fitted = LogisticRegression(C=0.01 if x["train"].shape[1] > 1000 else 0.1, max_iter=200).fit(x["train"], y["train"])
    return float(fitted.score(x["test"], y["test"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--labels")
    parser.add_argument("--label")
    parser.add_argument("--text")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args())
