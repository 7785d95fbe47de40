"""The files of one feature cache, which any number of processes fill together.

- ``data.bin``: rows in order, float16 or what ``kept`` of the identity says; a block of rows is written in place and reaches the
  disk before it is journalled.
- ``journal.jsonl``, and while processes work one ``journal-*.jsonl`` for each of them: a line a block, its rows, its
  checksum and its bad rows. A line counts only where its checksum is that of the data; which file it stands in does not matter.
- ``identity.json``: what the features depend on; replaced as a whole, so that it is never half there.
- ``lock``: empty; processes lock byte ``1 + b`` of it while they work on block ``b``, and byte 0 while they change anything else.

Byte-range locks are the system's: they end with the process that holds them, however it ends, and a network file system passes
them on between hosts. So there are no leases, no clocks and no list of members.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...files import read_bounded, remove_partials, write_bytes

_LARGEST_IDENTITY = 1 << 16  # bytes; ours are some hundreds
_SET_UP = 0  # the byte of the lock file for everything that is not one block


class FeatureStore:
    """One cache: which of its blocks are there, and the only place that writes them.

    Args:
        folder: of the files; need not be there.
        identity: what the features depend on; ``shape`` is ``[N, C, s, s]``, ``kept`` the precision if it is not float16.
        block: rows of a block.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], block: int) -> None:
        self.folder, self.identity, self.block = folder, identity, block
        self.data, self.journal, self.manifest = folder / "data.bin", folder / "journal.jsonl", folder / "identity.json"
        self.shape = tuple(identity["shape"])
        self.dtype = np.dtype(identity.get("kept", "float16"))
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        blocks = -(-self.shape[0] // block)
        self.done = np.zeros(blocks, bool)
        self._checksums = np.zeros(blocks, np.uint32)
        self._bad: dict[int, list[int]] = {}
        self._read: dict[tuple[str, int], int] = {}  # journal and inode -> bytes read of it
        self._own: Path | None = None
        self._lock: int | None = None
        self._held: set[int] = set()

    def rows(self, block: int) -> tuple[int, int]:
        """First row of a block, and the row after its last."""
        return block * self.block, min(self.shape[0], (block + 1) * self.block)

    @property
    def complete(self) -> bool:
        return bool(self.done.all())

    @property
    def rows_done(self) -> int:
        missing_from_last = len(self.done) * self.block - self.shape[0]  # the last block is shorter than the others
        return int(self.done.sum()) * self.block - missing_from_last * int(self.done[-1])

    @property
    def bad_rows(self) -> tuple[int, ...]:
        """Rows whose image could not be read, in order."""
        return tuple(row for block in sorted(self._bad) for row in self._bad[block])

    @property
    def merged(self) -> bool:
        """Whether no journal of a process is left beside the common one."""
        return not any(self.folder.glob("journal-*.jsonl"))

    def array(self) -> np.ndarray:
        """The features ``(N, C, s, s)``, memory-mapped and read-only."""
        return np.memmap(self.data, self.dtype, "r", shape=self.shape)

    # ---- reading ----

    def refresh(self) -> None:
        """Take note of the blocks that have come since the last call and hold their checksums. Writes nothing."""
        if not self.data.is_file() or _read_identity(self.manifest) != self.identity:
            return
        while True:
            journals = [path for path in sorted(self.folder.glob("journal*.jsonl")) if path.is_file()]
            try:
                with open(self.data, "rb") as data:
                    for journal in journals:
                        for line in self._new_lines(journal):
                            self._take(line, data.fileno())
                return
            except FileNotFoundError:  # another process has merged the journals meanwhile, or there is nothing yet
                if not self.data.exists():
                    return

    def _new_lines(self, journal: Path) -> Iterator[bytes]:
        """Whole lines that were not there at the last call, each at most as long as one of ours can be."""
        longest = 200 + self.block * (len(str(self.shape[0])) + 2)
        with open(journal, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > longest * len(self.done):  # a process journals no block twice: not one of ours
                return
            known = (journal.name, status.st_ino)
            file.seek(self._read.get(known, 0))
            while line := file.readline(longest):
                if line.endswith(b"\n"):
                    yield line
                elif len(line) < longest:  # still being written, or cut off
                    return
                self._read[known] = file.tell()

    def _take(self, line: bytes, data: int) -> None:
        entry = _parse_json(line)
        if not _is_entry(entry):
            return
        block = entry["rows"][0] // self.block
        start, stop = entry["rows"]
        if not 0 <= block < len(self.done) or self.done[block] or (start, stop) != self.rows(block):
            return
        if any(not start <= row < stop for row in entry["bad"]):
            return
        content = os.pread(data, (stop - start) * self.row_bytes, start * self.row_bytes)
        if len(content) == (stop - start) * self.row_bytes and _checksum(content, entry["bad"]) == entry["checksum"]:
            self._note(block, entry["checksum"], entry["bad"])

    def _note(self, block: int, checksum: int, bad: list[int]) -> None:
        self.done[block], self._checksums[block] = True, checksum
        if bad:
            self._bad[block] = bad

    # ---- writing ----

    def __enter__(self) -> FeatureStore:
        """Make the folder and its files ready for blocks; a cache of another identity is emptied first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._acquire(_SET_UP, wait=True)
            remove_partials(self.folder)
            if _read_identity(self.manifest) != self.identity:  # new, damaged or foreign: start over
                for path in (*self.folder.glob("journal*.jsonl"), self.data):
                    path.unlink(missing_ok=True)
                write_bytes(self.manifest, json.dumps(self.identity).encode())
            os.close(os.open(self.data, os.O_RDWR | os.O_CREAT, 0o666))
            self._release(_SET_UP)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        if self._lock is not None:
            os.close(self._lock)  # with it go all locks of this process
        self._lock = None
        self._held.clear()

    def claim(self, first: int = 0) -> int | None:
        """A block that is missing and that no process works on, at or after block ``first``, else before it; now ours."""
        missing = np.flatnonzero(~self.done)
        for block in np.roll(missing, -int(np.searchsorted(missing, first))).tolist():
            if block not in self._held and self._acquire(1 + block, wait=False) and self._still_missing(block):
                return block
        return None

    def wait(self) -> int | None:
        """Wait until a process that works on a missing block has ended it or died.

        Returns:
            The block, now ours, if it is still missing.
        """
        if self._held:
            raise RuntimeError("waiting for another's block while holding one could wait for ever")
        block = int(np.argmin(self.done))
        self._acquire(1 + block, wait=True)
        return block if self._still_missing(block) else None

    def forget(self, blocks: Iterable[int]) -> None:
        """Take blocks for missing, so that they are extracted again; on the disk nothing changes before they are written.

        The line of a former extraction ends to count once its data are overwritten: they no longer have its checksum.
        """
        for block in blocks:
            self.done[block] = False
            self._bad.pop(block, None)

    def _still_missing(self, block: int) -> bool:
        """Keep a block whose lock was just got, unless its former holder has finished it."""
        self.refresh()
        if self.done[block]:
            self._release(1 + block)
            return False
        self._held.add(block)
        return True

    def write(self, block: int, rows: np.ndarray, bad: list[int]) -> None:
        """Store the rows ``(n, C, s, s)`` of a claimed block, journal them, and give up the claim."""
        start, _ = self.rows(block)
        content = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        with open(self.data, "r+b") as data:
            data.seek(start * self.row_bytes)
            data.write(content)
            data.flush()
            os.fsync(data.fileno())
        checksum = _checksum(content, bad)
        if self._own is None:
            self._own = self.folder / f"journal-{uuid.uuid4().hex}.jsonl"
        with open(self._own, "a") as journal:
            journal.write(self._line(block, checksum, bad))
            journal.flush()
            os.fsync(journal.fileno())
        self._note(block, checksum, bad)
        self._held.discard(block)
        self._release(1 + block)

    def merge(self) -> None:
        """Of a complete cache: one journal, in order, so that its files do not show how many processes made it."""
        self._acquire(_SET_UP, wait=True)
        try:
            own = sorted(self.folder.glob("journal-*.jsonl"))
            if not own and self.journal.exists():
                return  # another process has done it
            lines = (self._line(b, int(self._checksums[b]), self._bad.get(b, [])) for b in range(len(self.done)))
            write_bytes(self.journal, "".join(lines).encode())
            for path in own:
                path.unlink(missing_ok=True)
        finally:
            self._release(_SET_UP)

    def _line(self, block: int, checksum: int, bad: list[int]) -> str:
        return json.dumps({"rows": list(self.rows(block)), "checksum": checksum, "bad": bad}) + "\n"

    def _acquire(self, byte: int, *, wait: bool) -> bool:
        assert self._lock is not None, "the store is not open for writing"
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except OSError as error:
            if wait or error.errno not in (errno.EACCES, errno.EAGAIN):  # POSIX allows either for "held by another"
                raise
            return False
        return True

    def _release(self, byte: int) -> None:
        assert self._lock is not None, "the store is not open for writing"
        fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, byte)


def _checksum(content: bytes, bad: list[int]) -> int:
    """CRC-32 of a block's rows, seeded by its list of bad rows, so that damage to either shows."""
    return zlib.crc32(content, zlib.crc32(json.dumps(bad).encode()) if bad else 0)


def _is_entry(entry: Any) -> bool:
    """Whether a journal line has the form of one."""
    if not isinstance(entry, dict) or type(entry.get("checksum")) is not int:
        return False
    rows, bad = entry.get("rows"), entry.get("bad")
    if not isinstance(rows, list) or not isinstance(bad, list) or any(type(row) is not int for row in rows + bad):
        return False
    return len(rows) == 2 and bad == sorted(set(bad))


def _parse_json(text: bytes) -> Any:
    """The value of a JSON text, None if it is not one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_identity(path: Path) -> Any:
    """The manifest's value; None if it is absent, cannot be read, is no JSON or is larger than any of ours."""
    try:
        return _parse_json(read_bounded(path, _LARGEST_IDENTITY))
    except (OSError, ValueError):
        return None
