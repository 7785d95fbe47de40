"""A small image data set on disk, in the layout of the CIFAR-100 parquet files, and every way in which one can be bad.

Eight classes in three groups, 32x32 PNG images of one colour each with noise, so that the classes are visible to any
network. Columns ``img`` (Image), ``fine_label`` and ``coarse_label`` (ClassLabel), as on the hub.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {
    "red": (200, 40, 40), "orange": (210, 130, 40), "yellow": (210, 210, 40), "green": (40, 180, 40),
    "cyan": (40, 190, 190), "blue": (40, 40, 200), "dark": (30, 30, 30), "light": (220, 220, 220),
}  # fmt: skip
GROUPS = {"warm": ("red", "orange", "yellow"), "cool": ("green", "cyan", "blue"), "grey": ("dark", "light")}
CLASSES, GROUP_NAMES = list(COLOURS), list(GROUPS)
ROWS = {"train": 160, "test": 40}

Columns = dict[str, list[Any]]
Change = Callable[[Columns, dict[str, Any]], None]  # of the columns and features of one split


def picture(name: str, seed: int, side: int = 32) -> Image.Image:
    """One image of a class: its colour with noise."""
    rng = np.random.default_rng([CLASSES.index(name), seed])
    pixels = np.array(COLOURS[name]) + rng.normal(0, 25, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def columns(split: str) -> Columns:
    """Images and integer labels of one split, classes in turn."""
    names = [CLASSES[row % len(CLASSES)] for row in range(ROWS[split])]
    groups = {name: place for place, group in enumerate(GROUPS.values()) for name in group}
    start = 0 if split == "train" else 10_000
    return {
        "img": [
            {"bytes": encode(picture(name, start + row)), "path": f"{split}_{row}.png"}
            for row, name in enumerate(names)
        ],
        "fine_label": [CLASSES.index(name) for name in names],
        "coarse_label": [groups[name] for name in names],
    }


def write(
    folder: Path, change: Change | None = None, *, splits: tuple[str, ...] = ("train", "test"), changed: str = "train"
) -> Path:
    """Write a data set with two label columns.

    Args:
        folder: made if it is not there.
        change: edits the columns and features of the splits named ``changed`` (one, or "both").
        splits: which to write.
    """
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        table = columns(split)
        features: dict[str, Any] = {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=CLASSES),
            "coarse_label": datasets.ClassLabel(names=GROUP_NAMES),
        }
        if change and changed in (split, "both"):
            change(table, features)
        with np.errstate(invalid="ignore"):
            data = datasets.Dataset.from_dict(table, features=datasets.Features(features))
        # With a size given, because the library divides by the number of rows to find one, and there may be none.
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet", batch_size=1000)
    return folder


def plain(kind: str, **values: Callable[[int], Any]) -> Change:
    """A change that replaces label columns by plain values of a type, computed from the class's or group's number."""

    def change(table: Columns, features: dict[str, Any]) -> None:
        import datasets

        for name, value in values.items():
            table[name] = [value(number) for number in table[name]]
            features[name] = datasets.Value(kind)

    return change


def at_row(row: int, column: str, value: Any, kind: str = "float64") -> Change:
    """A change that puts one value into a column of plain numbers or strings."""
    make = str if kind == "string" else float if kind.startswith("float") else int

    def change(table: Columns, features: dict[str, Any]) -> None:
        plain(kind, **{column: make})(table, features)
        table[column][row] = value

    return change


def images_at(contents: dict[int, bytes | None]) -> Change:
    """A change that replaces the encoded bytes of some images."""

    def change(table: Columns, features: dict[str, Any]) -> None:
        for row, content in contents.items():
            table["img"][row] = None if content is None else {"bytes": content, "path": f"damaged_{row}.png"}

    return change


def with_attributes(table: Columns, features: dict[str, Any]) -> None:
    """Binary columns as they occur in the wild: integers with nulls, floats with NaN, strings with empty cells, 1 and -1."""
    import datasets

    names = [CLASSES[number] for number in table["fine_label"]]
    warm = [int(name in GROUPS["warm"]) for name in names]
    table["warm"] = [None if row % 7 == 3 else value for row, value in enumerate(warm)]
    table["bright"] = [
        float("nan") if row % 5 == 2 else float(sum(COLOURS[name]) > 380) for row, name in enumerate(names)
    ]
    table["grey"] = ["" if row % 11 == 5 else str(int(name in GROUPS["grey"])) for row, name in enumerate(names)]
    table["cool"] = [1 if name in GROUPS["cool"] else -1 for name in names]
    table["all_missing"] = [None] * len(names)
    table["counted"] = [number % 3 for number in table["fine_label"]]
    features.update(
        warm=datasets.Value("int64"), bright=datasets.Value("float64"), grey=datasets.Value("string"),
        cool=datasets.Value("int8"), all_missing=datasets.Value("int64"), counted=datasets.Value("int64"),
    )  # fmt: skip


def no_rows(table: Columns, features: dict[str, Any]) -> None:
    """An empty split."""
    for cells in table.values():
        cells.clear()


def snapshot(*folders: Path) -> dict[str, bytes | None]:
    """Every file below some folders with its content, and every folder."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
        if path.exists()
    }
