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
    cores = given.get("SLURM_CPUS_ON_NODE", "1")
    with contextlib.ExitStack() as stack:
        address = _start_head(stack, cores)
        if srun is None or nodes < 2:
            yield address, nodes, lambda: None
            return
        words = [srun, f"--nodes={nodes - 1}", f"--ntasks={nodes - 1}", "--cpu-bind=none"]
        words.append(f"--cpus-per-task={given.get('SLURM_CPUS_PER_TASK', cores)}")
        words += [f"--exclude={given['SLURMD_NODENAME']}"] if "SLURMD_NODENAME" in given else []
        each = f'exec {shlex.join([*_RAY, "--address", address])} --num-cpus "${{SLURM_CPUS_ON_NODE:-1}}"'
        step, log = _start(stack, [*words, "sh", "-c", each])
        yield address, nodes, lambda: None if step.poll() is None else _last_line(log)


def _start_head(stack: contextlib.ExitStack, cores: str) -> str:
    """Start the head of the cluster, which ends with the stack. Returns its address, once it answers there."""
    own = os.environ.get(HEAD_ADDRESS) or _own_address()
    port = _free_port(own)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
    words = ["--head", "--port", str(port), "--node-ip-address", own, "--temp-dir", folder]
    words += ["--include-dashboard", "false", "--disable-usage-stats", "--num-cpus", cores]
    head, log = _start(stack, [*_RAY, *words])
    address, ends = f"{own}:{port}", time.monotonic() + STARTING
    while reason := answers(address):
        if head.poll() is not None or time.monotonic() > ends:
            raise RunError(f"the head of the cluster does not start at {address}: {_last_line(log) or reason}")
        time.sleep(0.2)
    return address


def _start(stack: contextlib.ExitStack, words: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a program that ends with the stack; with what it prints."""
    log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    stack.callback(_end, process)
    return process, log


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
