"""`comodulate serve` as a process of its own, asked over real connections.

That of the session is a program that somebody started; the others are copies of this process, and are there seconds sooner.
"""

from __future__ import annotations

import http.client
import json
import resource
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from comodulation.app.cli.entry import main
from support.forked import Forked


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one sentence of a refusal."""
        assert 400 <= self.status < 500, (self.status, self.body[:500])
        assert list(self.json) == ["error"]
        message = self.json["error"]
        assert "\n" not in message
        assert "Traceback" not in message
        return message


def forbid_writing(process: int) -> None:
    """From now on no file of a process may grow: writing a single byte to a disk fails. Pipes and sockets are left alone."""
    if hasattr(resource, "prlimit"):  # Linux
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, 0))


def _serve(before: str, words: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    exec(before, {})
    sys.argv = ["comodulate", *words]
    main()


class Server:
    """A served run folder; wait for it, ask it, end it."""

    def __init__(self, run: Path, *options: str, before: str = "", started: bool = False, **process: Any) -> None:
        """``before``: a statement that the server's process begins with. ``started``: not as a copy of this process."""
        words = ["serve", str(run), "--port", "0", "--json", *options]
        self.process: Any
        if started:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "comodulation", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL, text=True, **process,
            )  # fmt: skip
        else:
            self.process = Forked(partial(_serve, before, words), **process)
        assert select.select([self.process.stdout], [], [], 120)[0], "the server does not start"
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.end(signal.SIGKILL))
        self.ready = json.loads(line)
        self.address = self.ready["address"]
        forbid_writing(self.process.pid)
        self.host, self.port = "127.0.0.1", int(self.address.rsplit(":", 1)[1].strip("/"))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own; underscores in header names stand for hyphens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=300)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal, by default Ctrl-C's; exit status, and what was written to both streams meanwhile."""
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, out, err


def form(*fields: tuple[str, bytes], boundary: str = "b0und") -> tuple[bytes, str]:
    """A multipart form and its Content-Type."""
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in fields
    )
    return parts + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
