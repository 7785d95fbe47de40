"""The reports that a call makes through a callback, as a generator, because pieces of work yield their reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


def reports_of(call: Callable[[Callable[..., None]], Any]) -> Iterator[tuple[Any, ...]]:
    """Run a call in a thread of its own and yield what it reports until it ends.

    Args:
        call: told what to report to, with any arguments.

    Raises:
        Whatever the call raises.
    """
    heard: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    ended: Future[None] = Future()

    def perform() -> None:
        try:
            call(lambda *values: heard.put(values))
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)
        finally:
            heard.put(None)

    threading.Thread(
        target=perform, daemon=True
    ).start()  # not of a pool, whose threads would keep the process from ending
    while (values := heard.get()) is not None:
        yield values
    ended.result()
