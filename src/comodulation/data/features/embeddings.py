"""Embeddings that are there already: an encoder that leaves its inputs as they are, and checks that they are of one shape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError
from ..asked import Asked, asked_vectors, inputs_in
from ..given_tables import VectorReader
from ..source import Split
from ..vectors import Vectors, feature_shape


@dataclass(frozen=True)
class EmbeddingSettings:
    """Which embeddings.

    Attributes:
        column: of the table, or name of the tensor in a file of safetensors; None finds the only one.
        shape: of one, ``(V,)`` or ``(C, H, W)``. None: to be ``settled`` by the training data.
    """

    column: str | None = None
    shape: tuple[int, ...] | None = None

    section: ClassVar[str] = "embeddings"
    asked_as: ClassVar[str] = "embeddings"  # an array

    def __post_init__(self) -> None:
        if self.shape is not None:
            feature_shape(self.shape)

    @property
    def name(self) -> str:
        return f"embeddings ({' x '.join(map(str, self.shape or ()))})"

    @property
    def reader(self) -> VectorReader:
        return VectorReader(self.column)

    def placed(self) -> EmbeddingSettings:
        """As they are: they name no file."""
        return self

    def settled(self, split: Split) -> tuple[EmbeddingSettings, str]:
        """Settings with the shape of the split's embeddings. Raises InputError where another one was given."""
        assert isinstance(split.inputs, Vectors)
        shape = split.inputs.array.shape[1:]
        if self.shape not in (None, shape):
            raise InputError(f"the embeddings of {split.source} have the shape {shape}, expected {self.shape}")
        said = f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"maps of the shape {shape}"
        return replace(self, shape=shape), f"embeddings are {said}"

    def encoder(self, channels: int | None = None) -> Embeddings:
        """The encoder; see ``Embeddings``."""
        return Embeddings(self)

    def facts(self) -> dict[str, str]:
        """What a report says of it, by name."""
        return {"embeddings": " x ".join(map(str, self.shape or ()))}

    def asked(self, given: Iterable[Any]) -> Iterator[Asked]:
        """Embeddings ``(N, V)`` or ``(N, C, H, W)``."""
        return asked_vectors(given)

    def asked_in(self, files: Sequence[Path]) -> list[Asked]:
        """Embeddings of files; see ``inputs_in``."""
        return inputs_in(files, self.reader)


class Embeddings(nn.Module):
    """Embeddings as features, kept in float32.

    Args:
        settings: with the shape of one.

    Raises:
        InputError: a shape that is not settled.
    """

    what, called = "embedding", "the encoder of embeddings"
    kept = torch.float32
    input_names = ("embeddings",)
    open_dimensions, longest = 1, 0

    def __init__(self, settings: EmbeddingSettings) -> None:
        super().__init__()
        if settings.shape is None:
            raise InputError("the shape of the embeddings is not settled, expected (V,) or (C, H, W)")
        self.shape = tuple(settings.shape)
        self.feature_shape = feature_shape(self.shape)
        self.pooled_width = self.shape[0] if len(self.shape) == 1 else 0

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings ``(B, C, H, W)`` as they are."""
        return embeddings.float()

    def preprocess(self, given: np.ndarray) -> Tensor:
        """One embedding ``(V,)`` or ``(C, H, W)`` -> float32 ``(C, H, W)``. Raises InputError for another shape."""
        if given.shape != self.shape:
            raise InputError(f"an embedding has the shape {given.shape}, expected {self.shape}, as in training")
        return torch.from_numpy(np.array(given, np.float32)).reshape(self.feature_shape)

    def blank(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.feature_shape)

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor]:
        """Preprocessed embeddings -> one batch ``(B, C, H, W)``."""
        return (torch.stack(list(prepared)),)

    def example(self, number: int) -> tuple[Tensor]:
        """Embeddings of noise, float32 ``(number, C, H, W)``."""
        return (torch.randn(number, *self.feature_shape, generator=torch.Generator().manual_seed(0)),)

    def cut(self, given: Sequence[Any]) -> int:
        """None."""
        return 0

    def fingerprint(self) -> str:
        """Hash of the shape: who made the embeddings is not known."""
        return hashlib.sha256(f"embeddings {self.shape}".encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """The shape of one embedding in a graph."""
        return {
            "embedding_shape": list(self.feature_shape),
            "preprocessing": {"layout": "float32, as in the training table"},
        }
