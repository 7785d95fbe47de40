"""Faults on purpose: the real command killed at a random moment, its last file torn as a power cut would, and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np

from support.command import comodulate_here
from support.forked import Ended, Process

# How a command ends before its time. The last three are power cuts: SIGKILL, and the file that was written last is
# shorter than it was, empty, or has zeros in place of its end, as a page that never reached the disk.
KINDS = ("SIGKILL", "SIGTERM", "cut", "emptied", "zeroed")
LIMIT = 1800.0  # seconds after which a command is given up: a busy machine may take its time
SETTLE = 60.0  # seconds within which the processes of a killed command must be gone


class Running(Protocol):
    """A command at work: its number, its standard error so far, and how it ends."""

    number: int
    streams: tuple[Path, Path]

    def wait(self, seconds: float = 120) -> Ended: ...


Launch = Callable[[Path, Sequence[object]], Running]  # (new folder for its streams, arguments) -> the command at work


class Started:
    """``python -m comodulation`` in a process group of its own, on one thread unless told otherwise."""

    def __init__(self, folder: Path, arguments: Sequence[object], threads: int = 1) -> None:
        folder.mkdir()
        self.streams = folder / "out", folder / "err"
        words = [sys.executable, "-m", "comodulation", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with open(self.streams[0], "wb") as out, open(self.streams[1], "wb") as err:
            self.process = subprocess.Popen(words, stdout=out, stderr=err, env=environment, start_new_session=True)
        self.number = self.process.pid

    def wait(self, seconds: float = LIMIT) -> Ended:
        """Wait for the end; a command that does not come to one is killed, and fails the test."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.number, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"not done after {seconds:g} s: {self.streams[1].read_text()}") from None
        return Ended(code, *(path.read_text() for path in self.streams))


def forked(folder: Path, arguments: Sequence[object]) -> Process:
    """The command in a copy of this process, which has loaded everything already, in a process group of its own."""

    def call() -> int:
        os.setsid()
        return comodulate_here(*arguments)

    return Process(folder, call)


@dataclass(frozen=True)
class Phase:
    """A part of a command's work.

    Attributes:
        name: of the part.
        begins: what standard error holds once it has begun.
    """

    name: str
    begins: str


@dataclass(frozen=True)
class Round:
    """What was done in one round, and how the command that continued ended."""

    phase: str
    kind: str
    reached: str
    torn: str
    code: int
    resumed: Ended


def measure(launch: Launch, folder: Path, arguments: Sequence[object], phases: Sequence[Phase]) -> dict[str, float]:
    """Run a command to its end. Returns the seconds that each of its phases took, by name."""
    running, began = launch(folder, arguments), {}
    while not _ended(running):
        text = _said(running)
        for phase in phases:
            if phase.begins in text:
                began.setdefault(phase.name, time.monotonic())
        time.sleep(0.002)
    ended = running.wait(LIMIT)
    assert ended.code == 0, ended.err
    ends = [*list(began.values())[1:], time.monotonic()]
    assert list(began) == [phase.name for phase in phases], (began, ended.err)
    return {name: end - begin for (name, begin), end in zip(began.items(), ends, strict=True)}


def kill_at(
    launch: Launch,
    folder: Path,
    arguments: Sequence[object],
    phases: Sequence[Phase],
    place: int,
    delay: float,
    number: int,
) -> tuple[Ended, str]:
    """Send a command's process group a signal, some seconds after one of its phases has begun.

    Returns:
        How it ended, and the name of the last phase that had begun; it may have come to its end before the signal.
    """
    running = launch(folder, arguments)
    while phases[place].begins not in _said(running) and not _ended(running):
        time.sleep(0.001)
    ends = time.monotonic() + delay
    while time.monotonic() < ends and not _ended(running):
        time.sleep(min(0.002, delay))
    if not _ended(running):
        os.killpg(running.number, number)
    ended = running.wait(LIMIT)
    reached = [phase.name for phase in phases if phase.begins in ended.err]
    _gone(running.number)
    return ended, (reached or ["before"])[-1]


