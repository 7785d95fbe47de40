"""Reading what may be anything: a file from elsewhere is a regular one, and of a size that is known, before it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PARTIAL = ".partial"  # ends the name, which begins with a dot, of a file that is being written


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a file.

    Args:
        path: of a regular file, or a link to one. Reading a pipe would wait for its writer, a device may never end.
        limit: bytes that are read at most.

    Raises:
        ValueError: not a regular file, a larger one, or a path that cannot be one. OSError: it cannot be read.
    """
    check_regular(path, limit)
    with open(path, "rb", opener=_without_waiting) as file:
        # Some files (/proc) have a size of 0 and a content, and a file may grow meanwhile.
        content = file.read(min(limit, os.fstat(file.fileno()).st_size + 2**20) + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes, which is the limit")
    return content


def check_regular(path: Path, limit: int) -> None:
    """Raise as ``read_bounded`` for a file that it would not read."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > limit:
        raise ValueError(f"it has {status.st_size} bytes, at most {limit} are read")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
