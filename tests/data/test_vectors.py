"""Embeddings in tables and files: read as they are, of one shape, and refused in one line where they are not."""

import csv
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from comodulation.data import given_table_splits, read_vectors
from comodulation.data.features import EmbeddingSettings, extract
from comodulation.data.given_tables import VectorReader
from comodulation.data.opening import find_splits
from comodulation.data.vectors import Vectors, vectors_of_column
from comodulation.errors import BadInputError, InputError

ROWS, WIDTH = 60, 5
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
KIND = [("a", "b", "c")[row % 3] for row in range(ROWS)]
IDS = [f"clip{row}" for row in range(ROWS)]


def lists(numbers, kind):
    return pa.array([None if row is None else list(row) for row in numbers], pa.list_(kind))


def table(folder, suffix=".parquet", numbers=NUMBERS, kind=None, **columns):
    """A table of labels with embeddings; returns its path."""
    kind = kind or pa.float32()
    made = pa.table(
        {"id": IDS[: len(numbers)], "vector": lists(numbers, kind), "kind": KIND[: len(numbers)], **columns}
    )
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        pq.write_table(made, path, row_group_size=17)
    else:
        with pa.ipc.new_file(path, made.schema) as sink:
            sink.write_table(made, max_chunksize=17)
    return path


def array_file(folder, suffix, numbers):
    path = folder / f"vectors{suffix}"
    if suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".safetensors":
        save_file({"embeddings": torch.from_numpy(np.ascontiguousarray(numbers))}, path)
    else:
        pq.write_table(pa.table({"v": lists(numbers, pa.from_numpy_dtype(numbers.dtype))}), path)
    return path


def labels(folder, rows=ROWS):
    path = folder / "labels.csv"
    path.write_text("id,kind\n" + "".join(f"{IDS[row]},{KIND[row]}\n" for row in range(rows)))
    return path


def all_rows(splits):
    """Embeddings by id, over all splits."""
    return {name: split.read(row) for split in splits.values() for row, name in enumerate(split.names("."))}


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_column_of_a_table(tmp_path, suffix, kind):
    numbers = NUMBERS.astype(kind.to_pandas_dtype())
    path = table(tmp_path, suffix, numbers, kind)
    splits = given_table_splits(path, VectorReader(), tasks=["kind"])
    assert set(splits) == {"train", "test"}
    found = all_rows(splits)
    assert set(found) == set(IDS)
    for place, name in enumerate(IDS):
        np.testing.assert_array_equal(found[name], numbers[place].astype(np.float32))
    named = given_table_splits(path, VectorReader("vector"), tasks=["kind"])
    assert {name: split.fingerprint for name, split in named.items()} == {n: s.fingerprint for n, s in splits.items()}


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_file_beside_a_table(tmp_path, suffix, dtype):
    path = array_file(tmp_path, suffix, NUMBERS.astype(dtype))
    found = all_rows(given_table_splits(path, VectorReader(), labels(tmp_path)))
    for place, name in enumerate(IDS):
        np.testing.assert_array_equal(found[name], NUMBERS[place].astype(dtype).astype(np.float32))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_rows_without_any_label_keep_their_place(tmp_path, suffix, columns):
    """An input that nobody has labelled has a row of empty cells; those at the end count where there are inputs for them."""
    unlabelled = {3, 4, ROWS - 1}
    cells = [["kind", "even"][:columns]]
    cells += [["" if row in unlabelled else KIND[row], ""][:columns] for row in range(ROWS)]
    path = tmp_path / f"labels{suffix}"
    if suffix == ".csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([*cells, *[["", ""]] * (columns == 2)])
    else:
        book = pytest.importorskip("openpyxl").Workbook()
        for row in cells:
            book.active.append([None if cell == "" else cell for cell in row])
        book.active.cell(ROWS + 5, 1).number_format = "0.0"  # a cell with a format and nothing in it
        book.save(path)
    np.save(tmp_path / "v.npy", NUMBERS)
    splits = given_table_splits(tmp_path / "v.npy", VectorReader(), path, ["kind"])
    found = {}
    for split in splits.values():
        names = split.feature("kind").names
        for row, code in enumerate(split.column("kind")):
            place = int(np.flatnonzero((NUMBERS.astype(np.float32) == split.read(row)).all(1))[0])
            found[place] = None if code is None else names[code]
    assert found == {row: None if row in unlabelled else KIND[row] for row in range(ROWS)}


def test_a_table_without_labels_beside_embeddings_is_said_to_have_none(tmp_path):
    np.save(tmp_path / "v.npy", NUMBERS)
    (tmp_path / "labels.csv").write_text("\n".join(["id", *IDS]))
    with pytest.raises(InputError, match=r"labels\.csv has no label column: only id$"):
        given_table_splits(tmp_path / "v.npy", VectorReader(), tmp_path / "labels.csv")


