"""Data sets on disk: splits, columns, images, label columns, and what is said of those that cannot be used."""

import math
import shutil
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from comodulation.data.labels import binary_column, class_column, label_names
from comodulation.data.opening import available_splits, open_split
from comodulation.data.pictures import BadImageError, decode_image
from comodulation.data.sets import digit_scenes, load_digits, patches, split_digits
from comodulation.data.source import Split
from comodulation.errors import InputError
from support.synthetic import (
    CLASSES,
    GROUP_NAMES,
    at_row,
    columns,
    encode,
    images_at,
    no_rows,
    picture,
    plain,
    with_attributes,
    write,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "small", with_attributes, changed="both")


@pytest.fixture(scope="module")
def train(folder):
    return open_split(str(folder), "train")


@dataclass(frozen=True)
class Cells:
    """A split of one column, without files."""

    cells: list[Any]
    kind: Any = field(default_factory=lambda: datasets.Value("int64"))
    source: str = "cells"
    name: str = "train"

    def __len__(self):
        return len(self.cells)

    def column(self, name):
        return self.cells

    def feature(self, name):
        return self.kind


# ---- splits, columns, images ----


def test_a_folder_of_parquet_files(folder, train):
    assert sorted(available_splits(str(folder))) == ["test", "train"]
    assert (len(train), train.image_column) == (160, "img")
    assert "fine_label" in train.label_columns
    assert "img" not in train.label_columns
    assert train.column("fine_label")[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert label_names(train, "fine_label") == CLASSES
    assert label_names(train, "coarse_label") == GROUP_NAMES


def test_images_are_the_pixels_that_were_written(train):
    for row in (0, 5, 159):
        expected = np.array(picture(CLASSES[row % 8], row))
        assert np.array_equal(np.array(train.image(row)), expected)


def test_the_fingerprint_is_of_the_images_alone(folder, train, tmp_path):
    """The same images elsewhere agree; one changed pixel, another order or another split do not; labels do not matter."""
    shutil.copytree(folder, tmp_path / "copy")
    assert open_split(str(tmp_path / "copy"), "train").fingerprint == train.fingerprint

    def relabel(table, features):
        table["fine_label"] = table["fine_label"][::-1]

    assert open_split(str(write(tmp_path / "labels", relabel)), "train").fingerprint == train.fingerprint

    def swap(table, features):
        table["img"][0], table["img"][1] = table["img"][1], table["img"][0]

    assert open_split(str(write(tmp_path / "order", swap)), "train").fingerprint != train.fingerprint
    pixels = np.array(picture("red", 0))
    pixels[0, 0, 0] ^= 1
    changed = images_at({0: encode(Image.fromarray(pixels))})
    assert open_split(str(write(tmp_path / "pixel", changed)), "train").fingerprint != train.fingerprint
    assert open_split(str(folder), "test").fingerprint != train.fingerprint


def test_a_folder_of_image_files(tmp_path):
    """The Hugging Face image folder layout works too: files outside the table are read and named."""
    for name in ("red", "blue"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for seed in range(3):
            picture(name, seed).save(tmp_path / "train" / name / f"{seed}.png")
    split = open_split(str(tmp_path), "train")
    assert label_names(split, "label") == ["blue", "red"]
    assert np.array_equal(np.array(split.image(3)), np.array(picture("red", 0)))
    before = split.fingerprint
    (tmp_path / "train" / "red" / "1.png").write_bytes(b"no image, and of another size")
    with pytest.raises(BadImageError, match=r"row 4.*1\.png"):
        open_split(str(tmp_path), "train").image(4)
    assert open_split(str(tmp_path), "train").fingerprint != before


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("GIF", "P"), ("PNG", "LA")],
)
def test_every_kind_of_image_becomes_rgb(kind, mode):
    image = decode_image(encode(picture("green", 0).convert(mode), kind), "here")
    assert (image.mode, image.size) == ("RGB", (32, 32))


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": None}])
def test_a_missing_image(cell):
    with pytest.raises(BadImageError, match="no image at here"):
        decode_image(cell, "here")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]),
    st.integers(0, 4000),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
)
def test_damaged_images_decode_or_are_named(kind, length, changes):
    """Whatever truncation and flipped bytes do to an image, it is an RGB image or a BadImageError, never anything else."""
    content = bytearray(ENCODED[kind])
    for place, value in changes:
        content[place % len(content)] = value
    try:
        assert decode_image(bytes(content[: max(1, length)]), "here").mode == "RGB"
    except BadImageError as error:
        assert "here" in str(error)  # noqa: PT017 (either outcome is right)


