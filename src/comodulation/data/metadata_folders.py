"""Images with a metadata.csv, .jsonl or .parquet beside them, in the layout of the `datasets` library: one row for each image.

The column ``file_name`` holds paths relative to the file; the other columns are label columns. Every row is read, or the folder
is refused: which split a row belongs to is said by a folder (train/metadata.csv, or train/x.png in the column), never by
a word in an image's name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError, brief
from .folder_files import SUFFIXES, composed, split_of
from .source import Split
from .table_files import load_tables
from .tables import check_text

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME, IMAGE = "file_name", "image"


def metadata_splits(source: str, base: Path, files: Sequence[PurePath]) -> dict[str, Split] | None:
    """Splits of a folder with metadata files; None where there is none.

    Args:
        source: what messages call the folder.
        base: the folder.
        files: its files, as ``folder_files`` gives them.

    Raises:
        InputError: metadata without ``file_name``, in two places of which one lies in the other, or with columns that differ
            among the files of a split; rows of which some are in folders of splits and others are not; paths outside the
            folder; no image at all.
    """
    import datasets

    found = [file for file in files if file.name in METADATA]
    if not found:
        return None
    _refuse_nested(base, found)
    there = {file.as_posix() for file in files if file.suffix.lower() in SUFFIXES}
    spelled = {composed(path): path for path in there}
    parts: dict[str, list[Any]] = {}
    listed: list[str] = []
    for file in found:
        paths, table = _read(base, file)
        paths = [path if path in there else spelled.get(composed(path), path) for path in paths]
        listed += paths
        for name, rows in _by_split([_split(path) for path in paths], base / file).items():
            cells = [{"bytes": None, "path": str(base / paths[row])} for row in rows]
            images = datasets.Dataset.from_dict(
                {IMAGE: cells}, features=datasets.Features({IMAGE: datasets.Image(decode=False)})
            )
            parts.setdefault(name, []).append(datasets.concatenate_datasets([images, table.select(rows)], axis=1))
    if there.isdisjoint(listed):
        raise InputError(f"none of the {len(listed)} images of {base / found[0]} is there; first {brief(listed[0])}")
    left = sorted(there.difference(listed))
    notes = (f"left out: {len(left)} images of {base} that no metadata names, first {brief(left[0])}",) if left else ()
    splits = {}
    for name, tables in parts.items():
        if any(one.features != tables[0].features for one in tables[1:]):
            raise InputError(f"the metadata files of split {name!r} of {source!r} differ in their columns")
        splits[name] = Split(source, name, datasets.concatenate_datasets(tables), IMAGE, notes=notes)
    return splits


def _refuse_nested(base: Path, found: Sequence[PurePath]) -> None:
    for file in found:
        above = (file.parent, *file.parent.parents)
        if other := next((one for one in found if one != file and one.parent in above), None):
            raise InputError(f"{base / file} and {base / other} both describe the images of one folder; expected one")


def _read(base: Path, file: PurePath) -> tuple[list[str], Any]:
    """Paths of the images relative to the folder, and a table of the other columns."""
    where = str(base / file)
    table = load_tables(where, {"train": [where]}, file.suffix)["train"]
    if FILE_NAME not in table.column_names:
        raise InputError(f"{where} has no column {FILE_NAME!r} of paths, only {', '.join(table.column_names)}")
    if IMAGE in table.column_names:
        raise InputError(f"{where} has a column {IMAGE!r}, the name that its images get; rename it")
    paths = []
    for row, cell in enumerate(table[FILE_NAME]):
        if not isinstance(cell, str) or not cell or "\0" in cell:
            raise InputError(f"{where}, row {row}: {FILE_NAME} is {brief(cell)}, expected the path of an image")
        path = os.path.normpath((file.parent / cell).as_posix())
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
            raise InputError(f"{where}, row {row}: {brief(cell)} is outside the folder {base}")
        paths.append(path)
    check_text(where, paths)
    return paths, table.remove_columns(FILE_NAME)


def _split(path: str) -> str | None:
    """The split that the folders of a path name."""
    said = [split for split, rest in map(split_of, PurePath(path).parts[:-1]) if split and not rest]
    return said[0] if said else None


def _by_split(names: Sequence[str | None], where: Path) -> dict[str, list[int]]:
    rows: dict[str | None, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    if None in rows and len(rows) > 1:
        raise InputError(
            f"{where}: {len(rows[None])} of {len(names)} rows are in no folder of a split, the others are (first row "
            f"{rows[None][0]}); move these images into a folder of a split, or leave their rows out"
        )
    return {name or "train": own for name, own in rows.items()}
