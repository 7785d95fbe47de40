"""Tensors by name: their identity, and safetensors files with a checksum.

Both are read and copied after everything about them has been checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import InputError, brief
from .files import parse_json, safetensors_header, write_bytes


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and contents, whatever the order or device of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


class WithoutValues(TorchFunctionMode):
    """A context in which modules are made without initial values: on the device `meta`, which has none, torch loads its
    compiler, for seconds, to draw them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def copy_checked(own: dict[str, Tensor], given: dict[str, Tensor], what: str) -> None:
    """Copy tensors by name into ``own``, after all of them have been checked.

    Raises:
        InputError: names that are missing or unknown, shapes or types that differ, values that are not finite.
    """
    if set(own) != set(given):
        missing, unknown = sorted(set(own) - set(given)), sorted(set(given) - set(own))
        raise InputError(
            f"the adapter does not fit {what}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
        )
    for name, tensor in own.items():
        if tensor.shape != given[name].shape or tensor.dtype != given[name].dtype:
            raise InputError(
                f"the adapter does not fit {what}: {name} is {given[name].dtype} {tuple(given[name].shape)}, expected "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise InputError(f"the adapter is damaged: {name} holds values that are not finite")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


CHECKSUM = "checksum"  # field of a safetensors header: a disk that loses a page leaves zeros, which are tensors like any others
WHOLE = "sha256:"  # begins a checksum of the whole file; those of the first release are of the tensors alone


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object] | None = None) -> None:
    """Write tensors as safetensors; metadata values are stored as JSON in its header. Equal contents make equal files.

    The header also has the checksum of the file (that field's own digits taken as zeros), which ``read_tensors`` looks at and
    keeps to itself.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    # The library writes the fields in an order of its own, another one each time.
    size = int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8 : 8 + size]), content[8 + size :]
    blank = WHOLE + 64 * "0"
    fields = {**(metadata or {}), CHECKSUM: blank}
    header["__metadata__"] = {key: json.dumps(value) for key, value in fields.items()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    text = text.replace(blank.encode(), f"{WHOLE}{hashlib.sha256(text + values).hexdigest()}".encode())
    write_bytes(path, len(text).to_bytes(8, "little") + text + values)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file. Raises InputError for anything else, and for one of more than 4 GiB.

    The file must have the checksum it was written with. In files of the first release it is that of the tensors alone, or there is
    none, as in files of other programs.
    """
    metadata = _read_header(path)
    checksum = metadata.pop(CHECKSUM, None)
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
        intact = _intact(path, checksum)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not intact:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return tensors, metadata


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same as arrays. Raises InputError also for types that NumPy does not have."""
    tensors, metadata = read_tensors(path)
    try:
        return {name: tensor.numpy() for name, tensor in tensors.items()}, metadata
    except TypeError as error:
        raise InputError(f"{path} holds tensors of a type that is not read here: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a safetensors file, without its tensors. Raises as ``read_tensors``, but for the checksum."""
    metadata = _read_header(path)
    metadata.pop(CHECKSUM, None)
    return metadata


def _intact(path: Path, checksum: object) -> bool:
    """Whether a safetensors file has the checksum that its header says, of the kind that it says."""
    header = safetensors_header(path)
    # A damaged header may have lost the field's name, or what tells the kinds apart: either is enough to ask for the checksum.
    whole = isinstance(checksum, str) and checksum.startswith(WHOLE)
    if not whole and not re.search(WHOLE.encode() + b"[0-9a-f]{64}", header):
        return checksum is None or checksum == _digest(path, b"")
    if not whole or header.count(str(checksum).encode()) != 1:
        return False
    blank = header.replace(str(checksum).encode(), (WHOLE + 64 * "0").encode())
    return checksum == WHOLE + _digest(path, blank)


def _digest(path: Path, before: bytes) -> str:
    """sha256 of some bytes and of what follows the header of a safetensors file."""
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        digest = hashlib.sha256(before)
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _read_header(path: Path) -> dict[str, Any]:
    """What the header of a safetensors file says, all of it."""
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        safetensors_header(path)
        with safe_open(path, "pt") as handle:
            header = handle.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        return {key: parse_json(value) for key, value in header.items()}
    except ValueError as error:
        raise InputError(f"{path} was not written by comodulation: its header holds {brief(header)}") from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable safetensors file: {(str(error).splitlines() or [''])[0]}")
