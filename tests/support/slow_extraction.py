"""An extraction that takes a while, for tests that kill a process in the middle of it."""

from __future__ import annotations

import time

import numpy as np

from comodulation.data.features import Embeddings, EmbeddingSettings, Source

ROWS = 6_000


class SlowEmbeddings(Embeddings):
    """Embeddings that take some time a batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__(EmbeddingSettings(shape=(4,)))
        self.seconds = seconds

    def forward(self, embeddings):
        time.sleep(self.seconds)
        return super().forward(embeddings)


class Rows:
    """As much of a split as extraction asks for."""

    name, fingerprint = "train", "rows of slow_extraction"

    def __init__(self) -> None:
        self.array = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)

    def __len__(self) -> int:
        return ROWS

    def read(self, row: int) -> np.ndarray:
        return self.array[row]

    def length(self, row: int) -> int:
        return 0

    def where(self, row: int) -> str:
        return f"row {row}"


def slow_source(seconds: float = 0.2) -> Source:
    return Source(SlowEmbeddings(seconds), {"train": Rows()}, "float32", False)  # type: ignore[dict-item]
