"""What processes must have in common: the code, and the files that they will read."""

from __future__ import annotations

import hashlib
import os
import platform
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import brief, first_difference
from ..places import place

END = 2**16  # bytes of a file's beginning and of its end that are looked at


@cache
def code_in_use() -> dict[str, str]:
    """What must be the same code in all processes: the sources of this package by their hash, and the libraries that compute."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return {"comodulation": digest.hexdigest()[:16], **{name: version(name) for name in ("torch", "timm", "numpy")}}


def sight(path: Path) -> dict[str, Any]:
    """What a file or a folder looks like, in a moment, as JSON: a file by its size and both ends, a folder by the names in it.

    >>> sight(Path("/nowhere"))
    {'is': 'absent'}
    """
    if path.is_dir():
        names = sorted(one.name for one in path.iterdir())
        return {
            "is": "a folder",
            "entries": len(names),
            "names": zlib.crc32("\0".join(names).encode(errors="surrogateescape")),
        }
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = zlib.crc32(file.read(END))
            file.seek(max(0, size - END))
            return {"is": "a file", "bytes": size, "content": zlib.crc32(file.read(END), ends)}
    except OSError:
        return {"is": "absent"}


def expected(shared: Sequence[Path]) -> dict[str, Any]:
    """What a process that takes pieces must have: this one's code, and its view of some files and folders."""
    return {
        "code": {"python": platform.python_version(), **code_in_use()},
        "files": {str(path): sight(path) for path in shared},
    }


def disagreement(wanted: dict[str, Any]) -> str | None:
    """What this process has otherwise than ``expected`` of another one, as the end of a sentence on it; None if nothing."""
    for name, wants in wanted["code"].items():
        has = {"python": platform.python_version(), **code_in_use()}.get(name)
        if has != wants:
            said = "other sources" if name == "comodulation" else f"version {has}"
            return f"has {said} of {name}, this command {wants}; install the same release on every node"
    for name, wants in wanted["files"].items():
        if differing := first_difference(wants, sight(place(name))):
            key, first, here = differing
            return (
                f"sees another {name}: {key} {brief(here)}, this command {brief(first)}; give all nodes the same files"
            )
    return None
