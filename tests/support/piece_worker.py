"""What the processes of tests/processes/test_pool.py do; on its own, so that they need not import the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from comodulation.errors import InputError, RunError


def worker(prefix: str) -> Callable[[Any], Iterator[Any]]:
    """Yields (prefix, piece, process) twice for a piece, unless the piece says what else to do."""

    kept: list[Any] = []

    def work(piece: Any) -> Iterator[Any]:
        if piece == "input":
            raise InputError("a column is missing")
        if piece == "run":
            raise RunError("the disk is full")
        if piece == "bug":
            raise KeyError("no such place")
        if piece == "wait":
            time.sleep(2)
            return
        if piece == "long":
            kept.append(multiprocessing.RLock())
            time.sleep(600)
        if piece == "lock":
            kept.append(multiprocessing.RLock())  # as libraries do; the system must get it back
        if piece == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if piece == "leave":
            os._exit(0)
        if isinstance(piece, Path):
            piece.write_text(str(os.getpid()))
            time.sleep(600)
        yield prefix, piece, os.getpid()
        yield prefix, piece, os.getpid()

    return work
