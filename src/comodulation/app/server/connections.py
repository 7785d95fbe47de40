"""The connections of a server: how many there are, how long one may keep the server waiting, and which one gives way.

uvicorn bounds the size of a request's headers and ends connections that are idle between requests. It neither ends one whose
headers do not come to an end, or whose client does not read the answer, nor does it bound how many there are, so that they could
take every descriptor of the process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0  # seconds for a request's headers to arrive, and for an answer to be taken
MOST_CONNECTIONS, BURST = 128, 32  # at once; taken in at a time


def descriptors() -> tuple[int, int]:
    """How many connections a server may hold, and how many it may take in at a time, with the descriptors that are left.

    A connection that is refused keeps its descriptor for a moment: three bursts are left free for those, and for files.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    used = len(os.listdir("/dev/fd"))
    share = max(1, (limit - used) // 5) if limit != resource.RLIM_INFINITY else MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, 2 * share), min(BURST, share)


class BoundedProtocol(H11Protocol):
    """One connection, which is closed where its client keeps the server waiting.

    Where there are too many, the client that has most of them loses the one that keeps the server waiting longest; a
    newcomer is refused only where all others are being answered.
    """

    most = MOST_CONNECTIONS
    waiting_since: float
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_client()
        if len(self.connections) > self.most:
            _one_to_give_way(self.connections).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.answering:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        self._wait_for_client()
        super().on_response_complete()  # which begins the next request, where that has come already
        if self.answering:
            self._wait_no_more()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_client()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.answering:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def answering(self) -> bool:
        """Whether the server has a request of this connection at hand."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def uploading(self) -> bool:
        """Whether the body of its request is still to come."""
        return self.answering and self.cycle.more_body

    def _wait_for_client(self) -> None:
        self._wait_no_more()
        self.waiting_since = time.monotonic()
        self.deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def bounded_protocol(most: int) -> type[BoundedProtocol]:
    """The protocol of a server that holds ``most`` connections."""
    return type("BoundedProtocol", (BoundedProtocol,), {"most": most})


def _one_to_give_way(connections: set[Any]) -> BoundedProtocol:
    """Of the client that holds most connections, the one that the server has waited for longest; the newest waits, too."""
    waiting = [one for one in connections if one.deadline is not None or one.uploading]
    held = Counter(_host(one) for one in connections)
    return min(waiting, key=lambda one: (-held[_host(one)], one.waiting_since))


def _host(connection: BoundedProtocol) -> str:
    return connection.client[0] if connection.client else ""
