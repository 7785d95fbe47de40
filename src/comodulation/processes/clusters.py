"""Where `--cluster` says that pieces run: this machine, a Ray cluster that is there, or one started in a SLURM allocation."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InputError, RunError
from .addresses import HEAD_ADDRESS, answers, parsed
from .resources import Resources, usable_devices

LOCAL, SLURM = "local", "slurm"
COMING = 180.0  # seconds for the nodes of an allocation to come


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None = None) -> Iterator[Resources]:
    """While it holds, what an address of `--cluster` stands for.

    Args:
        address: ``local`` or None: this machine; ``slurm``: the nodes of the allocation that this process is in; HOST:PORT: the
            head of a Ray cluster of which this machine is a node.
        workers: of this machine; None: one a GPU, else one a CPU core.

    Raises:
        InputError: no such address, no cluster there, or one of another version of Ray or Python; Ray is not installed.
        RunError: nodes of the allocation do not come.
    """
    if address is None or address == LOCAL:
        yield Resources(workers or usable_devices())
        return
    if address != SLURM:
        parsed(address)
    if importlib.util.find_spec("ray") is None:
        raise InputError(f"--cluster {address} needs ray: pip install 'comodulation[cluster]'")
    if address == SLURM:
        from .slurm import ray_in_allocation

        with ray_in_allocation() as (head, nodes, ended), _connected(head, nodes, ended) as resources:
            yield resources
        return
    with _connected(address) as resources:
        yield resources


@contextlib.contextmanager
def _connected(address: str, nodes: int = 1, ended: Callable[[], str | None] = lambda: None) -> Iterator[Resources]:
    """Be a driver of a Ray cluster, which has to have so many nodes; ``ended`` as in ``ray_in_allocation``."""
    if reason := answers(address):
        raise InputError(
            f"no cluster at {address}: {reason}; start its head there (ray start --head) and this machine as one of its nodes"
        )
    import ray

    # Ray prints what it has to tell of lost processes on standard output, which is the result's, and does so until it has ended.
    with contextlib.redirect_stdout(sys.stderr):
        # Ray has its workers look for modules in the folder in which a driver begins. Among someone's data may lie a yaml.py.
        with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
            try:
                ray.init(address=address, logging_level="ERROR", log_to_driver=False, configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise InputError(f"no cluster at {address} that this command can use: {error}") from error
        try:
            _await_nodes(nodes, ended)
            yield _resources(address, ray.cluster_resources())
        finally:
            # Ray would wait a minute for a head that is gone before it ends the process.
            ending = threading.Thread(target=ray.shutdown, daemon=True)
            ending.start()
            ending.join(None if answers(address) is None else 1.0)


def _await_nodes(number: int, ended: Callable[[], str | None]) -> None:
    """Wait until the cluster that this process is connected to has so many nodes. Raises RunError where they do not come."""
    import ray

    ends = time.monotonic() + COMING
    while (there := sum(node["Alive"] for node in ray.nodes())) < number:
        if (said := ended()) is not None:
            raise RunError(f"{there} of {number} nodes have joined, and srun has ended: {said or 'it says nothing'}")
        if time.monotonic() > ends:
            raise RunError(
                f"{there} of {number} nodes have joined within {COMING:.0f} s; see that the others reach this one at its address, "
                f"or give them another one with {HEAD_ADDRESS}"
            )
        time.sleep(0.2)


def _resources(address: str, there: dict[str, Any]) -> Resources:
    """A GPU for each piece and its share of the cores, where the cluster has GPUs; else a core for each."""
    cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if not cores:
        raise InputError(f"the cluster at {address} has no CPU core to offer; start its nodes with --num-cpus")
    if gpus:
        return Resources(gpus, max(1, cores // gpus), 1, address)
    return Resources(cores, 1, 0, address)


def node_name() -> str:
    """This machine, as messages call it."""
    import ray

    return f"{os.uname().nodename} ({ray.util.get_node_ip_address()})"
