"""Features of a frozen backbone: extracted once, stored in a memory-mapped file, never used when in doubt.

A cache is a folder named by its key, the hash of everything the features depend on (backbone weights, preprocessing,
layer, precision, images). Extraction appends blocks of rows; after each block has reached the disk, one line of the
journal records its rows and checksum. An interrupted extraction continues after the last block whose checksum holds;
a complete one is verified block by block before use. What does not verify is extracted again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .backbone import Backbone
from .data import BadImageError, Split
from .errors import InputError, RunError, choose

VERSION = 1
BLOCK = 512  # rows per journal line
BATCH = 64  # rows per backbone pass
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LARGEST_HALF = 65504.0

Report = Callable[[int, int], None]  # rows done, rows in all
Block = tuple[Tensor, list[int]]  # decoded images, and the rows among them that are bad


@dataclass(frozen=True)
class Features:
    """Features of one split.

    Attributes:
        array: ``(N, C, s, s)``, float16, memory-mapped, read-only.
        bad_rows: rows whose image could not be read; their features are zero and belong to no example.
        key: identity of the features.
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
        """Channels, height and width of one image's features."""
        return self.array.shape[1:]

    def rows(self, rows: Tensor | slice) -> Tensor:
        """Features of some rows, float32 ``(len(rows), C, s, s)``."""
        index = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return torch.from_numpy(self.array[index].astype(np.float32))


