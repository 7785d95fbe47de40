"""The command line as tests call it: in this process, with its streams and exit status."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
