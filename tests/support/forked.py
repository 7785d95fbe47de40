"""Processes that are copies of this one: real processes, with streams, signals and exit statuses, that need not import anything.

``Forked`` writes into pipes, for tests that read along; ``Process`` into files, for tests that look at the end.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import torch


class Forked:
    """A copy of this process that makes one call, with what tests use of the interface of ``subprocess.Popen``.

    Args:
        call: what the copy does. What it returns is its exit status; None is 0.
        env: further variables of its environment. cwd: its folder.
    """

    def __init__(self, call: Callable[[], int | None], *, env: Mapping[str, str] = {}, cwd: Path | None = None) -> None:
        pipes = [os.pipe(), os.pipe()]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            # An end of a pipe that stays open here would never end for its reader.
            _do(call, [written for _, written in pipes], env, cwd, closed=range(3, max(map(max, pipes)) + 1))
        for _, written in pipes:
            os.close(written)
        self.stdout, self.stderr = (os.fdopen(read, "rb", buffering=0) for read, _ in pipes)

    def poll(self) -> int | None:
        """Exit status, negative for the signal that ended it; None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        ends = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.005)
        return status

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Both streams to their ends, as text, and the end of the process."""
        ends = time.monotonic() + timeout
        kept: dict[IO[bytes], bytes] = {self.stdout: b"", self.stderr: b""}
        with selectors.DefaultSelector() as selector:
            for stream in kept:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                if time.monotonic() > ends:
                    raise subprocess.TimeoutExpired("a forked process", timeout)
                for key, _ in selector.select(0.1):
                    stream: Any = key.fileobj
                    part = os.read(stream.fileno(), 2**16)
                    kept[stream] += part
                    if not part:
                        selector.unregister(stream)
        for stream in kept:
            stream.close()
        self.wait(max(0.0, ends - time.monotonic()))
        return kept[self.stdout].decode(), kept[self.stderr].decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a process of its own ended: exit status (negative: the signal that killed it) and what it wrote."""

    code: int
    out: str
    err: str


class Process:
    """A copy of this process that runs one call and exits with its result; its streams are files of a new folder."""

    def __init__(self, folder: Path, call: Callable[[], int]) -> None:
        folder.mkdir()
        self.streams = folder / "out", folder / "err"
        self.number = os.fork()
        if self.number == 0:
            _do(call, [os.open(path, os.O_WRONLY | os.O_CREAT) for path in self.streams])

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


def _do(
    call: Callable[[], int | None],
    streams: Sequence[int],
    env: Mapping[str, str] = {},
    cwd: Path | None = None,
    closed: range = range(0),
) -> NoReturn:
    code: Any = 70
    try:
        for descriptor, stream in enumerate(streams, 1):
            os.dup2(stream, descriptor)
        if closed:  # of an empty range, CPython closes everything
            os.closerange(closed.start, closed.stop)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        faulthandler.enable(sys.stderr)  # a crash says where it was
        os.environ.update(env)
        if cwd is not None:
            os.chdir(cwd)
        # A fork leaves torch's pool of threads to be built again by its first user; two at once meet half a pool.
        torch.set_num_threads(torch.get_num_threads())
        gc.freeze()  # what is garbage here may own threads that the copy does not have, and would end them
        code = call() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
