"""Pictures that cannot be read: named, or left out and remembered, and read again once they can be."""

import numpy as np
import pytest

from comodulation.data.features import extraction as features
from comodulation.data.features.extraction import extract
from comodulation.data.opening import open_split
from comodulation.data.pictures import BadImageError
from comodulation.errors import RunError
from support.small_cache import BLOCK, ROWS, the_file
from support.synthetic import images_at, picture, write

pytestmark = pytest.mark.usefixtures("small_blocks")


BAD = {3: b"not an image", 70: None, 150: b""}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    return open_split(str(write(tmp_path_factory.mktemp("data") / "spoiled", images_at(BAD))), "train")


def test_a_bad_image_is_named_and_leaves_nothing(backbone, spoiled, tmp_path):
    with pytest.raises(BadImageError, match=r"unreadable image: .* \[train, row 3\], damaged_3\.png"):
        extract(backbone, spoiled, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_bad_image_later_on_keeps_the_blocks_before_it(backbone, tmp_path):
    data = write(tmp_path / "data", images_at({70: b"not an image"}))
    late = open_split(str(data), "train")
    with pytest.raises(BadImageError, match="row 70"):
        extract(backbone, late, tmp_path / "cache")
    result = extract(backbone, late, tmp_path / "cache", skip_bad=True)
    assert (result.extracted_rows, result.bad_rows) == (ROWS - BLOCK, (70,))


def test_skip_bad_counts_and_goes_on(backbone, split, spoiled, filled, tmp_path):
    """Bad rows are listed and zero, the others those of the undamaged images, and the list survives in the cache."""
    result = extract(backbone, spoiled, tmp_path, skip_bad=True)
    assert result.bad_rows == (3, 70, 150)
    assert not result.array[[3, 70, 150]].any()
    good = np.setdiff1d(np.arange(ROWS), list(BAD))
    whole = extract(backbone, split, filled).array
    assert np.array_equal(result.array[good], whole[good])
    again = extract(backbone, spoiled, tmp_path, skip_bad=True)
    assert (again.extracted_rows, again.bad_rows) == (0, (3, 70, 150))
    # A cache that was filled with --skip-bad must not hide the image from a call without.
    with pytest.raises(BadImageError, match="row 3"):
        extract(backbone, spoiled, tmp_path)


def test_moving_pictures_are_counted_once(backbone, split, tmp_path):
    """Said when they are extracted, with the first of them; not again from the cache."""
    (tmp_path / "data").mkdir()
    for row in range(100):
        moves = {"save_all": True, "append_images": [picture("blue", 1)]} if row in (70, 99) else {}
        picture("red", row).save(tmp_path / "data" / f"{row:03d}.{'gif' if moves else 'png'}", **moves)
    said = []
    for _ in range(2):
        extract(backbone, open_split(tmp_path / "data", "train"), tmp_path / "cache", say=said.append)
    (once,) = said
    assert once.startswith(
        "2 images of split 'train' are animations or have several pages: the first image of each is read"
    )
    assert "row 70" in once


def test_a_changed_list_of_bad_rows_is_damage(backbone, spoiled, tmp_path):
    extract(backbone, spoiled, tmp_path, skip_bad=True)
    journal = the_file(tmp_path, "journal.jsonl")
    journal.write_text(journal.read_text().replace("[3]", "[4]"))
    result = extract(backbone, spoiled, tmp_path, skip_bad=True)
    assert (result.extracted_rows, result.bad_rows) == (BLOCK, (3, 70, 150))


# ---- images that could not be read, and can be now ----


@pytest.fixture
def photos(tmp_path):
    """160 images as files of two classes, all of them in the training split, and a function that opens it."""
    for name in ("red", "blue"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for number in range(ROWS // 2):
            picture(name, number).save(tmp_path / "photos" / "train" / name / f"{number:02}.png")
    return tmp_path / "photos" / "train"


def opened(photos):
    return open_split(photos.parent, "train")


def test_an_error_of_the_system_is_a_failure_and_no_bad_image(backbone, photos, tmp_path, monkeypatch):
    """--skip-bad leaves out damaged pictures, not those that a full table of files keeps from being read."""
    from comodulation.data import pictures

    real = pictures.read_bounded

    def read(path, limit):
        if path.name == "07.png":
            raise OSError(24, "Too many open files", str(path))
        return real(path, limit)

    monkeypatch.setattr(pictures, "read_bounded", read)
    with pytest.raises(RunError, match=r"cannot read .*07\.png: Too many open files"):
        extract(backbone, opened(photos), tmp_path / "cache", skip_bad=True)
    monkeypatch.undo()
    monkeypatch.setattr(features, "BLOCK", BLOCK)
    result = extract(backbone, opened(photos), tmp_path / "cache", skip_bad=True)
    assert result.bad_rows == ()


@pytest.mark.parametrize("skip_bad", [True, False])
def test_rows_that_could_not_be_read_are_read_again(skip_bad, backbone, photos, tmp_path, monkeypatch):
    """A decoder that fails once (too little memory of its own, a plugin that was not there) does not cost a picture for ever."""
    from comodulation.data import pictures

    real = pictures.Image.open

    def fail(source, **options):
        raise ValueError("not now")

    split = opened(photos)
    monkeypatch.setattr(pictures.Image, "open", fail)
    spoiled = extract(backbone, split, tmp_path / "cache", skip_bad=True)
    assert len(spoiled.bad_rows) == ROWS
    monkeypatch.setattr(pictures.Image, "open", real)
    again = extract(backbone, opened(photos), tmp_path / "cache", skip_bad=skip_bad)
    whole = extract(backbone, opened(photos), tmp_path / "other")
    assert (again.bad_rows, again.extracted_rows) == ((), ROWS)
    assert np.array_equal(again.array, whole.array)
    assert again.key == whole.key != spoiled.key
    assert extract(backbone, opened(photos), tmp_path / "cache").extracted_rows == 0


def test_only_the_blocks_of_mended_rows_are_extracted_again(backbone, photos, tmp_path, monkeypatch):
    from comodulation.data import pictures

    real, bad = pictures.read_bounded, {"blue/03.png", "red/70.png"}

    def read(path, limit):
        if "/".join(path.parts[-2:]) in bad:
            raise ValueError("not now")
        return real(path, limit)

    monkeypatch.setattr(pictures, "read_bounded", read)
    assert extract(backbone, opened(photos), tmp_path / "cache", skip_bad=True).bad_rows == (3, 150)
    bad.remove("blue/03.png")
    again = extract(backbone, opened(photos), tmp_path / "cache", skip_bad=True)
    assert (again.bad_rows, again.extracted_rows) == ((150,), BLOCK)
    assert again.array[3].any()
    with pytest.raises(BadImageError, match=r"row 150.*70\.png: not now"):
        extract(backbone, opened(photos), tmp_path / "cache")
