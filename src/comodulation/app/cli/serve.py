"""`comodulate serve`: a page on this machine."""

from __future__ import annotations

import json
import webbrowser
from typing import Annotated

import typer

from ...errors import InputError
from .shared import JsonFlag, NoiseSeed, RunFolder, opened

EXAMPLE = "comodulate serve runs/c100 --port 8000 --open"


def serve(
    folder: RunFolder,
    port: Annotated[int, typer.Option(help="Port (0: any that is free).")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines in; there is no password.")
    ] = False,
    seed: NoiseSeed = None,
    as_json: JsonFlag = False,
) -> None:
    """A page on this machine: drop an image, see all tasks, move the modulator. Ctrl-C ends it."""
    try:
        from ..server import bind
        from ..server import serve as serve_run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "uvicorn", "python_multipart", "starlette", "anyio"):
            raise
        raise InputError(f"serve needs {error.name}: pip install 'comodulation[serve]'") from error

    def ready(address: str) -> None:
        if as_json:
            print(json.dumps({"run": str(folder), "address": address}), flush=True)
        else:
            print(f"serving {folder} on {address} (Ctrl-C ends it)", flush=True)
        if open_page:
            webbrowser.open(address)

    with bind(host, port, allow_remote=allow_remote) as listening:
        serve_run(opened(folder, seed), listening, allow_remote=allow_remote, ready=ready)
