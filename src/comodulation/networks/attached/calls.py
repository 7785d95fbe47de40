"""What goes into a call of a model, and what comes out: arguments, and answers of several calls as one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten


def takes(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a model's ``forward`` can be called with such arguments."""
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def takes_further_keywords(model: nn.Module) -> bool:
    """Whether a model's ``forward`` takes keywords that it does not name, unless the model itself says otherwise. The Trainer of
    transformers asks for ``accepts_loss_kwargs`` before it adds some."""
    parameters = inspect.signature(model.forward).parameters.values()
    named = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return bool(getattr(model, "accepts_loss_kwargs", named))


def looks_like_tasks(value: Any) -> bool:
    """Whether an argument could be task ids: integers ``(B,)``."""
    return isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point() and value.dtype != torch.bool


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
