"""Label tables, label columns and CelebA's lists, damaged in every way: a table that is valid in itself, or one line."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from comodulation.data.folders import folder_splits
from comodulation.data.label_files import read_label_table
from comodulation.data.labels import answer_column, is_binary, label_names
from comodulation.data.sets import CELEBA_ATTRIBUTES, open_celeba, read_attributes, read_partitions
from comodulation.data.tables import label_table_splits
from support import celeba_layout
from support.mutations import ABSURD, damaged, few_or_many, hunt, is_refusal, refused_or
from support.synthetic import encode, picture

NAMES = [f"{number}.png" for number in range(12)]
ROWS = [(name, str(number % 2), ("red", "green", "blue")[number % 3]) for number, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(encode(picture("red", number, 8)))
    return folder


def text(separator):
    rows = [("image", "warm", "colour"), *ROWS]
    return "".join(separator.join(row) + "\r\n" for row in rows).encode()


def parquet(tmp_path, **options):
    path = tmp_path / "good.parquet"
    columns = {"image": NAMES, "warm": [int(row[1]) for row in ROWS], "colour": [row[2] for row in ROWS]}
    pq.write_table(pa.table(columns), path, **options)
    return path.read_bytes()


def check_splits(splits):
    """Every split has rows, every label is a class of its column or missing, and every image is a file."""
    assert set(splits) <= {"train", "test", "validation"}
    for split in splits.values():
        assert len(split) > 0
        for cell in split.table[split.image_column]:
            assert cell["path"]
        for column in split.label_columns:
            names = label_names(split, column)
            found = answer_column(split, column, ("no", "yes") if is_binary(split, column) else names)
            assert len(found) == len(split)
            assert found.min() >= -1


@few_or_many
@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "parquet, plain"])
def test_damaged_label_tables(kind, cases, images, tmp_path):
    suffix = kind.split(",")[0]
    options = {"use_dictionary": False, "compression": "none"} if "plain" in kind else {}
    good = parquet(tmp_path, **options) if suffix == "parquet" else text("," if suffix == "csv" else "\t")
    path = tmp_path / f"labels.{suffix}"

    def check(content):
        path.write_bytes(content)
        table = refused_or(lambda: read_label_table(path))
        if not is_refusal(table):
            assert {len(cells) for cells in table.columns.values()} == {len(table.lines)}
            assert all(cell is None or isinstance(cell, str) for cells in table.columns.values() for cell in cells)
        splits = refused_or(lambda: label_table_splits(str(path), str(images)))
        if not is_refusal(splits):
            refused_or(lambda: check_splits(splits))

    path.write_bytes(good)
    check_splits(label_table_splits(str(path), str(images)))
    hunt(cases, check, damaged(good))


CELLS = st.one_of(
    st.sampled_from([value for value in ABSURD if isinstance(value, str)]),
    st.sampled_from(
        ["0", "1", "-1", "yes", "NO", "1.0", "+1", "1_0", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}"]
    ),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)


@few_or_many
def test_tables_of_any_cells(cases, images, tmp_path):
    """Written as a csv file should be, whatever the cells hold: names of images, labels and splits."""
    import csv

    path = tmp_path / "labels.csv"

    def check(header, cells, files):
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *header])
            for row, name in enumerate(NAMES):
                own = cells[row % len(cells)]
                writer.writerow([files.get(row, name), *[own[place % len(own)] for place in range(len(header))]])
        splits = refused_or(lambda: label_table_splits(str(path), str(images), "image"))
        if not is_refusal(splits):
            refused_or(lambda: check_splits(splits))

    hunt(
        cases, check,
        st.lists(st.one_of(CELLS, st.sampled_from(["split", "label", "warm"])), min_size=1, max_size=3),
        st.lists(st.lists(CELLS, min_size=1, max_size=3), min_size=1, max_size=12),
        st.dictionaries(st.integers(0, 11), CELLS, max_size=1),
    )  # fmt: skip


TYPES = st.sampled_from([
    pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.binary(4),
    pa.decimal128(8, 2), pa.date32(), pa.timestamp("ns"), pa.timestamp("s", tz="UTC"), pa.time64("ns"), pa.duration("s"),
    pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.null(), pa.dictionary(pa.int8(), pa.string()),
])  # fmt: skip


@few_or_many
def test_parquet_columns_of_any_type(cases, images, tmp_path):
    """Whatever a column's type, its extreme values included; and texts that are none."""
    path = tmp_path / "labels.parquet"

    def column(kind, bits):
        size = {pa.binary(): 0, pa.string(): 0, pa.large_string(): 0}.get(kind)
        if pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_dictionary(kind) or size == 0:
            if kind in (pa.string(), pa.large_string(), pa.binary()):
                raw = pa.array(
                    [bits[:3], bits[3:9], None] * 4, pa.binary() if kind != pa.large_string() else pa.large_binary()
                )
                return raw.view(kind)
            return pa.array([None] * 12, kind)
        width = max(1, kind.bit_width // 8)
        return pa.Array.from_buffers(kind, 12, [None, pa.py_buffer((bits * (12 * width))[: 12 * width])])

    def check(kind, bits):
        try:
            pq.write_table(pa.table({"image": NAMES, "label": column(kind, bits)}), path)
        except pa.ArrowException:
            return
        splits = refused_or(lambda: label_table_splits(str(path), str(images)))
        if not is_refusal(splits):
            refused_or(lambda: check_splits(splits))

    hunt(
        cases,
        check,
        TYPES,
        st.one_of(st.binary(min_size=1, max_size=24), st.sampled_from([b"\xff", b"\x7f", b"\0", b"\x80"])),
    )


def test_parquet_files_that_claim_too_much(images, tmp_path):
    """Some kilobytes of runs of equal cells: refused by what they claim, or read without a copy for each row."""
    many, long = tmp_path / "many.parquet", tmp_path / "long.parquet"
    pq.write_table(pa.table({"image": pa.nulls(2**24 + 1)}), many)
    assert many.stat().st_size < 2**20
    assert "more than 16,777,216 rows" in str(refused_or(lambda: read_label_table(many)))
    rows = 100_000
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"image": [f"{n}.png" for n in range(rows)], "colour": cells}), long, compression="zstd")
    found = []
    hunt(
        1, lambda _: found.append(refused_or(lambda: read_label_table(long))), st.just(0)
    )  # 10 GB, were each cell a copy
    assert found[0].columns["colour"][-1] == "x" * 100_000


