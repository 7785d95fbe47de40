"""How time and memory grow with images, tasks, channels, modulator samples and quadrature nodes: exponents, expected and measured.

    python benchmarks/growth.py [images|tasks|channels|samples|nodes ...] [--small] [--json FILE]

Each point is a process of its own: processor seconds of one thread (other work on the machine counts little), and the largest
resident set. Of images also what of it is the process's own (anonymous) and what is pages of mapped files, which the kernel may
drop. Features are random numbers in a memory-mapped float16 file, as features.py keeps them. An exponent is the slope of a
straight line through log time over log size, with its 95% interval; the last column is the slope between the two largest sizes
alone, where fixed costs count least. `images-kept` is `images` with the library's own limit for what it keeps of the encoder's
activity in memory, and `images` keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_common import peak_mib
from torch import Tensor

from comodulation import ComodulatedHead, decoder_gains
from comodulation.data.features import Features
from comodulation.networks.methods import Method, make_method
from comodulation.tasks import Examples, TaskFamily
from comodulation.training import inputs as prepared_inputs
from comodulation.training import tuning

BATCH = 256
SIZES = {
    "images": (1_000, 10_000, 100_000, 1_000_000),
    "tasks": (10, 30, 100, 300, 1_000, 3_000, 10_000),
    "channels": (32, 64, 128, 256, 512, 1024),
    "samples": (8, 16, 32, 64, 128, 256, 512),
    "nodes": (3, 6, 12, 25, 50, 100),
}
SMALL = {
    "images": (200, 400),
    "tasks": (10, 30),
    "channels": (8, 16),
    "samples": (8, 16),
    "nodes": (3, 6),
}
EXPECTED = {
    "images": {"epoch": "1", "observe": "1", "evaluation": "1", "step": "0"},
    "tasks": {
        "attention: step": "0 to 1: K E numbers in the optimizer beside B D E P products",
        "comodulation: step": "0 to 1: K D E products for the gains of all tasks, and the optimizer's K E",
        "observe": "0 to 1: one weight gradient a task of a batch; K D E numbers",
        "gains": "1: K D E products",
        "evaluation": "0: stored gains are looked up",
    },
    "channels": dict.fromkeys(("attention: step", "comodulation: step", "observe", "gains", "evaluation"), "2: D E"),
    "samples": {"gains": "1"},
    "nodes": {"gains": "1"},
}


class ResidentSet:
    """Largest anonymous and file-backed resident set while a block runs, MiB, by looking every few milliseconds."""

    def __enter__(self) -> ResidentSet:
        self.anonymous = self.file = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            try:
                lines = Path("/proc/self/status").read_text().splitlines()
            except OSError:
                return
            held = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
            self.anonymous = max(self.anonymous, held.get("RssAnon:", 0.0))
            self.file = max(self.file, held.get("RssFile:", 0.0))


def processor_seconds(call: Callable[[], object], least: float = 0.2) -> float:
    """Processor time of a call: the median of at least three, repeated until ``least`` seconds have gone."""
    call()  # warms up
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return sorted(times)[len(times) // 2]


def once(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def method_on(name: str, num_tasks: int, channels: int, in_channels: int) -> Method:
    """A method on an untrained head; every task has two classes of twenty."""
    members = tuple((task % 10, 10 + task % 10) for task in range(num_tasks))
    names = tuple(f"task{task}" for task in range(num_tasks))
    family = TaskFamily("classes", names, tuple(f"class{n}" for n in range(20)), members)
    head = ComodulatedHead(
        in_channels, 20, num_tasks, encoder_channels=channels, decoder_channels=channels, hidden=channels
    )
    return make_method(name, head, family)


def features_file(path: Path, shape: tuple[int, ...]) -> Features:
    """Random features in a memory-mapped float16 file, written block by block."""
    generator = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, shape[0], 8192):
            block = generator.standard_normal((min(8192, shape[0] - start), *shape[1:]), np.float32)
            file.write(np.abs(block).astype(np.float16).tobytes())
    return Features(np.memmap(path, np.float16, "r", shape=shape), (), "growth")


def images(number: int, folder: Path, limit: int | None) -> dict[str, float]:
    """One epoch, observation and evaluation over ``number`` images, 20 tasks, 96 channels on 2x2 maps.

    Args:
        limit: of the encoder activity kept in memory, bytes; None leaves the library's own.
    """
    if limit is not None:
        prepared_inputs.ACTIVITY_LIMIT = limit
    features = features_file(folder / "features.bin", (number, 32, 2, 2))
    method = method_on("comodulation", 20, 96, 32)
    generator = torch.Generator().manual_seed(0)
    task = torch.randint(20, (number,), generator=generator)
    target = task % 10 + 10 * torch.randint(2, (number,), generator=generator)
    pairs = Examples(torch.arange(number), task, target)
    first = pairs.take(torch.arange(min(BATCH, number)))
    some = tuning.Inputs(method, features, first.image).rows(first.image)
    method.observe([(some, first.task)])  # what the libraries take for themselves
    method.loss(some, first.task, first.target).backward()
    with ResidentSet() as before:
        time.sleep(0.02)
    with ResidentSet() as held:
        kept: list[tuning.Inputs] = []
        seconds = {"prepare": once(lambda: kept.append(tuning.Inputs(method, features, pairs.image)))}
        inputs = kept[0]

        def seen() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in pairs.task.argsort(stable=True).split(tuning.EVALUATION_BATCH):  # as `tune` does
                part = pairs.take(rows)
                yield inputs.rows(part.image), part.task

        seconds["observe"] = once(lambda: method.observe(seen()))
        optimizer = torch.optim.AdamW(method.learnable(), lr=0.1)
        steps = -(-number // BATCH)

        def epoch() -> None:
            method.train()
            for part in tuning.epoch_examples(pairs, generator, BATCH):
                optimizer.zero_grad()
                method.loss(inputs.rows(part.image), part.task, part.target).backward()
                optimizer.step()

        seconds["epoch"] = once(epoch)
        method.settle(seen())
        seconds["evaluation"] = once(lambda: tuning.predict(method, inputs, pairs))
    return {
        **seconds, "step": seconds["epoch"] / steps, "anonymous MiB": held.anonymous - before.anonymous,
        "mapped file MiB": held.file - before.file, "file MiB": features.array.nbytes / 2**20, "peak MiB": peak_mib(),
    }  # fmt: skip


def layers(number: int, folder: Path, *, vary: str) -> dict[str, float]:
    """A step of each method, observation, gains and evaluation of a batch, with so many tasks or channels."""
    num_tasks, channels = (number, 64) if vary == "tasks" else (20, number)
    generator = torch.Generator().manual_seed(0)
    activity = torch.rand(BATCH, channels, 2, 2, generator=generator)
    tasks = torch.randint(num_tasks, (BATCH,), generator=generator)
    targets = tasks % 10
    seconds = {}
    for name in ("attention", "comodulation"):
        method = method_on(name, num_tasks, channels, channels)
        optimizer = torch.optim.AdamW(method.learnable(), lr=0.1)
        if name == "comodulation":
            seconds["observe"] = processor_seconds(partial(method.observe, [(activity, tasks)]))

        def step(method: Method = method, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            method.loss(activity, tasks, targets).backward()
            optimizer.step()

        method.train()
        seconds[f"{name}: step"] = processor_seconds(step)
    method.eval()
    seconds["gains"] = processor_seconds(partial(method.settle, []))
    seconds["evaluation"] = processor_seconds(partial(method.log_probabilities, activity, tasks))
    return {**seconds, "peak MiB": peak_mib()}


def sampled(number: int, folder: Path, *, estimator: str) -> dict[str, float]:
    """Gains per input by so many samples or nodes: 32 inputs, 64 channels on 4x4 maps."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    activity, coupling = torch.rand(32, 64, 4, 4), torch.rand(32, 64)

    def gains() -> None:
        decoder_gains(
            lambda h: layer(h).relu(), activity, coupling, 0.3, estimator=estimator, num_samples=number,
            num_nodes=number if estimator == "quadrature" else 5,
        )  # fmt: skip

    return {"gains": processor_seconds(gains), "peak MiB": peak_mib()}


