"""Layers whose activity is rectified, seen on one batch: what a refusal of a layer that is not can advise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .replay import Call, Layer


class NotRectified(InputError):
    """A layer's activity has negative values."""

    def __init__(self, layer: Layer, activity: Tensor, advice: str = "") -> None:
        self.layer, self.activity = layer, activity
        super().__init__(
            f"the activity of layer {layer.name!r} is not rectified (values from {activity.min().item():.3g} to "
            f"{activity.max().item():.3g}): a share of a negative firing rate has no meaning, and there is no gain relative to it. "
            + (advice or "Name a layer behind a ReLU")
            + ", or pass unrectified='layer_norm', which goes by the power of its activity as LayerNorm normalises it, or "
            "unrectified='magnitude', which goes by the absolute value"
        )

    def with_choice(self, names: Sequence[str]) -> NotRectified:
        """The same, with the layers to choose from; none: the model has none there."""
        listed = " or ".join(repr(name) for name in names)
        advice = (
            f"The nearest rectified: {listed}; name it" if names else "The model has no rectified layer to name here"
        )
        return NotRectified(self.layer, self.activity, advice)


@torch.no_grad()
def nearest_rectified(call: Call, layer: Layer, before: Sequence[Layer], after: Sequence[Layer]) -> list[str]:
    """Names of the rectified layers that ran last before a layer and first after it: none, one or two.

    Args:
        call: what is run, once.
        layer: the layer in whose place they would be.
        before, after: they end before all of the first and after all of the second.

    A layer counts as rectified if its output is a tensor of inputs and neurons with zeros, positive and no negative values. Of layers
    that return the same tensor, such as an activation and the block that ends in it, the first that runs once is named.
    """
    ran: list[nn.Module] = []
    groups: list[tuple[int, list[nn.Module]]] = []  # place in the order, and who returned this tensor
    last: Tensor | None = None

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal last
        ran.append(module)
        value = output[0] if isinstance(output, (tuple, list)) and output else output
        if value is last and groups:
            groups[-1][1].append(module)
        elif isinstance(value, Tensor) and _rectified(value):
            groups.append((len(ran), [module]))
            last = value

    handles = [module.register_forward_hook(look) for module in call.model.modules()]
    try:
        call.run({})
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(ran)
    place = {module: number for number, module in enumerate(ran, 1)}
    names = {module: name for name, module in call.model.named_modules()}
    low = max((place[other.module] for other in after), default=0)
    high = min((place[other.module] for other in before), default=len(ran) + 1)
    fitting = []
    for number, modules in groups:
        once = [names[module] for module in modules if times[module] == 1 and names[module]]
        if once and low < number < high:
            fitting.append((number, once[0]))
    here = place[layer.module]
    earlier = [name for number, name in fitting if number < here][-1:]
    return earlier + [name for number, name in fitting if number > here][:1]


def _rectified(value: Tensor) -> bool:
    return (
        value.is_floating_point() and value.ndim > 1 and value.shape[1:].numel() > 1 and bool((value > 0).any())
        and bool((value == 0).any()) and not bool((value < 0).any())
    )  # fmt: skip
