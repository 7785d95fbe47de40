"""Which dimension of a layer's activity holds its neurons, and what is done along it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import InputError

NeuronKind = Literal["channel", "position"]
_WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape", "embedding_dim")


@dataclass(frozen=True)
class Neurons:
    """The neurons of one layer.

    Attributes:
        layer: the layer's name, for errors.
        width: number N of neurons; None where it is not known yet.
        neuron_dim: dimension of the activity that holds them; None: the one with ``width`` entries, in doubt 1, and the last
            for activity of three dimensions (tokens). The dimensions that are neither this nor the inputs' are positions.
        batch_dim: dimension of the inputs.
        kind: ``channel``: one neuron an entry of its dimension, whatever the position; ``position``: one neuron a channel and
            position, in the order of the activity without its inputs' dimension. ``neuron_dim`` then has no meaning.
        sizes: of positions, the activity's sizes without its inputs'; None where they are not known. Their product alone does
            not say what is where: portrait maps have as many neurons as landscape ones.
    """

    layer: str
    width: int | None
    neuron_dim: int | None = None
    batch_dim: int = 0
    kind: NeuronKind = "channel"
    sizes: tuple[int, ...] | None = None

    def as_in(self, activity: Tensor) -> Neurons:
        """These neurons, as many as activity has; of positions, where they are in it. Raises InputError as ``of`` does."""
        sizes = self._sizes(activity) if self.kind == "position" else None
        return replace(self, width=self.of(activity), sizes=sizes)

    def of(self, activity: Tensor) -> int:
        """How many neurons activity has. Raises InputError where none of its dimensions can hold them."""
        if self.kind == "position":
            return math.prod(self._sizes(activity))
        return activity.shape[self.dimension(activity)]

    def dimension(self, activity: Tensor) -> int:
        """The dimension of the neurons in activity. Raises InputError where none can be it."""
        self._check_dimensions(activity)
        dims = activity.ndim
        if self.neuron_dim is not None:
            candidates = [self.neuron_dim % dims] if -dims <= self.neuron_dim < dims else []
        else:
            usual = [dims - 1, 1] if dims == 3 else [1, dims - 1]
            candidates = [dim for dim in dict.fromkeys([*usual, 0]) if dim != self.batch_dim]
        fitting = [d for d in candidates if d != self.batch_dim and self.width in (None, activity.shape[d])]
        if not fitting:
            where = f"dimension {self.neuron_dim} of" if self.neuron_dim is not None else "a dimension of"
            raise InputError(
                f"layer {self.layer!r}: expected {self.width} neurons in {where} its activity {tuple(activity.shape)}; pass "
                "example= (one batch of inputs), encoder_width= or neuron_dim="
            )
        return fitting[0]

    def at(self, dim: int | None, shape: torch.Size) -> Neurons:
        """These neurons in a dimension that was found to hold them, where it can; None: as they are."""
        if dim is None or self.kind == "position" or self.neuron_dim is not None:
            return self
        if self.width not in (None, shape[dim]):
            return self
        return replace(self, neuron_dim=dim, width=shape[dim])

    def positions(self, activity: Tensor) -> tuple[int, ...]:
        """Sizes of the dimensions of activity that are neither its inputs' nor its neurons'."""
        neurons = self._channels(activity) if self.kind == "position" else self.dimension(activity)
        return tuple(size for dim, size in enumerate(activity.shape) if dim not in (self.batch_dim, neurons))

    def averaged(self, activity: Tensor, mask: Tensor | None = None) -> Tensor:
        """Activity averaged over positions, unless each is a neuron, in at least float32: ``(B, N)``.

        Args:
            mask: which of the positions count, boolean ``(B, P)`` (activity then has one dimension of them); None: all. A neuron
                at a position that does not count is silent.
        """
        precise = activity.to(torch.promote_types(activity.dtype, torch.float32))
        if self.kind == "position":
            self._sizes(activity)
            if mask is not None:
                ordered = precise.movedim((self.batch_dim, self._channels(activity)), (0, 1))
                ordered = torch.where(mask[:, None], ordered, 0)
                precise = ordered.movedim((0, 1), (self.batch_dim, self._channels(activity)))
            return precise.movedim(self.batch_dim, 0).flatten(1)
        ordered = precise.movedim((self.batch_dim, self.dimension(activity)), (0, 1))
        if mask is not None:
            return torch.where(mask[:, None], ordered, 0).sum(2) / mask.sum(1, keepdim=True).clamp(min=1)
        return ordered.flatten(2).mean(2) if ordered.ndim > 2 else ordered

    def summed(self, activity: Tensor) -> Tensor:
        """Activity of all neurons together at each position, in at least float32: ``(B, P)``. Raises InputError without any."""
        if self.kind == "position" or not self.positions(activity):
            raise InputError(
                f"layer {self.layer!r} has activity {tuple(activity.shape)} without positions that neurons share, and there is "
                "nothing to label; name a layer before the pooling, or take labels='channels'"
            )
        precise = activity.to(torch.promote_types(activity.dtype, torch.float32))
        return precise.movedim((self.batch_dim, self.dimension(activity)), (0, 1)).flatten(2).sum(1)

    def weighed(self, activity: Tensor, factor: Tensor) -> Tensor:
        """Activity with each position multiplied by its factor ``(B, P)``, in the activity's type."""
        precise = torch.promote_types(activity.dtype, torch.float32)
        each = factor.to(precise).reshape(factor.shape[0], 1, *self.positions(activity))
        each = each.movedim((0, 1), (self.batch_dim, self.dimension(activity)))
        return (activity.to(precise) * each).to(activity.dtype)

    def evened(self, activity: Tensor, mask: Tensor | None = None) -> Tensor:
        """Activity with its mean over positions, those that count, at each of them."""
        mean = self.averaged(activity, mask).to(activity.dtype)
        mean = mean.reshape(*mean.shape, *[1] * (activity.ndim - 2))
        return mean.movedim((0, 1), (self.batch_dim, self.dimension(activity))).expand_as(activity).clone()

    def normalised(self, activity: Tensor) -> Tensor:
        """What LayerNorm without weights makes of activity, at each position over its neurons, in at least float32: mean 0, mean
        square 1. Where all neurons are equal, 0."""
        precise = activity.to(torch.promote_types(activity.dtype, torch.float32))
        dim = self.dimension(activity)
        centred = precise - precise.mean(dim, keepdim=True)
        # Relative to the largest, whose square no activity is too small or too large for.
        largest = centred.detach().abs().amax(dim, keepdim=True)
        centred = centred / torch.where(largest > 0, largest, 1)
        power = centred.square().mean(dim, keepdim=True)
        return centred * torch.where(largest > 0, power, 1).rsqrt()

    def scaled(self, activity: Tensor, factor: Tensor) -> Tensor:
        """Activity with each neuron multiplied by its factor ``(B, N)``, in the activity's type."""
        self.of(activity)  # refuses what it cannot be
        if factor.shape[0] != activity.shape[self.batch_dim]:
            raise InputError(
                f"{factor.shape[0]} task ids for {activity.shape[self.batch_dim]} inputs (layer {self.layer!r}, activity "
                f"{tuple(activity.shape)}, inputs in dimension {self.batch_dim}); give one task an input, or batch_dim="
            )
        precise = torch.promote_types(activity.dtype, torch.float32)
        if self.kind == "position":
            each = factor.to(precise).unflatten(1, self._sizes(activity)).movedim(0, self.batch_dim)
            return (activity.to(precise) * each).to(activity.dtype)
        dim = self.dimension(activity)
        if dim < self.batch_dim:
            factor = factor.T
        shape = [1] * activity.ndim
        shape[dim], shape[self.batch_dim] = activity.shape[dim], activity.shape[self.batch_dim]
        # The product in float32: in half precision a large factor alone would overflow.
        return (activity.to(precise) * factor.to(precise).reshape(shape)).to(activity.dtype)

    def _check_dimensions(self, activity: Tensor) -> None:
        if activity.ndim < 2 or self.batch_dim >= activity.ndim:
            raise InputError(
                f"layer {self.layer!r} has activity of shape {tuple(activity.shape)}, expected at least inputs and neurons"
            )

    def _channels(self, activity: Tensor) -> int:
        """Where every position is a neuron: the dimension of the channels, which is the last of tokens, else 1 (or 0)."""
        dim = activity.ndim - 1 if activity.ndim == 3 else 1
        return dim if dim != self.batch_dim else 0

    def _sizes(self, activity: Tensor) -> tuple[int, ...]:
        """Sizes of the dimensions whose every entry is a neuron. Raises InputError where they are not ``sizes``, or not ``width``
        in all."""
        self._check_dimensions(activity)
        sizes = (*activity.shape[: self.batch_dim], *activity.shape[self.batch_dim + 1 :])
        if self.width not in (None, math.prod(sizes)) or self.sizes not in (None, sizes):
            expected = "" if self.sizes is None else f" {self.sizes}"
            raise InputError(
                f"layer {self.layer!r}: expected {self.width} neurons{expected}, one a channel and position, but its activity "
                f"{tuple(activity.shape)} has {math.prod(sizes)} an input {sizes}; inputs must have the size of the example"
            )
        return sizes


def infer_width(module: nn.Module) -> int | None:
    """Number of neurons of a layer's output, read off the last of its parts that says it; None if none does."""
    for part in reversed(list(module.modules())):
        if isinstance(part, nn.RNNBase):
            return (part.proj_size or part.hidden_size) * (2 if part.bidirectional else 1)
        for name in _WIDTHS:
            value = getattr(part, name, None)
            if isinstance(value, (tuple, list, torch.Size)) and value:
                value = value[-1]
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None
