"""CelebA: 40 binary attributes of faces, from the official download or from Hugging Face columns, in one shape.

Liu, Luo, Wang, Tang, "Deep learning face attributes in the wild" (ICCV 2015). The data may not be redistributed: users bring
them, as a folder in the official layout, as a folder of parquet files, or by the hub's id ``flwrlabs/celeba``.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, brief, refusing
from ...files import check_regular, user_path
from ..opening import find_splits
from ..source import Split
from ..tables import check_text

CELEBA_SPLITS = ("train", "valid", "test")  # partitions 0, 1, 2
_SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}

# In the order of the official list; its first name begins with a digit.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee",
    "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair",
    "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

# The eight groups of Pascal, Michiardi, Bost, Huet, Zuluaga, "Maximum roaming multi-task learning" (AAAI 2021, arXiv
# 2006.09762): `task_groups` of celeba/train_MR.py in lucaspascal/Maximum-Roaming-Mutli-Task-Learning, which lists numbers of
# attributes. The groups have no names there; these are ours.
CELEBA_GROUPS: dict[str, tuple[str, ...]] = {
    "global": (
        "Attractive", "Blurry", "Chubby", "Double_Chin", "Heavy_Makeup", "Male", "Oval_Face", "Pale_Skin", "Young",
    ),
    "eyes": ("Bags_Under_Eyes", "Eyeglasses", "Narrow_Eyes", "Arched_Eyebrows", "Bushy_Eyebrows"),
    "hair": (
        "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair",
        "Wavy_Hair",
    ),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick"),
    "nose": ("Big_Nose", "Pointy_Nose"),
    "beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "cheeks": ("High_Cheekbones", "Rosy_Cheeks"),
    "accessories": ("Wearing_Earrings", "Wearing_Hat", "Wearing_Necklace", "Wearing_Necktie"),
}  # fmt: skip

MAX_LIST = 2**28  # bytes; the original attribute list has 26 million
_SIGNS = {"1", "-1"}
_ATTRIBUTE_LIST, _PARTITION_LIST, _IMAGES = "list_attr_celeba", "list_eval_partition", "img_align_celeba"


def open_celeba(source: str) -> dict[str, Split]:
    """The official splits ``train``, ``valid`` and ``test``, each with an image column and the 40 attributes.

    Args:
        source: one of
            - a folder with img_align_celeba/ (also twice nested), list_attr_celeba.txt and list_eval_partition.txt, side by
              side or in the official Img/, Anno/ and Eval/; the lists may be the .csv of Kaggle's copy;
            - a folder of parquet files, or a Hugging Face id, with an image column and one column per attribute.

    Returns:
        Splits by name. Attribute columns have the official names and are read by ``binary_column``; from the official
        layout they hold 0 and 1. Images are read when asked for.

    Raises:
        InputError: a folder, list, image, attribute or split that is missing or empty, or a list that is malformed; names
            file, line, what was found and what was expected.

    Warns:
        UserWarning: images that the attribute list does not name; they are left out.
    """
    folder = user_path(source)
    if folder.is_dir():
        if _find(folder, _ATTRIBUTE_LIST) or _find(folder, _PARTITION_LIST) or _find_images(folder):
            return _open_official(source, folder.resolve())
        if not any(folder.rglob("*.parquet")):
            raise InputError(
                f"{source!r} is not CelebA: it holds neither {_IMAGES}/, {_ATTRIBUTE_LIST}.txt and {_PARTITION_LIST}.txt "
                "nor parquet files"
            )
    return _open_columns(source)


def _open_columns(source: str) -> dict[str, Split]:
    """Splits of a data set that has one column per attribute."""
    known = find_splits(source)
    lacking = [split for split, names in _SPLIT_NAMES.items() if not set(names) & set(known)]
    if lacking:
        raise InputError(
            f"{source!r} has no split {lacking[0]!r}; CelebA has {', '.join(CELEBA_SPLITS)}, found {', '.join(known)}"
        )
    splits = {}
    for split in CELEBA_SPLITS:
        name = next(name for name in _SPLIT_NAMES[split] if name in known)
        opened = known[name]()
        absent = [name for name in CELEBA_ATTRIBUTES if name not in opened.label_columns]
        if absent:
            raise InputError(
                f"split {name!r} of {source!r} lacks {len(absent)} of the {len(CELEBA_ATTRIBUTES)} attributes of CelebA "
                f"({brief(', '.join(absent))}); found columns {brief(', '.join(opened.label_columns))}"
            )
        columns = opened.table.select_columns([opened.image_column, *CELEBA_ATTRIBUTES])
        splits[split] = replace(opened, name=split, table=columns)
    return splits


def _open_official(source: str, folder: Path) -> dict[str, Split]:
    """Splits of a folder in the official layout."""
    attribute_list, partition_list = _find(folder, _ATTRIBUTE_LIST), _find(folder, _PARTITION_LIST)
    images = _find_images(folder)
    if attribute_list is None:
        raise InputError(f"{source!r} lacks {_ATTRIBUTE_LIST}.txt; expected it there, or in its Anno/")
    if partition_list is None:
        raise InputError(f"{source!r} lacks {_PARTITION_LIST}.txt; expected it there, or in its Eval/")
    if images is None:
        raise InputError(f"{source!r} lacks the folder {_IMAGES}/ with the images; expected it there, or in its Img/")
    names, values = read_attributes(attribute_list)
    partitions = read_partitions(partition_list)
    _same_images(names, attribute_list, set(partitions), str(partition_list))
    _same_images(list(partitions), partition_list, set(names), str(attribute_list))
    with os.scandir(images) as entries:
        present = {entry.name for entry in entries if entry.name.lower().endswith((".jpg", ".jpeg", ".png"))}
    _same_images(names, attribute_list, present, f"{images}")
    unlisted = present.difference(names)
    if unlisted:
        warnings.warn(
            f"{len(unlisted)} of the {len(present)} images of {images} are not in {attribute_list} "
            f"(first: {min(unlisted)}); they are left out",
            stacklevel=3,
        )
    number = np.array([partitions[name] for name in names])
    splits = {}
    for place, split in enumerate(CELEBA_SPLITS):
        rows = np.flatnonzero(number == place)
        if not len(rows):
            raise InputError(
                f"split {split!r} of {source!r} is empty: no image has partition {place} in {partition_list}"
            )
        table = _table([str(images / names[row]) for row in rows], values[rows])
        splits[split] = Split(source, split, table, "image")
    return splits


def read_attributes(path: Path) -> tuple[list[str], np.ndarray]:
    """The official attribute list, or Kaggle's .csv of it.

    Returns:
        Names of the N images, and values int8 ``(N, 40)`` of 0 and 1, columns as CELEBA_ATTRIBUTES.

    Raises:
        InputError: a count that is not one or not that of the rows, other attributes than the 40, a row of another length,
            a value other than 1 and -1, an image listed twice.
    """
    lines = _lines(path)
    count = None
    if path.suffix != ".csv":
        line, fields = next(lines, (1, []))
        if len(fields) != 1 or not fields[0].isdecimal() or len(fields[0]) > 18:
            raise InputError(f"{path}, line {line}: {brief(' '.join(fields))} is not a count of images")
        count = int(fields[0])
    line, header = next(lines, (2, []))
    columns = header[1:] if path.suffix == ".csv" else header
    _check_header(path, line, columns)
    names, rows = [], []
    for line, fields in lines:
        if len(fields) != len(columns) + 1:
            raise InputError(f"{path}, line {line}: {len(fields)} fields, expected a name and {len(columns)} values")
        if not _SIGNS.issuperset(fields[1:]):
            place = next(place for place, value in enumerate(fields[1:]) if value not in _SIGNS)
            raise InputError(
                f"{path}, line {line}: {columns[place]} is {brief(fields[place + 1])} for {fields[0][:60]}, expected 1 or -1"
            )
        names.append(fields[0])
        rows.append([value == "1" for value in fields[1:]])
    if count is not None and count != len(names):
        raise InputError(f"{path}, line 1: says {count} images, but {len(names)} follow")
    if not names:
        raise InputError(f"{path} lists no images")
    _check_distinct(path, names)
    order = [columns.index(name) for name in CELEBA_ATTRIBUTES]
    return names, np.array(rows, np.int8)[:, order]


def read_partitions(path: Path) -> dict[str, int]:
    """The official list of partitions, or Kaggle's .csv of it: 0 (train), 1 (valid) or 2 (test) by name of image.

    Raises:
        InputError: a row that is not a name and one of the three numbers, an image listed twice.
    """
    lines = _lines(path)
    if path.suffix == ".csv":
        next(lines, None)
    names, partitions = [], []
    for line, fields in lines:
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path}, line {line}: {brief(' '.join(fields))}, expected a name and 0 (train), 1 (valid) or 2 (test)"
            )
        names.append(fields[0])
        partitions.append(int(fields[1]))
    _check_distinct(path, names)
    return dict(zip(names, partitions, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of the lines that are not blank."""
    separator = "," if path.suffix == ".csv" else None
    with refusing(f"cannot read {path}", OSError, ValueError):
        check_regular(path, MAX_LIST)
        with path.open(encoding="utf-8") as source:
            for number, line in enumerate(source, 1):
                if line.strip():
                    yield number, [field.strip() for field in line.split(separator)]


