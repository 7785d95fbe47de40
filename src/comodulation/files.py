"""Reading what may be anything: a file from elsewhere is a regular one, and of a size that is known, before it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import InputError

MAX_TENSORS, MAX_HEADER = (
    2**32,
    2**24,
)  # bytes of a safetensors file; of its header, which at that size names 100,000 tensors
PARTIAL = ".partial"  # ends the name, which begins with a dot, of a file that is being written


def user_path(path: str | Path) -> Path:
    """A path, where it begins with ``~`` or ``~user`` from that home folder. Raises InputError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{str(path)!r}: no home folder of that user is known; give the path in full") from error


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


def safetensors_header(path: Path) -> bytes:
    """The header of a safetensors file as it is written, within limits of its size and the file's.

    Raises:
        ValueError: not a regular file, one of more than 4 GiB, or with a header of more than 16 MiB or than the file has.
            OSError: it cannot be read.
    """
    check_regular(path, MAX_TENSORS)
    with open(path, "rb", opener=_without_waiting) as file:
        claimed, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if claimed > min(MAX_HEADER, size):
            raise ValueError(
                f"its header claims {claimed} bytes, the file has {size} and at most {MAX_HEADER} are read"
            )
        return file.read(claimed)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
