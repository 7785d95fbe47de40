"""Tensors by name: their identity, and copying them after everything about them has been checked."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import InputError


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
