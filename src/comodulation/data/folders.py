"""Images sorted in folders: FOLDER/CLASS/x.png or FOLDER/train/CLASS/x.png -> splits with one label column, ``label``.

Names of splits are never classes, with one exception: a single one among other folders of images, as "train" beside "bus".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from ..errors import InputError, brief
from ..files import user_path
from .folder_files import SPLITS, SUFFIXES, composed, folder_files, is_filler, split_of, words_of
from .source import Split
from .tables import held_out, table_splits

CLASS_COLUMN = "label"  # as `datasets` calls it
# Pictures that are not read: somebody may miss them.
_UNREAD = tuple(".arw .cr2 .cr3 .dng .eps .jxl .nef .npy .orf .psd .raf .rw2 .svg".split(" "))  # noqa: SIM905


@dataclass(frozen=True)
class _Place:
    """A folder: images directly in it, and those in its folders by the folders' names; paths relative to the data."""

    path: PurePath
    loose: list[PurePath]
    inner: dict[str, list[PurePath]]


def folder_splits(source: str | Path) -> dict[str, Split] | None:
    """Splits of images sorted in folders; None for a folder without images.

    Images in subfolders of a class's folder are of that class; hidden files and files that are no images by their name are
    left out. Without folders of splits, test images are held out by the hash of their path. A split whose images are not
    sorted is left out where another one is sorted; where none is, no split has a label column. ``Split.notes`` says what was
    left out.

    Args:
        source: the folder.

    Raises:
        InputError: images beside the folders of the classes; folders that may be splits as well as classes.
    """
    base = user_path(source).absolute()
    return sorted_images(str(source), base, folder_files(base)) if base.is_dir() else None


def sorted_images(source: str, base: Path, files: Sequence[PurePath]) -> dict[str, Split] | None:
    """``folder_splits`` of a folder whose files are known already, as ``folder_files`` gives them."""
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        return None
    place = _place(PurePath(), images)
    while not place.loose and len(place.inner) == 1:
        (name, own), *_ = place.inner.items()
        inside = _place(place.path / name, own)
        if split_of(name)[0] or not (is_filler(name) or _split_folders(inside)):
            break
        place = inside  # what an archive was unpacked to
    splits = _split_folders(place)
    notes = _unread(base, files)
    if not splits:
        _refuse_splits_in_classes(base, place)
        notes += _same_inside(base, place)
        found = _classes(base, place, partial(_always, "train") if place.loose else held_out)
    else:
        if beside := [name for name in place.inner if name not in splits]:
            shown = ", ".join(brief(name) for name in beside[:5])
            notes.append(f"left out: {shown} in {base / place.path}, beside the folders of splits {', '.join(splits)}")
        if place.loose:
            raise InputError(f"{base / place.loose[0]} is beside the folders of the splits, expected in one of them")
        by_split = [(split, _unwrapped(place, name, split)) for name, split in splits.items()]
        found = _of_sorted_splits(base, by_split, notes)
    classes = sorted({name for _, name, _ in found if name is not None})
    cells = [{"bytes": None, "path": str(base / file)} for _, _, file in found]
    places = {name: place for place, name in enumerate(classes)}
    labels: list[int | None] = [None if name is None else places[name] for _, name, _ in found]
    columns: dict[str, tuple[list[str] | None, list[int | None]]] = {CLASS_COLUMN: (classes, labels)} if classes else {}
    return table_splits(source, "image", cells, columns, [split for split, _, _ in found], notes=tuple(notes))


Found = list[tuple[str, str | None, PurePath]]  # split, class and path of each image


def _classes(base: Path, place: _Place, deal: Callable[[str], str]) -> Found:
    """Images of a folder of classes, dealt to splits by their paths; of a folder without any, images without a class."""
    if place.loose and place.inner:
        raise InputError(f"{base / place.loose[0]} is beside the folders of the classes, expected in one of them")
    named = [(None, file) for file in place.loose] + [(name, file) for name, own in place.inner.items() for file in own]
    return [(deal(file.as_posix()), name, file) for name, file in named]


def _of_sorted_splits(base: Path, by_split: list[tuple[str, _Place]], notes: list[str]) -> Found:
    """Images of folders of splits; of those that are not sorted only where none is."""
    trained = {name for split, place in by_split if split == "train" for name in place.inner}
    found: Found = []
    for split, place in by_split:
        foreign = split != "train" and bool(trained) and not trained & set(place.inner)
        if foreign or (place.loose and not place.inner and any(other.inner for _, other in by_split)):
            number = len(place.loose) + sum(map(len, place.inner.values()))
            notes.append(
                f"left out: {number} images of split {split!r} in {base / place.path}, which are not sorted in folders of "
                f"the classes{' of the training split' if foreign else ''}"
            )
        else:
            found += _classes(base, place, partial(_always, split))
    return found