ENCODED = {kind: encode(picture("cyan", 3), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}


def test_unknown_splits_columns_and_folders(folder, train, tmp_path):
    with pytest.raises(InputError, match=r"unknown split of .* 'tset'; did you mean 'test'\? known: "):
        open_split(str(folder), "tset")
    with pytest.raises(InputError, match=r"unknown column 'fine_lable'; did you mean 'fine_label'\?"):
        train.column("fine_lable")
    with pytest.raises(InputError, match="unknown column 'img'"):
        train.feature("img")
    with pytest.raises(InputError, match="unknown image column 'imgs'; did you mean 'img'"):
        open_split(str(folder), "train", image_column="imgs")
    with pytest.raises(InputError, match="no such data folder: '/nowhere'"):
        available_splits("/nowhere")
    with pytest.raises(InputError, match="is a file; give the folder"):
        available_splits(str(folder / "train-00000-of-00001.parquet"))
    with pytest.raises(InputError, match="cannot read data"):
        available_splits(str(tmp_path))
    with pytest.raises(InputError, match="cannot read data 'nobody/nothing'"):
        available_splits("nobody/nothing")


def test_folders_that_cannot_be_used(tmp_path):
    empty = write(tmp_path / "empty", no_rows)
    with pytest.raises(InputError, match=r"cannot read split 'train' of .*: it is empty"):
        open_split(str(empty), "train")

    def without_images(table, features):
        del table["img"], features["img"]

    with pytest.raises(
        InputError, match="no image column; name one with --set image_column=NAME, of fine_label, coarse_label"
    ):
        open_split(str(write(tmp_path / "none", without_images, changed="both")), "train")

    def two_images(table, features):
        table["mask"], features["mask"] = table["img"], datasets.Image()

    two = write(tmp_path / "two", two_images, changed="both")
    with pytest.raises(InputError, match=r"2 image columns \(img, mask\)"):
        open_split(str(two), "train")
    chosen = open_split(str(two), "train", image_column="mask")
    assert chosen.image(0).size == (32, 32)
    with pytest.raises(InputError, match=r"column 'img' of .* holds Image, expected one label a row"):
        label_names(chosen, "img")
    with pytest.raises(InputError, match="does not hold images"):
        open_split(str(two), "train", image_column="fine_label")
    truncated = write(tmp_path / "truncated", splits=("train",)) / "train-00000-of-00001.parquet"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot read"):
        open_split(str(truncated.parent), "train")


# ---- label columns ----


def test_label_columns_of_every_type(tmp_path, train):
    """Integers, floats and strings that name the same classes read alike; ClassLabel by its names."""
    expected = np.arange(160) % 8
    assert np.array_equal(class_column(train, "fine_label", CLASSES), expected)
    for kind, value in (("int16", int), ("float32", float), ("string", str)):
        change = plain(kind, fine_label=value)
        split = open_split(str(write(tmp_path / kind, change, splits=("train",))), "train")
        names = label_names(split, "fine_label")
        assert names == [str(number) for number in range(8)]
        assert np.array_equal(class_column(split, "fine_label", names), expected)


def test_a_class_label_is_read_by_name():
    """Another data set may list the same classes in another order, or only some of them."""
    other = datasets.ClassLabel(names=["blue", "red"])
    assert class_column(Cells([0, 1, None], other), "label", ["red", "green", "blue"]).tolist() == [2, 0, -1]
    with pytest.raises(InputError, match=r"row 1: label 'pink' is out of range, expected one of the 2 known classes"):
        class_column(Cells([0, 1], datasets.ClassLabel(names=["red", "pink"])), "label", ["red", "green"])


def test_missing_labels(tmp_path):
    """Null, NaN and the empty string are missing labels, -1; so is nothing else."""
    assert class_column(Cells([None, 3, 1]), "label", ["1", "3"]).tolist() == [-1, 1, 0]
    floats = Cells([math.nan, 3.0, None, 1.0], datasets.Value("float64"))
    assert class_column(floats, "label", ["1", "3"]).tolist() == [-1, 1, -1, 0]
    assert label_names(floats, "label") == ["1", "3"]
    strings = Cells(["", "a", None, "b"], datasets.Value("string"))
    assert label_names(strings, "label") == ["a", "b"]
    assert class_column(strings, "label", ["a", "b"]).tolist() == [-1, 0, -1, 1]
    assert class_column(Cells([" ", "a"], datasets.Value("string")), "label", ["a"]).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.inf, r"numbers that are no classes, first inf \(row 1\); to predict numbers \(regression\)"),
        (-math.inf, "numbers that are no classes, first -inf"),
        (2.5, r"numbers that are no classes, first 2\.5"),
        (-1.0, r"first -1 \(row 1\); missing labels are empty cells"),
        (b"\x01" * 100, r"label b'\\x01.*\.\.\. is neither a number nor a text"),
    ],
)
def test_labels_that_are_none(value, message):
    split = Cells([0.0, value], datasets.Value("float64"))
    with pytest.raises(InputError, match=message):
        label_names(split, "label")
    with pytest.raises(InputError):
        class_column(split, "label", ["0", "1"])


