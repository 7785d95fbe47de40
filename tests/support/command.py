"""The command line as tests call it: in this process, with its streams and exit status."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import typer

from comodulation.app.cli.commands import app
from comodulation.app.cli.exits import run
from support.remembered import fit_probe_once

# A network of 0.4 million parameters with random weights: enough to tell colours apart, quick to build and run.
SMALL = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "32", "--channels", "16"]
SHORT = ["--epochs", "3", "--pretraining-epochs", "3", "--method", "comodulation"]
GROUPED = ["--group", "coarse_label", "--label", "fine_label"]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON object it must be."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1
        return value

    @property
    def line(self) -> str:
        """The one line on standard error of a refused or failed command."""
        assert self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("error: ")
        assert self.out == ""
        return self.err.strip()


_command = functools.cache(lambda: typer.main.get_command(app))  # a process of its own makes it once, too
_REMEMBERED = "comodulation.training.readouts.table.fit_probe"


def comodulate(*arguments: str | Path | int | float) -> Outcome:
    """Run ``comodulate ARGUMENTS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["comodulate", *(str(argument) for argument in arguments)]
    with (
        patch.object(sys, "argv", argv),
        patch(_REMEMBERED, fit_probe_once),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = run(_command())
    return Outcome(status, out.getvalue(), err.getvalue())


def comodulate_here(*arguments: object) -> int:
    """The command with this process's own streams, for a process of its own."""
    sys.argv = ["comodulate", *(str(argument) for argument in arguments)]
    with patch(_REMEMBERED, fit_probe_once):
        return run(_command())


def fit(data: Path, out: Path, cache: Path, *options: str | int | float, labels: list[str] | None = None) -> Outcome:
    """``comodulate fit`` on a small data set with the small network; of comodulation, where no method is named."""
    columns = GROUPED if labels is None else labels
    short = SHORT[:-2] if "--method" in options else SHORT
    return comodulate("fit", "--data", data, "--out", out, "--cache", cache, *columns, *SMALL, *short, *options)


@dataclass(frozen=True)
class Ended:
    """How a process of its own ended: exit status (negative: the signal that killed it) and what it wrote."""

    code: int
    out: str
    err: str


class Process:
    """A copy of this process that runs one call and exits with its result, so that it can be killed."""

    def __init__(self, folder: Path, call: Callable[[], int]) -> None:
        folder.mkdir()
        self.streams = folder / "out", folder / "err"
        self.number = os.fork()
        if self.number == 0:
            code = 70
            try:
                # A fork leaves torch's pool of threads to be built again by its first user; two at once meet half a pool.
                torch.set_num_threads(torch.get_num_threads())
                for descriptor, path in enumerate(self.streams, 1):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
                sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
                faulthandler.enable(sys.stderr)  # a crash says where it was
                gc.freeze()  # what is garbage here may own threads that the copy does not have, and would end them
                code = call()
            except BaseException:
                traceback.print_exc(file=sys.stderr)
            finally:
                sys.stdout.flush()
                os._exit(code)

    def ended(self) -> Ended | None:
        """How it ended, told once; None while it runs."""
        done, status = os.waitpid(self.number, os.WNOHANG)
        if not done:
            return None
        return Ended(os.waitstatus_to_exitcode(status), *(path.read_text() for path in self.streams))

    def wait(self, seconds: float = 120) -> Ended:
        """Wait for the end; a process that does not come to one is killed, and fails the test."""
        ends = time.monotonic() + seconds
        while True:
            if found := self.ended():
                return found
            if time.monotonic() > ends:
                os.kill(self.number, signal.SIGKILL)
                os.waitpid(self.number, 0)
                raise AssertionError(f"not done after {seconds:g} s: {self.streams[1].read_text()}")
            time.sleep(0.02)
