"""Answers to more inputs than fit into memory: in shards, on any number of processes, resumed shard by shard.

A folder of answers holds ``predictions.json``, which says what it is of, and ``part-000000.parquet``, ... in the order of the
inputs. What is in a shard depends on the run, the inputs and the number of rows of a shard alone, so that it has the same bytes
wherever it was made; the arithmetic of a batch may depend on the number of threads, see docs/cluster.md.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.features import BATCH, at_once, faster_engine, forward_of, large_blocks_kept
from ..data.streams import blocks_of, listed_pictures, row_files, rows_of, write_picture_list
from ..errors import InputError, RunError, brief, first_difference
from ..files import PARTIAL, locked, read_json, remove_partials, writable, write_json
from ..places import in_bucket, move, reached
from ..processes import Resources, Worker, run, sight
from .answer_columns import AnswerColumns
from .folder import ADAPTER, HEAD, METRICS
from .run import Run
from .shards import finished_shard, shard_path, write_shard
from .streamed_inputs import ReadBatch, block_batch, check_shape, picture_batch, read_ahead

MANIFEST, PICTURES, LOCK = "predictions.json", "inputs.parquet", ".lock"
NEW_PICTURES = f".{PICTURES}{PARTIAL}"  # until it is known to be the same as before
ROWS, PICTURE_ROWS = 100_000, 10_000  # of a shard
FORM = 1
SELDOM = 2.0  # seconds between two things that a worker says


@dataclass(frozen=True)
class Streamed:
    """What came of it.

    Attributes:
        what: an input is called.
        rows: inputs. bad: those that could not be used. cut: those, now, that are longer than the encoder takes.
        made: shards that were made now. shards: all.
    """

    what: str
    rows: int
    bad: int
    cut: int
    made: int
    shards: int


@dataclass(frozen=True)
class _Plan:
    """What every process knows of the work.

    Attributes:
        run: folder. out: folder of the answers. tasks: names; none: all. seed: of the modulator's noise; None: the run's.
        engine: not ``auto``. device: ``cuda`` or ``cpu``.
        files: of rows, and how many each has; none of pictures, which ``PICTURES`` lists.
        rows: in all. size: of a shard.
    """

    run: Path
    out: Path
    tasks: tuple[str, ...]
    seed: int | None
    engine: str
    device: str
    files: tuple[tuple[Path, int], ...]
    rows: int
    size: int

    @property
    def shards(self) -> int:
        return math.ceil(self.rows / self.size)

    def of_shard(self, number: int) -> int:
        """Rows of a shard."""
        return min(self.size, self.rows - number * self.size)


def stream_answers(
    run_folder: Path,
    files: Sequence[Path],
    out: Path,
    *,
    tasks: Sequence[str] = (),
    seed: int | None = None,
    engine: str = "auto",
    rows_per_shard: int | None = None,
    resume: bool = False,
    resources: Resources | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Streamed:
    """Answer all inputs of some files; memory does not grow with their number.

    Args:
        run_folder: of a finished run.
        files: files and folders: images, tables or files of texts or embeddings, as the run reads them.
        out: folder to write, of this machine or of a bucket (``place``), new; with ``resume`` one of the same answers, of which
            finished shards stay.
        tasks: names; none: all. seed: of the modulator's noise; None: the run's.
        engine: of the encoder's pass, see ``Run.answers``.
        rows_per_shard: inputs of a file of answers; None: ``ROWS``, of pictures ``PICTURE_ROWS``.
        resources: where shards are made; None: in this process, one after the other.
        report: called with inputs done and inputs in all. say: told a line on what ``auto`` has chosen.

    Raises:
        InputError: bad input, known before anything is answered, but for inputs that cannot be used, which a column names; a
            folder that holds something else or is in use.
        RunError: something failed; finished shards stay.
    """
    where = resources or Resources()
    tell = report or (lambda done, total: None)
    if rows_per_shard is not None and rows_per_shard < 1:
        raise InputError(f"--rows-per-shard must be at least 1, got {rows_per_shard}")
    opened = Run.open(run_folder)
    _ = opened.method  # a damaged run shows before any input does
    opened.task_ids(tasks)
    with reached(out):
        _check_folder(out, resume)
    with _held(out):
        device = "cuda" if where.gpus or (where.cluster is None and torch.cuda.is_available()) else "cpu"
        try:
            plan = _planned(opened, files, out, tuple(tasks), seed, engine, rows_per_shard, device, say)
            AnswerColumns(opened, tasks, None)
            _claim(out, _manifest(opened, plan))
        except InputError:
            (out / NEW_PICTURES).unlink(missing_ok=True)
            raise
        if (out / NEW_PICTURES).exists():
            move(out / NEW_PICTURES, out / PICTURES)
        found = [finished_shard(out, number, plan.of_shard(number)) for number in range(plan.shards)]
        todo = [number for number, bad in enumerate(found) if bad is None]
        done = plan.rows - sum(plan.of_shard(number) for number in todo)
        cut, heard = 0, dict.fromkeys(todo, (0, 0))
        tell(done, plan.rows)

        def on_event(event: tuple[int, int, int]) -> None:
            nonlocal done, cut
            number, rows, longer = event
            before, heard[number] = heard[number], (rows, longer)  # a shard whose process is lost begins again
            done, cut = done + rows - before[0], cut + longer - before[1]
            tell(done, plan.rows)

        shared = [out / MANIFEST, run_folder / METRICS, run_folder / ADAPTER, *(path for path, _ in plan.files)]
        run(todo, where, partial(_worker, plan), on_event, shared=[path.absolute() for path in shared])
        found = [finished_shard(out, number, plan.of_shard(number)) for number in range(plan.shards)]
        if None in found:
            raise RunError(
                f"{shard_path(out, found.index(None))} has not come about as a whole; did the inputs change meanwhile? Another "
                "--out takes them as they are now"
            )
        bad = sum(one or 0 for one in found)
    return Streamed(opened.encoder.what, plan.rows, bad, cut, len(todo), plan.shards)


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """A folder that no other command writes to meanwhile. A bucket has no locks: there, two would do the same work twice."""
    if in_bucket(out):
        yield
        return
    with writable(out), locked(out / LOCK, wait=False):
        remove_partials(out)
        try:
            yield
        except InputError:
            (out / LOCK).unlink(missing_ok=True)
            raise
        (out / LOCK).unlink(missing_ok=True)


def _planned(
    opened: Run,
    files: Sequence[Path],
    out: Path,
    tasks: tuple[str, ...],
    seed: int | None,
    engine: str,
    size: int | None,
    device: str,
    say: Callable[[str], None] | None,
) -> _Plan:
    reader = opened.config.encoder.reader
    counted: list[tuple[Path, int]] = []
    size = size or (PICTURE_ROWS if reader is None else ROWS)
    if reader is None:
        rows = write_picture_list([path.absolute() for path in files], out / NEW_PICTURES, size)
    else:
        counted = [(path.absolute(), rows_of(path, reader)) for path in row_files(files, reader)]
        rows = sum(number for _, number in counted)
        for path, number in counted:
            check_shape(opened.encoder, path, next(blocks_of(path, reader, 0, min(1, number), 1), None))
    if not rows:
        raise InputError(f"{brief(str(files[0]))} holds no {opened.encoder.what}s")
    before = read_json(out / MANIFEST).get("engine") if (out / MANIFEST).exists() else None
    if engine == "auto":  # what has begun goes on with what it began with
        engine = before or faster_engine(opened.encoder, rows, device, opened.config.precision, say)
    if engine != "torch":  # which computes anywhere; the device may be another machine's
        forward_of(opened.encoder, engine, device, opened.config.precision)
    return _Plan(opened.folder.absolute(), out.absolute(), tasks, seed, engine, device, tuple(counted), rows, size)


def _manifest(opened: Run, plan: _Plan) -> dict[str, Any]:
    """What a folder of answers is of, as JSON. Paths are not in it: the same inputs may lie elsewhere when it is resumed."""
    run_files = hashlib.sha256()
    for name in (HEAD, ADAPTER):
        run_files.update((opened.folder / name).read_bytes())
    pictures = plan.out / NEW_PICTURES
    listed = {"list": _hash(pictures) if pictures.exists() else ""}
    return {
        "form": FORM,
        "run": run_files.hexdigest(),
        "temperature": opened.temperature,
        **({} if opened.decisions is None else {"decisions": opened.decisions.to_json()}),
        "tasks": [opened.family.tasks[task] for task in opened.task_ids(plan.tasks)],
        "seed": opened.method.head.seed if plan.seed is None else plan.seed,
        "engine": plan.engine,
        "device": plan.device,
        "inputs": [{"name": path.name, "rows": rows, **sight(path)} for path, rows in plan.files] or [listed],
        "rows": plan.rows,
        "rows_per_shard": plan.size,
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder to write answers to")
    found = {path.name for path in out.iterdir()} - {LOCK} if out.exists() else set()
    if MANIFEST in found and not resume:
        raise InputError(f"{out} holds answers already; --resume goes on with them, another --out makes new ones")
    if found and MANIFEST not in found and not all(name.startswith(".") or name == PICTURES for name in found):
        raise InputError(f"{out} is not empty and no folder of answers; choose another --out")


def _claim(out: Path, manifest: dict[str, Any]) -> None:
    """Say what a folder is of. Raises InputError where it says so already, and is of something else."""
    if not (out / MANIFEST).exists():
        write_json(out / MANIFEST, manifest)
    elif differing := first_difference(read_json(out / MANIFEST), manifest):
        key, before, now = differing
        raise InputError(
            f"{out} holds answers with another {key} ({brief(before)}, now {brief(now)}); choose another --out"
        )


# ---- in a process that works ----


def _worker(plan: _Plan) -> Worker:
    """What a process does with the number of a shard: it yields that number, inputs done and inputs cut, so far."""
    opened = Run.open(plan.run)
    if plan.seed is not None:
        opened.method.head.seed = plan.seed
    opened.method.to(plan.device)
    forward = forward_of(opened.encoder, plan.engine, plan.device, opened.config.precision)
    columns = AnswerColumns(opened, plan.tasks, forward)

    def work(number: int) -> Iterator[tuple[int, int, int]]:
        loads = _loads(opened, plan, number, columns.rows)
        with large_blocks_kept():
            for done, cut in _seldom(write_shard(shard_path(plan.out, number), columns, read_ahead(loads))):
                yield number, done, cut

    return work


def _seldom(events: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sums of all events so far, one every few seconds and one at the end: thousands of workers may have one listener."""
    done, cut, told = 0, 0, time.monotonic()
    for event in events:
        done, cut = done + event[0], cut + event[1]
        if time.monotonic() > told + SELDOM:
            yield done, cut
            told = time.monotonic()
    yield done, cut


def _loads(opened: Run, plan: _Plan, number: int, size: int) -> Iterator[Callable[[], ReadBatch]]:
    """Calls that read the batches of a shard."""
    encoder, noisy, reader = opened.encoder, not opened.method.without_layers, opened.config.encoder.reader
    if reader is None:
        paths = listed_pictures(plan.out / PICTURES, number)
        for start in range(0, len(paths), min(BATCH, size)):
            yield partial(picture_batch, encoder, paths[start : start + min(BATCH, size)], noisy)
        return
    if encoder.what == "text":
        size = min(at_once(encoder), size)
    start, stop, first = number * plan.size, number * plan.size + plan.of_shard(number), 0
    for path, rows in plan.files:
        begin, end = max(start - first, 0), min(stop - first, rows)
        if begin < end:
            for block in blocks_of(path, reader, begin, end, size):
                yield partial(block_batch, encoder, path, block, noisy)
        first += rows
