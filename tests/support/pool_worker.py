"""What the processes of test_studies_pool.py do; on its own, so that they need not import the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comodulation.errors import InputError, RunError


def worker(prefix: str) -> Callable[[Any, Callable[[Any], None]], None]:
    """Sends (prefix, job, process) twice for a job, unless the job says what else to do."""

    kept: list[Any] = []

    def work(job: Any, send: Callable[[Any], None]) -> None:
        if job == "input":
            raise InputError("a column is missing")
        if job == "run":
            raise RunError("the disk is full")
        if job == "bug":
            raise KeyError("no such place")
        if job == "wait":
            time.sleep(2)
            return
        if job == "lock":
            kept.append(multiprocessing.RLock())  # as libraries do; the system must get it back
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "leave":
            os._exit(0)
        if isinstance(job, Path):
            job.write_text(str(os.getpid()))
            time.sleep(600)
        send((prefix, job, os.getpid()))
        send((prefix, job, os.getpid()))

    return work
