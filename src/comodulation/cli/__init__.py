"""The command line, thin over the library: one file a verb."""

from .commands import app, main
from .exits import run

__all__ = ["app", "main", "run"]