def _check_header(path: Path, line: int, columns: list[str]) -> None:
    absent = [name for name in CELEBA_ATTRIBUTES if name not in columns]
    other = [name for name in columns if name not in CELEBA_ATTRIBUTES]
    if absent or other or len(columns) != len(CELEBA_ATTRIBUTES):
        what = "; ".join(
            f"{len(names)} {kind} (first: {brief(names[0])})"
            for kind, names in (("missing", absent), ("unknown", other))
            if names
        )
        raise InputError(
            f"{path}, line {line}: {len(columns)} attribute names, expected the {len(CELEBA_ATTRIBUTES)} of CelebA"
            + (f"; {what}" if what else "; one is there twice")
        )


def _check_distinct(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise InputError(f"{path} lists {name[:60]} {count} times")


def _same_images(names: list[str], listed: Path, there: set[str], where: str) -> None:
    absent = [name for name in names if name not in there]
    if absent:
        raise InputError(
            f"{len(absent)} of the {len(names)} images of {listed} are not in {where} (first: {absent[0][:60]})"
        )


def _find(folder: Path, name: str) -> Path | None:
    """A list by its name, beside the images or in the folders of the official download."""
    places = [folder / part / f"{name}{ending}" for ending in (".txt", ".csv") for part in ("", "Anno", "Eval")]
    return next((place for place in places if place.is_file()), None)


def _find_images(folder: Path) -> Path | None:
    outer = next((folder / part / _IMAGES for part in ("", "Img") if (folder / part / _IMAGES).is_dir()), None)
    return outer / _IMAGES if outer and (outer / _IMAGES).is_dir() else outer


def _table(paths: list[str], values: np.ndarray) -> Any:
    """A Hugging Face dataset of images by path and attributes ``(N, 40)``."""
    import datasets

    check_text(str(Path(paths[0]).parent), paths)
    columns = {name: values[:, place] for place, name in enumerate(CELEBA_ATTRIBUTES)}
    table = datasets.Dataset.from_dict({"image": paths, **columns})
    return table.cast_column("image", datasets.Image(decode=False))