def _always(split: str, file: str) -> str:
    return split


def _place(path: PurePath, images: Sequence[PurePath]) -> _Place:
    depth = len(path.parts)
    inner: dict[str, list[PurePath]] = {}
    for file in images:
        if len(file.parts) > depth + 1:
            inner.setdefault(composed(file.parts[depth]), []).append(file)
    return _Place(path, [file for file in images if len(file.parts) == depth + 1], inner)


def _unwrapped(outer: _Place, name: str, split: str) -> _Place:
    """The folder of a split, or the one in it that holds all of its images and says no more than it does."""
    place = _place(outer.path / name, outer.inner[name])
    while not place.loose and len(place.inner) == 1:
        (inside, own), *_ = place.inner.items()
        if not is_filler(inside) and (inside != name or split_of(inside)[0] != split):
            break
        place = _place(place.path / inside, own)
    return place


def _split_folders(place: _Place) -> dict[str, str]:
    """The folders of a place that are splits: split by name; none where the folders are classes.

    They are splits where they name two of them with the same words beside (train, test; seg_train, seg_test), or where the
    only folder names one.

    Raises:
        InputError: it cannot be told.
    """
    named = {name: split_of(name) for name in place.inner}
    for rest in dict.fromkeys(sorted((rest for split, rest in named.values() if split), key=len)):
        own = {name: split for name, (split, words) in named.items() if split and words == rest}
        if len(set(own.values())) > 1 or (not rest and len(place.inner) == 1):
            _refuse_synonyms(own)
            return own
        # One word of a split among other folders: a vehicle, unless something else says that it is a split.
        name = next(iter(own))
        others = [other for other in place.inner if other not in own]
        laid_out = _place(place.path / name, place.inner[name]).inner
        if not rest and (laid_out or any(named[other][0] not in (None, own[name]) for other in others)):
            raise InputError(
                f"folder {brief(name)} may be a split or a class, and beside it are the images of "
                f"{', '.join(map(brief, others[:5]))}: expected folders of classes, or folders of splits (train, test, "
                "validation) with folders of classes in them"
            )
    return {}


def _refuse_synonyms(folders: dict[str, str]) -> None:
    """Raise InputError for two folders that name one split by different words: "test" and "eval" may be meant to differ."""
    first: dict[str, tuple[str, frozenset[str]]] = {}
    for name, split in folders.items():
        words = frozenset(words_of(name)) & frozenset(SPLITS)
        other, known = first.setdefault(split, (name, words))
        if known != words:
            raise InputError(
                f"folders {brief(other)} and {brief(name)} both name the split {split!r}; rename one of them"
            )


def _refuse_splits_in_classes(base: Path, place: _Place) -> None:
    """Raise InputError for CLASS/train/x.png and CLASS/test/x.png: the division into splits would be lost."""
    below = {
        file.parts[len(place.path.parts) + 1]
        for own in place.inner.values()
        for file in own
        if len(file.parts) > len(place.path.parts) + 2
    }
    said = {name: split_of(name) for name in sorted(below)}
    inside = [name for name, (split, rest) in said.items() if split and not rest]
    if len({said[name][0] for name in inside}) > 1:
        raise InputError(
            f"the folders of {base / place.path} hold folders of splits ({', '.join(inside)}); expected the other way "
            "round, FOLDER/train/CLASS"
        )


def _same_inside(base: Path, place: _Place) -> list[str]:
    """A note where the folders of the classes hold folders of the same names, which may be the classes that are meant.

    Raises:
        InputError: where but a number tells the outer ones apart (fold1, fold2), which are parts then.
    """
    inside = [_place(place.path / name, own) for name, own in place.inner.items()]
    same = {frozenset(one.inner) for one in inside}
    if len(inside) < 2 or len(same) > 1 or len(inside[0].inner) < 2 or any(one.loose for one in inside):
        return []
    outer, inner = (", ".join(map(brief, list(names)[:5])) for names in (place.inner, sorted(inside[0].inner)))
    said = f"each of the folders {outer} in {base / place.path} holds folders {inner}"
    kinds = {re.sub(r"\d+", "", name) for name in place.inner}
    if len(kinds) == 1 and re.search(r"[^\W_]", kinds.pop()):
        raise InputError(
            f"{said}: these seem to be the classes, and those parts of the data; expected folders of classes, or folders of splits "
            "(train, test, validation) with folders of classes in them"
        )
    return [f"{said}: the outer ones are taken for the classes"]


def _unread(base: Path, files: Sequence[PurePath]) -> list[str]:
    counts = Counter(file.suffix.lower() for file in files if file.suffix.lower() in _UNREAD)
    if not counts:
        return []
    shown = ", ".join(f"{number} {suffix}" for suffix, number in sorted(counts.items()))
    return [f"left out: files in {base} of kinds that are not read ({shown}); convert them"]
