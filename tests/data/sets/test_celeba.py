"""CelebA in every layout in which it is passed around, and what is said of copies that cannot be used."""

import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from comodulation.data.labels import binary_column
from comodulation.data.pictures import BadImageError
from comodulation.data.sets.celeba import (
    CELEBA_ATTRIBUTES,
    CELEBA_GROUPS,
    CELEBA_SPLITS,
    open_celeba,
    read_attributes,
    read_partitions,
)
from comodulation.errors import InputError
from comodulation.tasks import TaskFamily
from support.celeba_layout import DRAWN, MARKED, SIZE, draw_labels, face, mark_place, write
from support.synthetic import write as write_colours

IMAGES, SEED = 36, 5


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return write(tmp_path_factory.mktemp("celeba") / "flat", IMAGES, SEED)


@pytest.fixture
def copy(flat, tmp_path):
    """A copy to damage."""
    return shutil.copytree(flat, tmp_path / "copy")


def edit(path, line, change):
    """Change one line of a list, counted from 1; None deletes it."""
    lines = path.read_text().splitlines()
    result = change(lines[line - 1])
    lines[line - 1 : line] = [] if result is None else [result]
    path.write_text("\n".join(lines) + "\n")


def columns(split):
    return np.stack([binary_column(split, name) for name in CELEBA_ATTRIBUTES], 1)


# ---- what is read ----


def test_attributes_and_groups():
    """Forty names in the official order; each is in one of the eight groups. Numbers as in the groups' source."""
    assert len(set(CELEBA_ATTRIBUTES)) == 40
    assert list(CELEBA_ATTRIBUTES[1:]) == sorted(CELEBA_ATTRIBUTES[1:])
    assert len(CELEBA_GROUPS) == 8
    assert sorted(name for group in CELEBA_GROUPS.values() for name in group) == sorted(CELEBA_ATTRIBUTES)
    numbers = [[CELEBA_ATTRIBUTES.index(name) for name in group] for group in CELEBA_GROUPS.values()]
    assert numbers == [
        [2, 10, 13, 14, 18, 20, 25, 26, 39], [3, 15, 23, 1, 12], [4, 5, 8, 9, 11, 17, 28, 32, 33], [6, 21, 31, 36],
        [7, 27], [0, 16, 22, 24, 30], [19, 29], [34, 35, 37, 38],
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["flat", "nested", "official", "csv", "hub"])
def test_every_layout_gives_the_same_labels(tmp_path, layout):
    splits = open_celeba(str(write(tmp_path / layout, IMAGES, SEED, layout)))
    assert tuple(splits) == CELEBA_SPLITS
    assert [len(split) for split in splits.values()] == [24, 6, 6]
    labels, partitions = draw_labels(IMAGES, SEED), np.arange(IMAGES) % 6
    for split, rows in zip(splits.values(), (partitions < 4, partitions == 4, partitions == 5), strict=True):
        assert split.label_columns == list(CELEBA_ATTRIBUTES)
        assert np.array_equal(columns(split), labels[rows])
        assert (split.image(0).mode, split.image(0).size) == ("RGB", SIZE)


def test_a_split_is_one_like_any_other(flat):
    splits = open_celeba(str(flat))
    train = splits["train"]
    family = TaskFamily.from_attributes(CELEBA_ATTRIBUTES)
    examples = family.examples([binary_column(train, name) for name in family.tasks])
    assert len(examples) == 24 * 40
    assert len({split.fingerprint for split in splits.values()}) == 3
    assert open_celeba(str(flat))["train"].fingerprint == train.fingerprint
    # Row 4 of train is the seventh image: the fifth and the sixth are in the other splits.
    with Image.open(flat / "img_align_celeba" / "000007.jpg") as image:
        assert np.array_equal(np.array(train.image(4)), np.array(image.convert("RGB")))


