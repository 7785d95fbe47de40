"""The frozen network of a head: encoder layer, decoder layer and readout, without a task; base and residual variants.

features -> 1x1 projection, ReLU -> encoder 3x3 -> decoder 3x3 -> pooling -> MLP -> logits

That is the paper's network, which begins at random. A network that begins at the probe is, before it is trained, a logistic
regression on the pooled features: in place of the projection, each channel x has two neurons, relu(x) and relu(-x); encoder and
decoder layer pass them on (through their skip connections, or, in the base variant, as the identity); the readout is linear, and
weighs the two with opposite signs. Training then begins where the yardstick ends, and all that can be modulated is on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..mathematics import convolve, dense_matrix, is_small
from .layers import ChannelDropout, Dropout, RectifiedLayer, SignParts, normalisation_scale, normalised_bias
from .settings import HeadSettings


class EncoderDecoder(nn.Module):
    """Encoder layer, decoder layer and readout on a backbone's features.

    Args:
        in_channels: channels of the features. num_outputs: number C of outputs. settings: the layers.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, in_channels: int, num_outputs: int, settings: HeadSettings) -> None:
        super().__init__()
        for name, size in (("in_channels", in_channels), ("num_outputs", num_outputs)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        self.settings = settings
        encoder_channels, decoder_channels = settings.encoder_channels, settings.decoder_channels
        if settings.start == "probe":
            encoder_channels = decoder_channels = 2 * in_channels
        kernel_size, batch_norm = settings.kernel_size, settings.batch_norm
        self.num_outputs, self.residual, self.skips = num_outputs, settings.residual, settings.skips
        self.in_channels, self.encoder_channels, self.decoder_channels = in_channels, encoder_channels, decoder_channels
        padding = kernel_size // 2
        self.register_buffer("feature_mean", torch.zeros(in_channels))
        self.register_buffer("feature_std", torch.ones(in_channels))
        self.feature_dropout = ChannelDropout(settings.feature_dropout)
        self.projection = SignParts() if settings.start == "probe" else nn.Conv2d(in_channels, encoder_channels, 1)
        self.encoder = nn.Conv2d(encoder_channels, encoder_channels, kernel_size, padding=padding)
        self.decoder = nn.Conv2d(encoder_channels, decoder_channels, kernel_size, padding=padding)
        self.decoder_skip: nn.Module | None = None
        if settings.residual:
            same = encoder_channels == decoder_channels
            self.decoder_skip = nn.Identity() if same else nn.Conv2d(encoder_channels, decoder_channels, 1, bias=False)
        self.encoder_normalisation = nn.BatchNorm2d(encoder_channels) if batch_norm else None
        self.decoder_normalisation = nn.BatchNorm2d(decoder_channels) if batch_norm else None
        self.deeper = nn.ModuleList(
            RectifiedLayer(encoder_channels, kernel_size, skip=self.skips[1], batch_norm=batch_norm)
            for _ in range(settings.depth - 1)
        )
        dropout, hidden = settings.dropout, settings.hidden
        self.readout: nn.Module
        if settings.start == "probe":
            self.readout = nn.Sequential(Dropout(dropout), nn.Linear(decoder_channels, num_outputs))
            self._pass_on()
        else:
            first, last = nn.Linear(decoder_channels, hidden), nn.Linear(hidden, num_outputs)
            self.readout = nn.Sequential(Dropout(dropout), first, nn.ReLU(), Dropout(dropout), last)
        self._matrices: dict[nn.Module, tuple[tuple[Any, ...], Tensor]] = {}
        self.frozen = False

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Layers that give what they are given: 0 beside a skip connection, else the identity. The readout says nothing yet."""
        deeper = [(layer.convolution, self.skips[1]) for layer in self.deeper if isinstance(layer, RectifiedLayer)]
        for layer, skip in ((self.encoder, self.skips[0]), (self.decoder, self.skips[1]), *deeper):
            size = layer.weight.shape[-1] // 2
            layer.weight.zero_()[:, :, size, size].fill_diagonal_(1 - skip)
            if layer.bias is not None:
                layer.bias.zero_()
        for parameter in self.readout.parameters():
            parameter.zero_()

    @torch.no_grad()
    def set_probe(self, weight: Tensor, bias: Tensor) -> None:
        """Answer as a probe of the means of standardised features: weights ``(C, in_channels)``, biases ``(C,)``."""
        last = self.readout[-1] if isinstance(self.readout, nn.Sequential) else None
        if self.settings.start != "probe" or not isinstance(last, nn.Linear):
            raise ValueError(
                f"a head with start {self.settings.start!r} has no probe to set; build it with start='probe'"
            )
        self._pass_on()
        last.weight.copy_(torch.cat([weight, -weight], 1))
        last.bias.copy_(bias)

    @property
    def layers(self) -> list[nn.Module]:
        """What pretraining trains and freezing freezes: everything but the controller."""
        parts: list[nn.Module] = [self.feature_dropout, self.projection, self.encoder, self.decoder, self.readout]
        optional = (self.decoder_skip, self.encoder_normalisation, self.decoder_normalisation)
        return [*parts, *(part for part in optional if part is not None), *self.deeper]

    def layer_buffers(self) -> dict[str, Tensor]:
        """What training the layers moves without learning it, by name: the running statistics of batch normalisation."""
        own = {id(buffer) for layer in self.layers for buffer in layer.buffers()}
        return {name: buffer for name, buffer in self.named_buffers() if id(buffer) in own}

    def freeze(self) -> Self:
        """Freeze every layer but the controller, and keep dropout off from now on."""
        for layer in self.layers:
            layer.requires_grad_(False)
        self.frozen = True
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            for layer in self.layers:
                layer.eval()
        return self

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Set the per-channel mean and standard deviation, each ``(in_channels,)``, that features are scaled by."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 0, std, 1))

    def encode(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, H, W)`` or ``(B, in_channels)`` -> encoder activity h >= 0, ``(B, E, H, W)``."""
        if features.ndim == 2:
            features = features[:, :, None, None]
        if features.ndim != 4 or features.shape[1] != self.in_channels:
            raise ValueError(
                f"features must be (B, {self.in_channels}, H, W) or (B, {self.in_channels}), got {tuple(features.shape)}"
            )
        scaled = (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]
        projected = self.projection(self.feature_dropout(scaled)).relu()
        assert self.encoder.bias is not None
        encoded = self._convolve(projected, self.encoder) + self.encoder.bias[:, None, None]
        if self.encoder_normalisation is not None:
            encoded = self.encoder_normalisation(encoded)
        return (encoded + self._scaled(projected, self.skips[0]) if self.residual else encoded).relu()

    def drive(self, activity: Tensor) -> Tensor:
        """The linear part of the last decoder layer, K h + skip(h) without bias: ``(N, E, H, W) -> (N, D, H, W)``."""
        drive = self._convolve(activity, self.decoder)
        if self.decoder_normalisation is not None:
            drive = drive * normalisation_scale(self.decoder_normalisation)[:, None, None]
        return self._with_skip(drive, activity)

    @property
    def decoder_bias(self) -> Tensor:
        """What the last decoder layer adds to ``drive`` before its ReLU, ``(D,)``."""
        bias, normalisation = self.decoder.bias, self.decoder_normalisation
        assert bias is not None
        return bias if normalisation is None else normalised_bias(bias, normalisation)

    def _with_skip(self, drive: Tensor, activity: Tensor) -> Tensor:
        return drive if self.decoder_skip is None else drive + self._scaled(self.decoder_skip(activity), self.skips[1])

    @staticmethod
    def _scaled(activity: Tensor, factor: float) -> Tensor:
        return activity if factor == 1 else factor * activity

    def _convolve(self, activity: Tensor, layer: nn.Conv2d) -> Tensor:
        """A layer's convolution without bias; a frozen layer's matrix for small maps is built once."""
        weight, (height, width) = layer.weight, activity.shape[2:]
        # A graph is for one convolution and any number of inputs; it keeps no matrices.
        if torch.compiler.is_compiling():
            return nn.functional.conv2d(activity, weight, padding=weight.shape[-1] // 2)
        if weight.requires_grad or not is_small(height, width, weight.shape[-1]):
            return convolve(activity, weight)
        key = (weight.data_ptr(), weight._version, weight.dtype, height, width)
        if layer not in self._matrices or self._matrices[layer][0] != key:
            with torch.inference_mode(False), torch.no_grad():  # kept for training, too
                self._matrices[layer] = (key, dense_matrix(weight, height, width))
        return convolve(activity, weight, self._matrices[layer][1])

    def decode(self, activity: Tensor) -> Tensor:
        """Encoder activity ``(N, E, H, W)`` -> rectified decoder activity ``(N, D, H, W)``."""
        activity = self.deepen(activity)
        if self.decoder_normalisation is not None and self.decoder_normalisation.training:
            assert self.decoder.bias is not None
            block = self._convolve(activity, self.decoder) + self.decoder.bias[:, None, None]
            return self._with_skip(self.decoder_normalisation(block), activity).relu()
        return (self.drive(activity) + self.decoder_bias[:, None, None]).relu()

    def deepen(self, activity: Tensor) -> Tensor:
        """Encoder activity -> what the last decoder layer reads, both ``(N, E, H, W)``; the same where it is the only one."""
        for layer in self.deeper:
            activity = layer(activity)
        return activity

    def linearised(self, activity: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The decoder around some encoder activity ``(N, E, H, W)``, of frozen layers.

        Returns:
            Decoder activity ``(N, D, H, W)``, and the derivative there: a function from changes of the encoder's activity to those
            of the decoder's. Between two thresholds the decoder is linear, and the derivative is the change itself.
        """
        reached, passed = activity, []
        for layer in self.deeper:
            assert isinstance(layer, RectifiedLayer)
            reached = layer(reached)
            passed.append((layer, reached))
        decoded = (self.drive(reached) + self.decoder_bias[:, None, None]).relu()

        def change(tangent: Tensor) -> Tensor:
            for layer, after in passed:
                tangent = layer.tangent(after, tangent)
            return torch.where(decoded > 0, self.drive(tangent), 0)

        return decoded, change

    def read(self, activity: Tensor, gains: Tensor | None = None) -> Tensor:
        """Decoder activity ``(..., D, H, W)`` -> logits ``(..., C)``, by global pooling and the MLP.

        With ``gains`` ``(B, D)``, of neurons whose gain they are: after pooling, where it is the same and costs less.
        """
        pooled = activity.mean((-2, -1))
        # Gains of a head in half precision are float32; its readout is not.
        return self.readout(pooled if gains is None else (pooled * gains).to(pooled.dtype))

    def _skip_matrix(self) -> Tensor | None:
        if isinstance(self.decoder_skip, nn.Conv2d):
            return self._scaled(self.decoder_skip.weight[:, :, 0, 0], self.skips[1])
        if self.decoder_skip is None:
            return None
        like = self.decoder.weight
        return self._scaled(torch.eye(self.encoder_channels, device=like.device, dtype=like.dtype), self.skips[1])
