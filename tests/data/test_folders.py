"""Images in folders: which folders are classes and which are splits, and that nothing is left out without a word."""

import numpy as np
import pytest

from comodulation.data.folders import folder_splits
from comodulation.data.labels import label_names
from comodulation.errors import InputError
from support.synthetic import encode, picture

IMAGE = encode(picture("red", 0, 8))


def lay(base, *paths):
    """Files of images at paths; {n} stands for 0 to 9."""
    for path in paths:
        for n in range(10 if "{n}" in path else 1):
            file = base / path.format(n=n)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(IMAGE if file.suffix == ".png" else b"\0\5\x16\7")
    return base


def read(base):
    """Rows by split, classes, and notes."""
    splits = folder_splits(base)
    classes = {tuple(label_names(split, "label")) if split.label_columns else () for split in splits.values()}
    assert len(classes) == 1
    return {name: len(split) for name, split in splits.items()}, classes.pop(), next(iter(splits.values())).notes


SORTED = ("train/cat/{n}.png", "train/dog/{n}.png", "test/cat/1.png", "test/dog/2.png")
TWO = ({"train": 20, "test": 2}, ("cat", "dog"))


@pytest.mark.parametrize(
    "beside",
    [
        "__MACOSX/train/cat/._1.png",
        "__MACOSX/train/cat/1.png",
        "models/readme.txt",
        ".ipynb_checkpoints/1.png",
        "train/.ipynb_checkpoints/1.png",
        "train/@eaDir/1.png",
        "readme.txt",
        "train/bird/notes.txt",
    ],
)
def test_what_lies_beside_is_no_class(beside, tmp_path):
    assert read(lay(tmp_path, *SORTED, beside)) == (*TWO, ())


def test_an_empty_folder_is_no_class(tmp_path):
    for name in ("runs", "train/bird"):
        (lay(tmp_path, *SORTED) / name).mkdir()
    assert read(tmp_path) == (*TWO, ())


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("TRAIN", "eval"), ("train_set", "test_set"), ("trainset", "testset"), ("train2017", "val2017"),
        ("train", "dev"), ("seg_train", "seg_test"), ("training_data", "evaluation"), ("train_images", "holdout"),
        ("train", "test1"), ("trn", "tst"),
    ],
)  # fmt: skip
def test_the_words_that_people_use_for_splits(train, test, tmp_path):
    paths = [path.replace("train", train, 1).replace("test", test, 1) for path in SORTED]
    rows, classes, _ = read(lay(tmp_path, *paths))
    assert classes == ("cat", "dog")
    assert sorted(rows.values()) == [2, 20]
    assert rows["train"] == 20


@pytest.mark.parametrize("wrapped", ["{}/images", "images/{}", "{0}/{0}", "archive/{}"])
def test_folders_that_an_archive_wraps_around(wrapped, tmp_path):
    paths = [f"{wrapped.format(split)}/{rest}" for split, rest in (path.split("/", 1) for path in SORTED)]
    assert read(lay(tmp_path, *paths))[:2] == TWO


@pytest.mark.parametrize("unsorted", ["test/{n}.png", "test/images/{n}.png", "test/unknown/{n}.png"])
def test_a_test_split_without_classes_is_left_out_and_said(unsorted, tmp_path):
    rows, classes, notes = read(lay(tmp_path, *SORTED[:2], unsorted))
    assert (rows, classes) == ({"train": 20}, ("cat", "dog"))
    assert len(notes) == 1
    assert "left out: 10 images of split 'test' in" in notes[0]


def test_folders_that_are_no_split_are_left_out_and_said(tmp_path):
    rows, classes, notes = read(lay(tmp_path, *SORTED, "figures/{n}.png"))
    assert (rows, classes) == TWO
    assert "left out: 'figures' in" in notes[0]


def test_only_a_training_split(tmp_path):
    assert read(lay(tmp_path, *SORTED[:2])) == ({"train": 20}, ("cat", "dog"), ())


def test_images_that_nobody_sorted_have_no_classes(tmp_path):
    """The folders' names are those of splits, and there is nothing to learn."""
    assert read(lay(tmp_path, "train/{n}.png", "test/{n}.png")) == ({"train": 10, "test": 10}, (), ())


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("train/steam/{n}.png", "bus/{n}.png"), r"'train' may be a split or a class, .* images of 'bus'"),
        (("test/{n}.png", "bullet train/{n}.png"), "'test' may be a split or a class"),
        (("cat/train/{n}.png", "cat/test/{n}.png", "dog/train/{n}.png"), r"folders of splits \(test, train\)"),
        (("train/cat/{n}.png", "test/cat/{n}.png", "eval/cat/{n}.png"), "both name the split 'test'"),
        (("train/cat/{n}.png", "test/cat/{n}.png", "stray.png"), "beside the folders of the splits"),
        (("train/cat/{n}.png", "train/stray.png"), "beside the folders of the classes"),
        (("cat/{n}.png", "stray.png"), "beside the folders of the classes"),
    ],
)
def test_folders_that_cannot_be_told_apart_are_refused(paths, message, tmp_path):
    with pytest.raises(InputError, match=message):
        folder_splits(lay(tmp_path, *paths))


@pytest.mark.parametrize("outer", [("fold1", "fold2", "fold3"), ("part_01", "part_02"), ("cv 0", "cv 1")])
def test_parts_of_the_data_are_no_classes(outer, tmp_path):
    lay(tmp_path, *(f"{part}/{name}/{{n}}.png" for part in outer for name in ("cat", "dog")))
    with pytest.raises(InputError, match="holds folders 'cat', 'dog': these seem to be the classes"):
        folder_splits(tmp_path)


def test_classes_that_hold_the_same_folders_are_said(tmp_path):
    """As magnifications of a microscope in each class; or the other way round, which cannot be told."""
    lay(tmp_path, *(f"{name}/{size}/{{n}}.png" for name in ("benign", "malignant") for size in ("40X", "100X")))
    _, classes, notes = read(tmp_path)
    assert classes == ("benign", "malignant")
    assert notes[0].endswith("holds folders '100X', '40X': the outer ones are taken for the classes")


def test_numbers_may_be_classes(tmp_path):
    lay(tmp_path, *(f"{digit}/{hand}/{{n}}.png" for digit in range(3) for hand in ("left", "right")))
    assert read(tmp_path)[1] == ("0", "1", "2")


def test_names_that_only_contain_such_words_are_classes(tmp_path):
    names = ("bullet train", "test tube", "contest", "trainer", "валидация", "3")
    assert read(lay(tmp_path, *(f"{name}/{{n}}.png" for name in names)))[1] == tuple(sorted(names))


def test_pictures_of_kinds_that_are_not_read_are_counted(tmp_path):
    """A class that was photographed with a phone would be gone."""
    _, classes, notes = read(lay(tmp_path, *SORTED, "train/bird/{n}.DNG", "train/cat/raw.cr2"))
    assert classes == ("cat", "dog")
    assert "kinds that are not read (1 .cr2, 10 .dng)" in notes[0]
    assert read(lay(tmp_path, "train/bird/{n}.HEIC"))[1] == ("bird", "cat", "dog")


def test_links_to_folders_are_followed(tmp_path):
    lay(tmp_path / "real", "cat/{n}.png", "dog/{n}.png")
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "real" / name)
    rows, classes, _ = read(tmp_path / "data")
    assert classes == ("cat", "dog")
    assert sum(rows.values()) == 20
    assert np.array_equal(
        np.asarray(folder_splits(tmp_path / "data")["train"].image(0)), np.asarray(picture("red", 0, 8))
    )
