"""`predict` over many embeddings: rows a second, memory, what an item costs beside a bare loop over the same calls, two processes.

python benchmarks/predict_stream.py [--rows 1000000] [--widths 384 1280] [--method linear] [--repeats 3]

Each figure is of the fastest of some fresh processes with one thread of torch; memory is the most that a process had of its own
(RssAnon: without the pages of files, which the system takes back as it needs).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

TASKS = 3


def make(folder: Path, rows: int, width: int) -> None:
    """Embeddings of noise, and a table of labels that are linear in 1,500 of them."""
    rng = np.random.default_rng(0)
    known = rng.standard_normal((1500, width), dtype=np.float32).astype(np.float16)
    scores = known.astype(np.float32) @ rng.standard_normal((width, 8), dtype=np.float32)
    np.save(folder / "known.npy", known)
    lines = [f"t{one[:4].argmax()},{'yes' if one[4] > 0 else 'no'},{'abc'[one[5:8].argmax()]}" for one in scores]
    (folder / "labels.csv").write_text("\n".join(["topic,urgent,tone", *lines]) + "\n")
    asked = np.lib.format.open_memmap(folder / "asked.npy", mode="w+", dtype=np.float16, shape=(rows, width))
    for start in range(0, rows, 50_000):
        asked[start : start + 50_000] = rng.standard_normal((min(50_000, rows - start), width), dtype=np.float32)


def bare(folder: Path) -> tuple[float, float]:
    """Seconds, of wall time and of the process, of the loop that anyone would write with the same calls."""
    import torch

    from comodulation.data.features import features_of
    from comodulation.evaluation import apply_temperature
    from comodulation.networks.methods import task_chunks
    from comodulation.runs import Run

    run = Run.open(folder / "run")
    asked = np.load(folder / "asked.npy", mmap_mode="r")
    tasks, own = torch.arange(run.family.num_tasks), [list(one) for one in run.family.members]
    _ = run.method
    began, spent = time.perf_counter(), time.process_time()
    for start in range(0, len(asked), 1024):
        values = np.array(asked[start : start + 1024], np.float32)
        assert np.isfinite(values.sum(dtype=np.float64))
        rows = torch.from_numpy(values).reshape(len(values), -1, 1, 1)
        features = features_of(run.encoder, (rows,), kept=torch.float32)
        logs = torch.cat([found for _, found in task_chunks(run.method, features, tasks)])
        given = logs if run.temperature is None else apply_temperature(logs, run.temperature)
        probabilities = given.exp().unflatten(0, (len(values), len(tasks)))
        for task in range(len(tasks)):
            best = probabilities[:, task].argmax(-1)
            _ = probabilities[:, task].gather(1, best[:, None])[:, 0].numpy()
            _ = probabilities[:, task][:, own[task]].numpy()
    return time.perf_counter() - began, time.process_time() - spent


def streamed(folder: Path, workers: int) -> tuple[float, float]:
    """Seconds, of wall time and of the process, of the library: from the first shard's first row to the last file."""
    from comodulation.processes import Resources
    from comodulation.runs import stream_answers

    began: list[tuple[float, float]] = []

    def report(done: int, total: int) -> None:
        if done and not began:
            began.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory(dir=folder) as out:
        stream_answers(
            folder / "run", [folder / "asked.npy"], Path(out) / "out", report=report, resources=Resources(workers)
        )
    return time.perf_counter() - began[0][0], time.process_time() - began[0][1]


def own_memory() -> int:
    """Bytes that this process has of its own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    return 0


def measured(folder: Path, what: str) -> dict[str, float]:
    """In this process: seconds and memory."""
    most, ended = [own_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most.append(own_memory())

    threading.Thread(target=watch, daemon=True).start()
    wall, spent = bare(folder) if what == "bare" else streamed(folder, int(what))
    ended.set()
    return {"wall": wall, "process": spent, "memory": max(most)}


def fastest(folder: Path, what: str, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        words = [sys.executable, __file__, "--measure", what, "--folder", folder]
        done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout))
    return min(found, key=lambda one: one["process"] if what in ("bare", "1") else one["wall"])


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rows", type=int, default=1_000_000)
    asked.add_argument("--widths", type=int, nargs="+", default=[384, 1280])
    asked.add_argument("--method", default="linear")
    asked.add_argument("--repeats", type=int, default=3)
    asked.add_argument("--measure")
    asked.add_argument("--folder", type=Path)
    given = asked.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.measure:
        print(json.dumps(measured(given.folder, given.measure)))
        return
    print(
        f"{given.rows:,} embeddings in float16, {TASKS} tasks, {given.method}; load {os.getloadavg()[0]:.1f} at the start"
    )
    print(
        "| numbers | bare loop, us of CPU a row | streamed, us | overhead | rows a second | memory, MB | two processes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for width in given.widths:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make(folder, given.rows, width)
            words = [
                "fit",
                "--embeddings",
                folder / "known.npy",
                "--labels",
                folder / "labels.csv",
                "--method",
                given.method,
            ]
            words += ["--out", folder / "run", "--cache", folder / "cache"]
            subprocess.run([sys.executable, "-m", "comodulation", *map(str, words)], check=True, capture_output=True)
            loop, one, two = (fastest(folder, what, given.repeats) for what in ("bare", "1", "2"))
            each = [1e6 * found["process"] / given.rows for found in (loop, one)]
            print(
                f"| {width} | {each[0]:.2f} | {each[1]:.2f} | {100 * (each[1] / each[0] - 1):.0f}% | "
                f"{given.rows / one['wall']:,.0f} | {one['memory'] / 2**20:.0f} | {one['wall'] / two['wall']:.2f} times one |",
                flush=True,
            )
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
