"""Where the command begins: nothing is imported before an interruption can be said in one line."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point."""
    try:
        from .commands import app
        from .exits import run

        status = run(app)
    except KeyboardInterrupt:  # in the first moments, before `run` could say so
        print("interrupted", file=sys.stderr)
        status = 1
    sys.exit(status)
