"""Images sorted in folders: FOLDER/CLASS/x.png or FOLDER/train/CLASS/x.png -> splits with one label column, ``label``.

The outer folders are splits where all of them are named so, and have folders in them; a class called "train" among others
is a class.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..files import user_path
from .label_table import SPLITS, held_out, table_splits
from .source import Split

CLASS_COLUMN = "label"  # as `datasets` calls it
# Pillow reads more, but not everything it reads is meant to be looked at (.pdf, .h5).
SUFFIXES = tuple(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split(" ")  # noqa: SIM905
)
_TABLES = (
    "*.parquet",
    "*.arrow",
    "metadata.csv",
    "metadata.jsonl",
    "metadata.parquet",
)  # what `datasets` reads instead


def folder_splits(source: str) -> dict[str, Split] | None:
    """Splits of images sorted in folders; None for a folder that holds something else.

    Images in subfolders of a class's folder are of that class; hidden files and files that are no images by their name are
    left out. Without folders of splits, test images are held out by the hash of their path.

    Args:
        source: the folder.

    Raises:
        InputError: images beside the folders of the classes.
    """
    base = user_path(source).absolute()
    if not base.is_dir() or any(any(base.glob(pattern)) for pattern in _TABLES):
        return None
    outer = _folders(base)
    split_named = bool(outer) and all(path.name.lower() in SPLITS and _folders(path) for path in outer)
    places: list[tuple[str, Path]] = []  # of a class: its split ("": to be dealt) and its folder
    for path in outer:
        own = _folders(path) if split_named else [path]
        places += [(SPLITS[path.name.lower()] if split_named else "", inner) for inner in own]
    found = [
        (split, place.name, file) for split, place in places for file in sorted(place.rglob("*")) if _is_image(file)
    ]
    if not found:
        return None
    for path in [base, *(outer if split_named else [])]:
        if loose := sorted(entry for entry in path.iterdir() if _is_image(entry)):
            raise InputError(f"{loose[0]} is beside the folders of the classes, expected in one of them")
    classes = sorted({name for _, name, _ in found})
    cells = [{"bytes": None, "path": str(file)} for _, _, file in found]
    names = [split or held_out(file.relative_to(base).as_posix()) for split, _, file in found]
    labels: list[int | None] = [classes.index(name) for _, name, _ in found]
    return table_splits(source, "image", cells, {CLASS_COLUMN: (classes, labels)}, names)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
