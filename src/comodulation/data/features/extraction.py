"""Features of a frozen encoder: extracted once, stored in a memory-mapped file, never used when in doubt.

A cache is a folder named by its key, the hash of everything the features depend on (encoder's weights, preprocessing,
layer, precision, engine, inputs). Extraction goes by blocks of rows; after a block has reached the disk, one line of a journal
records its rows and checksum (store.py). Any number of processes, also of several hosts on a shared folder, extract
one cache together, each of them blocks that no other has. A cache is verified block by block before use; what is missing
or does not verify is extracted, and nothing else. docs/features.md is the user's side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import BadInputError, InputError, RunError, choose
from ...tasks import Examples
from ..pictures import is_first_of_several
from ..source import Split
from .allocator import large_blocks_kept
from .encoder import Encoder
from .engines import BATCH, ENGINES, Forward, faster_engine, forward_of
from .store import FeatureStore

VERSION = 1
BLOCK = 512  # rows per journal line
DECODERS = 8  # threads that decode, at most
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Report = Callable[[int, int], None]  # rows done, rows in all
# Preprocessed inputs, the rows among them that are bad, and those of which the first of several pictures was read.
Batch = tuple[tuple[Tensor, ...], list[int], list[int]]
Loading = list[tuple[list[int], Future[Batch]]]  # the rows of each batch, and what is read of them

# Locks of the store are the process's, not a thread's.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Features:
    """Features of one split.

    Attributes:
        array: ``(N, C, s, s)`` in the encoder's precision, memory-mapped, read-only.
        bad_rows: rows whose input could not be read; their features are zero and belong to no example.
        key: identity of the features and of the list of bad rows.
        extracted_rows: how many rows were computed in this call (0: all came from the cache).
    """

    array: np.ndarray
    bad_rows: tuple[int, ...]
    key: str
    extracted_rows: int = 0

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input's features."""
        return self.array.shape[1:]

    def rows(self, rows: Tensor | slice) -> Tensor:
        """Features of some rows, float32 ``(len(rows), C, s, s)``; float64 where the array is."""
        index = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return torch.from_numpy(self.array[index].astype(np.promote_types(self.array.dtype, np.float32)))

    def readable(self, examples: Examples) -> Examples:
        """The examples of images that could be read."""
        bad = torch.tensor(self.bad_rows, dtype=torch.int64)
        return examples.take((~torch.isin(examples.image, bad)).nonzero()[:, 0])


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Where caches live: ``chosen``, else $COMODULATION_CACHE, else the user's cache folder.

    Raises:
        InputError: there is no home folder to have it in.
    """
    if chosen is not None:
        return Path(chosen)
    if configured := os.environ.get("COMODULATION_CACHE"):
        return Path(configured)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comodulation"
    except RuntimeError as error:  # a user of a container
        raise InputError(
            "this user has no home folder for the cache; name a folder with --cache or $COMODULATION_CACHE"
        ) from error


def extract(
    encoder: Encoder,
    split: Split,
    cache: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    engine: str = "torch",
    skip_bad: bool = False,
    report: Report | None = None,
    say: Callable[[str], None] | None = None,
    rank: int = 0,
    world: int = 1,
) -> Features:
    """Features of every input of a split, from the cache or computed now.

    Other processes may call it at the same time with the same arguments (an engine by name, not ``auto``), whatever their rank:
    each extracts blocks that no other works on, and returns when all blocks are there. A block whose process has died is free
    at once.

    Args:
        encoder: frozen.
        split: N inputs of its kind.
        cache: cache folder; made if it is not there.
        device: where the encoder runs.
        precision: of the encoder's forward pass, ``float32`` or ``bfloat16``. Stored in the precision that the encoder keeps.
        engine: ``torch``, ``onnx`` (ONNX Runtime) or ``openvino``, both on CPUs, or ``auto``: see ``settled_engine``. Each has
            caches of its own.
        skip_bad: go on when an input cannot be read, and list it in ``bad_rows``. Each call reads such inputs again: one that can
            be read now gets its features.
        report: called with (rows done, rows in all); rows of other processes count.
        say: told a line on what ``auto`` has chosen, and on animations and files of several pages, once they are extracted.
        rank: this process's number among ``world``: where in the split it begins, so that each reads a part of its own.
        world: how many processes are expected. Nothing depends on it but ``rank``'s meaning; more or fewer may come.

    Raises:
        BadInputError: an unreadable input, unless ``skip_bad``.
        InputError: a rank that is not one of ``world``, an unknown precision or engine, an engine that cannot be had here.
        RunError: the disk is full, an encoder that the engine cannot compute, features that its precision cannot hold, or a
            file that the system cannot read (a permission, a failing disk), whatever ``skip_bad``.
    """
    cache = Path(cache)
    choose(precision, PRECISIONS, "precision")
    if not 0 <= rank < world:
        raise InputError(f"rank {rank} is not one of {world} processes, expected 0 to {world - 1}")
    engine = settled_engine(engine, encoder, split, cache, device=device, precision=precision, say=say)
    identity = _identity(encoder, split, precision, engine)
    key = _key(identity)
    folder = cache / "features" / key
    store = FeatureStore(folder, identity, BLOCK)
    first = rank * len(store.done) // world
    load = partial(_load, encoder, split, skip_bad=skip_bad)
    extracted, several = 0, list[int]()
    try:
        store.refresh()
        store.forget(_readable_again(store, split, skip_bad))
        if not store.complete:
            if not folder.exists():
                # Before anything is written, so that a data set of unreadable inputs leaves no trace.
                start, stop = store.rows(first)
                load(range(start, min(start + BATCH, stop)))
            with _one_at_a_time, large_blocks_kept():
                compute = _computing(encoder, engine, device, precision)  # refused before anything is written
                with store:
                    extracted, several = _fill(store, split, first, load, compute, report)
                    store.merge()
            store = FeatureStore(folder, identity, BLOCK)
            store.refresh()  # what is handed out has been verified as it lies there, whoever wrote it
            if not store.complete:
                raise RunError(f"the feature cache {folder} was damaged while it was filled; run the command again")
        elif not store.merged:
            # Their process was killed in between. The cache is complete without it, also where nothing can be written.
            with contextlib.suppress(OSError, RunError), _one_at_a_time, store:
                store.merge()
        if report and not extracted:
            report(len(split), len(split))
        if several and say:
            say(
                f"{len(several)} images of split {split.name!r} are animations or have several pages: the first image of each is "
                f"read, such as {split.where(several[0])}"
            )
        # What is learned without bad rows is not what is learned with them.
        key = _key([key, store.bad_rows]) if store.bad_rows else key
        return Features(store.array(), store.bad_rows, key, extracted)
    except OSError as error:
        raise RunError(f"cannot write the feature cache {folder}: {error.strerror or error}") from error


def settled_engine(
    engine: str,
    encoder: Encoder,
    split: Split,
    cache: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    say: Callable[[str], None] | None = None,
) -> str:
    """The engine that was asked for; of ``auto`` the one whose cache is there or begun, else the fastest.

    Processes that extract one cache together must take the answer of one of them. Arguments as in ``extract``.

    Raises:
        InputError: an unknown engine.
    """
    if choose(engine, ENGINES, "engine") != "auto":
        return engine
    for known in ENGINES[1:]:
        if (Path(cache) / "features" / _key(_identity(encoder, split, precision, known))).exists():
            return known
    return faster_engine(encoder, len(split), device, precision, say)


def _identity(encoder: Encoder, split: Split, precision: str, engine: str) -> dict[str, Any]:
    """What features depend on."""
    return {
        "version": VERSION,
        "backbone": encoder.fingerprint(),
        "precision": precision,
        "images": split.fingerprint,
        "shape": [len(split), *encoder.feature_shape],
        **({} if encoder.kept == torch.float16 else {"kept": _numpy(encoder.kept)}),
        **({} if engine == "torch" else {"engine": engine}),  # torch's are named as before there were others
    }


def _numpy(precision: torch.dtype) -> str:
    """numpy's name of a precision."""
    return str(precision).removeprefix("torch.")


