"""Where files lie: on this machine, or in a bucket (s3://, gs://, and what else fsspec knows), behind the one interface of pathlib.

A place in a bucket is a path of universal_pathlib. A bucket has no locks and no names that change; a file in it is there as a whole
or not at all. What cannot be read from afar is copied to this machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InputError, RunError

_FLAT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss")  # no folders: making one might make a bucket


def place(given: str | Path) -> Path:
    """A place by its path or address. One in a bucket is no ``pathlib.Path``, and is used like one; see ``in_bucket``.

    Raises:
        InputError: an address of an unknown kind, or one that needs a package which is not there.
    """
    text = str(given)
    if "://" not in text:
        return Path(given)
    kind = text.partition("://")[0]
    try:
        from upath import UPath
    except ImportError as error:
        raise InputError(f"{text!r} needs universal-pathlib: pip install 'comodulation[remote]'") from error
    try:
        found: Any = UPath(text)
        _ = found.fs
    except ImportError as error:
        raise InputError(f"{text!r} needs a package for {kind}://: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise InputError(
            f"{text!r}: {kind}:// is no kind of address that fsspec knows, such as s3:// or gs://"
        ) from error
    return found


def in_bucket(path: Path) -> bool:
    """Whether a place is reached through fsspec."""
    return not isinstance(path, Path)


@contextmanager
def reached(path: Path) -> Iterator[None]:
    """Within it, what goes wrong with a place in a bucket is a RunError of one line; of another one nothing changes."""
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:  # each service has errors of its own: no rights, no such bucket, no answer
        if not in_bucket(path):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise RunError(f"cannot reach {path}: {type(error).__name__}{f': {reason}' if reason else ''}") from error


def local_copy(path: Path) -> Path:
    """The place itself, if it is on this machine; else a copy of the file or folder.

    The copy goes when this process ends, or when some others have been copied. What has been mapped to memory stays readable.

    Raises:
        InputError: there is nothing. RunError: it cannot be reached.
    """
    if not in_bucket(path):
        return path
    with reached(path):
        if not path.exists():
            raise InputError(f"no such file or folder: {path}")
        return _copy(path, str(None if path.is_dir() else _bucket(path).ukey(_key(path)))).path


class _Copy:
    def __init__(self, path: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="comodulation-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = folder / path.name
        _bucket(path).get(_key(path), str(self.path), recursive=path.is_dir())


@lru_cache(maxsize=4)
def _copy(path: Path, version: str) -> _Copy:
    return _Copy(path)


def put(local: Path, path: Path) -> None:
    """Copy a file to a bucket, where it is as a whole or not at all."""
    with reached(path), _bucket(path).transaction, open(local, "rb") as source:
        if path.protocol not in _FLAT:  # type: ignore[attr-defined]
            path.parent.mkdir(parents=True, exist_ok=True)
        with _bucket(path).open(_key(path), "wb") as file:
            shutil.copyfileobj(source, file, 2**22)


def move(path: Path, to: Path) -> None:
    """Give a file another name, in the place of what has it."""
    if not in_bucket(path):
        os.replace(path, to)
        return
    with reached(path):
        _bucket(path).mv(_key(path), _key(to))


def _bucket(path: Any) -> Any:
    return path.fs


def _key(path: Any) -> str:
    return str(path.path)
