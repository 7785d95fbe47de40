"""What autocast must not compute in half precision: statistics, which are differences between nearly equal numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a kind of device; tensors without memory ("meta") have none, and asking for it is an error."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


@contextmanager
def outside_autocast(device: torch.device) -> Iterator[None]:
    """While it lasts, autocast is off, and what an operation is given in several floating-point types is promoted to the widest.

    So activity in float32 meets a network's parameters in half precision without an error, as it does under autocast.
    """
    with torch.autocast(device.type, enabled=False), _Promoted():
        yield


def widened(values: Any, *, copy: bool) -> Any:
    """Nested values with their tensors of half precision in float32; ``copy``: with new memory for every floating-point tensor."""

    def widen(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return value.to(torch.promote_types(value.dtype, torch.float32), copy=copy)

    return tree_map_only(Tensor, widen, values)


class _Promoted(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _writes(getattr(func, "__name__", ""), kwargs):
            leaves = tree_leaves((args, kwargs))
            if len({leaf.dtype for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()}) > 1:
                args, kwargs = widened((args, kwargs), copy=False)
        return func(*args, **kwargs)


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether an operation writes into what it is given: a converted copy would take it, and be lost."""
    inplace = name.endswith("_") and not name.startswith("__")
    return inplace or name.startswith("__i") or name in ("__set__", "__setitem__") or kwargs.get("out") is not None
