"""Pieces of work in several processes of this machine, each with its own GPU or its share of the threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from ..errors import InputError, RunError
from .children import safe_children
from .resources import Worker

PATIENCE = 20.0  # seconds for a process to end by itself
POLL = 0.2  # seconds between looks at what the processes have to say


def run_in_pool(
    pieces: Sequence[Any], count: int, make_worker: Callable[[], Worker], on_event: Callable[[Any], None]
) -> None:
    """Run pieces in ``count`` processes; see ``run``."""
    context = multiprocessing.get_context("spawn")
    before = {process.pid for process in multiprocessing.active_children()}
    processes: list[Any] = []
    with contextlib.ExitStack() as stack:
        with safe_children():  # the first queue starts a process, too
            events: Any = (
                context.SimpleQueue()
            )  # whatever was put into it is there before its piece is known to be done
            places: Any = context.SimpleQueue()
            for place in range(count):
                places.put(place)
            pool = ProcessPoolExecutor(count, context, _begin, (places, count, make_worker, events))
            stack.callback(_end_all, pool, processes)
            pending = {pool.submit(_do, piece) for piece in pieces}
            processes += [process for process in multiprocessing.active_children() if process.pid not in before]
        try:
            while pending:
                done, pending = wait(pending, POLL, FIRST_COMPLETED)
                while not events.empty():
                    on_event(events.get())
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise RunError(
                f"a worker process ended with status {_first_status(processes)} (killed, or out of memory); the same command "
                "continues from what is finished"
            ) from None
        pool.shutdown()  # the processes end by themselves, and leave nothing behind


def _end_all(pool: ProcessPoolExecutor, processes: Sequence[Any]) -> None:
    """Stop whatever still works."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    pool.shutdown(cancel_futures=True)


def _first_status(processes: Sequence[Any]) -> int | None:
    """How the process ended that the others were stopped for."""
    for process in processes:
        process.join(PATIENCE)
    return min((process.exitcode for process in processes), key=lambda status: status in (None, 1, -signal.SIGTERM))


# ---- in a process that works ----


@dataclass
class _AtWork:
    """What a process knows of its work."""

    make_worker: Callable[[], Worker]
    events: Any
    worker: Worker | None = None
    in_piece: bool = False


_at_work: _AtWork | None = None


def _begin(places: Any, count: int, make_worker: Callable[[], Worker], events: Any) -> None:
    global _at_work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(places.get() % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // count))
    _at_work = _AtWork(make_worker, events)
    signal.signal(signal.SIGTERM, _end)  # not before: the pool would print what ends this function


def _do(piece: Any) -> None:
    at_work = _at_work
    assert at_work is not None
    at_work.in_piece = True
    try:
        at_work.worker = at_work.worker or at_work.make_worker()
        for event in at_work.worker(piece):
            at_work.events.put(event)
    except InputError as error:
        raise InputError(str(error)) from None  # a kind of its own may not be sent
    except RunError as error:
        raise RunError(str(error)) from None
    except SystemExit:  # which the pool would keep for itself, and go on to the next piece
        _leave()
    except Exception:  # whatever it is, the parent must hear of it, with the place where it happened
        raise RunError("a worker failed: " + traceback.format_exc(limit=-3)) from None
    finally:
        at_work.in_piece = False


def _end(*_: object) -> None:
    """End this process; out of the middle of a piece as any error would lead."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    if _at_work is not None and _at_work.in_piece:
        sys.exit(1)
    _leave()


def _leave() -> None:
    """End as a process of multiprocessing that is done: locks which libraries hold are given back."""
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    os._exit(1)


def _end_with_parent() -> None:
    """End this process when its parent is gone: the next command must find no one else at work in the folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
