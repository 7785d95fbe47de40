"""Who may ask a server on this machine: the address it listens on, the names it answers to, the headers it sends."""

from __future__ import annotations

import ipaddress
import os
import socket
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import InputError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guarded:
    """An application that answers only requests addressed to this machine, and sends security headers.

    A page of another site can make a browser send requests to localhost, and by a name of its own that resolves to
    127.0.0.1 (DNS rebinding) even read the answers. The Host header then has that name, the Origin header the other site's.

    Args:
        app: what is guarded.
        hosts: names that requests may be addressed to; None allows all.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self.app
        if scope["type"] == "http" and (instead := self._refused(Headers(scope=scope))) is not None:
            app = instead
        await app(scope, receive, guarded)

    def _refused(self, headers: Headers) -> JSONResponse | None:
        if self.hosts is None:
            return None
        host, origin = headers.get("host", ""), headers.get("origin")
        if host_name(host) not in self.hosts:
            return refusal(403, f"this server answers on localhost only, not as {host[:80]!r}")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return refusal(403, f"requests from pages of {origin[:80]!r} are refused")
        return None


def host_name(host: str) -> str:
    """The name in a Host header, without its port; "" where there is none.

    >>> host_name("LOCALHOST:8000"), host_name("[::1]:8000"), host_name("[::1")
    ('localhost', '::1', '')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_local(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: an address or name. port: 0 takes any that is free. allow_remote: whether others may connect.

    Raises:
        InputError: an address beyond this machine without ``allow_remote``, a port out of range or in use, no such address.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be 0 (any free one) to 65535, got {port}")
    if not allow_remote and not is_local(host):
        raise InputError(
            f"--host {host!r} would let other machines in, without any password; give --allow-remote if that is meant"
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError, ValueError) as error:  # the latter: names that cannot be one
        # Python adds the address to the system's own words; failures to look a name up have numbers below 0.
        number, words = getattr(error, "errno", None), getattr(error, "strerror", None)
        reason = os.strerror(number) if number and number > 0 else words or f"not a name ({error})"
        raise InputError(
            f"cannot serve on {host}, port {port}: {reason.lower()}; choose another --port or --host"
        ) from error


def refusal(status: int, message: str) -> JSONResponse:
    """An error as the API answers it: one sentence."""
    return JSONResponse({"error": " ".join(message.split())}, status)
