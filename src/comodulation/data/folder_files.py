"""What a folder of data holds: its files, without those that are no data, and the splits that names of folders and files say."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath

from ..errors import InputError

# Pillow reads more, but not everything it reads is meant to be looked at (.pdf, .h5).
SUFFIXES = tuple(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split(" ")  # noqa: SIM905
)
# Words that people, and `datasets`, use for splits.
SPLITS = {
    "train": "train", "training": "train", "trn": "train",
    "test": "test", "testing": "test", "tst": "test", "eval": "test", "evaluation": "test", "holdout": "test",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
}  # fmt: skip
# Words that may stand beside them, and name nothing by themselves.
_FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos", "split"}
_JOINED = re.compile(rf"({'|'.join(SPLITS)})(set|data|images)")
# What operating systems put beside pictures: archives of macOS, thumbnails of a disk station, bins.
_FOREIGN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "__pycache__"}
# What this library writes: a run or a shared one, a cache of features, of pretrained layers, a study.
_OUTPUTS = (
    {"config.yaml", ".lock"}, {"config.yaml", "adapter.safetensors"}, {"identity.json", "journal.jsonl"},
    {"history.json", "head.safetensors"}, {"results.json", "cells.csv"},
)  # fmt: skip


def folder_files(base: Path) -> list[PurePath]:
    """Regular files below a folder, as paths relative to it, in order; hidden ones and those that are no data are left out.

    Links are followed, but not to a folder that they lie in. What this library writes (runs, caches, studies) is no data.

    Raises:
        InputError: a folder that cannot be read.
    """
    try:
        return sorted(_files(base, PurePath(), ()))
    except OSError as error:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror or error}") from error


def _files(folder: Path, relative: PurePath, above: tuple[tuple[int, int], ...]) -> Iterator[PurePath]:
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    with os.scandir(folder) as entries:
        found = list(entries)
    names = {entry.name for entry in found}
    if own in above or (above and any(marks <= names for marks in _OUTPUTS)):
        return
    for entry in found:
        if entry.name.startswith(".") or entry.name in _FOREIGN:
            continue
        if entry.is_file():
            yield relative / entry.name
        elif entry.is_dir():
            yield from _files(Path(entry.path), relative / entry.name, (*above, own))


def composed(text: str) -> str:
    """A text in the one Unicode form (NFC) that names are compared in: "é" is one sign, or an "e" and its accent, by who typed it.

    >>> composed("cafe\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


class NamedImages:
    """The images below a folder, by path and by name, each with and without its suffix; looked for when they are asked for."""

    def __init__(self, base: Path) -> None:
        self._base = base

    @cached_property
    def _paths(self) -> list[PurePath]:
        return [file for file in folder_files(self._base) if file.suffix.lower() in SUFFIXES]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._paths:
            path = file.as_posix()
            for name in {composed(name) for name in (path, path.removesuffix(file.suffix), file.name, file.stem)}:
                found.setdefault(name, []).append(path)
        return found

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._paths:
            found.setdefault(composed(file.as_posix()), []).append(file.as_posix())
        return found

    def files(self, name: str) -> list[str]:
        """Paths, relative to the folder, of the images that a name may stand for."""
        return self._by_name.get(composed(name), [])

    def spelling(self, path: str) -> str | None:
        """The one image whose path is this one, as the file system spells it: macOS takes signs with accents apart."""
        found = self._by_spelling.get(composed(path), [])
        return found[0] if len(found) == 1 else None

    def example(self) -> str:
        """For a message: how images there are called."""
        return (
            f", where images are named as {self._paths[0].as_posix()!r}" if self._paths else ", which holds no images"
        )


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case; "trainset" is two.

    >>> words_of("seg_Train-2017")
    ('seg', 'train')
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    cut = [(_JOINED.fullmatch(word), word) for word in words]
    return tuple(part for match, word in cut for part in (match.groups() if match else (word,)))


def split_of(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split that a name says, None where it says none or several, and the words of it that name something else.

    >>> split_of("Training images"), split_of("seg_test"), split_of("cat")
    (('train', ()), ('test', ('seg',)), (None, ('cat',)))
    """
    words = words_of(name)
    found = {SPLITS[word] for word in words if word in SPLITS}
    rest = tuple(word for word in words if word not in SPLITS and word not in _FILLERS)
    # Letters that are no part of a word here are not thrown away: "züge train" is more than "train".
    rest += tuple(re.findall(r"[^\W\d_a-zA-Z]+", name))
    return (found.pop() if len(found) == 1 else None), rest


def is_filler(name: str) -> bool:
    """Whether a folder's name says nothing: "images", "data set"."""
    words = words_of(name)
    return bool(words) and all(word in _FILLERS for word in words)
