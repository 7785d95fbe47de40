"""What the layers of a head are: their sizes, and what they begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import choose

Start = Literal["random", "probe"]
MOST_NEURONS, LARGEST_KERNEL, MOST_LAYERS = 65536, 31, 64
LATER = ("encoder_skip", "decoder_skip", "batch_norm", "depth", "start")


@dataclass(frozen=True)
class HeadSettings:
    """The layers of a ``ComodulatedHead``.

    Attributes:
        encoder_channels: number E of encoder neurons.
        decoder_channels: number D of decoder neurons.
        residual: whether encoder and decoder layer each have a skip connection (identity; a 1x1 projection where E != D).
        kernel_size: odd; 1 makes the layers fully connected on pooled features.
        hidden: width of the readout's hidden layer.
        dropout: in the readout, while the layers are being pretrained.
        feature_dropout: of whole feature channels, likewise.
        encoder_skip, decoder_skip: factors of the two skip connections, in [0, 1].
        batch_norm: normalise what encoder and decoder layers add to their skip connections, over the batch in pretraining, by
            fixed statistics once frozen.
        depth: number of decoder layers; the last one has the gains.
        start: `random`, as the paper's network, or `probe`: at logistic regression on the pooled features (encoder_decoder.py).
            Encoder and decoder then have two neurons for each feature channel, and the readout no hidden layer: sizes are not
            given.

    Raises:
        ValueError: a number out of range, an unknown start, or sizes of layers that begin at the probe.
    """

    encoder_channels: int = 256
    decoder_channels: int = 256
    residual: bool = True
    kernel_size: int = 3
    hidden: int = 256
    dropout: float = 0.2
    feature_dropout: float = 0.3
    encoder_skip: float = 1.0
    decoder_skip: float = 1.0
    batch_norm: bool = False
    depth: int = 1
    start: Start = "random"

    def __post_init__(self) -> None:
        usual = type(self)
        for name, most in (
            *dict.fromkeys(("encoder_channels", "decoder_channels", "hidden"), MOST_NEURONS).items(),
            ("kernel_size", LARGEST_KERNEL),
            ("depth", MOST_LAYERS),
        ):
            size = getattr(self, name)
            if not isinstance(size, int) or not 1 <= size <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {size!r}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        for name in ("dropout", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)!r}")
        for name in ("encoder_skip", "decoder_skip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        choose(self.start, get_args(Start), "start")
        for name in ("encoder_channels", "decoder_channels", "hidden"):
            if self.start == "probe" and getattr(self, name) != getattr(usual, name):
                raise ValueError(
                    f"{name} is not for layers that begin at the probe, which have two neurons for each feature; leave it out, or "
                    "take start 'random'"
                )

    @property
    def skips(self) -> tuple[float, float]:
        """Factors of the encoder's and the decoder's skip connection; 0 where there is none."""
        return (self.encoder_skip, self.decoder_skip) if self.residual else (0.0, 0.0)

    def identity(self) -> dict[str, Any]:
        """Fields by name; the later ones only where they are used, so that layers keep the key they were stored under."""
        usual = HeadSettings()
        return {n: v for n, v in vars(self).items() if n not in LATER or v != getattr(usual, n)}
