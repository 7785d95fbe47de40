"""Stand in for the forward of modules during a call, in the calling thread alone.

Two adapted networks may share a model, and a model may be called by itself while one of them runs in another thread: what one
call does to a module must not be seen by another. So a module's forward is replaced once, by a function that looks up what the
calling thread wants of it, and put back when the last call that wanted something has ended.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]
Substitute = Callable[..., Any]  # of the forward that it stands in for, and of what that was given


class _Wanted(threading.local):
    """What the calls that run in this thread, the outermost first, put in the place of forwards."""

    def __init__(self) -> None:
        self.stack: list[Mapping[nn.Module, Substitute]] = []


@dataclass
class _Replaced:
    module: nn.Module
    own: Forward | None  # a forward that the module itself, and not its class, had
    users: int = 0


_WANTED = _Wanted()
_LOCK = threading.Lock()
_REPLACED: dict[int, _Replaced] = {}
_FAST_PATH: list[bool] = []  # whether it was on: once for each call that has it off


@contextmanager
def substituted(substitutes: Mapping[nn.Module, Substitute]) -> Iterator[None]:
    """While it lasts, calls of these modules in this thread go to their substitutes, which get the module's forward first."""
    taken = []
    try:
        for module in substitutes:
            _take(module)
            taken.append(module)
        _WANTED.stack.append(substitutes)
        try:
            yield
        finally:
            _WANTED.stack.remove(substitutes)
    finally:
        for module in taken:
            _give_back(module)


def _take(module: nn.Module) -> None:
    with _LOCK:
        entry = _REPLACED.get(id(module))
        if entry is None:
            entry = _REPLACED[id(module)] = _Replaced(module, vars(module).get("forward"))
            vars(module)["forward"] = _looking_up(module, module.forward)
        entry.users += 1


def _give_back(module: nn.Module) -> None:
    with _LOCK:
        entry = _REPLACED[id(module)]
        entry.users -= 1
        if entry.users:
            return
        del _REPLACED[id(module)]
        if entry.own is None:
            vars(module).pop("forward", None)
        else:
            vars(module)["forward"] = entry.own


def _looking_up(module: nn.Module, own: Forward) -> Forward:
    @wraps(own)  # who asks for its arguments is told those of the module's own
    def forward(*args: Any, **kwargs: Any) -> Any:
        call = own
        for substitutes in _WANTED.stack:
            if module in substitutes:
                call = partial(substitutes[module], call)
        return call(*args, **kwargs)

    return forward


@contextmanager
def without_fast_path() -> Iterator[None]:
    """While it lasts, ``nn.TransformerEncoder`` runs its layers one by one.

    Its fast path packs what is not padding into nested tensors, which have no dimensions to modulate, and has no derivative.
    """
    with _LOCK:
        _FAST_PATH.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _LOCK:
            # The first to come saw what the user had set; the last to go puts it back.
            before = _FAST_PATH[0]
            _FAST_PATH.pop()
            if not _FAST_PATH:
                torch.backends.mha.set_fastpath_enabled(before)


def sharded_part(model: nn.Module) -> str | None:
    """Name of a module inside a model whose parameters FSDP2 (``fully_shard``) gathers for its own passes alone; None where none is
    there. The model as a whole may be such a module: then all is gathered until its backward pass is over."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return None
    return next((name for name, module in model.named_modules() if name and isinstance(module, fsdp.FSDPModule)), None)


def inside_checkpoint() -> bool:
    """Whether the caller runs inside ``torch.utils.checkpoint``, which runs it again in the backward pass."""
    own = sys.modules.get("torch.utils.checkpoint")
    frame = sys._getframe(1)
    while own is not None and frame is not None:
        if frame.f_code.co_filename == own.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
