"""Recordings read from files and written to them: arrays in an npz file, or NWB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .arrays import ARRAYS, load_arrays
from .recording import Recording


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
    return Recording.of(**load_arrays(path), name=path.stem)


def write_recording(recording: Recording, path: str | Path) -> None:
    """As ``.npz``, which ``read_recording`` reads."""
    arrays: dict[str, Any] = {name: getattr(recording, name) for name in ARRAYS}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
