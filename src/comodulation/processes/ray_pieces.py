"""Pieces of work on the nodes of a Ray cluster: each is a task of Ray, whose events stream back.

Ray itself would run a lost task again, too, but could not tell a caller that it does, nor stop after a piece that takes every node
with it; and of a stream it would expect the same events again, which a piece that goes on from what is finished does not give.
"""

from __future__ import annotations

import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError
from .addresses import answers
from .agreement import disagreement, expected
from .clusters import node_name
from .resources import Resources, Worker

POLL, LOOK = 0.5, 2.0  # seconds of waiting for something to be heard; between looks at the cluster
DEATHS = 5  # processes that one piece may take with it: more, and it is the piece
AHEAD = 2  # pieces handed to Ray for each that can run: a node that joins finds some waiting


@dataclass(frozen=True)
class Order:
    """What every process of a run is told.

    Attributes:
        make_worker: sent as Ray sends functions. key: of the run.
        wanted: what the process must have, see ``expected``.
        folder: in which relative paths begin.
        cores: threads that torch takes.
    """

    make_worker: Callable[[], Worker]
    key: str
    wanted: dict[str, Any]
    folder: str
    cores: int


def run_on_ray(
    pieces: Sequence[Any],
    resources: Resources,
    make_worker: Callable[[], Worker],
    on_event: Callable[[Any], None],
    shared: Sequence[Path],
) -> None:
    """Run pieces; see ``run``. A piece whose process or node is lost runs again, on whatever is left or comes."""
    import ray

    order = ray.put(Order(make_worker, uuid.uuid4().hex, expected(shared), os.getcwd(), resources.cores))
    task = ray.remote(_perform).options(
        num_cpus=resources.cores, num_gpus=resources.gpus, max_retries=0, num_returns="streaming"
    )
    waiting, deaths = list(range(len(pieces)))[::-1], [0] * len(pieces)
    running: dict[Any, int] = {}
    room, looked = resources.workers, time.monotonic()
    try:
        while waiting or running:
            # Never without a head: Ray would wait for it, and end the process in the end.
            if time.monotonic() > looked + LOOK:
                _check_head(resources)
                room, looked = _room(resources), time.monotonic()
            while waiting and len(running) < AHEAD * room:
                place = waiting.pop()
                running[task.remote(order, pieces[place])] = place
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL, fetch_local=False)
            for stream in ready:
                try:
                    kind, value = _heard(stream)
                except StopIteration:
                    del running[stream]
                    continue
                if kind == "event":
                    on_event(value)
                elif kind == "lost":
                    _check_head(resources)
                    place = running.pop(stream)
                    _count_death(deaths, place, value)
                    waiting.append(place)
                else:
                    raise (InputError if kind == "input" else RunError)(value)
    finally:
        if answers(resources.cluster or "") is None:
            for stream in running:
                ray.cancel(stream, force=True)


def _heard(stream: Any) -> tuple[str, Any]:
    """What ``_perform`` of a piece yields next, or that its process is lost. Raises StopIteration at its end."""
    import ray

    try:
        return ray.get(next(stream))
    except ray.exceptions.RayTaskError as error:  # before it could be told: the package is not there
        raise InputError(f"a node cannot run this command: {error.cause!r}") from None
    except ray.exceptions.RayError as error:
        return "lost", type(error).__name__


def _count_death(deaths: list[int], place: int, kind: str) -> None:
    """Raises RunError for a piece that has taken too many processes with it."""
    deaths[place] += 1
    if deaths[place] == DEATHS:
        raise RunError(
            f"{DEATHS} processes were lost one after the other at one piece of work (killed, or out of memory: {kind}); the same "
            "command continues from what is finished"
        )


def _room(resources: Resources) -> int:
    """How many pieces the cluster runs at the same time, now."""
    import ray

    there = ray.cluster_resources()
    kinds = [
        int(there.get(name, 0)) // each for name, each in (("CPU", resources.cores), ("GPU", resources.gpus)) if each
    ]
    return max(1, min(kinds))


def _check_head(resources: Resources) -> None:
    """Raises RunError where the head of the cluster is gone."""
    assert resources.cluster is not None
    if reason := answers(resources.cluster):
        raise RunError(
            f"the head of the cluster at {resources.cluster} is gone ({reason}); what is finished is kept: start it again, and the "
            "same command continues"
        )


# ---- in a process that works ----

_made: dict[str, Worker] = {}  # the worker of the last run, by its key


def _perform(order: Order, piece: Any) -> Iterator[tuple[str, Any]]:
    """What is heard of a piece, and how it ended if not well."""
    try:
        for event in _worker(order)(piece):
            yield "event", event
    except InputError as error:
        yield "input", str(error)
    except RunError as error:
        yield "run", str(error)
    except Exception:  # whatever it is, with the place where it happened
        yield "run", f"a worker on {node_name()} failed: {traceback.format_exc(limit=-3)}"


def _worker(order: Order) -> Worker:
    if order.key not in _made:
        import torch

        if os.path.isdir(order.folder):
            os.chdir(order.folder)
        if said := disagreement(order.wanted):
            raise InputError(f"node {node_name()} {said}")
        torch.set_num_threads(order.cores)
        _made.clear()
        _made[order.key] = order.make_worker()
    return _made[order.key]
