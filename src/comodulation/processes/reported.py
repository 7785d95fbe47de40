"""The reports that a call makes through a callback, as a generator, because pieces of work yield their reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
    failed: list[BaseException] = []

    def perform() -> None:
        try:
            call(lambda *values: heard.put(values))
        except BaseException as error:
            failed.append(error)
        finally:
            heard.put(None)

    thread = threading.Thread(target=perform, daemon=True)
    thread.start()
    while (values := heard.get()) is not None:
        yield values
    thread.join()
    if failed:
        raise failed[0]
