"""HDF5 files that may be read: nothing of them lies in other files, and nothing is far larger in memory than in the file.

HDF5 lets a dataset's values lie in any other file of the machine (external storage, external links, virtual datasets), and lets
a file of kilobytes declare terabytes (chunks that were never written, or that are compressed). Both are judged from what the file
declares, before a value is read. Source: the HDF5 file format, version 3, https://docs.hdfgroup.org/hdf5/latest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, brief

FREE = 64 << 20  # bytes that a dataset may take in memory, however few are stored: a column of zeros is
MOST_GROWTH = 32  # of what is stored, beyond that; compressed spike times shrink to a third or so


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An ``h5py.File`` whose objects all lie in it, and whose tables and single values fit what is stored of them.

    Raises:
        InputError: it is no HDF5 file, values lie in another file, a table declares more than is stored.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        try:
            _check(file, path.name)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # h5py's own, for damaged files
            if isinstance(error, InputError):
                raise
            raise unreadable(path, error) from error
        yield file


def unreadable(path: Path, error: Exception) -> InputError:
    """What to raise where a library's own error ended the reading of a file; some of them print all they had read."""
    text = str(error)
    return InputError(f"{path.name} cannot be read as an NWB file: {text if len(text) < 300 else f'... {text[-300:]}'}")


def bounded(data: Any, what: str) -> Any:
    """``data``, where it is no HDF5 dataset or one that may be read whole.

    Raises:
        InputError: its values lie in another file, or take far more memory than is stored of them.
    """
    import h5py

    if not isinstance(data, h5py.Dataset):
        return data
    if data.external or data.is_virtual:
        raise InputError(f"{what} keeps values in another file, which is not opened; copy them into one file")
    size, stored = data.dtype.itemsize * int(data.size or 0), data.id.get_storage_size()
    if size > FREE + MOST_GROWTH * stored:
        raise InputError(
            f"{what} would take {size:,} bytes of memory where {stored:,} are stored; "
            f"at most {MOST_GROWTH} times as many are read"
        )
    return data


def _check(file: Any, name: str) -> None:
    import h5py

    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # hard links may form a ring
            continue
        seen.add(address)
        table = "colnames" in group.attrs
        for key in group:
            link = group.get(key, getlink=True)
            where = f"{name}: {brief(f'{group.name}/{key}'.replace('//', '/'))}"
            if isinstance(link, h5py.ExternalLink):
                raise InputError(
                    f"{where} lies in another file ({brief(link.filename)}), which is not opened; copy it into one file"
                )
            if isinstance(link, h5py.SoftLink):  # to an object of this file, which is met under its own name
                continue
            found = group[key]
            if isinstance(found, h5py.Datatype):
                continue
            if isinstance(found, h5py.Group):
                waiting.append(found)
            elif found.external or found.is_virtual or table or found.ndim == 0:  # the others are not read as a whole
                bounded(found, where)
