"""What ``comodulate`` is given, checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import nn

from ...errors import InputError, choose
from ...mathematics import CLOSED_FORMS, Modulation
from ..position_weights import LEARNED, Weights
from .neurons import NeuronKind
from .replay import Layer

Labels = Literal["channels", "positions", "both"]  # what the computed gains multiply
EstimatorName = Literal["auto", "derivative", "quadrature"]
_OFFERED = ("std", "link", "normalizer", "beta", "level", "num_nodes", "after_gain")  # fields of Modulation


def refuse_compiled(model: nn.Module) -> None:
    """Raises InputError for what is no module, or one whose layers a compiler has taken away."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        what = "scripted" if isinstance(module, torch.jit.ScriptModule) else None
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            what = "compiled"
        if what:
            where = f" (its part {name!r})" if name else ""
            raise InputError(
                f"the model is {what}{where}, so that its layers cannot be reached; give the model itself, and for a graph "
                "export what comodulate returns (comodulation.runs.export.export_program)"
            )


def check_neurons(neurons: str, neuron_dim: int | None, example: Any) -> None:
    """Raises InputError for an unknown kind of neuron, and for neurons at positions that cannot be told."""
    if choose(neurons, get_args(NeuronKind), "kind of neuron") != "position":
        return
    if neuron_dim is not None:
        raise InputError(
            f"neurons='position' takes every dimension but the inputs'; expected no neuron_dim, got {neuron_dim}"
        )
    if example is None:
        raise InputError(
            "neurons='position': pass example= (one batch of inputs), whose maps say which place a coupling belongs to"
        )


def modulation_of(estimator: EstimatorName, encoder_gain: bool, options: Mapping[str, Any]) -> Modulation:
    """The mechanism, by derivative where the estimator is `auto`. Raises InputError for options that are unknown."""
    for name in options:
        choose(name, _OFFERED, "option of comodulate;")
    return Modulation(
        estimator="derivative" if estimator == "auto" else estimator,
        encoder="gain" if encoder_gain else "none",
        **options,
    )


def check_numbers(num_tasks: int, strength: float) -> None:
    """Raises InputError for numbers out of range."""
    if not isinstance(num_tasks, Integral) or isinstance(num_tasks, bool) or num_tasks < 1:
        raise InputError(f"num_tasks must be a positive integer, got {num_tasks!r}")
    if not isinstance(strength, Real) or not 0 <= strength < math.inf:
        raise InputError(f"strength must be a finite number of at least 0, got {strength!r}")


def layers_named(model: nn.Module, encoder: str | Sequence[str], decoder: str) -> tuple[list[Layer], Layer]:
    """Encoder layers and decoder layer. Raises InputError for unknown names, and for layers that are not different ones."""
    if isinstance(encoder, nn.Module) or not isinstance(encoder, (str, Sequence)):
        raise InputError(
            f"encoder is a {type(encoder).__name__}, expected a name from model.named_modules(), or a list of them"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    modules.pop("", None)

    def layer(name: str, what: str) -> Layer:
        return Layer(name, modules[choose(name, modules, what)])

    names = [encoder] if isinstance(encoder, str) else list(encoder)
    encoders = [layer(name, "encoder layer") for name in names]
    last = layer(decoder, "decoder layer")
    if not encoders or len({one.module for one in (*encoders, last)}) <= len(encoders):
        raise InputError(f"encoder {names} and decoder {decoder!r} must be different layers")
    return encoders, last


def widths_given(encoder_width: int | Sequence[int] | None, number: int) -> list[int]:
    """Number of neurons of each encoder layer as it is given, 0 where it is not. Raises InputError for another number of them."""
    if encoder_width is None or isinstance(encoder_width, int):
        return [encoder_width or 0] * number
    if len(encoder_width) != number:
        raise InputError(
            f"encoder_width has {len(encoder_width)} numbers for {number} encoder layers, expected one for each"
        )
    return list(encoder_width)


def check_labels(labels: str, couplings: str, weights: str, unrectified: str) -> None:
    """Raises InputError for unknown words, and for labels, couplings and weights that do not go together."""
    choose(labels, get_args(Labels), "labels")
    choose(couplings, (LEARNED, *CLOSED_FORMS), "couplings")
    choose(weights, get_args(Weights), "weights")
    if labels != "channels" and unrectified == "layer_norm":
        raise InputError(
            "labels of positions are not defined with unrectified='layer_norm', by which every position has the same power; "
            "take 'magnitude', or labels='channels'"
        )
    if weights == "each" and labels == "channels":
        raise InputError(
            "weights='each' are of positions, and labels='channels' give none to weigh; take labels='positions' or 'both', or "
            "weights='one'"
        )
    if weights == "each" and couplings == LEARNED:
        raise InputError(
            "weights='each' need couplings in closed form, whose inputs tell how likely a position is; take couplings="
            f"{next(iter(CLOSED_FORMS))!r}, or weights='one'"
        )
