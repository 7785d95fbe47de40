"""What every frozen encoder is: of pictures (backbone.py), of texts (text_encoder.py), or of embeddings that are there already.

Extraction, engines, predicting, serving and exporting know no more of an encoder than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..asked import Asked
from ..given_tables import InputReader
from ..source import Split


class Encoder(Protocol):
    """A frozen encoder: inputs to features. It is a ``torch.nn.Module``, too.

    Attributes:
        what: an input is called in messages: ``image``, ``text``, ``embedding``.
        called: the encoder itself.
        feature_shape: of one input, ``(C, s, s)``; of a vector ``(V, 1, 1)``.
        pooled_width: width of a vector's first part, which is without positions; 0 of a map.
        kept: precision that features are kept in.
        input_names: of the tensors of a batch.
        open_dimensions: how many of each tensor's first dimensions differ from batch to batch.
        longest: tokens that are read of an input; 0 where there are none.
    """

    @property
    def what(self) -> str: ...

    @property
    def called(self) -> str: ...

    @property
    def feature_shape(self) -> tuple[int, int, int]: ...

    @property
    def pooled_width(self) -> int: ...

    @property
    def kept(self) -> torch.dtype: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def open_dimensions(self) -> int: ...

    @property
    def longest(self) -> int: ...

    def __call__(self, *batch: Tensor) -> Tensor:
        """A batch of B inputs -> features ``(B, C, s, s)``."""

    def preprocess(self, given: Any) -> Tensor:
        """One input as ``Split.read`` gives it -> what stands for it in a batch; in several threads at once.

        Raises:
            InputError: an input that the encoder does not take.
        """

    def blank(self) -> Tensor:
        """In the place of an input that cannot be read; its features are thrown away."""

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Preprocessed inputs -> a batch."""

    def example(self, number: int) -> tuple[Tensor, ...]:
        """A batch of some inputs of noise, of a usual size: to measure and to translate by."""

    def cut(self, given: Sequence[Any]) -> int:
        """How many of some inputs, as ``Split.read`` gives them, are longer than the encoder takes."""

    def fingerprint(self) -> str:
        """Hash of all that features depend on besides the inputs."""

    def about(self) -> dict[str, Any]:
        """What a graph of it takes, as JSON, for readers in another language."""

    def to(self, device: Any) -> Any: ...


class EncoderSettings(Protocol):
    """Which encoder, as a configuration holds it.

    Attributes:
        section: of the configuration.
        name: of the encoder, for people.
        reader: finds the inputs in tables; None of images, which are files or cells of their own.
        asked_as: inputs as Python gives them to ``Run.predict``, as an example.
    """

    @property
    def section(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def reader(self) -> InputReader | None: ...

    @property
    def asked_as(self) -> str: ...

    def placed(self) -> Self:
        """Settings that name the same files wherever a process stands."""

    def settled(self, split: Split) -> tuple[Self, str]:
        """Settings with what the training data decide, and a sentence on it; "" where there is nothing to say."""

    def encoder(self, channels: int | None = None) -> Encoder:
        """The encoder. Raises InputError where there is none, or one of other ``channels``."""

    def facts(self) -> dict[str, str]:
        """What a report says of it, by name."""

    def asked(self, given: Iterable[Any]) -> Iterator[Asked]:
        """Inputs as they are given from Python."""

    def asked_in(self, files: Sequence[Path]) -> list[Asked]:
        """Inputs that files hold. Raises InputError for a file that is not there, or holds none."""


def cut_note(encoder: Encoder, number: int, of: int, where: str = "") -> list[str]:
    """A sentence on inputs that are longer than the encoder takes; none where there are none.

    Args:
        encoder: of the inputs. number: of those that are cut. of: all of them. where: they are, " of split 'train'".
    """
    if not number:
        return []
    said = f"{number:,} of {of:,} {encoder.what}s{where} are longer than the {encoder.longest} tokens that {encoder.called} takes"
    return [f"{said}; what is beyond is cut off"]
