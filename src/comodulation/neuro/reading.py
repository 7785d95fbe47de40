"""Recordings read from files and written to them: arrays in an npz file, of which nothing is unpickled, or NWB."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, choose
from .recording import MOST_BYTES, Recording

ARRAYS = ("counts", "condition", "target", "context", "area", "observed")


def read_recording(path: str | Path, **options: Any) -> Recording:
    """A recording from a file: ``.npz`` with the arrays that ``Recording.of`` takes, or ``.nwb`` with ``read_nwb``'s options.

    Nothing is unpickled.

    Raises:
        InputError: no such file, another kind of file, arrays that are missing, unknown, pickled or larger than 2 GiB.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix == ".nwb":
        from .nwb import read_nwb

        return read_nwb(path, **options)
    if path.suffix != ".npz":
        raise InputError(f"a recording is an .nwb or an .npz file, got {path.name}")
    if options:
        raise InputError(f"options {', '.join(options)} are for .nwb files; an .npz file holds {', '.join(ARRAYS)}")
    return Recording.of(**_load_arrays(path), name=path.stem)


def write_recording(recording: Recording, path: str | Path) -> None:
    """As ``.npz``, which ``read_recording`` reads."""
    arrays: dict[str, Any] = {name: getattr(recording, name) for name in ARRAYS}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def _load_arrays(path: Path) -> dict[str, Any]:
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