def test_lists_in_place_of_the_labels_of_a_run_are_refused(tmp_path):
    """A run has one answer for each row; the same column of another table may hold lists, of which csv has only texts."""
    other = table(tmp_path, tags=[["a", "b"], ["c"]] * (ROWS // 2))
    with pytest.raises(InputError, match=r"column 'tags' of .* holds lists of labels, expected one label in each row"):
        given_table_splits(other, VectorReader("vector"), answers={"tags": ["a", "b", "c"]})


def test_precision_and_place_do_not_change_what_is_held_out(tmp_path):
    """The same numbers in a column and in a file, in float32 and float64: the same splits and the same fingerprints."""
    numbers = NUMBERS.astype(np.float32)
    one = given_table_splits(table(tmp_path, numbers=numbers), VectorReader(), tasks=["kind"])
    other = given_table_splits(
        array_file(tmp_path, ".npy", numbers.astype(np.float64)), VectorReader(), labels(tmp_path)
    )
    assert {n: s.names(".") for n, s in one.items()} == {n: s.names(".") for n, s in other.items()}
    assert {n: s.fingerprint for n, s in one.items()} == {n: s.fingerprint for n, s in other.items()}


def test_rows_that_are_added_leave_the_others_where_they_are(tmp_path):
    few = given_table_splits(table(tmp_path, numbers=NUMBERS[:40]), VectorReader(), tasks=["kind"])
    more = given_table_splits(table(tmp_path), VectorReader(), tasks=["kind"])
    for name, split in few.items():
        assert set(split.names(".")) <= set(more[name].names("."))


def test_a_column_of_splits_is_followed(tmp_path):
    said = ["train"] * 30 + ["validation"] * 10 + ["test"] * 20
    splits = given_table_splits(table(tmp_path, split=said), VectorReader(), tasks=["kind"])
    assert {name: split.names(".") for name, split in splits.items()} == {
        "train": IDS[:30], "validation": IDS[30:40], "test": IDS[40:]
    }  # fmt: skip


def test_a_folder_of_tables(tmp_path):
    """As `datasets` reads it: splits by the names of files, or dealt out where these say none."""
    pq.write_table(pa.table({"v": lists(NUMBERS, pa.float64()), "kind": KIND}), tmp_path / "part.parquet")
    found = {name: opened() for name, opened in find_splits(tmp_path, reader=VectorReader()).items()}
    assert {name: len(split) for name, split in found.items()} == {"train": 53, "test": 7}
    assert found["train"].label_columns == ["kind"]
    np.testing.assert_array_equal(found["train"].read(0), NUMBERS[0].astype(np.float32))
    (tmp_path / "part.parquet").rename(tmp_path / "train.parquet")
    pq.write_table(pa.table({"v": lists(NUMBERS[:9], pa.float64()), "kind": KIND[:9]}), tmp_path / "test.parquet")
    found = {name: len(opened()) for name, opened in find_splits(tmp_path, reader=VectorReader()).items()}
    assert found == {"train": 60, "test": 9}


def test_maps(tmp_path):
    """Lists of lists of lists, and arrays of four dimensions."""
    maps = np.random.default_rng(1).normal(size=(ROWS, 3, 2, 4)).astype(np.float32)
    column = pa.chunked_array([pa.array(maps[:7].tolist()), pa.array(maps[7:].tolist())])
    np.testing.assert_array_equal(vectors_of_column(column, "x").astype(np.float32), maps)
    array, _ = read_vectors(array_file(tmp_path, ".npy", maps))
    assert Vectors(array).shape == (3, 2, 4)
    settings = EmbeddingSettings(shape=(3, 2, 4))
    assert settings.encoder().feature_shape == (3, 2, 4)


def test_features_are_the_embeddings(tmp_path):
    """Extracted, cached and read again: the numbers as float32, whatever their size, and not rounded to float16."""
    numbers = NUMBERS * 1e6 + 1e5
    splits = given_table_splits(array_file(tmp_path, ".npy", numbers), VectorReader(), labels(tmp_path))
    split = splits["train"]
    settings, said = EmbeddingSettings().settled(split)
    assert (settings.shape, said) == ((WIDTH,), "embeddings are vectors of 5 numbers")
    encoder = settings.encoder()
    found = extract(encoder, split, tmp_path / "cache")
    expected = np.stack([split.read(row) for row in range(len(split))])
    np.testing.assert_array_equal(found.array[:, :, 0, 0], expected)
    assert found.array.dtype == np.float32
    assert extract(encoder, split, tmp_path / "cache").extracted_rows == 0


def test_rows_without_a_vector_are_named_or_counted(tmp_path):
    """Missing, NaN, infinity, and what float32 cannot hold: with --skip-bad they are left out."""
    numbers = [list(row) for row in NUMBERS]
    numbers[3] = None
    numbers[5][2] = float("nan")
    numbers[7][0] = float("inf")
    numbers[9][1] = 1e300
    path = table(tmp_path, numbers=numbers, kind=pa.float64(), split=["test", "test", *["train"] * (ROWS - 2)])
    split = given_table_splits(path, VectorReader(), tasks=["kind"])["train"]
    for row, said in (  # rows of the split; messages say those of the file, from 1
        (1, "row 4 is missing"),
        (3, "row 6 holds NaN at place 2; expected finite numbers"),
        (5, "row 8 holds infinity at place 0"),
        (7, "row 10 holds 1e+300, too large for float32, at place 1"),
    ):
        with pytest.raises(BadInputError) as error:
            split.read(row)
        assert str(error.value).startswith(f"embedding of {path}, {said}")
    with pytest.raises(BadInputError, match=r"row 8 holds"):
        split.select([0, 5]).read(1)
    encoder = EmbeddingSettings(shape=(WIDTH,)).encoder()
    with pytest.raises(BadInputError, match="row 4"):
        extract(encoder, split, tmp_path / "cache")
    found = extract(encoder, split, tmp_path / "cache", skip_bad=True)
    assert found.bad_rows == (1, 3, 5, 7)
    np.testing.assert_array_equal(found.array[2, :, 0, 0], NUMBERS[4].astype(np.float32))


def refused(call):
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def test_vectors_of_different_length_are_named(tmp_path):
    numbers = [list(row) for row in NUMBERS]
    numbers[31] = numbers[31][:4]
    said = refused(lambda: read_vectors(table(tmp_path, numbers=numbers)))
    assert "column 'vector'" in said
    assert "the embedding of row 31 has 4 numbers, those before it 5" in said


def test_no_pickle_is_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "x.npy"
    np.save(path, np.array([Bomb()], object), allow_pickle=True)
    assert "Python objects" in refused(lambda: read_vectors(path))
    path.write_bytes(pickle.dumps(Bomb()))
    assert "no .npy file" in refused(lambda: read_vectors(path))


def test_what_is_refused(tmp_path):
    def saved(array, suffix=".npy"):
        return lambda: read_vectors(array_file(tmp_path, suffix, array))

    assert "shape (60,), expected rows of vectors (N, V) or of maps (N, C, H, W)" in refused(saved(NUMBERS[:, 0]))
    assert "shape (60, 5, 1)" in refused(saved(NUMBERS[:, :, None]))
    assert "holds complex128, expected numbers" in refused(saved(NUMBERS.astype(complex)))
    assert "holds <U3, expected numbers" in refused(saved(np.array([["abc"]])))
    cut = array_file(tmp_path, ".npy", NUMBERS)
    cut.write_bytes(cut.read_bytes()[:-8])
    assert "cannot be read as .npy" in refused(lambda: read_vectors(cut))
    assert "no such file of embeddings" in refused(lambda: read_vectors(tmp_path / "none.npy"))
    (tmp_path / "x.pt").write_bytes(b"x")
    assert "is no file of embeddings that can be read: expected .npy" in refused(
        lambda: read_vectors(tmp_path / "x.pt")
    )
    (tmp_path / "x.safetensors").write_bytes(b"noise of some length")
    assert "not a readable safetensors file" in refused(lambda: read_vectors(tmp_path / "x.safetensors"))
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    assert "holds 2 tensors ('a, b'), expected one" in refused(lambda: read_vectors(tmp_path / "two.safetensors"))
    assert read_vectors(tmp_path / "two.safetensors", "b")[0].shape == (2, 2)
    many = table(tmp_path, other=lists(NUMBERS, pa.float32()))
    assert "2 columns of lists of numbers (vector, other)" in refused(lambda: read_vectors(many))
    assert "'kind'" in refused(lambda: read_vectors(many, "kind"))
    assert "has no column 'vec'" in refused(lambda: read_vectors(many, "vec"))
    npy = array_file(tmp_path, ".npy", NUMBERS)
    assert "60 rows of embeddings" in refused(lambda: given_table_splits(npy, VectorReader(), labels(tmp_path, 59)))
    csv = tmp_path / "t.csv"
    csv.write_text("vector,kind\n[1 2],a\n[3 4],b\n")
    assert "holds one value in each row, expected lists" in refused(
        lambda: given_table_splits(csv, VectorReader("vector"))
    )
    encoder = EmbeddingSettings(shape=(4,)).encoder()
    assert "has the shape (5,), expected (4,), as in training" in refused(lambda: encoder.preprocess(NUMBERS[0]))
