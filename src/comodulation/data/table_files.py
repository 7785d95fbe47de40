"""Tables of a folder (parquet, arrow, csv, JSON, tar archives of web data sets): which files are which split's, and reading them.

`datasets` reads the files that it is given, and is given nothing else: what it would find by itself in a folder depends on words
in names, leaves out files without a word, and follows what a README.md says, to addresses on the network too.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError, brief, reason_of
from .folder_files import is_filler, split_of
from .label_files import SEPARATORS, encoding_of, separator_of

# What `datasets` calls the format of each suffix.
FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".tar": "webdataset",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".json": "json",
}
_SHARDED = re.compile(r"(.+)-\d{5}-of-\d{5}")  # as `datasets` names the parts of a split


def split_files(base: Path, files: Sequence[PurePath]) -> tuple[str, dict[str, list[str]]] | None:
    """The table files of a folder, of one format.

    Args:
        base: the folder.
        files: its files, as ``folder_files`` gives them.

    Returns:
        Their suffix, and paths by split: the split that a file's name says (``train-00000-of-00001.parquet``, ``test.parquet``) or
        a folder that it is in; ``train`` where none says any. None where there is no table.

    Raises:
        InputError: files that say no split, or two, beside others that say one.
    """
    suffix = next((suffix for suffix in FORMATS if any(file.suffix.lower() == suffix for file in files)), None)
    if suffix is None:
        return None
    found = [(file, _split(file)) for file in files if file.suffix.lower() == suffix]
    unsaid = [file for file, split in found if split is None]
    if unsaid and len(unsaid) < len(found):
        other, split = next((file, split) for file, split in found if split)
        raise InputError(
            f"{base / unsaid[0]} does not say which split it is of, while {other} is of {split!r}: expected a word such as "
            "train or test in the name of each file or of its folder"
        )
    by_split: dict[str, list[str]] = {}
    for file, said in found:
        by_split.setdefault(said or "train", []).append(str(base / file))
    return suffix, by_split


def load_tables(source: str, files: Mapping[str, Sequence[str]], suffix: str) -> Any:
    """The tables of files by split, as `datasets` has them. Raises InputError for files that cannot be read."""
    import datasets

    kind, options = FORMATS[suffix.lower()], dict[str, Any]()
    if chained := next((file for own in files.values() for file in own if "::" in file), None):
        raise InputError(
            f"cannot read {source}: {brief(chained)} has '::' in it, which `datasets` takes for an address; rename it"
        )
    try:
        if kind == "csv":
            options = _text_options(Path(next(own[0] for own in files.values())), suffix.lower())
        # It takes names for patterns, too.
        return datasets.load_dataset(
            kind, data_files={n: list(map(glob.escape, own)) for n, own in files.items()}, **options
        )
    except Exception as error:  # the loader raises whatever its file format's reader raises
        # So does `datasets` say that all of a split's files are without rows.
        reason = "it is empty" if "corresponds to no data" in str(error) else first_line(error)
        raise InputError(f"cannot read {source}: {reason}") from error


def _text_options(path: Path, suffix: str) -> dict[str, Any]:
    """How a csv or tsv is read, so that its cells mean what they mean in a table of labels: only an empty one is missing."""
    separator, encoding = separator_of(path, SEPARATORS[suffix]), encoding_of(path)
    options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "na_values": [""]}
    if separator == ";":
        options["decimal"] = ","
    return options if encoding == "utf-8-sig" else {**options, "encoding": encoding}


def first_line(error: Exception) -> str:
    """What an error, or its cause, says first."""
    cause = error.__cause__
    return reason_of(cause if cause and str(cause).strip() else error)


def _split(file: PurePath) -> str | None:
    shard = _SHARDED.fullmatch(file.stem)
    if shard and file.parts[-2:-1] == ("data",):
        return shard[1]  # by its own name, whichever it is
    own = shard[1] if shard else file.stem
    said = (split_of(name)[0] for name in (own, *reversed(file.parts[:-1])))
    # What `save_to_disk` writes is data-00000-of-00001.arrow, which says none.
    return next(filter(None, said), shard[1] if shard and not is_filler(shard[1]) else None)
