"""Layers whose activity is rectified, seen on one batch: what a refusal of a layer that is not can advise."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .replay import Call, Layer

MOST_TRIED = 8  # layers on each side whose connection is tried


class NotRectified(InputError):
    """A layer's activity has negative values."""

    def __init__(self, layer: Layer, activity: Tensor, advice: str = "Name a layer behind a ReLU") -> None:
        self.layer, self.activity = layer, activity
        super().__init__(
            f"the activity of layer {layer.name!r} is not rectified (values from {activity.min().item():.3g} to "
            f"{activity.max().item():.3g}): a share of a negative firing rate has no meaning, and there is no gain relative to it. "
            f"{advice}, or pass unrectified='layer_norm', which goes by the power of its activity as LayerNorm normalises it, or "
            "unrectified='magnitude', which goes by the absolute value"
        )

    def with_choice(self, names: Sequence[str]) -> NotRectified:
        """The same, with the layers to choose from; none: the model has none there."""
        listed = " or ".join(repr(name) for name in names)
        advice = f"Name the nearest rectified, {listed}" if names else "Name other layers (no rectified one fits here)"
        return NotRectified(self.layer, self.activity, advice)


@torch.no_grad()
def nearest_rectified(
    call: Call, refused: NotRectified, encoders: Sequence[Layer], decoder: Layer, batch_dim: int
) -> list[str]:
    """Names of the rectified layers that ran last before a refused layer and first after it: none, one or two.

    Args:
        call: what is run, a few times.
        refused: of one of the encoders, or of the decoder, in whose place the layers named could be.
        batch_dim: dimension of the inputs in activity.

    A layer counts as rectified if its output is a tensor of inputs and neurons with zeros, positive and no negative values. Of
    layers that return the same tensor, such as an activation and the block that ends in it, the first that runs once is named. A
    layer fits if, with it in the place of the refused one, a change of the encoder's activity reaches the decoder's.
    """
    ran: list[nn.Module] = []
    groups: list[list[nn.Module]] = []  # who returned the same tensor
    last: Tensor | None = None
    rows, thread = refused.activity.shape[batch_dim], threading.get_ident()

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal last
        if threading.get_ident() != thread:
            return
        ran.append(module)
        value = output[0] if isinstance(output, (tuple, list)) and output else output
        if value is last and groups:
            groups[-1].append(module)
        elif isinstance(value, Tensor) and _rectified(value, batch_dim, rows):
            groups.append([module])
            last = value

    handles = [module.register_forward_hook(look) for module in call.model.modules()]
    try:
        call.run({})
    finally:
        for handle in handles:
            handle.remove()
    times, place = Counter(ran), {module: number for number, module in enumerate(ran)}
    names = {module: name for name, module in call.model.named_modules()}
    used = {layer.module for layer in (*encoders, decoder)}
    once = ([module for module in group if times[module] == 1 and names[module]] for group in groups)
    fitting = [Layer(names[group[0]], group[0]) for group in once if group and group[0] not in used]
    here = place[refused.layer.module]
    earlier = [layer for layer in reversed(fitting) if place[layer.module] < here]
    later = [layer for layer in fitting if place[layer.module] > here]

    def fits(layer: Layer) -> bool:
        if refused.layer.module is decoder.module:
            return all(_reaches(call, encoder, layer) for encoder in encoders)
        return _reaches(call, layer, decoder)

    found = (next(filter(fits, itertools.islice(layers, MOST_TRIED)), None) for layers in (earlier, later))
    return [layer.name for layer in found if layer is not None]


def _rectified(value: Tensor, batch_dim: int, rows: int) -> bool:
    return (
        value.is_floating_point() and value.ndim > max(1, batch_dim) and value.shape[batch_dim] == rows
        and value.numel() > rows and bool((value == 0).any()) and bool((value > 0).any()) and not bool((value < 0).any())
    )  # fmt: skip


def _reaches(call: Call, source: Layer, target: Layer) -> bool:
    """Whether the activity of one layer, changed, changes that of another."""
    try:
        first = call.reached(target, {source: lambda activity: activity})
        second = call.reached(target, {source: lambda activity: activity * 1.5})
    except InputError:  # it does not run before the other, or runs more than once
        return False
    return not torch.equal(first, second)
