"""Several processes, a seed (or a search) being the unit; each has its own device, or its share of the CPU's threads."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from queue import Empty
from typing import Any, TypeVar

from ...errors import InputError, RunError
from ...training import safe_children

Job = tuple[str, Any]  # a name for messages, and what the worker's function is called with
Event = tuple[str, Any]
Unit = TypeVar("Unit")
PATIENCE = 5.0  # seconds for a process to end


def usable_devices() -> int:
    """How many processes a study uses unless told: one a GPU, else one a CPU core."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def in_rounds(units: Sequence[Sequence[Unit]], devices: int) -> list[Sequence[Unit]]:
    """Units of work as jobs: whole ones as long as there is one for each process, the rest cut so that each has a part of it.

    A process that goes on with another unit must prepare for it: no more is cut than is needed for none to be idle.

    >>> in_rounds(["aaaa", "bbbb", "cccc"], 2)
    ['aaaa', 'bbbb', 'cc', 'cc']
    >>> in_rounds(["a", "bbb"], 3)
    ['a', 'b', 'b', 'b']
    """
    whole = len(units) - len(units) % devices
    parts = list(units[:whole])
    for unit in units[whole:]:
        cuts = [len(unit) * place // devices for place in range(devices + 1)]
        parts += [unit[start:end] for start, end in itertools.pairwise(cuts) if start < end]
    return parts


def run_jobs(
    jobs: Sequence[Job],
    make_worker: Callable[..., Callable[[Any, Callable[[Any], None]], None]],
    arguments: tuple[Any, ...],
    devices: int,
    on_event: Callable[[Any], None],
) -> None:
    """Run jobs in ``devices`` processes (in this one if there is one job or one device).

    Args:
        jobs: taken in order, each by the next free process.
        make_worker: called once in each process with ``arguments``; returns a function of (job, send).
        arguments: picklable.
        devices: number of processes.
        on_event: called in this process with whatever the workers send.

    Raises:
        InputError, RunError: as raised in a worker; the other processes are stopped.
    """
    count = min(devices, len(jobs))
    if count <= 1:
        worker = make_worker(*arguments) if jobs else None
        for _, job in jobs:
            assert worker is not None
            worker(job, on_event)
        return
    context = multiprocessing.get_context("spawn")
    with safe_children():
        todo: Any = context.Queue()
        events: Any = context.Queue()
        for job in (*jobs, *[None] * count):
            todo.put(job)
        processes = [
            context.Process(target=_work, args=(place, count, make_worker, arguments, todo, events), daemon=True)
            for place in range(count)
        ]
        for process in processes:
            process.start()
    try:
        finished = 0
        while finished < count:
            try:
                kind, value = events.get(timeout=1.0)
            except Empty:
                kind, value = "nothing", None
            dead = [process for process in processes if process.exitcode not in (None, 0)]
            # In this order: what a process has sent is there to be read before the process is gone.
            if kind == "nothing" and not any(process.is_alive() for process in processes) and events.empty():
                dead = processes
            if dead:
                raise RunError(
                    f"a worker process ended with status {dead[0].exitcode} (killed, or out of memory); the same "
                    "command goes on from what is finished"
                )
            if kind == "event":
                on_event(value)
            elif kind == "done":
                finished += 1
            elif kind != "nothing":
                raise (InputError if kind == "input" else RunError)(value)
        for process in processes:  # they end by themselves, and leave nothing behind
            process.join(PATIENCE)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE)
            process.kill()


def _work(place: int, count: int, make_worker: Any, arguments: tuple[Any, ...], todo: Any, events: Any) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that locks which libraries hold are given back
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(place % torch.cuda.device_count())
        else:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // count))
        worker = make_worker(*arguments)
        while (job := todo.get()) is not None:
            worker(job[1], lambda value: events.put(("event", value)))
        events.put(("done", None))
    except InputError as error:
        events.put(("input", str(error)))
    except RunError as error:
        events.put(("run", str(error)))
    except Exception:  # whatever it is, the parent must hear of it, with the place where it happened
        events.put(("run", "a worker failed: " + traceback.format_exc(limit=-3)))


def _end_with_parent() -> None:
    """End this process when its parent is gone: the next command must find no one else at work in the folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class Clock:
    """Time left, from the cost of what is finished: the mean seconds of finished units, by kind."""

    def __init__(self, total: dict[str, int], devices: int) -> None:
        self.left, self.devices = dict(total), devices
        self.spent: dict[str, list[float]] = {kind: [] for kind in total}
        self.began = time.perf_counter()

    def finish(self, kind: str, seconds: float) -> None:
        self.left[kind] -= 1
        self.spent[kind].append(seconds)

    def remaining(self) -> float | None:
        """Seconds left; None before anything is known."""
        known = [value for values in self.spent.values() for value in values]
        if not known:
            return None
        mean = sum(known) / len(known)
        each = {kind: sum(values) / len(values) if values else mean for kind, values in self.spent.items()}
        return sum(max(0, count) * each[kind] for kind, count in self.left.items()) / self.devices
