"""Tensors by name: their identity, and copying them after everything about them has been checked."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from .errors import InputError


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and contents, whatever the order or device of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


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
