"""The feature cache: right, resumable, and never used when damaged or foreign."""

import json
import os
import shutil
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.features import extraction as features
from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.extraction import cache_folder, extract, features_of
from comodulation.data.features.store import FeatureStore
from comodulation.data.opening import open_split
from comodulation.data.pictures import BadImageError
from comodulation.errors import InputError, RunError
from comodulation.files import locked
from support.command import Process
from support.synthetic import images_at, picture, snapshot, write

ROWS, BLOCK = 160, 64
ROW_BYTES = 2 * 192 * 2 * 2
FILES = ("data.bin", "journal.jsonl", "identity.json")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Three blocks: 64, 64 and 32 rows."""
    monkeypatch.setattr(features, "BLOCK", BLOCK)


@pytest.fixture(scope="module")
def backbone():
    return Backbone(BackboneSettings("test_resnet", "random", 32, layer=-2))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return open_split(str(write(tmp_path_factory.mktemp("data") / "small")), "train")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, backbone, split):
    """A complete cache, not to be changed."""
    cache = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", BLOCK)
        extract(backbone, split, cache)
    return cache


@pytest.fixture
def cache(filled, tmp_path):
    """A copy of the complete cache, to be damaged."""
    shutil.copytree(filled, tmp_path / "cache")
    return tmp_path / "cache"


def the_file(cache, name):
    (path,) = cache.glob(f"features/*/{name}")
    return path


def test_features_are_the_backbones(backbone, split, cache):
    """Row by row what the backbone gives for the image, rounded to float16; reported block by block."""
    seen = []
    shutil.rmtree(cache)
    result = extract(backbone, split, cache, report=lambda done, total: seen.append((done, total)))
    assert result.extracted_rows == len(result) == ROWS
    assert result.array.shape == (ROWS, *backbone.feature_shape)
    assert seen == [(64, 160), (128, 160), (160, 160)]
    rows = torch.tensor([0, 63, 64, 159])
    with torch.no_grad():
        expected = backbone(torch.stack([backbone.preprocess(split.image(row)) for row in rows.tolist()]))
    torch.testing.assert_close(result.rows(rows), expected, atol=1e-3, rtol=2e-3)
    assert torch.equal(result.rows(slice(0, 2)), torch.from_numpy(result.array[:2].astype(np.float32)))
    with pytest.raises((ValueError, RuntimeError)):
        result.array[0] = 0  # read-only


def test_images_on_their_own_get_the_features_of_the_cache(backbone, split, filled):
    """`predict` computes what `evaluate` reads, up to the rounding of a convolution over another batch size."""
    images = torch.stack([backbone.preprocess(split.image(row)) for row in range(3)])
    cached = extract(backbone, split, filled).rows(slice(0, 3))
    torch.testing.assert_close(features_of(backbone, (images,)), cached, atol=1e-3, rtol=2e-3)


def test_a_second_call_extracts_nothing(backbone, split, cache):
    before, seen = snapshot(cache), []
    again = extract(backbone, split, cache, report=lambda done, total: seen.append((done, total)))
    assert again.extracted_rows == 0
    assert seen == [(ROWS, ROWS)]
    assert snapshot(cache) == before


def test_what_features_depend_on_is_in_the_key(backbone, split, cache):
    others = [
        extract(backbone, split, cache, precision="bfloat16"),
        extract(Backbone(BackboneSettings("test_resnet", "random", 48, layer=-2)), split, cache),
        extract(Backbone(BackboneSettings("test_resnet", "random", 32)), split, cache),
    ]
    assert all(other.extracted_rows == ROWS for other in others)
    assert len({other.key for other in others} | {extract(backbone, split, cache).key}) == 4
    difference = np.abs(others[0].array.astype(float) - extract(backbone, split, cache).array).max()
    assert 0 < difference < 0.1  # bfloat16 was used, and is near
    with pytest.raises(InputError, match=r"unknown precision 'float61'; did you mean 'float16'|unknown precision"):
        extract(backbone, split, cache, precision="float61")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def in_front(path, count):
    """Zeros before a file's content, of which the disk stores none."""
    content = path.read_bytes()
    with open(path, "wb") as file:
        file.seek(count)
        file.write(content)


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def first_line(change):
    def damage(cache):
        journal = the_file(cache, "journal.jsonl")
        lines = journal.read_text().splitlines()
        block = json.loads(lines[0])
        change(block)
        journal.write_text("\n".join([json.dumps(block), *lines[1:]]) + "\n")

    return damage


