"""A Ray cluster on the nodes of a SLURM allocation, for as long as one command runs.

The command runs once, on the first node, in a script of `sbatch` or a shell of `salloc`. The head of the cluster is started here,
the other nodes by `srun`, each with the CPU cores that SLURM gives it there; all of them end with the command.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from ..errors import InputError, RunError
from .addresses import HEAD_ADDRESS, answers

STARTING = 180.0  # seconds for the head to start
ENDING = 20.0  # seconds for a node to end by itself
LAST = 4096  # bytes of what a process has printed, in which its last line is looked for
_RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory", str(2**27)]


@contextlib.contextmanager
def ray_in_allocation() -> Iterator[tuple[str, int, Callable[[], str | None]]]:
    """Start Ray on every node of the allocation.

    Yields:
        The head's address, how many nodes there are to be, and what to call for the last line that srun has printed, once it has
        ended: None until then.

    Raises:
        InputError: there is no allocation here, or no srun.
        RunError: the head does not start.
    """
    given = os.environ
    if "SLURM_JOB_ID" not in given:
        raise InputError("--cluster slurm: there is no SLURM allocation here; run the command inside sbatch or salloc")
    nodes = int(given.get("SLURM_JOB_NUM_NODES", "1"))
    srun = shutil.which("srun")
    if nodes > 1 and srun is None:
        raise InputError(f"--cluster slurm: the allocation has {nodes} nodes, and there is no srun to start them with")
    environment = {**given, "RAY_USAGE_STATS_ENABLED": "0"}
    own = given.get(HEAD_ADDRESS) or _own_address()
    cores = given.get("SLURM_CPUS_ON_NODE", "1")
    with contextlib.ExitStack() as stack:
        log, others_log = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        address = f"{own}:{_free_port(own)}"
        words = ["--head", "--port", address.rpartition(":")[2], "--node-ip-address", own, "--temp-dir", folder]
        words += ["--include-dashboard", "false", "--disable-usage-stats", "--num-cpus", cores]
        head = subprocess.Popen([*_RAY, *words], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        stack.callback(_end, head)
        _await_head(head, address, log)
        step: subprocess.Popen[bytes] | None = None
        if nodes > 1:
            start = f'exec {shlex.join([*_RAY, "--address", address])} --num-cpus "${{SLURM_CPUS_ON_NODE:-1}}"'
            each = given.get("SLURM_CPUS_PER_TASK", cores)
            assert srun is not None
            others = [
                srun,
                f"--nodes={nodes - 1}",
                f"--ntasks={nodes - 1}",
                f"--cpus-per-task={each}",
                "--cpu-bind=none",
            ]
            others += [f"--exclude={given['SLURMD_NODENAME']}"] if "SLURMD_NODENAME" in given else []
            step = subprocess.Popen(
                [*others, "sh", "-c", start], env=environment, stdout=others_log, stderr=others_log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(_end, step)

        def ended() -> str | None:
            return None if step is None or step.poll() is None else _last_line(others_log)

        yield address, nodes, ended


def _await_head(head: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> None:
    ends = time.monotonic() + STARTING
    while reason := answers(address):
        if head.poll() is not None or time.monotonic() > ends:
            raise RunError(f"the head of the cluster does not start at {address}: {_last_line(log) or reason}")
        time.sleep(0.2)


def _last_line(log: IO[bytes]) -> str:
    """What a process has printed last, read without moving where it writes."""
    size = os.fstat(log.fileno()).st_size
    lines = os.pread(log.fileno(), LAST, max(0, size - LAST)).decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _own_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _free_port(address: str) -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