POINTS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "images": partial(images, limit=0),
    "images-kept": partial(images, limit=None),
    "tasks": partial(layers, vary="tasks"),
    "channels": partial(layers, vary="channels"),
    "samples": partial(sampled, estimator="monte_carlo"),
    "nodes": partial(sampled, estimator="quadrature"),
}


def exponent(sizes: list[int], values: list[float]) -> tuple[float, float, float]:
    """Slope of log value over log size, half of its 95% interval, and the slope between the last two points.

    The interval is Student's, of a least-squares line; with two points there is none, and it is NaN.
    """
    from scipy import stats

    x, y = np.log(sizes), np.log(values)
    last = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
    if len(x) < 3:
        return last, math.nan, last
    fit = stats.linregress(x, y)
    return float(fit.slope), float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr), last


def run_point(axis: str, size: int) -> dict[str, float]:
    """One point, in a process of its own: forked, so that it need not import everything again. Linux counts a fork's largest
    resident set from there on."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(POINTS[axis], size, Path(folder)).result()


def tables(axis: str, sizes: list[int], points: list[dict[str, float]]) -> str:
    """Markdown: what was measured at each size, and the exponents beside what was expected."""
    names = list(points[0])
    lines = [f"| {axis} | {' | '.join(names)} |", "|" + " --- |" * (1 + len(names))]
    for size, point in zip(sizes, points, strict=True):
        cells = [f"{point[n]:.0f}" if n.endswith("MiB") else f"{1000 * point[n]:.3g} ms" for n in names]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    lines += ["", f"| {axis}: exponent of | expected | measured | last two |", "| --- | --- | --- | --- |"]
    for name in names:
        values = [point[name] for point in points]
        if name.endswith("MiB") or min(values) <= 0:
            continue
        slope, half, last = exponent(sizes, values)
        expected = EXPECTED[axis.removesuffix("-kept")].get(name, "")
        lines.append(f"| {name} | {expected} | {slope:.2f} ± {half:.2f} | {last:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {', '.join(POINTS)}; all by default")
    parser.add_argument("--small", action="store_true", help="two small sizes each")
    parser.add_argument("--most", type=int, default=10**9, help="no size above this")
    parser.add_argument("--json", type=Path, help="file to which results are added")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for axis in given.axes or POINTS:
        if axis not in POINTS:
            sys.exit(f"unknown axis {axis!r}; expected {', '.join(POINTS)}")
        offered = (SMALL if given.small else SIZES)[axis.removesuffix("-kept")]
        sizes = [size for size in offered if size <= given.most]
        points = [run_point(axis, size) for size in sizes]
        print(tables(axis, sizes, points) + "\n", flush=True)
        if given.json:
            found: dict[str, Any] = json.loads(given.json.read_text()) if given.json.exists() else {}
            found[axis] = {str(size): point for size, point in zip(sizes, points, strict=True)}
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