def test_lists_in_another_order(copy):
    """Images are matched by name, attributes by their column's name."""
    expected = columns(open_celeba(str(copy))["test"])
    partitions = copy / "list_eval_partition.txt"
    partitions.write_text("\n".join(reversed(partitions.read_text().splitlines())) + "\n")
    attributes = copy / "list_attr_celeba.txt"
    lines = [line.split() for line in attributes.read_text().splitlines()]
    lines[1] = lines[1][::-1]
    lines[2:] = [[name, *values[::-1]] for name, *values in lines[2:]]
    attributes.write_bytes("\r\n".join(" ".join(line) for line in lines).encode())
    assert np.array_equal(columns(open_celeba(str(copy))["test"]), expected)


def test_an_image_is_read_when_it_is_asked_for(copy):
    (copy / "img_align_celeba" / "000001.jpg").write_bytes(b"no image")
    train = open_celeba(str(copy))["train"]
    assert train.image(1).size == SIZE
    with pytest.raises(BadImageError, match=r"row 0.*000001\.jpg"):
        train.image(0)


def test_images_in_no_list_are_left_out_and_told(copy):
    shutil.copy(copy / "img_align_celeba" / "000001.jpg", copy / "img_align_celeba" / "000099.jpg")
    with pytest.warns(
        UserWarning, match=r"1 of the 37 images of .* are not in .*list_attr_celeba\.txt \(first: 000099\.jpg\)"
    ):
        splits = open_celeba(str(copy))
    assert len(splits["train"]) == 24


# ---- what cannot be used ----


def refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        open_celeba(str(folder))
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_celeba(tmp_path, flat):
    refused("/nowhere", "no such data folder: '/nowhere'")
    refused(flat / "list_attr_celeba.txt", "is a file; give the folder that holds it")
    refused(tmp_path, "is not CelebA: it holds neither img_align_celeba/, list_attr_celeba.txt and list_eval_partition")


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
def test_a_part_that_is_missing(copy, name):
    (copy / name).rename(copy / "elsewhere")
    refused(copy, f"lacks (the folder )?{name}")


@pytest.mark.parametrize(
    ("name", "line", "change", "message"),
    [
        ("list_attr_celeba.txt", 1, lambda _: "many", "line 1: 'many' is not a count of images"),
        ("list_attr_celeba.txt", 1, lambda _: None, "line 1: '5_o_Clock_Shadow .* is not a count of images"),
        ("list_attr_celeba.txt", 1, lambda _: "37", "line 1: says 37 images, but 36 follow"),
        ("list_attr_celeba.txt", 2, lambda text: text.replace("Bald", "Blad"), "line 2: 40 .* 1 missing .first: 'Bald'.; 1 unk"),
        ("list_attr_celeba.txt", 2, lambda text: text + " Bald", "line 2: 41 attribute names, .*; one is there twice"),
        ("list_attr_celeba.txt", 2, lambda text: text[:-6], "line 2: 39 attribute names, expected the 40 .* 1 missing"),
        ("list_attr_celeba.txt", 5, lambda text: text + " 1", "line 5: 42 fields, expected a name and 40"),
        ("list_attr_celeba.txt", 7, lambda text: text[:-2] + " 0", "line 7: Young is '0' for 000005.jpg, expected 1 or -1"),
        ("list_attr_celeba.txt", 4, lambda text: text.replace("02.jpg", "01.jpg"), "lists 000001.jpg 2 times"),
        ("list_attr_celeba.txt", 4, lambda text: text.replace("02.jpg", "99.jpg"), r"1 of the 36 .* \(first: 000099.jpg\)"),
        ("list_eval_partition.txt", 3, lambda text: text[:-1] + "3", "line 3: '000003.jpg 3', expected a name and 0 .train."),
        ("list_eval_partition.txt", 3, lambda text: text[:-2], "line 3: '000003.jpg', expected a name and 0"),
        ("list_eval_partition.txt", 3, lambda _: None, r"1 of the 36 images .*attr.* are not in .*partition.*000003.jpg"),
        ("list_eval_partition.txt", 2, lambda text: text.replace("02.jpg", "01.jpg"), "lists 000001.jpg 2 times"),
        ("list_eval_partition.txt", 2, lambda text: text + "\n000099.jpg 0", r"1 of the 37 images .*000099.jpg"),
    ],
)  # fmt: skip
def test_lists_that_are_malformed(copy, name, line, change, message):
    edit(copy / name, line, change)
    refused(copy, message)


