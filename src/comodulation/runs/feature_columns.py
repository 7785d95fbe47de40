"""Features of many inputs as a column of vectors, in shards that `fit --embeddings` and `predict` of such a run read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from ..data import BadImageError, InputReader, decode_image, pictures_in
from ..data.features import (
    LOOKED_AT,
    PRECISIONS,
    Backbone,
    BackboneSettings,
    Batches,
    Encoder,
    TextSettings,
    at_once,
    forward_of,
    natural_size,
    size_note,
)
from ..errors import choose
from ..processes import Resources
from .shards import shard_schema
from .streaming import Streamed, stream

EMBEDDING = "embedding"  # the column
_ARROW = {torch.float16: pa.float16(), torch.float32: pa.float32()}


def stream_features(
    settings: BackboneSettings | TextSettings,
    files: Sequence[Path],
    out: Path,
    *,
    precision: str = "float32",
    skip_bad: bool = False,
    engine: str = "auto",
    rows_per_shard: int | None = None,
    resume: bool = False,
    resources: Resources | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Streamed:
    """Extract features of all inputs of some files; memory does not grow with their number.

    Args:
        settings: of the encoder, whose features are vectors. Without an image size, that of the first pictures is taken, as
            ``fit`` does, and ``say`` is told.
        precision: of the encoder's arithmetic. skip_bad: leave the vector of an input that cannot be used out, and name the input
            in the column ``error``; else the first of them ends the work.
        files, out, engine, rows_per_shard, resume, resources, report, say: as in ``stream``.

    Raises:
        InputError, RunError: as ``stream``.
    """
    choose(precision, PRECISIONS, "precision")
    settings = settings.placed()
    if isinstance(settings, BackboneSettings) and settings.image_size is None:
        size = natural_size(settings.name, _readable(itertools.islice(pictures_in(files), LOOKED_AT)))
        settings = replace(settings, image_size=size)
        if say:
            say(size_note(settings.name, size))
    return stream(
        partial(FeatureColumns, settings, precision, skip_bad), files, out, engine=engine, rows_per_shard=rows_per_shard,
        resume=resume, resources=resources, report=report, say=say,
    )  # fmt: skip


def _readable(paths: Iterable[Path]) -> Iterator[Image.Image]:
    for path in paths:
        try:
            yield decode_image(path, str(path))
        except BadImageError:  # which is refused or named later
            continue


class FeatureColumns:
    """Features of an encoder as a column; see ``Columns``.

    Args:
        settings: of the encoder, settled. precision: of its arithmetic. skip_bad: see ``Columns``.

    Raises:
        InputError: no such encoder.
    """

    # A name that begins with "_" is no table of embeddings for what reads all of a folder.
    holds, manifest, pictures, noisy = "features", "features.json", "_inputs.parquet", False

    def __init__(self, settings: BackboneSettings | TextSettings, precision: str, skip_bad: bool) -> None:
        self.precision, self.skip_bad = precision, skip_bad
        self.encoder: Encoder = settings.encoder()
        self.reader: InputReader | None = settings.reader
        self.rows = at_once(self.encoder)
        self.width = math.prod(self.encoder.feature_shape)
        self.schema = shard_schema([pa.field(EMBEDDING, pa.list_(_ARROW[self.encoder.kept]))])
        given = settings.weights if isinstance(settings, BackboneSettings) else settings.name
        # The encoder's, where they are the user's own: ``placed`` has made their paths whole.
        self.files = [Path(given)] if Path(given).is_absolute() else []

    def about(self) -> dict[str, Any]:
        """The encoder and its precision."""
        size = {"image_size": self.encoder.image_size} if isinstance(self.encoder, Backbone) else {}
        return {"encoder": self.encoder.fingerprint(), **size, "precision": self.precision, "width": self.width}

    def use(self, engine: str, device: str) -> None:
        """Compute by an engine on a device from now on."""
        self.forward, self.device = forward_of(self.encoder, engine, device, self.precision), device

    def compute(self, batch: Batches, ids: Tensor | None) -> list[pa.Array]:
        """Features of B preprocessed inputs, as rows."""
        found = batch.features(self.forward, self.precision, self.encoder.kept, self.device)
        values = found.to(self.encoder.kept).flatten().cpu().numpy()
        return [pa.ListArray.from_arrays(np.arange(len(batch) + 1, dtype=np.int32) * self.width, values)]
