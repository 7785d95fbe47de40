"""What the decoder's neurons do as the modulator moves: statistics of one recorded call, and whether they can be had.

From the encoder to the decoder it takes one pass for a derivative, or one a node for quadrature.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ...errors import InputError, choose
from ...mathematics import (
    DecoderStatistics,
    Modulation,
    NoForwardMode,
    autocasts,
    directional_derivative,
    gauss_hermite,
    modulation_factor,
    outside_autocast,
    statistics_at_nodes,
    zero_where,
)
from ..controller import Controller, coupling
from ..stored_gains import TaskGains
from .interception import sharded_part
from .neurons import Neurons
from .padding import Masks, masks_of
from .rectified import NotRectified
from .replay import Call, Edit, Layer

Unrectified = Literal["refuse", "magnitude", "layer_norm"]


class Between(TaskGains):
    """Encoder layers and a decoder layer of a frozen model, and what passes between them.

    Attributes:
        model: the model itself.
        controller: task -> u, for all encoder layers in one row ``(K, E)``, E their neurons in all.
        modulation: options of the mechanism; ``modulation.estimator`` is the one in use.
        encoders, decoder: layers. encoder_sites, decoder_site: where their neurons are.
        unrectified: how activity below 0 is treated. may_fall_back: to quadrature, where there is no derivative.
        mask: where the model is told of padding.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Sequence[Layer],
        decoder: Layer,
        sites: Sequence[Neurons],
        controller: Controller,
        modulation: Modulation,
        *,
        unrectified: Unrectified,
        may_fall_back: bool,
        mask: str | None,
    ) -> None:
        super().__init__()
        self.model, self.controller, self.modulation = model, controller, modulation
        self.encoders, self.decoder = tuple(encoders), decoder
        self.encoder_sites, self.decoder_site = tuple(sites[:-1]), sites[-1]
        choose(unrectified, get_args(Unrectified), "way to treat unrectified activity;")
        self.unrectified = unrectified
        if self.unrectified == "layer_norm" and self.decoder_site.kind == "position":
            raise InputError(
                "unrectified='layer_norm' needs neurons='channel': LayerNorm's mean is over channels, at each position"
            )
        self.may_fall_back, self.mask = may_fall_back, mask
        self._learns = False  # whether gradients have been found on their way
        self._tried = False  # whether the derivative has been tried

    def decoder_width(self) -> int | None:
        return self.decoder_site.width

    def _masks(self, call: Call) -> Masks:
        return masks_of(self.model, call.args, call.kwargs, self.mask)

    def _by_layer(self, values: Tensor) -> Iterable[tuple[Layer, Neurons, Tensor]]:
        """Encoder layers with their part of ``(B, E)``."""
        parts = values.split([site.width or 0 for site in self.encoder_sites], 1)
        return zip(self.encoders, self.encoder_sites, parts, strict=True)

    def _encoder_gains(self, u: Tensor) -> dict[Layer, Edit]:
        return {layer: times_factor(site, part) for layer, site, part in self._by_layer(u.exp())}

    def statistics(self, call: Call, u: Tensor, *, positions: bool = False) -> DecoderStatistics:
        """Statistics ``(B, D)`` of the decoder layer's neurons, or ``(B, P)`` of its positions, all neurons together."""
        if autocasts(u.device):
            with outside_autocast(u.device):
                return self.statistics(call.widened(), u, positions=positions)
        self._check_learnable(call, u)
        m, w = self.modulation, coupling(u, self.modulation.link)
        if m.estimator == "derivative":
            try:
                if not self._tried and not torch.compiler.is_compiling():
                    self._try_derivative(call, u, positions)
                statistics = self._derivative(call, u, w, positions)
            except NoForwardMode as error:
                # An error that a layer raises for another reason comes again in the quadrature's passes, and is not caught there.
                self._fall_back(error)
                return self.statistics(call, u, positions=positions)
        else:
            zero = torch.zeros(u.shape[0], dtype=u.dtype, device=u.device)
            nodes, weights = gauss_hermite(m.num_nodes, u.dtype, u.device)
            respond = self._respond(call, u, positions)
            samples = torch.stack([respond(modulation_factor(w, zero + m.std * node, m.std)) for node in nodes])
            statistics = statistics_at_nodes(samples, nodes.to(samples.dtype), weights.to(samples.dtype), m.std)
        if self.unrectified == "layer_norm":  # the slope of the root of the power, relative to it, is half the power's
            statistics = statistics._replace(slope=statistics.slope / 2, deviation=statistics.deviation / 2)
        uncoupled = (w == 0).all(1, keepdim=True)
        return statistics._replace(slope=zero_where(uncoupled, statistics.slope))

    def slopes(self, call: Call, w: Tensor) -> Tensor:
        """Slopes ``(B, D)`` of the derivative estimator, linear in couplings ``(B, E)``."""
        if autocasts(w.device):
            with outside_autocast(w.device):
                return self.slopes(call.widened(), w)
        slope = self._derivative(call, torch.zeros_like(w), w).slope
        return slope / 2 if self.unrectified == "layer_norm" else slope

    def encoder_means(self, call: Call) -> Tensor:
        """Mean activity of the encoder's neurons, of all layers, ``(B, E)``; of its absolute value where it may be negative."""
        masks = self._masks(call)
        found: list[Tensor] = []

        def seeing(layer: Layer, site: Neurons) -> Edit:
            def edit(activity: Tensor) -> Tensor:
                self._check_rectified(activity, layer)
                found.append(site.averaged(activity.abs(), masks(site, activity)))
                return activity

            return edit

        edits = {layer: seeing(layer, site) for layer, site in zip(self.encoders, self.encoder_sites, strict=True)}
        call.run({**edits, self.decoder: lambda activity: activity}, until=self.decoder)
        return torch.cat(found, 1)

    def decoder_mask(self, call: Call) -> Tensor | None:
        """Which of the decoder's positions count, ``(B, P)``; None: all."""
        return self._masks(call)(self.decoder_site, call.reached(self.decoder))

    def _respond(self, call: Call, u: Tensor, positions: bool = False) -> Callable[[Tensor], Tensor]:
        """Function of what the modulator multiplies encoder activity by, ``(B, E)``: what counts as the decoder's activity then,
        positions averaged, ``(B, D)``; or, of ``positions``, neurons added up, ``(B, P)``."""
        before = self._encoder_gains(u) if self.modulation.after_gain else {}
        masks = self._masks(call)
        first = True

        def respond(factor: Tensor) -> Tensor:
            nonlocal first
            found: list[Tensor] = []

            def modulated(layer: Layer, site: Neurons, part: Tensor) -> Edit:
                def edit(activity: Tensor) -> Tensor:
                    if first:  # the encoder's activity is the same in every pass
                        self._check_rectified(activity, layer)
                    return site.scaled(before[layer](activity) if before else activity, part)

                return edit

            def decoded(activity: Tensor) -> Tensor:
                self._check_rectified(activity, self.decoder)
                self._check_reached(activity, factor)
                site, counted = self.decoder_site, self._counted(activity)
                mask = masks(site, activity)
                found.append(site.summed(counted) if positions else site.averaged(counted, mask))
                return activity

            edits = {layer: modulated(layer, site, part) for layer, site, part in self._by_layer(factor)}
            call.run({**edits, self.decoder: decoded}, until=self.decoder)
            first = False
            return found[-1]

        return respond

    def _counted(self, activity: Tensor) -> Tensor:
        """What counts as the activity of decoder neurons whose activity may be negative."""
        if self.unrectified == "magnitude":
            return activity.abs()
        if self.unrectified == "layer_norm":
            return self.decoder_site.normalised(activity).square()
        return activity

    def _derivative(self, call: Call, u: Tensor, w: Tensor, positions: bool = False) -> DecoderStatistics:
        """In the small-noise limit. The modulator's factor exp(m w) has the value 1 at m = 0 and the derivative w. The value is a
        constant, so that the derivative's own derivative does not run through that of the value, which is 0."""
        mean, slope = directional_derivative(self._respond(call, u, positions), torch.ones_like(w), w)
        return DecoderStatistics(slope, mean, slope.abs())

    def _try_derivative(self, call: Call, u: Tensor, positions: bool) -> None:
        """Raises NoForwardMode where the derivative does not exist, or cannot be differentiated once more to be trained."""
        if sharded := sharded_part(self.model):
            # It would train, or raise torch's own error, by how the parts are nested: they are gathered when a part's output has a
            # gradient, not when its derivative has.
            raise NoForwardMode(f"none that can be trained: FSDP2 shards {sharded!r}, and not the model as one")
        with torch.enable_grad():
            u = torch.ones_like(u, requires_grad=True)
            slope = self._derivative(call, u, coupling(u, self.modulation.link), positions).slope
            try:
                if slope.requires_grad:
                    torch.autograd.grad(slope.sum(), u)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # torch has no other word for it
                raise NoForwardMode(f"none that can be trained: {error}") from error
        self._tried = True

    def _check_learnable(self, call: Call, u: Tensor) -> None:
        """At the first statistics. Raises InputError where the decoder's activity has no gradient: nothing could be learned."""
        if self._learns or torch.compiler.is_compiling():
            return

        def decoded(source: Tensor) -> Tensor:
            edits = {layer: times_factor(site, part) for layer, site, part in self._by_layer(source)}
            activity = call.reached(self.decoder, edits)
            self._check_reached(activity, source)
            return activity

        with torch.enable_grad():
            source = torch.ones_like(u, requires_grad=True)
            activity = decoded(source)
            # Weights that differ: the plain sum of what a softmax or a LayerNorm returns is constant.
            weights = torch.linspace(1, 2, activity.numel(), device=activity.device).reshape(activity.shape)
            try:
                (gradient,) = torch.autograd.grad((activity * weights).sum(), source, allow_unused=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # an operation without a derivative, or one whose input was changed in place
                if "use_reentrant" not in str(error):  # such a checkpoint has gradients for `backward` alone
                    raise self._no_gradient(f" ({str(error).splitlines()[0]})") from error
            else:
                if gradient is None:
                    raise self._no_gradient()
                if not bool(gradient.any()) and not torch.equal(activity, decoded(torch.full_like(u, 1.5))):
                    raise self._no_gradient(" (it is 0 where the activity changes)")
        self._learns = True

    def _check_reached(self, activity: Tensor, source: Tensor) -> None:
        """Whether the decoder's activity follows what the encoder was multiplied by, which came from ``source`` ``(B, ...)``."""
        rows = activity.shape[self.decoder_site.batch_dim]
        if rows != source.shape[0]:
            raise InputError(
                f"{rows} inputs arrive at layer {self.decoder.name!r} for {source.shape[0]} in layer {self.encoders[0].name!r}: "
                "what lies between repeats, drops or regroups them, so that no input has a gain; name layers with equally many"
            )
        if torch.compiler.is_compiling():
            return
        if forward_ad.unpack_dual(source).tangent is not None and forward_ad.unpack_dual(activity).tangent is None:
            # Something between the layers lost it in silence.
            raise NoForwardMode("the derivative does not arrive")
        if torch.is_grad_enabled() and source.requires_grad and not activity.requires_grad:
            raise self._no_gradient()

    def _no_gradient(self, reason: str = "") -> InputError:
        return InputError(
            f"no gradient passes between layers {self.encoders[0].name!r} and {self.decoder.name!r}{reason}: what lies between is "
            "detached, quantised, rounded or changed in place, or the second does not depend on the first; couplings could not be "
            "learned, and gains would be those of rounding. Name layers with no such part between them, or adapt the network "
            "before it is quantised"
        )

    def _fall_back(self, error: RuntimeError) -> None:
        reason = str(error).splitlines()[0]
        if not self.may_fall_back:
            raise RuntimeError(
                f"a layer between {self.encoders[0].name!r} and {self.decoder.name!r} has no forward-mode derivative, which "
                f"estimator 'derivative' needs; use estimator 'quadrature' ({reason})"
            ) from error
        warnings.warn(
            f"comodulate: gains by quadrature ({self.modulation.num_nodes} passes): a layer between "
            f"{self.encoders[0].name!r} and {self.decoder.name!r} has no forward-mode derivative ({reason})",
            stacklevel=2,
        )
        self.modulation = replace(self.modulation, estimator="quadrature")

    def _check_rectified(self, activity: Tensor, layer: Layer) -> None:
        if self.unrectified != "refuse" or torch.compiler.is_compiling() or not bool((activity < 0).any()):
            return
        raise NotRectified(layer, activity)


def times_factor(site: Neurons, factor: Tensor, *, alone: bool = False) -> Edit:
    """Multiplies activity by a factor ``(B, N)``; ``alone``: by its one row, whatever the number of inputs."""

    def times(activity: Tensor) -> Tensor:
        return site.scaled(activity, factor.expand(activity.shape[site.batch_dim], -1) if alone else factor)

    return times
