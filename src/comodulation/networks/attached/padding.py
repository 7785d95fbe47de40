"""Which positions of a call's inputs count, and which are padding.

Statistics average activity over positions. Padding is no part of an input: how much of it there is depends on what else is in the
batch, and a gain must not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, choose
from .call_state import objects_in
from .neurons import Neurons

AUTO = "auto"
NAMES = ("attention_mask", "src_key_padding_mask", "key_padding_mask", "padding_mask")
# Of a layer's neurons and its activity: which of its positions count.
Masks = Callable[[Neurons, Tensor], Tensor | None]


def check_name(model: nn.Module, name: str | None) -> None:
    """Raises InputError for the name of a mask that the model is never given: padding would count, and nothing would say so."""
    if name is None or name == AUTO:
        return
    parameters = inspect.signature(model.forward).parameters.values()
    if not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        choose(name, [parameter.name for parameter in parameters], "argument of the model for mask=;")


def masks_of(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], name: str | None) -> Masks:
    """Which positions of any layer's activity count in a call.

    Args:
        model, args, kwargs: the call. name: of the argument that is the mask ``(B, L)``: not 0 where a position counts; or, if the
            name ends in ``padding_mask`` (PyTorch's own convention), true or not 0 where it does not. ``auto``: the first of
            ``attention_mask``, ``src_key_padding_mask``, ``key_padding_mask``, ``padding_mask`` that is given. None: all count.

    Raises:
        InputError: a mask of another shape, which does not say what is padding.
    """
    counts = _positions_that_count(_by_name(model, args, kwargs), name)
    # Of a call that is given a cache of earlier positions, the activity has the last ones alone.
    cached = counts is not None and (kwargs.get("past_key_values") is not None or objects_in((args, kwargs)))
    return lambda site, activity: _mask_at(site, activity, counts, cached=cached)


def _positions_that_count(given: Mapping[str, Any], name: str | None) -> Tensor | None:
    """Where the mask among a call's arguments lets positions count, boolean ``(B, L)``; None: all."""
    names = () if name is None else NAMES if name == AUTO else (name,)
    named = next((each for each in names if given.get(each) is not None), None)
    if named is None:
        return None
    mask = given[named]
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        what = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise InputError(
            f"the mask among the arguments is {what}, which does not say which positions are padding and must not count in "
            "statistics; give one (inputs, positions), or mask=None to comodulate(...) where nothing is padded"
        )
    counts = mask == 0 if named.endswith("padding_mask") else mask != 0
    return None if not torch.compiler.is_compiling() and bool(counts.all()) else counts


def _mask_at(site: Neurons, activity: Tensor, counts: Tensor | None, *, cached: bool) -> Tensor | None:
    """The part of a mask ``(B, L)`` that belongs to the positions of a layer's activity, ``(B, P)``; None where all count.

    Raises:
        InputError: the layer's positions are not those of the mask.
    """
    if counts is None or activity.ndim < 3:
        return None
    places = site.positions(activity)
    rows = activity.shape[site.batch_dim]
    if cached and len(places) == 1 and places[0] < counts.shape[1]:
        counts = counts[:, -places[0] :]
    if len(places) != 1 or counts.shape != (rows, places[0]):
        raise InputError(
            f"the mask {tuple(counts.shape)} says that some positions are padding, but the activity {tuple(activity.shape)} of "
            f"layer {site.layer!r} has {places} positions, so that it cannot be told which do not count; give inputs without "
            "padding, a layer with the positions of the mask, or mask=None to comodulate(...) to count all of them"
        )
    return counts


def _by_name(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except TypeError:  # not what the model takes; it says so itself
        return dict(kwargs)
    return {**bound, **kwargs}
