"""A damaged or foreign cache of features is found, and only what is damaged is extracted again."""

import json
import os
import shutil
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.extraction import extract
from comodulation.data.features.store import FeatureStore
from support.small_cache import FILES, ROW_BYTES, ROWS, the_file
from support.synthetic import snapshot

pytestmark = pytest.mark.usefixtures("small_blocks")


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
def test_damage_is_found_and_only_that_is_extracted_again(name, backbone, split, filled, copied):
    """Damaged blocks are computed again, others are not; the files end as they were, and memory does not grow with them."""
    damage, rows = DAMAGES[name]
    damage(copied)
    tracemalloc.start()
    try:
        assert extract(backbone, split, copied).extracted_rows == rows
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    for file in FILES:
        assert the_file(copied, file).read_bytes() == the_file(filled, file).read_bytes(), file


def test_a_foreign_cache_under_this_key_is_not_used(backbone, split, copied):
    """Complete, with checksums that hold, but of another identity: another backbone's files moved here."""
    other = Backbone(BackboneSettings("test_resnet", "random", 48, layer=-2))
    theirs = extract(other, split, copied).key
    ours = extract(backbone, split, copied)
    expected = np.array(ours.array)
    for file in FILES:
        shutil.copy(copied / "features" / theirs / file, copied / "features" / ours.key / file)
    again = extract(backbone, split, copied)
    assert again.extracted_rows == ROWS
    assert np.array_equal(again.array, expected)


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