def test_lists_that_hold_nothing(copy):
    (copy / "list_attr_celeba.txt").write_text("0\n" + " ".join(CELEBA_ATTRIBUTES) + "\n")
    refused(copy, "lists no images")
    (copy / "list_attr_celeba.txt").write_text("")
    refused(copy, "line 1: '' is not a count")
    (copy / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")
    refused(copy, "cannot read .*list_attr_celeba.txt")


def test_images_that_are_not_there(copy):
    for number in (4, 9):
        (copy / "img_align_celeba" / f"{number:06d}.jpg").unlink()
    refused(copy, r"2 of the 36 images of .*list_attr_celeba\.txt are not in .*img_align_celeba \(first: 000004\.jpg\)")


def test_an_empty_split(copy):
    path = copy / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(" 1\n", " 0\n"))
    refused(copy, "split 'valid' of .* is empty: no image has partition 1")


def test_columns_that_are_not_celebas(tmp_path):
    """Another data set; a copy without some attributes; one without a split."""
    refused(write_colours(tmp_path / "colours"), "has no split 'valid'; CelebA has train, valid, test, found")
    hub = write(tmp_path / "hub", IMAGES, SEED, "hub")
    for path in hub.glob("*.parquet"):
        table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / path.stem))
        table.remove_columns(["Bald", "Young"]).to_parquet(path)
    refused(
        hub, r"split 'train' of .* lacks 2 of the 40 attributes of CelebA \('Bald, Young'\); found columns 'celeb_id"
    )
    next(hub.glob("test-*")).unlink()
    refused(hub, "has no split 'test'; CelebA has train, valid, test, found")


def test_a_split_named_otherwise(tmp_path):
    """Copies without the hub's card call it ``validation``."""
    hub = write(tmp_path / "hub", IMAGES, SEED, "hub")
    next(hub.glob("valid-*")).rename(hub / "validation-00000-of-00001.parquet")
    valid = open_celeba(str(hub))["valid"]
    assert (valid.name, len(valid)) == ("valid", 6)


def test_readers_by_themselves(flat):
    names, values = read_attributes(flat / "list_attr_celeba.txt")
    assert names[0] == "000001.jpg"
    assert np.array_equal(values, draw_labels(IMAGES, SEED))
    assert list(read_partitions(flat / "list_eval_partition.txt").values())[:6] == [0, 0, 0, 0, 1, 2]


# ---- the generator ----


@pytest.mark.parametrize("name", CELEBA_ATTRIBUTES)
def test_every_attribute_changes_pixels(name):
    """The same face with and without an attribute differs, for a mark nowhere but at its place."""
    values = np.zeros(40, int)
    without = np.array(face(values, np.random.default_rng(0), (176, 216)), int)
    values[CELEBA_ATTRIBUTES.index(name)] = 1
    changed = np.abs(np.array(face(values, np.random.default_rng(0), (176, 216)), int) - without).sum(2) > 40
    assert changed.sum() > 60
    if name in MARKED:
        left, top = mark_place(MARKED.index(name))
        changed[top : top + 12, left : left + 12] = False
        assert not changed.any()


def test_the_generator_is_seeded():
    assert len(DRAWN) == 17
    assert np.array_equal(draw_labels(20, 1), draw_labels(20, 1))
    assert not np.array_equal(draw_labels(20, 1), draw_labels(20, 2))
