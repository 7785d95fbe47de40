"""The folder of a study: its description, its finished trials and its finished cells.

A file that says what it is of (``Manifest``), search/*.jsonl (trials), cells/ (a network each), and, made again from these at the
end: cells.csv, results.json, figures/, report.html. What is finished is never repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ...errors import InputError, brief, first_difference
from ...files import PARTIAL, json_bytes, read_json, torn, write_bytes
from ...runs import checked, written_in_full
from .agenda import CELLS, SEARCH, Manifest
from .rows import Cell

LOCK = ".lock"


class HasManifest(Protocol):
    """A study of any kind."""

    @property
    def manifest(self) -> Manifest: ...


def claim(study: HasManifest, out: Path) -> None:
    """Raise InputError for a folder that is something else, or another study; what the manifest leaves free may be added to one."""
    manifest = study.manifest
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder to write the study to")
    found = [path.name for path in out.iterdir()] if out.exists() else []
    found = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
    if not found:
        return
    path, now = out / manifest.name, manifest.content
    if manifest.name not in found:
        raise InputError(f"{out} is not empty and not {manifest.what}; choose another --out")
    if not has_begun(out) and torn(path, json_bytes(now)):
        return  # a power cut when nothing else had been written
    before = checked(read_json(path), manifest.form, path)
    before = {**before, "config": written_in_full(before.get("config"))}
    then_fixed, now_fixed = (
        {key: value for key, value in side.items() if key not in manifest.free} for side in (before, now)
    )
    if differing := first_difference(then_fixed, now_fixed):
        key, then, here = differing
        raise InputError(
            f"{out} holds a study with another {key} ({brief(then)}, now {brief(here)}); choose another --out"
        )


def write_manifest(manifest: Manifest, out: Path) -> None:
    """Write what the folder is of; not without need: what was written last is what a power cut endangers."""
    path, content = out / manifest.name, json_bytes(manifest.content)
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def has_begun(out: Path) -> bool:
    """Whether a folder holds a trial or a cell."""
    return any(path.is_file() for name in (CELLS, SEARCH) for path in (out / name).glob("*"))


@contextlib.contextmanager
def cleared_if_refused(manifest: Manifest, out: Path) -> Iterator[None]:
    """Where bad input turns up before anything is finished in a new folder, leave nothing in it."""
    fresh = not (out / manifest.name).exists()
    try:
        yield
    except InputError:
        if fresh and not has_begun(out):
            for name in (CELLS, SEARCH):
                with contextlib.suppress(OSError):
                    (out / name).rmdir()
            for name in (*manifest.derived, manifest.name, LOCK):
                (out / name).unlink(missing_ok=True)
        raise


def cell_path(out: Path, cell: Cell) -> Path:
    return out / CELLS / f"{cell.key}.json"


def diverged_path(out: Path, cell: Cell) -> Path:
    """What a cell whose training diverged leaves: the reason. It is not trained again, which would end in the same way."""
    return out / CELLS / f"{cell.key}.diverged"


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether a cell is there. Its numbers are written last: where a power cut has torn them, it is trained again."""
    path = cell_path(out, cell)
    try:
        return path.exists() and isinstance(read_json(path), dict)
    except InputError:
        return False


def is_over(out: Path, cell: Cell) -> bool:
    """Whether nothing is left to do for a cell: it is finished, or its training diverged."""
    return is_finished(out, cell) or diverged_path(out, cell).exists()
