"""A small data set in the layout of CelebA, of drawn faces whose attributes can be seen in the pixels.

A face is an oval of skin with hair, eyes, nose and mouth at random place, size and shade. Seventeen attributes
are drawn as what they are (DRAWN); each of the others is a bright mark at a place of its own along the border. So every
attribute can be learnt, and a classifier that looks in the right place is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from comodulation.data.sets import CELEBA_ATTRIBUTES

SIZE = (44, 54)  # width and height in pixels; the original's are 178 and 218
COLOURS = {
    "Black_Hair": (25, 20, 20),
    "Blond_Hair": (225, 195, 95),
    "Brown_Hair": (110, 65, 30),
    "Gray_Hair": (150, 150, 150),
}
DRAWN = (
    *COLOURS, "Bald", "Bangs", "Big_Lips", "Big_Nose", "Blurry", "Bushy_Eyebrows", "Eyeglasses", "Mustache", "No_Beard",
    "Pale_Skin", "Rosy_Cheeks", "Smiling", "Wearing_Hat",
)  # fmt: skip
MARKED = tuple(name for name in CELEBA_ATTRIBUTES if name not in DRAWN)


def draw_labels(images: int, seed: int) -> np.ndarray:
    """Attributes of images, int64 ``(N, 40)`` of 0 and 1: at most one colour of hair, none on bald heads."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, len(CELEBA_ATTRIBUTES))) < 0.4).astype(np.int64)
    place = {name: number for number, name in enumerate(CELEBA_ATTRIBUTES)}
    hair = [place[name] for name in COLOURS]
    colour = rng.integers(len(COLOURS) + 1, size=images)  # the last: red hair, which has no name
    labels[:, hair] = colour[:, None] == np.arange(len(COLOURS))
    labels[:, place["Blurry"]] = rng.random(images) < 0.15  # for it hides others
    bald = labels[:, place["Bald"]] == 1
    labels[np.ix_(bald, [*hair, place["Bangs"]])] = 0
    return labels


def face(values: Iterable[int], rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Image.Image:
    """One face with the given attributes, in the order of CELEBA_ATTRIBUTES."""
    has = {name for name, value in zip(CELEBA_ATTRIBUTES, values, strict=True) if value}
    wide, high = 176, 216
    image = Image.new("RGB", (wide, high), tuple(int(value) for value in rng.integers(60, 120, 3)))
    draw = ImageDraw.Draw(image)
    x, y = wide / 2 + rng.uniform(-6, 6), high / 2 + 14 + rng.uniform(-6, 6)
    a, b = rng.uniform(44, 50), rng.uniform(58, 64)

    def oval(cx: float, cy: float, rx: float, ry: float, colour: tuple[int, ...]) -> None:
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), colour)

    def box(left: float, top: float, right: float, bottom: float, colour: tuple[int, ...]) -> None:
        draw.rectangle((left, top, right, bottom), colour)

    skin = (245, 225, 215) if "Pale_Skin" in has else (200, 150, 115)
    skin = tuple(int(value + shade) for value, shade in zip(skin, rng.integers(-8, 9, 3), strict=True))
    hair = next((colour for name, colour in COLOURS.items() if name in has), (170, 60, 30))
    if "Bald" not in has:
        oval(x, y - 14, a + 12, b + 12, hair)
    oval(x, y, a, b, skin)
    if "No_Beard" not in has:
        draw.chord((x - a, y - b, x + a, y + b), 25, 155, fill=(70, 45, 30))
    if "Bangs" in has:
        draw.chord((x - a, y - b, x + a, y + b), 205, 335, fill=hair)
    if "Rosy_Cheeks" in has:
        for side in (-1, 1):
            oval(x + side * 29, y + 14, 10, 9, (235, 80, 100))
    for side in (-1, 1):
        oval(x + side * 20, y - 12, 8, 5, (255, 255, 255))
        oval(x + side * 20, y - 12, 4, 4, (30, 40, 60))
        thick = 5 if "Bushy_Eyebrows" in has else 1
        box(x + side * 20 - 12, y - 26 - thick, x + side * 20 + 12, y - 26 + thick, (40, 25, 15))
        if "Eyeglasses" in has:
            draw.rectangle((x + side * 20 - 16, y - 24, x + side * 20 + 16, y), outline=(0, 0, 0), width=5)
    oval(x, y + 8, 13 if "Big_Nose" in has else 4, 11, (150, 100, 75))
    if "Mustache" in has:
        box(x - 20, y + 21, x + 20, y + 28, (30, 20, 10))
    lips = 9 if "Big_Lips" in has else 3
    if "Smiling" in has:
        draw.arc((x - 22, y + 12, x + 22, y + 46), 20, 160, fill=(190, 30, 50), width=lips + 2)
    else:
        oval(x, y + 40, 18, lips, (190, 30, 50))
    if "Wearing_Hat" in has:
        box(x - a - 14, y - b - 8, x + a + 14, y - b + 6, (40, 40, 170))
        box(x - a, y - b - 34, x + a, y - b - 4, (40, 40, 170))
    if "Blurry" in has:
        image = image.filter(ImageFilter.GaussianBlur(6))
        draw = ImageDraw.Draw(image)
    for number, name in enumerate(MARKED):
        if name in has:
            left, top = mark_place(number)
            box(left, top, left + 11, top + 11, (250, 250, 60))
    return image.resize(size, Image.Resampling.BOX)


