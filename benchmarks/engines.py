"""Extraction by torch and by ONNX Runtime: images a second, everything included, the translation apart.

    python benchmarks/engines.py DATA                          # EfficientNet-Lite0 at 128 and 224 px; CPU time of one thread
    python benchmarks/engines.py DATA --threads 2 --wall       # on a machine that does nothing else

DATA is a folder of parquet files (CIFAR-100). The engines take turns, and the fastest of several runs counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from extraction import cpu_seconds, rows_of

from comodulation.data import open_split
from comodulation.data.features import Backbone, BackboneSettings, extract, forward_of

ENGINES = ("torch", "onnx")


def main(
    data: str, name: str, weights: str, sizes: list[int], rows: int, threads: int, wall: bool, repeats: int
) -> None:
    torch.set_num_threads(threads)
    clock = time.perf_counter if wall else cpu_seconds
    print(f"{name}, {threads} threads, torch {torch.__version__}, {rows} images, {'time' if wall else 'CPU time'}")
    split = rows_of(open_split(data, "train"), rows)
    split.fingerprint  # noqa: B018  # once a process
    for size in sizes:
        backbone = Backbone(BackboneSettings(name, weights, size))
        began = clock()
        forward_of(backbone, "onnx")
        translation = clock() - began
        seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        found = {}
        for _ in range(repeats):
            for engine in ENGINES:
                with tempfile.TemporaryDirectory() as cache:
                    began = clock()
                    array = extract(backbone, split, Path(cache), engine=engine).array
                    seconds[engine].append(clock() - began)
                    found[engine] = torch.from_numpy(array.copy()).float()
        rates = {engine: rows / min(own) for engine, own in seconds.items()}
        difference = (found["torch"] - found["onnx"]).abs().max() / found["torch"].std()
        print(
            f"{size} px: torch {rates['torch']:.1f} images/s, ONNX Runtime {rates['onnx']:.1f} "
            f"({rates['onnx'] / rates['torch']:.2f} times), translation {translation:.1f} s; stored values differ by at most "
            f"{difference:.1e} standard deviations"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    main(
        given.data, given.backbone, given.weights, given.sizes, given.rows, given.threads, given.wall, given.repeats
    )  # fmt: skip
