"""Clusters of Ray on this machine: nodes that are processes of their own, on addresses of the loopback, and can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory", "80000000"]


def environment(**more: str) -> dict[str, str]:
    """What nodes and drivers are started with: this package, the tests' helpers, one thread, nothing told to anyone."""
    paths = [str(HERE / "src"), str(HERE / "tests")]
    own = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **more}
    return {**os.environ, **own}


def end(process: subprocess.Popen) -> None:
    """Kill a process and all that it has started, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid)
        for one in [*tree.children(recursive=True), tree]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
    process.wait()


class Nodes:
    """A head and other nodes, each with one core."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.others, self.last = folder, [], 2
        with socket.socket() as found:
            found.bind(("127.0.0.2", 0))
            self.port = found.getsockname()[1]
        self.address = f"127.0.0.2:{self.port}"
        self.head = self.start_head()

    def start_head(self) -> subprocess.Popen:
        words = ["--head", "--node-ip-address", "127.0.0.2", "--port", str(self.port), "--temp-dir", str(self.folder)]
        words += ["--include-dashboard", "false", "--disable-usage-stats", "--num-cpus", "1"]
        self.head = self._start(words, {})
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.2", self.port), 1).close()
                return self.head
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def add(self, **more: str) -> subprocess.Popen:
        """Another node, on an address of its own."""
        self.last += 1
        words = ["--address", self.address, "--node-ip-address", f"127.0.0.{self.last}", "--num-cpus", "1"]
        self.others.append(self._start(words, more))
        return self.others[-1]

    def _start(self, words: list[str], more: dict[str, str]) -> subprocess.Popen:
        with open(f"{self.folder}.log", "ab") as log:
            return subprocess.Popen(
                [*RAY, *words], env=environment(**more), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )


@contextlib.contextmanager
def nodes(number: int = 2) -> Iterator[Nodes]:
    """So many nodes; all are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a longer path would not do for a socket
    made = Nodes(folder)
    try:
        for _ in range(number - 1):
            made.add()
        yield made
    finally:
        for one in [*made.others, made.head]:
            end(one)
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.log").unlink(missing_ok=True)


def command(*arguments: object, **more: str) -> subprocess.Popen:
    """``comodulate ARGUMENTS`` as a process of its own."""
    words = [sys.executable, "-m", "comodulation", *map(str, arguments)]
    return subprocess.Popen(words, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen, seconds: float = 300) -> tuple[int, str, str]:
    """Status and streams of a process; one that does not end is killed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    return process.returncode, out, err


def until(true, seconds: float = 120) -> None:
    """Wait until something is true."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.02)
