"""Images sorted in folders: FOLDER/CLASS/x.png or FOLDER/train/CLASS/x.png -> splits with one label column, ``label``.

Names of splits are never classes, with one exception: a single one among other folders of images, as "train" beside "bus".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import InputError, brief
from ..files import user_path
from .folder_files import SPLITS, SUFFIXES, composed, folder_files, is_filler, split_of, words_of
from .source import Split
from .tables import Column, held_out, table_splits

CLASS_COLUMN = "label"  # as `datasets` calls it
# Pictures that are not read: somebody may miss them.
_UNREAD = tuple(".arw .cr2 .cr3 .dng .eps .jxl .nef .npy .orf .psd .raf .rw2 .svg".split(" "))  # noqa: SIM905


@dataclass(frozen=True)
class _Place:
    """A folder: images directly in it, and those in its folders by the folders' names; paths relative to the data."""

    path: PurePath
    loose: list[PurePath]
    inner: dict[str, list[PurePath]]

    def inside(self, name: str) -> _Place:
        """One of its folders."""
        return _place(self.path / name, self.inner[name])

    def within(self, means_nothing: Callable[[str, _Place], bool]) -> _Place:
        """The folder itself, or the one in it that holds all of its images, as long as such a folder means nothing."""
        place = self
        while not place.loose and len(place.inner) == 1:
            (name,) = place.inner
            inside = place.inside(name)
            if not means_nothing(name, inside):
                break
            place = inside
        return place


def _place(path: PurePath, images: Sequence[PurePath]) -> _Place:
    depth = len(path.parts)
    inner: dict[str, list[PurePath]] = {}
    for file in images:
        if len(file.parts) > depth + 1:
            inner.setdefault(composed(file.parts[depth]), []).append(file)
    return _Place(path, [file for file in images if len(file.parts) == depth + 1], inner)


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
    place = _place(PurePath(), images).within(  # what an archive was unpacked to
        lambda name, inside: not split_of(name)[0] and (is_filler(name) or bool(_split_folders(inside)))
    )
    splits = _split_folders(place)
    notes = _unread(base, files)
    if splits:
        found = _of_sorted_splits(base, place, splits, notes)
    else:
        _refuse_splits_in_classes(base, place)
        notes += _same_inside(base, place)
        found = _classes(base, place, "train" if place.loose else None)
    classes = sorted({name for _, name, _ in found if name is not None})
    places = {name: number for number, name in enumerate(classes)}
    labels = [None if name is None else places[name] for _, name, _ in found]
    columns: dict[str, Column] = {CLASS_COLUMN: (classes, labels)} if classes else {}
    cells = [{"bytes": None, "path": str(base / file)} for _, _, file in found]
    return table_splits(source, "image", cells, columns, [split for split, _, _ in found], notes=tuple(notes))


Found = list[tuple[str, str | None, PurePath]]  # split, class and path of each image


def _classes(base: Path, place: _Place, split: str | None) -> Found:
    """Images of a folder of classes, all of one split or dealt out by their paths; of a folder without any, without a class."""
    if place.loose and place.inner:
        raise InputError(f"{base / place.loose[0]} is beside the folders of the classes, expected in one of them")
    named = [(None, file) for file in place.loose] + [(name, file) for name, own in place.inner.items() for file in own]
    return [(split or held_out(file.as_posix()), name, file) for name, file in named]


def _of_sorted_splits(base: Path, outer: _Place, splits: Mapping[str, str], notes: list[str]) -> Found:
    """Images of folders of splits; of those that are not sorted only where none is."""
    if beside := [name for name in outer.inner if name not in splits]:
        shown = ", ".join(brief(name) for name in beside[:5])
        notes.append(f"left out: {shown} in {base / outer.path}, beside the folders of splits {', '.join(splits)}")
    if outer.loose:
        raise InputError(f"{base / outer.loose[0]} is beside the folders of the splits, expected in one of them")
    by_split = [(split, _unwrapped(outer.inside(name), name, split)) for name, split in splits.items()]
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
            found += _classes(base, place, split)
    return found


def _unwrapped(place: _Place, name: str, split: str) -> _Place:
    """The folder of a split, or the one in it that holds all of its images and says no more than it does."""
    return place.within(lambda inside, _: is_filler(inside) or (inside == name and split_of(inside)[0] == split))


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
        laid_out = place.inside(name).inner
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
    inside = [place.inside(name) for name in place.inner]
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
