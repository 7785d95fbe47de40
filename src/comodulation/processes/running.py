"""Independent pieces of work: in this process, in several of this machine, or on the nodes of a cluster.

``run`` is all that a study, an extraction or a prediction knows of where its pieces run. A worker is made once in each process
from something that can be sent there, and is called with a piece; it yields what the caller hears of meanwhile. A piece may be run
again from the start after whatever has ended its process, and where a network is cut twice at the same time: so a worker leaves
what it finished where the next one finds it, and writes each file whole, under a name that the piece decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .resources import Resources, Worker


def run(
    pieces: Sequence[Any],
    resources: Resources,
    make_worker: Callable[[], Worker],
    on_event: Callable[[Any], None],
    *,
    shared: Sequence[Path] = (),
) -> None:
    """Run pieces; in this process if it is to be this machine's and there is one piece or one worker.

    Args:
        pieces: picklable; taken in order, each by the next free worker.
        resources: see there.
        make_worker: picklable; called once in each process that works.
        on_event: called in this process with whatever workers yield.
        shared: files and folders that every process of a cluster must see alike, see ``sight``.

    Raises:
        InputError, RunError: as raised in a worker; the other processes are stopped. InputError, too, for a node of a cluster
            that has other code or sees other files; RunError for processes or a cluster that are lost.
    """
    if resources.cluster is not None:
        from .ray_pieces import run_on_ray

        run_on_ray(pieces, resources, make_worker, on_event, shared)
        return
    count = min(resources.workers, len(pieces))
    if count > 1:
        from .pool import run_in_pool

        run_in_pool(pieces, count, make_worker, on_event)
        return
    worker = make_worker() if pieces else iter
    for piece in pieces:
        for event in worker(piece):
            on_event(event)