def test_class_labels_out_of_range():
    for value in (2, -1):
        with pytest.raises(InputError, match=f"row 1: label {value} is out of range, expected 0 to 1"):
            class_column(Cells([0, value], datasets.ClassLabel(names=["a", "b"])), "label", ["a", "b"])


@pytest.mark.parametrize(("cells", "kind"), [([None, None], "int64"), ([math.nan], "float64"), (["", None], "string")])
def test_a_column_that_is_all_missing(cells, kind):
    split = Cells(cells, datasets.Value(kind))
    for read in (
        lambda: label_names(split, "x"),
        lambda: class_column(split, "x", ["1"]),
        lambda: binary_column(split, "x"),
    ):
        with pytest.raises(InputError, match=r"column 'x' of cells .* has no labels: every cell is missing"):
            read()


def test_a_column_of_lists():
    with pytest.raises(InputError, match="column 'x' of cells holds List, expected one label a row"):
        class_column(Cells([[1]], datasets.List(datasets.Value("int64"))), "x", ["1"])


def test_binary_columns(train):
    """Integers with nulls, floats with NaN, strings with empty cells, and -1 and 1: the same three values."""
    fine = np.arange(160) % 8
    rows = np.arange(160)
    assert np.array_equal(binary_column(train, "warm"), np.where(rows % 7 == 3, -1, fine < 3))
    bright = np.isin(fine, [2, 4, 7])  # yellow, cyan, light
    assert np.array_equal(binary_column(train, "bright"), np.where(rows % 5 == 2, -1, bright))
    assert np.array_equal(binary_column(train, "grey"), np.where(rows % 11 == 5, -1, fine >= 6))
    assert np.array_equal(binary_column(train, "cool"), np.isin(fine, [3, 4, 5]).astype(int))
    with pytest.raises(InputError, match="every cell is missing"):
        binary_column(train, "all_missing")
    with pytest.raises(InputError, match=r"column 'counted', row 2: '2' is not binary, expected 0 or 1"):
        binary_column(train, "counted")
    truth = Cells([True, False, "TRUE", "false", 1.0, "0"], datasets.Value("string"))
    assert binary_column(truth, "x").tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("value", [2, -2, 0.5, math.inf, "y", "2.0"])