def tear(folders: Sequence[Path], kind: str, generator: np.random.Generator) -> Path | None:
    """Damage the file that was written last as a power cut would.

    Args:
        folders: where it is looked for. Locks hold nothing; files that are not yet in their place are half-written anyway.
        kind: cut, emptied or zeroed. generator: draws how much is left.

    Returns:
        The file; None where nothing has been written.
    """
    files = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "lock") and path.suffix != ".partial" and path.stat().st_size
    ]
    if not files:
        return None
    last = max(files, key=lambda path: path.stat().st_mtime_ns)
    content = last.read_bytes()
    kept = 0 if kind == "emptied" else int(generator.integers(0, len(content)))
    last.write_bytes(content[:kept] + (bytes(len(content) - kept) if kind == "zeroed" else b""))
    return last


def play_round(
    launch: Launch,
    folder: Path,
    first: Sequence[object],
    again: Sequence[object],
    written: Sequence[Path],
    phases: Sequence[Phase],
    seconds: dict[str, float],
    place: int,
    kind: str,
    generator: np.random.Generator,
) -> Round:
    """Kill a command within a phase, at a moment drawn uniformly, tear its last file if the kind says so, and resume it.

    Args:
        launch: how commands are started. folder: new folder for their streams.
        first, again: arguments of the command, and of the one that continues.
        written: folders the command writes to.
        phases, seconds: parts of the command, and how long each took where nothing disturbed it.
        place, kind: which phase, and which of ``KINDS``. generator: draws the moment and what is left of the file.
    """
    folder.mkdir()
    number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
    delay = float(generator.uniform(0, seconds[phases[place].name]))
    ended, reached = kill_at(launch, folder / "killed", first, phases, place, delay, number)
    assert ended.code in (-number, 0), ended.err  # 0: it was at its end before the signal came
    last = tear(written, kind, generator) if kind in KINDS[2:] else None
    resumed = launch(folder / "resumed", again).wait(LIMIT)
    return Round(phases[place].name, kind, reached, last.name if last else "", ended.code, resumed)


def without_times(value: Any) -> Any:
    """A JSON value without what took how long."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.startswith("seconds")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def differences(folder: Path, reference: Path) -> list[str]:
    """What two finished runs differ in: files of weights and predictions by the byte, metrics but for times, what is there."""
    found = sorted({path.name for path in folder.iterdir()} ^ {path.name for path in reference.iterdir()})
    for name in ("config.yaml", "head.safetensors", "adapter.safetensors", "predictions.parquet"):
        if name not in found and (folder / name).read_bytes() != (reference / name).read_bytes():
            found.append(name)
    if "metrics.json" not in found:
        read = [without_times(json.loads((path / "metrics.json").read_text())) for path in (folder, reference)]
        found += ["metrics.json"] if read[0] != read[1] else []
    return found


def tree(folder: Path) -> set[str]:
    """Names of all that is in a folder, from there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def larger_data(folder: Path, train: int, test: int) -> Path:
    """The small data set with other numbers of images."""
    from support.synthetic import ROWS, write

    with patch.dict(ROWS, train=train, test=test):
        return write(folder)


def _ended(running: Running) -> bool:
    """Whether a process has come to its end, which it is still to be asked about."""
    try:
        found = os.waitid(os.P_PID, running.number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # someone has asked
        return True
    return found is not None


def _said(running: Running) -> str:
    """What a command has written to standard error so far."""
    return running.streams[1].read_text() if running.streams[1].exists() else ""


def _gone(group: int) -> None:
    """Wait until no process of a group is left, which would go on writing."""
    ends = time.monotonic() + SETTLE
    while time.monotonic() < ends:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError(f"processes of group {group} are left")
