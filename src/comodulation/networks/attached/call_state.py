"""What a call of a model may change beside its result: caches, lists, and tensors that it is given and works in place on."""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

_FIXED = (
    bool, int, float, complex, str, bytes, type(None), type(...), slice, range, enum.Enum, type, torch.dtype, torch.device,
    torch.layout, torch.memory_format, nn.Module, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
)  # fmt: skip
_CONTAINERS = (list, tuple, dict)


def objects_in(values: Any) -> bool:
    """Whether nested values hold an object that may keep something from a call for the next, such as a cache of keys and values."""
    return any(not isinstance(leaf, (Tensor, *_FIXED)) for leaf in _leaves(values))


def state_of(values: Any) -> list[tuple[int, int]]:
    """What is in nested values and how often its tensors have been changed in place: equal as long as nothing is changed."""
    return [(id(leaf), versions([leaf])[0] if isinstance(leaf, Tensor) else 0) for leaf in _leaves(values)]


def versions(values: Iterable[Any]) -> list[int]:
    """How often the tensors in something have been changed in place."""
    return [
        0 if value.is_inference() else value._version
        for value in tree_leaves(list(values))
        if isinstance(value, Tensor)
    ]


def copied(values: Any, seen: dict[int, Any] | None = None) -> Any:
    """A copy of nested values, of their tensors and of objects that may change; gradients run through it."""
    seen = {} if seen is None else seen
    if id(values) in seen:
        return seen[id(values)]
    if isinstance(values, _FIXED):
        return values
    if isinstance(values, Tensor):
        made: Any = values.clone()
    elif isinstance(values, tuple):
        parts = [copied(part, seen) for part in values]
        made = type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
    else:
        made = copy.copy(values)
        seen[id(values)] = made  # before its parts, which may refer to it
        if isinstance(values, list):
            made[:] = [copied(part, seen) for part in values]
        elif isinstance(values, dict):
            for name, part in values.items():
                made[name] = copied(part, seen)
        for name, part in getattr(values, "__dict__", {}).items():
            vars(made)[name] = copied(part, seen)
    seen[id(values)] = made
    return made


def _leaves(values: Any) -> Iterable[Any]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, _CONTAINERS):
        for part in values:
            yield from _leaves(part)
    else:
        yield values
