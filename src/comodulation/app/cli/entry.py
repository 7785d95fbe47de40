"""The command line, thin over the library: one file a verb."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .commands import app
    from .exits import run

__all__ = ["app", "main", "run"]

_PLACES = {"app": "commands", "run": "exits"}


def main() -> None:
    """Entry point."""
    try:
        from .commands import app
        from .exits import run
    except KeyboardInterrupt:  # in the first moments, before anything could say so
        print("interrupted", file=sys.stderr)
        sys.exit(1)
    sys.exit(run(app))


def __getattr__(name: str) -> Any:
    # Nothing is imported before ``main`` can say that it was interrupted.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
