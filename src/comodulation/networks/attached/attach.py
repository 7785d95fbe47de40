"""Modulation between named layers of any network, which stays as it is.

    net = comodulation.comodulate(model, encoder="layer3", decoder="layer4", num_tasks=20)
    logits = net(images, task_ids)                     # train net.controller with it, then
    net.store_task_gains(batches)                      # fix the gains: one plain pass from now on
    with net.disabled(): base = net(images)            # the model's own output, bit for bit

A neuron is a channel of a map, an embedding dimension of tokens, a unit of a vector; its activity is averaged over positions
before any statistic, as in the paper's head (head.py); with ``neurons="position"`` it is a channel at a position. While the model
runs, the encoder layer's output is multiplied by the task's gain exp(u) and the decoder layer's output by the decoder gains; the
rest of the model runs on. The gains come from further passes through the part between the two layers only (replay.py): one
forward-mode derivative with respect to the modulator at m = 0, or one pass for each Gauss-Hermite node.

Source: arXiv 2311.15053 (2023) for the mechanism; putting it between any two layers is this library's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ...errors import InputError, choose
from ..controller import Controller
from ..position_weights import LEARNED, Weights
from .between import Unrectified
from .calls import arguments
from .comodulated import Comodulated
from .dimensions import look
from .neurons import NeuronKind, Neurons, infer_width
from .options import (
    EstimatorName,
    Labels,
    check_neurons,
    check_numbers,
    layers_named,
    modulation_of,
    refuse_compiled,
    widths_given,
)
from .padding import AUTO, check_name
from .replay import Layer


def comodulate(
    model: nn.Module,
    *,
    encoder: str | Sequence[str],
    decoder: str,
    num_tasks: int,
    example: Any = None,
    estimator: EstimatorName = "auto",
    encoder_gain: bool = True,
    unrectified: Unrectified = "refuse",
    encoder_width: int | Sequence[int] | None = None,
    neuron_dim: int | None = None,
    batch_dim: int = 0,
    neurons: NeuronKind = "channel",
    mask: str | None = AUTO,
    labels: Labels = "channels",
    couplings: str = LEARNED,
    strength: float = 10.0,
    weights: Weights = "one",
    controller: Mapping[str, Any] | None = None,
    **options: Any,
) -> Comodulated:
    """Put task modulation between named layers of a model, whose parameters are frozen and which stays in evaluation mode.

    Args:
        model: any module; used, not copied: what it learned stays bit for bit, and called by itself it is what it was.
        encoder: name of the layer whose neurons are coupled to the modulator, as in ``model.named_modules()``; or several.
        decoder: name of the layer that gets the computed gains; it must run after the encoder.
        num_tasks: number K of tasks.
        example: one batch of inputs (a tensor, a tuple of positional or a dict of keyword arguments). With it everything that
            can be wrong is found now; without it, at the first call.
        estimator: ``derivative``, ``quadrature``, or ``auto``: derivative where every layer between has a forward mode that can be
            trained, which is tried once, else quadrature, with a warning that says so.
        encoder_gain: multiply the encoder's activity by exp(u) while the decoder has its gains; False leaves it unmodulated.
        unrectified: what to do where an activity has negative values: ``refuse``; or scale the encoder's signed activity as it is,
            and take a decoder neuron's statistics from the absolute value of its activity (``magnitude``), or from its power
            after LayerNorm, invariant to sign, shift and scale (``layer_norm``; channels alone).
        encoder_width: number of encoder neurons, of each encoder layer; None reads it off ``example``, else off the layer's
            parameters.
        neuron_dim: dimension of the neurons in encoder and decoder activity; None takes the one in which the layers before have
            theirs (1 behind convolutions, the last behind linear layers); where none says it, the one that has the layer's
            width, in doubt 1, for activity of three dimensions the last.
        batch_dim: dimension of the inputs in them; 1 for a recurrent layer without ``batch_first``.
        neurons: what a neuron is: a ``channel``, averaged over positions, or each ``position`` of each channel, so that tasks can
            name places (couplings ``(C H W,)`` of maps of the example's size, which is then needed, without ``neuron_dim``).
        mask: name of the model's argument that says which positions count ``(B, L)``, so that padding is in no statistic: not 0
            where one counts, or, where the name ends in ``padding_mask``, where it does not. ``auto``: ``attention_mask``,
            ``src_key_padding_mask``, ``key_padding_mask`` or ``padding_mask``, where the model is given one. None: all count.
        labels: what the computed gains multiply: ``channels`` of the decoder; its ``positions`` (pixels, tokens, moments), by where
            the modulator's fluctuation arrives in an input, while neurons and encoder stay as they are; or ``both``. What follows
            the decoder must then read the mean over its positions, so that their gains are weights of that mean.
        couplings: ``learned``, or computed by ``net.observe(batches)`` from a few inputs of each task: ``informativeness``,
            ``discriminability`` or ``discriminant`` (mathematics/couplings.py). Nothing is learned then.
        strength: beta of labels of positions with learned couplings; closed forms find their own.
        weights: how many positions are expected to show what a task asks for. ``one``: positions compete. ``each``: several do, as
            the words of a message do, and each weighs as its own posterior says, whatever the others say; couplings must then be in
            closed form, and strengths and middles are found with them, from the labels of single positions.
        controller: options of ``Controller``.
        **options: std, link, normalizer, beta, level, num_nodes, after_gain, as in ``Modulation``.

    Returns:
        Comodulated: a module that is called like the model, with task ids.

    Raises:
        InputError: unknown layers (with the nearest name), a compiled or scripted model, a number of neurons that cannot be told,
            options out of range; with ``example``: activity that is not rectified, layers in the wrong order, that run twice, or
            whose output is no tensor.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 6), torch.nn.ReLU())
    >>> net = comodulate(model, encoder="1", decoder="3", num_tasks=2, example=torch.ones(1, 4))
    >>> x = torch.ones(3, 4)
    >>> bool((net(x, torch.tensor([0, 1, 1])) == model(x)).all())  # before training, the model itself
    True
    """
    refuse_compiled(model)
    choose(estimator, get_args(EstimatorName), "estimator")
    check_neurons(neurons, neuron_dim, example)
    modulation = modulation_of(estimator, encoder_gain, options)
    check_numbers(num_tasks, strength)
    check_name(model, mask)
    encoders, last = layers_named(model, encoder, decoder)
    layers, widths = [*encoders, last], [*widths_given(encoder_width, len(encoders)), 0]
    with _as_it_was_if_refused(model):
        model.requires_grad_(False).eval()
        found = {} if example is None else look(model, *arguments(example), layers, batch_dim)
        sites = [
            _site(Neurons(layer.name, width or None, neuron_dim, batch_dim, neurons), layer, found.get(layer))
            for layer, width in zip(layers, widths, strict=True)
        ]
        if unknown := [site.layer for site in sites[:-1] if site.width is None]:
            raise InputError(
                f"cannot tell the number of neurons of layer {unknown[0]!r} from its parameters; pass example= (one batch of "
                "inputs) or encoder_width="
            )
        num_channels = sum(site.width or 0 for site in sites[:-1])
        net = Comodulated(
            model, encoders, last, sites, Controller(int(num_tasks), num_channels, **(controller or {})), modulation,
            unrectified=unrectified, may_fall_back=estimator == "auto", mask=mask, labels=labels, couplings=couplings,
            strength=strength, weights=weights,
        )  # fmt: skip
        if example is not None:
            net.check(example)
    return net


def _site(given: Neurons, layer: Layer, found: tuple[torch.Size, int | None] | None) -> Neurons:
    """A layer's neurons: as many as are given, or else as its parameters, or its activity, say.

    Args:
        found: the shape of the layer's activity, and in which dimension the layers before have their neurons; None: not known.
    """
    site = given
    if given.width is None and given.kind != "position":
        site = replace(given, width=infer_width(layer.module))
    if found is None:
        return site
    shape, dim = found
    activity = torch.empty(shape, device="meta")
    if given.width is None and not _fits(site, activity):
        site = given  # what the parameters say is not what the layer returns
    return site.at(dim, shape).as_in(activity)


@contextmanager
def _as_it_was_if_refused(model: nn.Module) -> Iterator[None]:
    """What is refused leaves a model in the mode, and with the learnable parameters, that it had."""
    modes = {module: module.training for module in model.modules()}
    learnable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    except BaseException:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in learnable.items():
            parameter.requires_grad_(requires_grad)
        raise


def _fits(site: Neurons, activity: Tensor) -> bool:
    try:
        site.of(activity)
    except InputError:
        return False
    return True
