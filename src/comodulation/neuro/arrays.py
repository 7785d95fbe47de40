"""Arrays of a recording in an ``.npz`` file. Nothing is unpickled, and nothing larger than what the file declares is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, choose

ARRAYS = ("counts", "condition", "target", "context", "area", "observed")
MOST_BYTES = 2**31  # of a recording's counts in memory: what is estimated from them takes several times as much


def load_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file, by their names, of which ``counts`` and ``condition`` are there.

    Raises:
        InputError: a file that is none, arrays that are missing, unknown, pickled or larger than 2 GiB together.
    """
    try:
        with open(path, "rb") as opened:
            with zipfile.ZipFile(opened) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > MOST_BYTES:  # compressed, a file of kilobytes holds gigabytes
                raise InputError(f"{path.name} would take {size:,} bytes of memory, at most {MOST_BYTES:,} are read")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                for name in file.files:
                    choose(name, ARRAYS, f"array in {path.name}")
                arrays = {name: file[name] for name in file.files}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
        raise InputError(f"{path.name} cannot be read as arrays: {error}") from error
    for name in ("counts", "condition"):
        if name not in arrays:
            raise InputError(f"{path.name} holds no array {name!r}, only {', '.join(arrays) or 'nothing'}")
    return arrays