def test_values_that_are_not_binary(value):
    with pytest.raises(InputError, match="column 'x'"):
        binary_column(Cells([0, 1, value]), "x")


def test_minus_one_beside_zero_is_ambiguous():
    with pytest.raises(InputError, match="holds both 0 and -1"):
        binary_column(Cells([0, 1, -1]), "x")


CELL = st.one_of(
    st.none(), st.integers(-3, 3), st.integers(), st.floats(), st.booleans(), st.sampled_from(["", "1", "0", "true", "x"]),
    st.text(max_size=3), st.binary(max_size=3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=8), st.booleans())
def test_any_column_reads_or_is_refused(cells, coded):
    """Whatever a column holds: labels in range with -1 exactly where cells are missing, or one InputError."""
    split = Cells(cells, datasets.ClassLabel(names=["a", "b", "c"]) if coded else datasets.Value("int64"))
    missing = [cell is None or cell != cell or (isinstance(cell, str) and not cell.strip()) for cell in cells]
    try:
        names = label_names(split, "x")
        values = class_column(split, "x", names)
        assert ((values == -1) == missing).all()
        assert values.max() < len(names)
    except InputError:
        pass
    try:
        values = binary_column(split, "x")
        assert ((values == -1) == missing).all()
        assert set(values) <= {-1, 0, 1}
    except InputError:
        pass


# ---- the digits ----


def test_digit_scenes_hold_the_digit_asked_for():
    """In scenes without a distractor, one half of the canvas is empty; the task is the parity of the digit."""
    parts = split_digits(load_digits(), (0.5, 0.3, 0.2), seed=3)
    assert [len(part.labels) for part in parts] == [898, 540, 359]
    assert len(load_digits().labels) == 1797
    scenes = digit_scenes(parts[0], 200, seed=4, distractor=False)
    assert torch.equal(scenes.examples.task, scenes.examples.target % 2)
    left, right = scenes.images[:, 0, :, :4].sum((1, 2)) > 0, scenes.images[:, 0, :, 8:].sum((1, 2)) > 0
    assert not (left & right).any()
    crowded = digit_scenes(parts[0], 200, seed=4, distractor=True)
    assert (crowded.images >= scenes.images).all()
    assert torch.equal(crowded.examples.target, scenes.examples.target)
    assert patches(scenes.images).shape == (200, 16, 4, 6)


def test_patches_are_windows_of_the_image():
    image = torch.arange(96.0).reshape(1, 1, 8, 12)
    # Patch (1, 1) begins at row and column 2 * 1 - 1 (one pixel of padding).
    assert torch.equal(patches(image)[0, :, 1, 1].reshape(4, 4), image[0, 0, 1:5, 1:5])


def test_rows_at_which_a_test_puts_a_value():
    """The helper of the command line's tests does what it says."""
    table, features = columns("test"), {}
    at_row(3, "fine_label", math.inf)(table, features)
    assert table["fine_label"][2:4] == [2.0, math.inf]


def test_what_rows_are_called(tmp_path):
    """The image's file within the folder of the data, as it is elsewhere; without one the row's id; without that nothing."""
    cells = [
        {"bytes": None, "path": str(tmp_path / "img" / "a.png")},
        {"bytes": b"x", "path": "b.png"},
        {"bytes": None, "path": "/elsewhere/c.png"},
        {"bytes": b"x", "path": None},
        None,
    ]
    kinds = {"image": datasets.Image(decode=False), "image_id": datasets.Value("int64")}
    table = datasets.Dataset.from_dict({"image": cells, "image_id": [3, 4, 5, 6, 7]}, features=datasets.Features(kinds))
    paths = ["img/a.png", "b.png", "/elsewhere/c.png"]
    assert Split("made", "train", table, "image").names(tmp_path) == [*paths, "6", "7"]
    assert Split("made", "train", table.select_columns("image"), "image").names(tmp_path) == [*paths, None, None]
    assert Split("made", "train", table.select([3, 0]), "image").names(tmp_path) == ["6", "img/a.png"]
