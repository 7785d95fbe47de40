"""Whether what follows a layer reads the mean of its positions.

Labels of positions are weights of that mean, and would be something else elsewhere: a LayerNorm at each token takes them away
again, a convolution smears them, a class token never sees them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...errors import InputError
from ...mathematics import autocasts
from .neurons import Neurons
from .padding import Masks
from .replay import Call, Edit, Layer, Recording

ROUNDING = 1e-3  # of the answer's size: changes below it are rounding, of single precision
UNITS = 16  # the same in units of the last place, for half precision


@torch.no_grad()
def check_mean_is_read(call: Call, layer: Layer, site: Neurons, masks: Masks) -> None:
    """Run a call with a layer's activity as it is, and with its mean over positions at every position.

    Args:
        call: of a model. layer: of it. site: the layer's neurons. masks: of the call.

    Raises:
        InputError: the answers differ.
    """

    def averaged(activity: Tensor) -> Tensor:
        return site.evened(activity, masks(site, activity))

    given = call.given if isinstance(call, Recording) else True
    if isinstance(call, Recording):
        call.given = False  # these two passes are not the answer
    try:
        first, second = (_numbers(call, {layer: edit}) for edit in (lambda activity: activity, averaged))
    finally:
        if isinstance(call, Recording):
            call.given = given
    size = max((float(each.abs().max()) for each in first), default=0.0)
    change = max((float((a - b).abs().max()) for a, b in zip(first, second, strict=True)), default=0.0)
    coarse = {each.dtype for each in first} | (
        {torch.bfloat16} if any(autocasts(each.device) for each in first) else set()
    )
    tolerance = max([ROUNDING, *(UNITS * torch.finfo(dtype).eps for dtype in coarse)])
    if not change <= tolerance * size:
        raise InputError(
            f"what follows layer {layer.name!r} does not read the mean of its positions: with that mean at every position, the "
            f"answer changes by {change:.2g} (its size is {size:.2g}). Labels of positions weigh that mean; name the last layer "
            "before the global pooling as decoder, or take labels='channels'"
        )


def _numbers(call: Call, edits: dict[Layer, Edit]) -> list[Tensor]:
    leaves = tree_leaves(call.run(edits))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]
