"""A folder that a run is written to: one process at a time, for one purpose, to be continued until its last file is there.

A claim is a file that says what the folder is to hold; it is written first, as metrics.json is written last. What a finished run
was made from stands in its metrics, so that it is not taken for the answer to other labels, images or weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, first_difference
from ..files import PARTIAL, locked, read_json, remove_partials, torn, writable, write_bytes
from ..tasks import TaskFamily
from ..tensors import read_tensors
from ..training import Progress
from .dataset import Labelled
from .folder import ADAPTER, CLASSES, CONFIG, CONFUSIONS, HEAD, METRICS, PREDICTIONS, REPORT
from .records import read_metrics

LOCK, CHECKPOINT = ".lock", "checkpoint.safetensors"
ADDED = "added.json"  # claims a folder for tasks that are added to a run, as config.yaml does for a run


@dataclass(frozen=True)
class Claim:
    """What a folder is to hold.

    Attributes:
        name: of the file that says so.
        content: of the file.
        value: what ``read`` gives of it, as nested dictionaries.
        read: reads the file. Raises InputError for one that is damaged.
        what: it is called, for messages.
    """

    name: str
    content: bytes
    value: dict[str, Any]
    read: Callable[[Path], dict[str, Any]]
    what: str


@contextmanager
def claimed(
    folder: Path, claim: Claim, *, resume: bool, made_from: Mapping[str, Any], tell: Progress
) -> Iterator[None]:
    """Hold a folder, new or to be continued. Where bad input turns up before the work has begun, nothing is left.

    A finished run with a file that is missing or damaged becomes an unfinished one: it is to be done again.

    Args:
        folder: to write to.
        claim: what it is to hold.
        resume: continue what is there.
        made_from: what a run would be made from now; see ``sources``.
        tell: told which files are done again.

    Raises:
        InputError: the folder is in use, is something else, or holds another run or one that was made from other data.
    """
    _check(folder, claim, resume)
    with writable(folder), locked(folder / LOCK, wait=False):
        _check(folder, claim, resume)  # again: another process may have begun before the lock was ours
        remove_partials(folder)
        if not finished(folder):  # metrics that a power cut has torn are none
            (folder / METRICS).unlink(missing_ok=True)
        else:
            _check_sources(folder, made_from, tell)
            if damaged := damaged_files(folder):
                tell.message(f"missing or damaged in {folder}: {', '.join(damaged)}; the run is done again")
                (folder / METRICS).unlink()
            else:  # killed between its last file and this
                (folder / CHECKPOINT).unlink(missing_ok=True)
        fresh = not (folder / claim.name).exists() or torn(folder / claim.name, claim.content)
        try:
            if fresh:
                write_bytes(folder / claim.name, claim.content)
            yield
        except InputError:
            if fresh and {path.name for path in folder.iterdir()} <= {claim.name, LOCK}:
                (folder / claim.name).unlink(missing_ok=True)
                (folder / LOCK).unlink(missing_ok=True)
            raise


def finished(folder: Path) -> bool:
    """Whether a run's last file is there, whole."""
    if not (folder / METRICS).exists():
        return False
    try:
        return isinstance(read_json(folder / METRICS), dict)
    except InputError:
        return False


def damaged_files(folder: Path) -> list[str]:
    """Names of the files of a finished run that are missing, or not what was written."""
    expected = _WHOLE
    if "made_from" not in read_json(folder / METRICS):  # an earlier release, which had no such files
        expected = {name: whole for name, whole in _WHOLE.items() if name not in (CLASSES, CONFUSIONS)}
    return [name for name, whole in expected.items() if not _is_whole(folder / name, whole)]


def sources(family: TaskFamily, labelled: Mapping[str, Labelled], backbone: str) -> dict[str, Any]:
    """What a run is made from, as JSON: hashes of the labels and of the images of each split, and of the backbone.

    Args:
        family: the tasks.
        labelled: labels by the name of their split.
        backbone: its fingerprint.
    """
    names = json.dumps(family.to_json(), sort_keys=True).encode()
    found: dict[str, Any] = {"backbone": backbone}
    for name, data in labelled.items():
        labels = hashlib.sha256(names)
        for column in data.columns:
            labels.update(column.tobytes())
        found[name] = {"labels": labels.hexdigest(), "images": data.split.fingerprint}
    return found


def _check_sources(folder: Path, made_from: Mapping[str, Any], tell: Progress) -> None:
    """Raise InputError for a finished run that was made from something else."""
    stored = read_metrics(folder / METRICS)
    before = (stored["added"][-1] if stored.get("added") else stored).get("made_from")
    if before is None:
        tell.message(
            f"{folder} does not say which labels and images it was made from: an earlier release has written it"
        )
    elif differing := first_difference(before, dict(made_from)):
        split, _, what = differing[0].partition(".")
        what = f"{what or 'data'} of split {split!r}" if split != "backbone" else "weights of the backbone"
        raise InputError(
            f"{folder} holds a finished run that was made from other {what} than there are now; another --out makes a new one"
        )


def _check(folder: Path, claim: Claim, resume: bool) -> None:
    """Raise InputError for a folder that is something else, or holds another run."""
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file, expected a folder to write the run to")
        found = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    entries = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
    if not entries:
        return
    if METRICS in entries and CONFIG not in entries:
        raise InputError(f"{folder} holds a run without its {CONFIG}; put it back, or choose another --out")
    if claim.name not in entries or (ADDED in entries and claim.name != ADDED):
        held = " (tasks were added to a run there: add-task)" if ADDED in entries else ""
        raise InputError(f"{folder} is not empty and not {claim.what}{held}; choose another --out")
    if not resume:
        raise InputError(f"{folder} already holds a run; --resume continues it, another --out starts a new one")
    if entries == [claim.name] and torn(folder / claim.name, claim.content):
        return  # a power cut when nothing else had been written
    if differing := first_difference(claim.read(folder / claim.name), claim.value):
        key, before, now = differing
        raise InputError(
            f"{folder} holds a run with another {key} ({brief(before)}, now {brief(now)}); choose another --out"
        )


def _is_whole(path: Path, read: Callable[[Path], Any]) -> bool:
    try:
        return read(path) is not False
    except Exception:  # pyarrow raises several kinds
        return False


def _read_table(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.read_table(path)


def _ends_as_a_page(path: Path) -> bool:
    return path.read_bytes().rstrip().endswith(b"</html>")


def _ends_as_rows(path: Path) -> bool:
    return path.read_bytes().endswith(b"\n")


_WHOLE: dict[str, Callable[[Path], Any]] = {
    HEAD: read_tensors, ADAPTER: read_tensors, PREDICTIONS: _read_table, REPORT: _ends_as_a_page,
    CLASSES: _ends_as_rows, CONFUSIONS: _ends_as_rows,
}  # fmt: skip