def cache_folder(chosen: Path | None = None) -> Path:
    """Where caches live: ``chosen``, else $COMODULATION_CACHE, else the user's cache folder."""
    if chosen is not None:
        return chosen
    if configured := os.environ.get("COMODULATION_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comodulation"


def extract(
    backbone: Backbone,
    split: Split,
    cache: Path,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    skip_bad: bool = False,
    report: Report | None = None,
) -> Features:
    """Features of every image of a split, from the cache or computed now.

    Args:
        backbone: frozen backbone.
        split: N images.
        cache: cache folder; made if it is not there.
        device: where the backbone runs.
        precision: of the backbone's forward pass, ``float32`` or ``bfloat16``. Stored as float16.
        skip_bad: go on when an image cannot be read, and list it in ``bad_rows``.
        report: called with (rows done, rows in all).

    Raises:
        BadImageError: an unreadable image, unless ``skip_bad``.
        RunError: the disk is full, or features that float16 cannot hold.
    """
    choose(precision, PRECISIONS, "precision")
    identity = {
        "version": VERSION,
        "backbone": backbone.fingerprint(),
        "precision": precision,
        "images": split.fingerprint,
        "shape": [len(split), *backbone.feature_shape],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache / "features" / key
    # The first block is decoded before anything is written, so that a data set of unreadable images leaves no trace.
    first = None if folder.exists() else _load(backbone, split, 0, skip_bad)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            store = _Store(folder, identity)
            start = store.verified_rows()
            if start < len(split):
                _fill(
                    store, backbone.to(device), split, start, first, torch.device(device), precision, skip_bad, report
                )
            bad = store.bad_rows()
            if bad and not skip_bad:
                split.image(bad[0])  # raises, naming it: a cache filled with --skip-bad must not hide it
            if report and start == len(split):
                report(start, start)
            return Features(store.open(), bad, key, len(split) - start)
    except OSError as error:
        raise RunError(f"cannot write the feature cache {folder}: {error.strerror or error}") from error


def features_of_images(backbone: Backbone, images: Tensor, precision: str = "float32") -> Tensor:
    """Features of preprocessed images, uint8 ``(B, 3, S, S)``, rounded as the cache rounds them: float32 ``(B, C, s, s)``."""
    with torch.inference_mode(), torch.autocast(images.device.type, PRECISIONS[precision], precision != "float32"):
        features = backbone(images).float()
    largest = features.abs().amax().item() if features.numel() else 0.0
    if not largest <= _LARGEST_HALF:
        raise RunError(
            f"the backbone's features reach {largest:g}, more than float16 holds; its weights may be damaged"
        )
    return features.half().float().clone()


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file between processes; the system releases it even if this process is killed.

    Raises:
        InputError: held by another process, and ``wait`` is False.
    """
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise InputError(f"{path.parent} is in use by another process") from error
        yield


class _Store:
    """The files of one cache: data, journal, and the identity they belong to."""

    def __init__(self, folder: Path, identity: dict) -> None:
        self.data, self.journal, self.manifest = folder / "data.bin", folder / "journal.jsonl", folder / "identity.json"
        self.shape = tuple(identity["shape"])
        self.row_bytes = 2 * int(np.prod(self.shape[1:]))
        if _read_json(self.manifest) != identity:  # new, damaged or foreign: start over
            for path in (self.journal, self.data):
                path.unlink(missing_ok=True)
            self.manifest.write_text(json.dumps(identity))

    def blocks(self) -> list[dict]:
        """Journalled blocks in order, up to the first line that is not one."""
        blocks: list[dict] = []
        if not self.journal.exists():
            return blocks
        expected = 0
        for line in self.journal.read_bytes().splitlines():
            block = _parse_json(line)
            if not _is_block(block, expected, self.shape[0]):
                break
            blocks.append(block)
            expected = block["rows"][1]
        return blocks

    def verified_rows(self) -> int:
        """Rows whose blocks hold their checksums; whatever follows is cut off."""
        blocks, good = self.blocks(), []
        if self.data.exists():
            with open(self.data, "rb") as data:
                for block in blocks:
                    start, stop = block["rows"]
                    content = data.read((stop - start) * self.row_bytes)
                    whole = len(content) == (stop - start) * self.row_bytes
                    if not whole or _checksum(content, block["bad"]) != block["checksum"]:
                        break
                    good.append(block)
        rows = good[-1]["rows"][1] if good else 0
        if rows < self.shape[0]:
            lines = "".join(json.dumps(block) + "\n" for block in good)
            if not self.journal.exists() or self.journal.read_text(errors="replace") != lines:
                self.journal.write_text(lines)
            with open(self.data, "ab") as data:
                data.truncate(rows * self.row_bytes)
        return rows

    def append(self, start: int, rows: np.ndarray, bad: list[int]) -> None:
        content = np.ascontiguousarray(rows, dtype=np.float16).tobytes()
        with open(self.data, "r+b") as data:
            data.seek(start * self.row_bytes)
            data.write(content)
            data.truncate()
            data.flush()
            os.fsync(data.fileno())
        block = {"rows": [start, start + len(rows)], "checksum": _checksum(content, bad), "bad": bad}
        with open(self.journal, "a") as journal:
            journal.write(json.dumps(block) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def bad_rows(self) -> tuple[int, ...]:
        return tuple(row for block in self.blocks() for row in block["bad"])

    def open(self) -> np.ndarray:
        return np.memmap(self.data, np.float16, "r", shape=self.shape)


def _fill(
    store: _Store,
    backbone: Backbone,
    split: Split,
    start: int,
    decoded: Block | None,
    device: torch.device,
    precision: str,
    skip_bad: bool,
    report: Report | None,
) -> None:
    """Extract rows from ``start`` on; one thread decodes the next block while the backbone works on this one."""
    ready = decoded if decoded and not start else _load(backbone, split, start, skip_bad)
    with ThreadPoolExecutor(1) as pool:
        for first in range(start, len(split), BLOCK):
            images, bad = ready
            following = pool.submit(_load, backbone, split, first + BLOCK, skip_bad)
            parts = [features_of_images(backbone, part.to(device), precision).cpu() for part in images.split(BATCH)]
            block = torch.cat(parts).numpy()
            block[[row - first for row in bad]] = 0
            store.append(first, block, bad)
            if report:
                report(first + len(images), len(split))
            ready = following.result()


def _load(backbone: Backbone, split: Split, first: int, skip_bad: bool) -> Block:
    """Decode the images of the block that starts at row ``first``: uint8 ``(n, 3, S, S)``, and the rows that are bad."""
    size = backbone.settings.image_size
    images = torch.zeros(max(0, min(BLOCK, len(split) - first)), 3, size, size, dtype=torch.uint8)
    bad = []
    for place in range(len(images)):
        try:
            images[place] = backbone.preprocess(split.image(first + place))
        except BadImageError:
            if not skip_bad:
                raise
            bad.append(first + place)
    return images, bad


def _checksum(content: bytes, bad: list[int]) -> int:
    """CRC-32 of a block's rows, seeded by its list of bad rows, so that damage to either shows."""
    return zlib.crc32(content, zlib.crc32(json.dumps(bad).encode()) if bad else 0)


def _is_block(block: Any, start: int, total: int) -> bool:
    """Whether a journal line describes a block of rows from ``start`` on."""
    if not isinstance(block, dict):
        return False
    rows, bad = block.get("rows"), block.get("bad")
    if not isinstance(rows, list) or not isinstance(bad, list) or any(type(row) is not int for row in rows + bad):
        return False
    return len(rows) == 2 and start == rows[0] < rows[1] <= total and all(rows[0] <= row < rows[1] for row in bad)


def _parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, None if it is not one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_json(path: Path) -> Any:
    try:
        return _parse_json(path.read_bytes())
    except OSError:
        return None
