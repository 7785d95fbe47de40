"""The inputs of one shard: read, checked and preprocessed batch by batch, while the batch before them is computed."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Asked, Texts, Vectors, asked_inputs, asked_pictures
from ..data.features import Batches, Encoder, in_batches
from ..data.streams import Block
from ..errors import InputError
from .run import content_id

THREADS = 8  # that read and preprocess, at most


@dataclass(frozen=True)
class ReadBatch:
    """Some inputs, N of them.

    Attributes:
        batches: preprocessed. errors: why an input cannot be used, by its place; in its place are zeros.
        content: a number for each that noise belongs to; None where none is drawn.
        cut: how many are longer than the encoder takes.
        file: of all, or of each. row: of each in the file; None: a file is one input. ids: what the data call each, where they do.
    """

    batches: Batches
    errors: dict[int, str]
    content: Tensor | None
    cut: int = 0
    file: str | Sequence[str] = ""
    row: np.ndarray | None = None
    ids: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.batches)


def read_ahead(loads: Iterable[Callable[[], ReadBatch]]) -> Iterator[ReadBatch]:
    """What some calls read, in order, made by threads while the caller computes; no more than a few at a time."""
    workers = min(THREADS, torch.get_num_threads() + 1, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[ReadBatch]] = deque()
        for load in itertools.chain(loads, [None] * workers):
            if load is not None:
                ahead.append(pool.submit(load))
            if ahead and (load is None or len(ahead) > workers):
                yield ahead.popleft().result()


def picture_batch(encoder: Encoder, paths: Sequence[Path], noisy: bool) -> ReadBatch:
    """Pictures of files."""
    found = _one_by_one(encoder, list(asked_pictures(paths)), noisy)
    return replace(found, file=list(map(str, paths)))


def block_batch(encoder: Encoder, path: Path, block: Block, noisy: bool) -> ReadBatch:
    """A block of rows of a file."""
    inputs, rows = block.inputs, block.first + np.arange(len(block.inputs))
    if isinstance(inputs, Vectors):
        found = _vectors(encoder, path, inputs, rows, noisy)
    else:
        where = str(path) if len(rows) > 1 else f"{path}, row {rows[0] + 1}"
        found = _one_by_one(encoder, list(asked_inputs(inputs, where, lambda place: f"row {rows[place] + 1}")), noisy)
    return replace(found, file=str(path), row=rows, ids=inputs.ids or None)


def _vectors(encoder: Any, path: Path, inputs: Vectors, rows: np.ndarray, noisy: bool) -> ReadBatch:
    """Embeddings, all at once."""
    check_shape(encoder, path, inputs)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(inputs.array, np.float32)
    errors = {}
    if not np.isfinite(values.sum(dtype=np.float64)):
        for place in np.flatnonzero(~np.isfinite(values).all(tuple(range(1, values.ndim)))).tolist():
            try:
                inputs.read(place, f"{path}, row {rows[place] + 1}")
            except InputError as error:
                errors[place] = str(error)
            values[place] = 0
    tensor = torch.from_numpy(values).reshape(-1, *encoder.feature_shape)
    content = torch.tensor([content_id(one) for one in tensor]) if noisy else None
    return ReadBatch(Batches([(tensor,)]), errors, content)


def check_shape(encoder: Any, path: Path, inputs: Texts | Vectors) -> None:
    """Raise InputError for embeddings of another shape than those that a run has learned from."""
    if isinstance(inputs, Vectors) and (shape := inputs.array.shape[1:]) != encoder.shape:
        raise InputError(f"the embeddings of {path} have the shape {shape}, expected {encoder.shape}, as in training")


def _one_by_one(encoder: Encoder, asked: Sequence[Asked], noisy: bool) -> ReadBatch:
    prepared, errors, given = [], {}, []
    for place, one in enumerate(asked):
        try:
            given.append(one.read())
            prepared.append(encoder.preprocess(given[-1]))
        except InputError as error:
            errors[place] = str(error)
            prepared.append(encoder.blank())
    content = torch.tensor([content_id(one) for one in prepared]) if noisy else None
    return ReadBatch(in_batches(encoder, prepared), errors, content, encoder.cut(given))