def _key(of: Any) -> str:
    """The key of what has this identity."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]


def _readable_again(store: FeatureStore, split: Split, skip_bad: bool) -> list[int]:
    """Blocks with rows that could not be read when they were extracted and can be now.

    Raises:
        BadInputError: a row that still cannot, unless ``skip_bad``: a cache filled with --skip-bad must not hide it.
    """
    blocks = []
    for row in store.bad_rows:
        try:
            split.read(row)
        except BadInputError:
            if not skip_bad:
                raise
        else:
            blocks.append(row // store.block)
    return blocks


def features_of(
    forward: Forward, batch: Sequence[Tensor], precision: str = "float32", kept: torch.dtype = torch.float16
) -> Tensor:
    """Features of a batch of preprocessed inputs, rounded as the cache rounds them: float32 ``(B, C, s, s)``.

    Args:
        forward: an encoder, or its pass by another engine.
        batch: on its device, as ``Encoder.collate`` gives it.
        precision: of torch's arithmetic.
        kept: precision that the encoder's features are kept in.

    Raises:
        RunError: features that this precision cannot hold.
    """
    with torch.inference_mode(), torch.autocast(batch[0].device.type, PRECISIONS[precision], precision != "float32"):
        features = forward(*batch).float()
    largest = features.abs().amax().item() if features.numel() else 0.0
    if not largest <= torch.finfo(kept).max:
        raise RunError(
            f"the encoder's features reach {largest:g}, more than {_numpy(kept)} holds; its weights may be damaged"
        )
    return features.to(kept).float().clone()


def _computing(
    encoder: Encoder, engine: str, device: torch.device | str, precision: str
) -> Callable[[Sequence[Tensor]], Tensor]:
    """A call that gives the features of a batch, by an engine. Raises as ``forward_of``."""
    forward = forward_of(encoder, engine, device, precision)
    return lambda batch: features_of(forward, [part.to(device) for part in batch], precision, encoder.kept)


def _fill(
    store: FeatureStore,
    split: Split,
    first: int,
    load: Callable[[Sequence[int]], Batch],
    compute: Callable[[Sequence[Tensor]], Tensor],
    report: Report | None,
) -> tuple[int, list[int]]:
    """Extract blocks from block ``first`` on until all are there; threads ``load`` the next one while one is computed.

    Returns:
        How many rows this process has extracted, and those of which the first of several pictures was read.
    """
    extracted, several = 0, []
    # Claimed blocks, the next one to be extracted first.
    ahead: deque[tuple[int, Loading]] = deque()
    pool = ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1))

    def read(block: int) -> None:
        order = sorted(range(*store.rows(block)), key=split.length)  # what is padded is padded little
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        ahead.append((block, [(rows, pool.submit(load, rows)) for rows in batches]))

    try:
        while not store.complete:
            while len(ahead) < 2 and (claimed := store.claim(first)) is not None:
                read(claimed)
                first = claimed
            if ahead:
                block, batches = ahead.popleft()
                found, bad, first_only = _block(store, block, batches, compute)
                store.write(block, found, bad)
                extracted += len(found)
                several += first_only
            elif (claimed := store.wait()) is not None:  # others work on all that is missing
                read(claimed)
                continue
            if report:
                report(store.rows_done, len(split))
    finally:
        pool.shutdown(cancel_futures=True)
    return extracted, several


def _block(
    store: FeatureStore, block: int, batches: Loading, compute: Callable[[Sequence[Tensor]], Tensor]
) -> tuple[np.ndarray, list[int], list[int]]:
    """The features of a block, its bad rows, whose features are zero, and its rows of several pictures."""
    start, stop = store.rows(block)
    found, bad, several = np.empty((stop - start, *store.shape[1:]), store.dtype), [], []
    for rows, loading in batches:
        batch, spoiled, first_only = loading.result()
        found[np.array(rows) - start] = compute(batch).cpu().numpy()
        bad += spoiled
        several += first_only
    found[[row - start for row in bad]] = 0
    return found, sorted(bad), several


def _load(encoder: Encoder, split: Split, rows: Sequence[int], skip_bad: bool) -> Batch:
    """Read and preprocess some rows: a batch, and the rows that are bad, or more than their picture."""
    prepared, bad, several = [], [], []
    for row in rows:
        try:
            given = split.read(row)
            prepared.append(encoder.preprocess(given))
            if is_first_of_several(given):
                several.append(row)
        except BadInputError:
            if not skip_bad:
                raise
            prepared.append(encoder.blank())
            bad.append(row)
    return encoder.collate(prepared), bad, several


class FeatureRows(Protocol):
    """Features of the inputs of a split, by row: ``Features``, or scenes composed of them."""

    @property
    def key(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def rows(self, rows: Tensor | slice) -> Tensor: ...
