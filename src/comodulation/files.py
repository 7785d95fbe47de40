"""Files that may be anything, read within bounds, and files that are never half-written.

A file from elsewhere is a regular one, and of a size that is known, before it is read. Every file is written beside its final name
and moved there once it is whole, so that a reader finds the old file, the new one, or none. Nothing is unpickled.
Locks are the system's flock and not filelock's: those poll, and without flock they are marker files, which a killed process leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError, RunError
from .places import in_bucket, local_copy, place, put, reached

MAX_TENSORS = 2**32  # bytes of a safetensors file
MAX_HEADER = 2**24  # bytes of its header, which at that size names 100,000 tensors
MAX_JSON, MAX_DEPTH = 2**26, 32  # bytes, levels
PARTIAL = ".partial"  # ends the name, which begins with a dot, of a file that is being written


def user_path(path: str | Path) -> Path:
    """A path, where it begins with ``~`` or ``~user`` from that home folder. Raises InputError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{str(path)!r}: no home folder of that user is known; give the path in full") from error


def input_path(given: str | Path) -> Path:
    """A path as ``user_path`` gives it; of an address of a bucket, a copy. Raises as ``place`` and ``local_copy``."""
    return local_copy(place(given)) if "://" in str(given) else user_path(given)


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a file.

    Args:
        path: of a regular file, or a link to one. Reading a pipe would wait for its writer, a device may never end.
        limit: bytes that are read at most.

    Raises:
        ValueError: not a regular file, a larger one, or a path that cannot be one. OSError: it cannot be read.
    """
    if in_bucket(path):
        with reached(path), path.open("rb") as remote:
            return _at_most(remote.read(limit + 1), limit)
    check_regular(path, limit)
    with open(path, "rb", opener=_without_waiting) as file:
        # Some files (/proc) have a size of 0 and a content, and a file may grow meanwhile.
        return _at_most(file.read(min(limit, os.fstat(file.fileno()).st_size + 2**20) + 1), limit)


def _at_most(content: bytes, limit: int) -> bytes:
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


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file between processes; the system releases it even if this process is killed.

    Whoever holds the lock may remove the file.

    Raises:
        InputError: held by another process, and ``wait`` is False.
        RunError: the file cannot be opened; its folder may have been removed by the process that held it.
    """
    while True:
        try:
            handle = open(path, "a")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise RunError(f"cannot lock {path}: {error.strerror or error}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise InputError(f"{path.parent} is in use by another process") from error
            # A file that was removed between the two calls is no other process's: the next one makes and locks another.
            if _is_at(path, handle.fileno()):
                yield
                return


def _is_at(path: Path, number: int) -> bool:
    """Whether an open file is still the one that a path names."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file to, which takes the place of ``path`` once the block has ended well; else nothing is left of it.

    Whatever is written after it comes after it on the disk, too, should the power fail.

    Raises:
        RunError: it cannot be written (disk full, folder gone).
    """
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            put(Path(folder) / path.name, path)
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        yield partial
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see ``replacing``.

    Raises:
        RunError: it cannot be written; no partial file is left.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def _sync(folder: Path) -> None:
    """See the names in a folder on the disk, where its file system can do so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems keep names in their own order
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder to write to. Where bad input turns up later, what was made here and is still empty goes again.

    Raises:
        InputError: it cannot be made or written to (a read-only disk, a file in its place).
    """
    made: list[Path] = []
    try:
        try:
            for path in reversed((folder, *folder.parents)):
                if not path.exists():
                    path.mkdir(exist_ok=True)
                    made.append(path)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield
    except InputError:
        with contextlib.suppress(OSError):
            for path in reversed(made):
                path.rmdir()
        raise


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed while writing left in a folder. The caller holds the folder's lock."""
    for partial in folder.glob(f".*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def json_bytes(value: object) -> bytes:
    """The content that ``write_json`` writes."""
    return (json.dumps(value, indent=2, sort_keys=False) + "\n").encode()


def write_json(path: Path, value: object) -> None:
    write_bytes(path, json_bytes(value))


def torn(path: Path, whole: bytes) -> bool:
    """Whether a file is what a power cut may leave of some content: a part of its beginning, then zeros or nothing."""
    with open(path, "rb") as file:
        found = file.read(len(whole) + 1)
    return len(found) <= len(whole) and found != whole and whole.startswith(found.rstrip(b"\0"))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError for anything else, and for one of more than 64 MiB or 32 levels."""
    try:
        return parse_json(read_bounded(path, MAX_JSON).decode())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, and for one nested deeper than 32 levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    # What parses may still be too deep to compare or to show.
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level = [child for children in inside for child in children]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return value