DAMAGES = {
    "first byte flipped": (lambda cache: flip(the_file(cache, "data.bin"), 0), 64),
    "last byte flipped": (lambda cache: flip(the_file(cache, "data.bin"), -1), 32),
    "data truncated": (
        lambda cache: the_file(cache, "data.bin").write_bytes(the_file(cache, "data.bin").read_bytes()[:-1]),
        32,
    ),
    "data gone": (lambda cache: the_file(cache, "data.bin").unlink(), 160),
    "data emptied": (lambda cache: the_file(cache, "data.bin").write_bytes(b""), 160),
    "journal truncated": (
        lambda cache: the_file(cache, "journal.jsonl").write_bytes(the_file(cache, "journal.jsonl").read_bytes()[:-5]),
        32,
    ),
    "journal gone": (lambda cache: the_file(cache, "journal.jsonl").unlink(), 160),
    "journal is noise": (lambda cache: the_file(cache, "journal.jsonl").write_bytes(b"\xff\xfe{[" * 9), 160),
    "journal is nested": (lambda cache: the_file(cache, "journal.jsonl").write_text("[" * 100_000), 160),
    "rows are fractions": (first_line(lambda block: block.update(rows=[0, 64.0])), 64),
    "rows are too many": (first_line(lambda block: block.update(rows=[0, 10**9])), 64),
    "rows go backwards": (first_line(lambda block: block.update(rows=[64, 0])), 64),
    "a row is called bad": (first_line(lambda block: block.update(bad=[3])), 64),
    "checksum is a string": (first_line(lambda block: block.update(checksum="0")), 64),
    "a block in the middle flipped": (lambda cache: flip(the_file(cache, "data.bin"), 64 * ROW_BYTES), 64),
    "journal ends in a gigabyte of zeros": (lambda cache: os.truncate(the_file(cache, "journal.jsonl"), 10**9), 160),
    "journal begins with a gigabyte of zeros": (
        lambda cache: in_front(the_file(cache, "journal.jsonl"), 10**9),
        160,
    ),
    "journal is a pipe": (lambda cache: as_pipe(the_file(cache, "journal.jsonl")), 160),
    "identity is a pipe": (lambda cache: as_pipe(the_file(cache, "identity.json")), 160),
    "identity is a terabyte": (lambda cache: os.truncate(the_file(cache, "identity.json"), 10**12), 160),
    "identity is nested": (lambda cache: the_file(cache, "identity.json").write_text("[" * 60_000), 160),
    "identity gone": (lambda cache: the_file(cache, "identity.json").unlink(), 160),
    "identity is noise": (lambda cache: the_file(cache, "identity.json").write_bytes(b"\xff{"), 160),
    "identity is foreign": (
        lambda cache: the_file(cache, "identity.json").write_text(
            the_file(cache, "identity.json").read_text().replace('"float32"', '"bfloat16"')
        ),
        160,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_only_that_is_extracted_again(name, backbone, split, filled, cache):
    """Damaged blocks are computed again, others are not; the files end as they were, and memory does not grow with them."""
    damage, rows = DAMAGES[name]
    damage(cache)
    tracemalloc.start()
    try:
        assert extract(backbone, split, cache).extracted_rows == rows
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    for file in FILES:
        assert the_file(cache, file).read_bytes() == the_file(filled, file).read_bytes(), file


def test_a_foreign_cache_under_this_key_is_not_used(backbone, split, cache):
    """Complete, with checksums that hold, but of another identity: another backbone's files moved here."""
    other = Backbone(BackboneSettings("test_resnet", "random", 48, layer=-2))
    theirs = extract(other, split, cache).key
    ours = extract(backbone, split, cache)
    expected = np.array(ours.array)
    for file in FILES:
        shutil.copy(cache / "features" / theirs / file, cache / "features" / ours.key / file)
    again = extract(backbone, split, cache)
    assert again.extracted_rows == ROWS
    assert np.array_equal(again.array, expected)


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_extraction_continues(stop, backbone, split, filled, tmp_path):
    """Ctrl-C after a block: the next call extracts the rest alone, and the file is the same to the byte."""

    def interrupt(done, total):
        if done == stop * BLOCK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(backbone, split, tmp_path, report=interrupt)
    result = extract(backbone, split, tmp_path)
    assert result.extracted_rows == ROWS - stop * BLOCK
    assert the_file(tmp_path, "data.bin").read_bytes() == the_file(filled, "data.bin").read_bytes()


JOURNAL_LINE = st.one_of(
    st.binary(max_size=30),
    st.fixed_dictionaries(
        {},
        optional={
            "rows": st.lists(st.integers(-1, 200) | st.floats() | st.text(max_size=1), max_size=3) | st.none(),
            "checksum": st.integers(-1, 2**33) | st.none() | st.booleans(),
            "bad": st.lists(st.integers(-1, 200) | st.floats(), max_size=2) | st.integers(),
        },
    ).map(lambda block: json.dumps(block).encode()),
)


TRUE_LINE = st.tuples(st.integers(0, 3), st.sampled_from([[], [1], [4, 5], [9]]))  # a block, and bad rows


@settings(max_examples=200, deadline=None)
@given(st.lists(JOURNAL_LINE | TRUE_LINE, max_size=6), st.binary(max_size=44), st.booleans())
def test_any_journals_describe_verified_blocks(tmp_path_factory, lines, content, two):
    """Whatever journals and data hold, the blocks that count have a line whose checksum holds; reading changes nothing."""
    folder = tmp_path_factory.mktemp("store")
    identity = {"shape": [10, 1, 1, 2]}  # four bytes a row; blocks of three rows, the last of one
    spans = [(0, 3), (3, 6), (6, 9), (9, 10)]
    expected, texts = set(), []
    for line in lines:
        if isinstance(line, tuple):
            block, bad = line
            start, stop = spans[block]
            rows = content[4 * start : 4 * stop]
            checksum = zlib.crc32(rows, zlib.crc32(json.dumps(bad).encode()) if bad else 0)
            if len(rows) == 4 * (stop - start) and all(start <= row < stop for row in bad):
                expected.add(block)
            line = json.dumps({"rows": [start, stop], "checksum": checksum, "bad": bad}).encode()
        texts.append(line.replace(b"\n", b" ") + b"\n")
    (folder / "identity.json").write_text(json.dumps(identity))
    (folder / "data.bin").write_bytes(content)
    (folder / "journal.jsonl").write_bytes(b"".join(texts[::2] if two else texts))
    if two:
        (folder / "journal-1.jsonl").write_bytes(b"".join(texts[1::2]) + b'{"rows": [0, 3], "ch')
    before = snapshot(folder)
    store = FeatureStore(folder, identity, 3)
    store.refresh()
    store.refresh()
    assert set(np.flatnonzero(store.done).tolist()) == expected
    assert store.rows_done == sum(stop - start for start, stop in (spans[block] for block in expected))
    assert store.complete == (expected == {0, 1, 2, 3})
    assert snapshot(folder) == before


# ---- images that cannot be read ----

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


# ---- disks, locks, places ----


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("failing", "missing"), [(1, 160), (2, 160), (3, 160), (4, 160), (5, 96), (6, 96), (9, 0)])
def test_a_full_disk_is_a_run_error(failing, missing, backbone, split, filled, tmp_path, monkeypatch):
    """A disk full at some write (identity, its folder, data, journal, ..., merged journal): what is finished is kept."""
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(number)
        return full_disk() if len(calls) == failing else real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=r"cannot write .*features.*: No space left on device"):
        extract(backbone, split, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(features, "BLOCK", BLOCK)
    again = extract(backbone, split, tmp_path)
    # A line whose fsync failed may yet be in the journal; then its block need not be made again.
    assert again.extracted_rows in (missing, missing - BLOCK)
    for file in FILES:
        assert the_file(tmp_path, file).read_bytes() == the_file(filled, file).read_bytes()
    assert not list(tmp_path.glob("features/*/*.new"))


def test_a_cache_below_a_file(backbone, split, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the feature cache"):
        extract(backbone, split, tmp_path / "file" / "cache")


def test_features_beyond_half_precision(split, tmp_path):
    """Values that float16 cannot hold are an error, not infinities in the cache."""
    broken = Backbone(BackboneSettings("test_resnet", "random", 32, layer=-2))
    broken.pixel_std /= 1e9
    with pytest.raises(RunError, match="more than float16 holds"):
        extract(broken, split, tmp_path)


def test_the_lock(tmp_path):
    lock = tmp_path / "lock"
    in_use = pytest.raises(InputError, match=f"{tmp_path} is in use by another process")
    with locked(lock), in_use, locked(lock, wait=False):
        pytest.fail("locked twice")
    with locked(lock, wait=False):
        assert lock.exists()


def test_a_lock_whose_file_is_removed(tmp_path):
    """Holders may remove the file: one that has opened it by then must not take it for the lock of those that come later."""
    lock, held = tmp_path / "lock", tmp_path / "held"

    def work():
        for _ in range(300):
            with locked(lock):
                os.close(os.open(held, os.O_CREAT | os.O_EXCL))  # fails where another process is here too
                os.unlink(held)
                lock.unlink()
        return 0

    ends = [process.wait() for process in [Process(tmp_path / str(number), work) for number in range(3)]]
    assert [(end.code, end.err) for end in ends] == [(0, "")] * 3


def test_a_lock_whose_folder_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"cannot lock .*No such file"), locked(tmp_path / "gone" / "lock"):
        pytest.fail("locked nothing")


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("COMODULATION_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("COMODULATION_CACHE")
    assert cache_folder() == tmp_path / "b" / "comodulation"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "comodulation"


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