def mark_place(number: int) -> tuple[int, int]:
    """Corner of the mark of a marked attribute on the canvas of 176 x 216: left border, then right, 12 a side."""
    column, row = divmod(number, 12)
    return (1, 163)[column], 1 + 18 * row


def write(folder: Path, images: int = 240, seed: int = 0, layout: str = "flat", size: tuple[int, int] = SIZE) -> Path:
    """Write the data set: 4 of 6 images in train, 1 in valid, 1 in test.

    Args:
        folder: made if it is not there.
        layout: ``flat``; ``nested`` (images two folders down); ``official`` (Img/, Anno/, Eval/); ``csv`` (Kaggle's copy:
            nested, with csv lists); ``hub`` (parquet files of the columns of flwrlabs/celeba).
        size: width and height of the images.
    """
    labels, names = draw_labels(images, seed), [f"{number:06d}.jpg" for number in range(1, images + 1)]
    partitions = [(0, 0, 0, 0, 1, 2)[number % 6] for number in range(images)]
    pictures = [face(row, np.random.default_rng([seed, number]), size) for number, row in enumerate(labels)]
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "hub":
        return _write_columns(folder, pictures, labels, partitions)
    place = {"flat": "img_align_celeba", "official": "Img/img_align_celeba"}.get(
        layout, "img_align_celeba/img_align_celeba"
    )
    (folder / place).mkdir(parents=True)
    for name, picture in zip(names, pictures, strict=True):
        picture.save(folder / place / name, quality=95)
    anno, evaluation = (folder / "Anno", folder / "Eval") if layout == "official" else (folder, folder)
    anno.mkdir(exist_ok=True)
    evaluation.mkdir(exist_ok=True)
    signs = [[str(value) for value in row] for row in np.where(labels, 1, -1)]
    rows = [(name, *row) for name, row in zip(names, signs, strict=True)]
    pairs = [(name, str(partition)) for name, partition in zip(names, partitions, strict=True)]
    if layout == "csv":
        _lines(anno / "list_attr_celeba.csv", [",".join(row) for row in [("image_id", *CELEBA_ATTRIBUTES), *rows]])
        _lines(evaluation / "list_eval_partition.csv", [",".join(row) for row in [("image_id", "partition"), *pairs]])
    else:
        table = [" ".join([name, *(value.rjust(2) for value in row)]) for name, *row in rows]
        _lines(anno / "list_attr_celeba.txt", [str(images), " ".join(CELEBA_ATTRIBUTES), *table])
        _lines(evaluation / "list_eval_partition.txt", [" ".join(pair) for pair in pairs])
    return folder


def _write_columns(folder: Path, pictures: list[Image.Image], labels: np.ndarray, partitions: list[int]) -> Path:
    import datasets

    for partition, split in enumerate(("train", "valid", "test")):
        rows = [row for row, number in enumerate(partitions) if number == partition]
        columns = {name: labels[rows, place].astype(bool) for place, name in enumerate(CELEBA_ATTRIBUTES)}
        features = {"image": datasets.Image(), "celeb_id": datasets.Value("int64")}
        features.update(dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool")))
        table = {"image": [pictures[row] for row in rows], "celeb_id": rows, **columns}
        data = datasets.Dataset.from_dict(table, features=datasets.Features(features))
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
