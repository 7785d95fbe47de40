"""What is computed of more inputs than fit into memory: in shards, on any number of processes, resumed shard by shard.

A folder of shards holds a manifest, which says what it is of, and ``part-000000.parquet``, ... in the order of the inputs. What
is in a shard depends on its columns' own settings, the inputs and the number of rows of a shard alone, so that it has the same
bytes wherever it was made; the arithmetic of a batch may depend on the number of threads, see docs/cluster.md.
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
from .shards import Columns, finished_shard, shard_path, write_shard
from .streamed_inputs import ReadBatch, block_batch, check_shape, picture_batch, read_ahead

LOCK = ".lock"
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
        make: the columns. out: folder of the shards.
        engine: not ``auto``. device: ``cuda`` or ``cpu``.
        files: of rows, and how many each has; none of pictures, which are listed beside the shards.
        rows: in all. size: of a shard.
    """

    make: Callable[[], Columns]
    out: Path
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

    def finished(self) -> list[int | None]:
        """Of each shard how many inputs could not be used; None where it is not there."""
        return [finished_shard(self.out, number, self.of_shard(number)) for number in range(self.shards)]


def stream(
    make: Callable[[], Columns],
    files: Sequence[Path],
    out: Path,
    *,
    engine: str = "auto",
    rows_per_shard: int | None = None,
    resume: bool = False,
    resources: Resources | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Streamed:
    """Compute columns of all inputs of some files; memory does not grow with their number.

    Args:
        make: the columns; called in each process, so that it has to be one that can be sent there.
        files: files and folders: images, tables or files of texts or embeddings, as the columns' reader finds them.
        out: folder to write, of this machine or of a bucket (``place``), new; with ``resume`` one of the same columns, of which
            finished shards stay.
        engine: of the encoder's pass, see ``Run.answers``.
        rows_per_shard: inputs of a shard; None: ``ROWS``, of pictures ``PICTURE_ROWS``.
        resources: where shards are made; None: in this process, one after the other.
        report: called with inputs done and inputs in all. say: told a line on what ``auto`` has chosen.

    Raises:
        InputError: bad input, known before anything is computed, but for inputs that cannot be used, see ``Columns.skip_bad``; a
            folder that holds something else or is in use.
        RunError: something failed; finished shards stay.
    """
    where = resources or Resources()
    tell = report or (lambda done, total: None)
    if rows_per_shard is not None and rows_per_shard < 1:
        raise InputError(f"--rows-per-shard must be at least 1, got {rows_per_shard}")
    columns = make()
    with reached(out):
        _check_folder(columns, out, resume)
    with _held(out):
        device = "cuda" if where.gpus or (where.cluster is None and torch.cuda.is_available()) else "cpu"
        new_pictures = _new_pictures(columns, out)
        try:
            plan = _planned(columns, make, files, out, engine, rows_per_shard, device, say)
            _claim(columns, out, _manifest(columns, plan))
        except InputError:
            new_pictures.unlink(missing_ok=True)
            raise
        if new_pictures.exists():
            move(new_pictures, out / columns.pictures)
        todo = [number for number, bad in enumerate(plan.finished()) if bad is None]
        done = plan.rows - sum(plan.of_shard(number) for number in todo)
        cut, heard = 0, dict.fromkeys(todo, (0, 0))
        tell(done, plan.rows)

        def on_event(event: tuple[int, int, int]) -> None:
            nonlocal done, cut
            number, rows, longer = event
            before, heard[number] = heard[number], (rows, longer)  # a shard whose process is lost begins again
            done, cut = done + rows - before[0], cut + longer - before[1]
            tell(done, plan.rows)

        shared = [out / columns.manifest, *columns.files, *(path for path, _ in plan.files)]
        run(todo, where, partial(_worker, plan), on_event, shared=[path.absolute() for path in shared])
        found = plan.finished()
        if None in found:
            raise RunError(
                f"{shard_path(out, found.index(None))} is not complete; the inputs may have changed while the command ran: choose "
                "another --out for the inputs as they are now"
            )
        bad = sum(one or 0 for one in found)
    return Streamed(columns.encoder.what, plan.rows, bad, cut, len(todo), plan.shards)


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


def _new_pictures(columns: Columns, out: Path) -> Path:
    """The list of pictures, until it is known to be the same as before."""
    return out / f".{columns.pictures}{PARTIAL}"


def _planned(
    columns: Columns,
    make: Callable[[], Columns],
    files: Sequence[Path],
    out: Path,
    engine: str,
    size: int | None,
    device: str,
    say: Callable[[str], None] | None,
) -> _Plan:
    reader, encoder, manifest = columns.reader, columns.encoder, out / columns.manifest
    counted: list[tuple[Path, int]] = []
    size = size or (PICTURE_ROWS if reader is None else ROWS)
    if reader is None:
        rows = write_picture_list([path.absolute() for path in files], _new_pictures(columns, out), size)
    else:
        counted = [(path.absolute(), rows_of(path, reader)) for path in row_files(files, reader)]
        rows = sum(number for _, number in counted)
        for path, number in counted:
            for first in blocks_of(path, reader, 0, min(1, number), 1):
                check_shape(encoder, path, first.inputs)
    if not rows:
        raise InputError(f"{brief(str(files[0]))} holds no {encoder.what}s")
    before = read_json(manifest).get("engine") if manifest.exists() else None
    if engine == "auto":  # what has begun goes on with what it began with
        engine = before or faster_engine(encoder, rows, device, columns.precision, say)
    if engine != "torch":  # which computes anywhere; the device may be another machine's
        forward_of(encoder, engine, device, columns.precision)
    return _Plan(make, out.absolute(), engine, device, tuple(counted), rows, size)


def _manifest(columns: Columns, plan: _Plan) -> dict[str, Any]:
    """What a folder of shards is of, as JSON. Paths are not in it: the same inputs may lie elsewhere when it is resumed."""
    pictures = _new_pictures(columns, plan.out)
    listed = {"list": _hash(pictures) if pictures.exists() else ""}
    return {
        "form": FORM,
        **columns.about(),
        "engine": plan.engine,
        "device": plan.device,
        "inputs": [{"name": path.name, "rows": rows, **sight(path)} for path, rows in plan.files] or [listed],
        "rows": plan.rows,
        "rows_per_shard": plan.size,
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(columns: Columns, out: Path, resume: bool) -> None:
    holds, manifest = columns.holds, columns.manifest
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder to write {holds} to")
    found = {path.name for path in out.iterdir()} - {LOCK} if out.exists() else set()
    if manifest in found and not resume:
        raise InputError(f"{out} holds {holds} already; --resume continues them, another --out makes new ones")
    if found and manifest not in found and not all(name.startswith(".") or name == columns.pictures for name in found):
        raise InputError(f"{out} is not empty and no folder of {holds}; choose another --out")


def _claim(columns: Columns, out: Path, manifest: dict[str, Any]) -> None:
    """Say what a folder is of. Raises InputError where it says so already, and is of something else."""
    path = out / columns.manifest
    if not path.exists():
        write_json(path, manifest)
    elif differing := first_difference(read_json(path), manifest):
        key, before, now = differing
        raise InputError(
            f"{out} holds {columns.holds} with another {key} ({brief(before)}, now {brief(now)}); choose another --out"
        )


# ---- in a process that works ----


def _worker(plan: _Plan) -> Worker:
    """What a process does with the number of a shard: it yields that number, inputs done and inputs cut, so far."""
    columns = plan.make()
    columns.use(plan.engine, plan.device)

    def work(number: int) -> Iterator[tuple[int, int, int]]:
        batches = read_ahead(_loads(columns, plan, number))
        with large_blocks_kept():
            for done, cut in _seldom(write_shard(shard_path(plan.out, number), columns, _usable(columns, batches))):
                yield number, done, cut

    return work


def _usable(columns: Columns, batches: Iterator[ReadBatch]) -> Iterator[ReadBatch]:
    """Batches as they are. Raises InputError for an input that cannot be used, unless such are named beside the others."""
    for batch in batches:
        if batch.errors and not columns.skip_bad:
            raise InputError(
                f"{batch.errors[min(batch.errors)]}; with --skip-bad the command continues without it; finished files stay"
            )
        yield batch


def _seldom(events: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sums of all events so far, one every few seconds and one at the end: thousands of workers may have one listener."""
    done, cut, told = 0, 0, time.monotonic()
    for event in events:
        done, cut = done + event[0], cut + event[1]
        if time.monotonic() > told + SELDOM:
            yield done, cut
            told = time.monotonic()
    yield done, cut


def _loads(columns: Columns, plan: _Plan, number: int) -> Iterator[Callable[[], ReadBatch]]:
    """Calls that read the batches of a shard."""
    encoder, noisy, reader, size = columns.encoder, columns.noisy, columns.reader, columns.rows
    if reader is None:
        paths = listed_pictures(plan.out / columns.pictures, number)
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
