"""Several processes of one command: on this machine started here, on several by torchrun.

Both tell a process its place by the environment variables of torchrun. `launch` runs the command of this process N times and does
nothing but watch: all end together, with the exit status of the one that failed and one message. (Fabric's launcher has the first
process watch the others; when one fails it kills the first, whose exit status and message are then lost.) Not by torchrun's agent:
its processes inherit no descriptor that could tell them that their launcher was killed, and would go on without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NoReturn

from ..errors import InputError
from ..processes import SAFE_PATH

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "COMODULATION_LAUNCHER"  # the descriptor that ends when the process that launched this one does
LOST = 3  # exit status of a process that ended only because another one had: what happened, that one says
GRACE = 5.0  # seconds that processes get to end by themselves once one has failed; longer after Ctrl-C
_INTERRUPTED = "error: interrupted; what is finished is kept, the same command with --resume continues"


@dataclass(frozen=True)
class Place:
    """A process's place among those that were started together.

    Attributes:
        rank, number: place among all, and how many there are.
        local_number: how many of them are on this machine; as many on every other.
    """

    rank: int = 0
    number: int = 1
    local_number: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Place:
        """As torchrun or ``launch`` says. Raises InputError for machines with different numbers of processes."""
        environment = os.environ if environment is None else environment
        if any(name not in environment for name in PLACE):
            return cls()
        try:
            rank, number, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        except ValueError as error:
            raise InputError(f"RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be whole numbers: {error}") from error
        if not 0 <= rank < number or local < 1 or number % local:
            raise InputError(
                f"process {rank} of {number}, {local} of them on this machine: every machine must have the same number of processes"
            )
        return cls(rank, number, local)


def launched() -> bool:
    """Whether this process was started by ``launch``."""
    return LAUNCHER in os.environ


def follow_launcher() -> None:
    """End at once when the process that launched this one is gone, however it ended."""
    if not launched():
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(int(os.environ[LAUNCHER]), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="follow-launcher").start()


def launch(number: int, command: Sequence[str]) -> int:
    """Run a command as several processes on this machine until all have ended.

    The first has this process's streams. What another one writes is shown where it is the one that failed. Ctrl-C goes to the
    first, which ends in order; then all others are ended.

    Args:
        number: of processes.
        command: program and arguments.

    Returns:
        0 where all have done their work; else the exit status of the one that failed, 1 where it was killed or interrupted.
    """
    words = list(command)
    end, held = os.pipe()
    shared = {
        "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(), LAUNCHER: end,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, held)
        stack.callback(os.close, end)
        logs: list[IO[bytes]] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(number)]
        workers: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, workers)
        try:
            for rank in range(number):
                place = {**shared, "RANK": rank, "LOCAL_RANK": rank}
                environment = {**os.environ, **SAFE_PATH, **{name: str(value) for name, value in place.items()}}
                quiet = subprocess.DEVNULL if rank else None
                # A process group of its own: Ctrl-C comes here, and is handed on once.
                worker = subprocess.Popen(
                    words, env=environment, pass_fds=(end,), process_group=0,
                    stdin=quiet, stdout=quiet, stderr=logs[rank] if rank else None,
                )  # fmt: skip
                workers.append(worker)
            _wait(workers)
        except KeyboardInterrupt:
            return _interrupted(workers)
        return _outcome(workers, logs)


def leave_lost() -> NoReturn:
    """End this process because another one is gone. At once: threads that still wait for it would abort an exit in order."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(LOST)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait(workers: list[subprocess.Popen[bytes]]) -> None:
    """Until all processes have ended, or one has failed and the others have had time to end, too."""
    ends = None
    while None in (codes := [worker.poll() for worker in workers]):
        if ends is None and any(codes):
            ends = time.monotonic() + GRACE
        if ends is not None and time.monotonic() > ends:
            return
        time.sleep(0.05)


def _outcome(workers: list[subprocess.Popen[bytes]], logs: list[IO[bytes]]) -> int:
    """Exit status of all; says what happened where the first process has not."""
    codes = [worker.poll() for worker in workers]
    # Killed from outside, or failed by itself: in doubt the first process, which has said why.
    failed = [rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)]
    if not failed:
        return 1 if any(codes) or None in codes else 0
    rank = failed[0]
    code = codes[rank]
    assert code is not None
    if code < 0:
        name = signal.Signals(-code).name
        _say(
            f"error: process {rank + 1} of {len(workers)} was ended by {name}; the same command with --resume continues"
        )
        return 1
    if rank:
        logs[rank].seek(0)
        sys.stderr.write(logs[rank].read().decode(errors="replace"))
    return code


def _interrupted(workers: list[subprocess.Popen[bytes]]) -> int:
    """Hand Ctrl-C on to the first process, which says so; where it cannot, say it here."""
    with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):  # a second Ctrl-C ends the waiting
        if workers and workers[0].poll() is None:
            workers[0].send_signal(signal.SIGINT)
        if workers and workers[0].wait(2 * GRACE) >= 0:
            return 1
    _say(_INTERRUPTED)
    return 1


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()  # every file is written whole or not at all: there is nothing to be finished
    for worker in workers:
        worker.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr)
