"""What goes into a call of a model, and what comes out: arguments, and answers of several calls as one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ...errors import InputError, brief
from ..controller import checked_task_ids


def split_arguments(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: int | None
) -> tuple[tuple[Any, ...], Tensor | None]:
    """A model's own positional arguments, and the task ids behind them, if there are any.

    Args:
        args, kwargs: of a call. number: of the model's positional arguments, where an example has shown it.

    Raises:
        InputError: a last argument that may be the model's or the tasks.
    """
    if len(args) < 2 or not _looks_like_tasks(args[-1]):
        return args, None
    if number is not None:
        return (args[:-1], args[-1]) if len(args) > number else (args, None)
    with_it, without_it = _takes(model, args, kwargs), _takes(model, args[:-1], kwargs)
    if with_it and without_it:
        raise InputError(
            f"the last of {len(args)} arguments, integers {tuple(args[-1].shape)}, may be the model's own or the tasks; pass "
            "task_ids= by name, or give comodulate(...) an example"
        )
    return (args, None) if with_it else (args[:-1], args[-1])


def tasks_of(task_ids: Any, num_tasks: int, args: tuple[Any, ...]) -> Tensor:
    """Task ids as int64 ``(B,)``.

    Args:
        task_ids: as they are given. num_tasks: number K of tasks. args: positional arguments of a call that was given none by name.

    Raises:
        ValueError: none, or of another type or shape.
        IndexError: out of range.
    """
    if task_ids is None:
        last = "" if len(args) < 2 else f" (the last argument, {_shown(args[-1])}, is none)"
        raise ValueError(
            "task_ids is missing: net(inputs, task_ids=...), integers (B,), or `with net.disabled():` for the model itself"
            + last
        )
    if not isinstance(task_ids, Tensor):
        raise ValueError(f"task ids must be a tensor of integers (B,), got {_shown(task_ids)}")
    return checked_task_ids(task_ids, num_tasks)


def _takes(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _looks_like_tasks(value: Any) -> bool:
    """Whether an argument could be task ids: integers ``(B,)``."""
    return isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point() and value.dtype != torch.bool


def _shown(value: Any) -> str:
    return f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else brief(value)


def takes_further_keywords(model: nn.Module) -> bool:
    """Whether a model's ``forward`` takes keywords that it does not name, unless the model itself says otherwise. The Trainer of
    transformers asks for ``accepts_loss_kwargs`` before it adds some."""
    parameters = inspect.signature(model.forward).parameters.values()
    named = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return bool(getattr(model, "accepts_loss_kwargs", named))


def number_of_inputs(values: Any, batch_dim: int) -> int:
    """How many inputs nested arguments hold, by the first tensor with a dimension of them; 0 where there is none."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.ndim > batch_dim)
    return next((tensor.shape[batch_dim] for tensor in tensors), 0)


def joined_answers(answers: Sequence[Any], batch_dim: int, rows: int) -> Any:
    """Answers of one structure as one: tensors one after the other along their inputs, numbers ``(k,)``; anything else is kept
    where all have the same, else a list."""
    parts, structure = zip(*(tree_flatten(answer) for answer in answers), strict=True)

    def join(leaves: Sequence[Any]) -> Any:
        first = leaves[0]
        if isinstance(first, Tensor):
            if not first.ndim:
                return torch.stack(list(leaves))
            # Behind a pooling the inputs come first, whatever they are in before: (B, C), also where C is B.
            pooled = first.ndim <= batch_dim + 1 and first.shape[0] == rows
            along = batch_dim if not pooled and batch_dim < first.ndim and first.shape[batch_dim] == rows else 0
            return torch.cat(list(leaves), along)
        if dataclasses.is_dataclass(first) and not isinstance(first, type):
            names = [field.name for field in dataclasses.fields(first)]
            values = {name: joined_answers([getattr(leaf, name) for leaf in leaves], batch_dim, rows) for name in names}
            return dataclasses.replace(first, **values)
        return first if all(leaf is first or _equal(leaf, first) for leaf in leaves) else list(leaves)

    return tree_unflatten([join(leaves) for leaves in zip(*parts, strict=True)], structure[0])


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, (str, int, float)) and type(a) is type(b) and a == b


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments from one batch of inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})
