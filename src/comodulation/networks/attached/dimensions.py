"""Which dimension of a layer's activity holds its neurons, where the layer itself does not say: an activation, a block.

The layers that ran before say it. A convolution has its channels in dimension 1, a linear layer or a normalisation of tokens its
features in the last one; what an activation is given, and what a block adds up, has the shape of what one of them returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .interception import Substitute, substituted
from .replay import Edit, Layer, run

# Exactly these types: what derives from them may have permuted what they return.
_DIMENSIONS: dict[type[nn.Module], tuple[int, str]] = {
    **{
        kind: (1, "out_channels")
        for kind in (
            nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
        )
    },
    **{kind: (1, "num_features") for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)},
    nn.GroupNorm: (1, "num_channels"),
    nn.Linear: (-1, "out_features"),
    nn.Embedding: (-1, "embedding_dim"),
    nn.LayerNorm: (-1, "normalized_shape"),
}  # fmt: skip


@torch.no_grad()
def look(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], layers: Sequence[Layer], batch_dim: int = 0
) -> dict[Layer, tuple[torch.Size, int | None]]:
    """Call the model once, and see the shape of each layer's activity and the dimension of its neurons; None where nothing says it.

    Raises:
        InputError: as ``run``.
    """
    told: list[tuple[torch.Size, int]] = []
    found: dict[Layer, tuple[torch.Size, int | None]] = {}

    def telling(module: nn.Module) -> Substitute:
        dim, attribute = _DIMENSIONS[type(module)]
        width = getattr(module, attribute)
        width = width if isinstance(width, int) else width[-1]

        def forward(own: Any, *inputs: Any, **named: Any) -> Any:
            output = own(*inputs, **named)
            wide = isinstance(output, Tensor) and output.ndim > 1 and output.shape[dim] == width
            if wide and dim % output.ndim != batch_dim:
                told.append((output.shape, dim % output.ndim))
            return output

        return forward

    def looking(layer: Layer) -> Edit:
        def edit(activity: Tensor) -> Tensor:
            found[layer] = activity.shape, _told(activity.shape, told)
            return activity

        return edit

    with substituted({module: telling(module) for module in model.modules() if type(module) in _DIMENSIONS}):
        run(model, args, kwargs, {layer: looking(layer) for layer in layers})
    return found


def _told(shape: torch.Size, told: Sequence[tuple[torch.Size, int]]) -> int | None:
    """By the last that returned this shape; else (behind a pooling) by the last with as many dimensions and as many neurons."""
    for other, dim in reversed(told):
        if other == shape:
            return dim
    for other, dim in reversed(told):
        if len(other) == len(shape) and other[dim] == shape[dim]:
            return dim
    return None