# ---- CelebA ----


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    return celeba_layout.write(tmp_path_factory.mktemp("celeba") / "faces", 18)


@few_or_many
@pytest.mark.parametrize("name", ["list_attr_celeba", "list_eval_partition"])
@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_damaged_lists_of_celeba(name, kind, cases, celeba, tmp_path):
    good = (celeba / f"{name}.txt").read_text()
    if kind == "csv":
        lines = [line.split() for line in good.splitlines()]
        lines = (
            [["image_id", *CELEBA_ATTRIBUTES], *lines[2:]] if "attr" in name else [["image_id", "partition"], *lines]
        )
        good = "".join(",".join(line) + "\n" for line in lines)
    path = tmp_path / f"{name}.{kind}"

    def check(content):
        path.write_bytes(content)
        if "attr" in name:
            found = refused_or(lambda: read_attributes(path))
            if not is_refusal(found):
                assert found[1].shape == (len(set(found[0])), 40)
                assert set(found[1].ravel().tolist()) <= {0, 1}
        else:
            found = refused_or(lambda: read_partitions(path))
            assert is_refusal(found) or set(found.values()) <= {0, 1, 2}

    hunt(cases, check, damaged(good.encode()))


def test_damaged_lists_in_their_folder(celeba, tmp_path):
    folder = shutil.copytree(celeba, tmp_path / "faces")
    path = folder / "list_eval_partition.txt"

    def check(content):
        path.write_bytes(content)
        refused_or(lambda: open_celeba(str(folder)))

    hunt(25, check, damaged(path.read_bytes()))


# ---- folders ----


@few_or_many
def test_image_folders_of_any_names(cases, tmp_path):
    """Whatever bytes files and folders are called: splits, None, or one line."""
    good = encode(picture("red", 0, 8))
    endings = st.sampled_from([b".png", b".JPG", b"", b".csv", b".png\n"])
    part = st.one_of(
        st.binary(min_size=1, max_size=12),
        st.sampled_from([b"train", b"TEST", b"val", b"a b", b"\xff", b"\xed\xa0\x80", b"-", b"~"]),
    ).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
    base = tmp_path / "data"

    def check(files):
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        for parts, ending in files:
            place = base.joinpath(*[bytes(one).decode("utf-8", "surrogateescape") for one in parts[:-1]])
            try:
                place.mkdir(parents=True, exist_ok=True)
                (place / (parts[-1] + ending).decode("utf-8", "surrogateescape")).write_bytes(good)
            except OSError:
                continue
        splits = refused_or(lambda: folder_splits(str(base)))
        if splits and not is_refusal(splits):
            json.dumps({name: len(split) for name, split in splits.items()})
            refused_or(lambda: check_splits(splits))

    hunt(cases, check, st.lists(st.tuples(st.lists(part, min_size=1, max_size=3), endings), min_size=1, max_size=5))
