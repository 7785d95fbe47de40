"""Rows of files block by block: the rows that reading the whole file gives, wherever blocks begin and end."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from comodulation.data import images_in
from comodulation.data.asked import inputs_in
from comodulation.data.given_tables import TextReader, VectorReader
from comodulation.data.streams import blocks_of, listed_pictures, picture_lists, row_files, rows_of, write_picture_list
from comodulation.errors import InputError

TEXTS = [f"message {row}" for row in range(50)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "txt", "arrow"])
@pytest.mark.parametrize(("start", "stop", "size"), [(0, 50, 7), (13, 31, 5), (49, 50, 100), (10, 30, 10)])
def test_texts(suffix, start, stop, size, tmp_path):
    path = tmp_path / f"texts.{suffix}"
    table = pa.table({"key": [f"k{row}" for row in range(50)], "text": TEXTS})
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=9)
    elif suffix == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    elif suffix == "txt":
        path.write_text("\n".join(TEXTS) + "\n")
    else:
        sign = "," if suffix == "csv" else "\t"
        path.write_text(
            "\n".join([f"key{sign}text", *(f"k{row}{sign}{text}" for row, text in enumerate(TEXTS))]) + "\n"
        )
    reader = TextReader("text")
    assert rows_of(path, reader) == 50
    blocks = list(blocks_of(path, reader, start, stop, size))
    assert [block.first for block in blocks] == list(range(start, stop, size))
    assert [len(block.inputs) for block in blocks] == [min(size, stop - first) for first in range(start, stop, size)]
    assert [text for block in blocks for text in block.inputs.values] == TEXTS[start:stop]
    if suffix != "txt":
        assert [one for block in blocks for one in block.inputs.ids] == [f"k{row}" for row in range(start, stop)]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\na\n""\n  \nb\n""\n\n', ["a", None, None, "b", None]),  # as pandas and csv write a text that is missing
        ("text,n\na,1\n,\nb,\n,\n,\n\n", ["a", None, "b"]),  # spreadsheets write empty rows at the end
    ],
)
def test_empty_rows_of_a_table_are_missing_texts(content, texts, tmp_path):
    """Left out, they would shift the answers to all rows behind them."""
    path = tmp_path / "texts.csv"
    path.write_text(content)
    reader = TextReader("text")
    assert rows_of(path, reader) == len(texts)
    (block,) = blocks_of(path, reader, 0, len(texts), 100)
    asked = inputs_in([path], reader)
    assert len(asked) == len(texts)
    for row, text in enumerate(texts):
        for read in (lambda row=row: block.inputs.read(row, "here"), asked[row].read):
            if text is None:
                with pytest.raises(InputError, match="is missing: the cell is empty"):
                    read()
            else:
                assert read() == text


def test_missing_cells_of_parquet_stay_missing(tmp_path):
    """A text that is none, and a vector that is none, are said to be so when they are read."""
    pq.write_table(pa.table({"text": ["a", None], "vector": [None, [1.0, 2.0]]}), tmp_path / "table.parquet")
    (block,) = blocks_of(tmp_path / "table.parquet", TextReader("text"), 0, 2, 10)
    with pytest.raises(InputError, match="here is missing"):
        block.inputs.read(1, "here")
    (block,) = blocks_of(tmp_path / "table.parquet", VectorReader(), 0, 2, 10)
    with pytest.raises(InputError, match="here is missing: it holds no numbers"):
        block.inputs.read(0, "here")
    assert block.inputs.read(1, "here").tolist() == [1, 2]


def test_a_block_of_rows_without_embeddings_is_missing_row_by_row(tmp_path):
    """Where a block begins is no property of the data: it must not matter whether all of its rows are missing."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"vector": [None, None, [1.0, 2.0]]}), path)
    first, second = blocks_of(path, VectorReader(), 0, 3, 2)
    assert (len(first.inputs), len(second.inputs)) == (2, 1)
    with pytest.raises(InputError, match="here is missing"):
        first.inputs.read(1, "here")
    assert second.inputs.read(0, "there").tolist() == [1, 2]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_embeddings_are_called_by_the_column_that_names_them(suffix, tmp_path):
    path = tmp_path / f"vectors.{suffix}"
    table = pa.table({"id": [7, None, 9], "vector": [[1.0, 2.0]] * 3})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    (block,) = blocks_of(path, VectorReader(), 1, 3, 10)
    assert block.inputs.ids == (None, "9")


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "vectors.npy"
    for rows in (3, 5):
        np.save(path, np.full((rows, 2), rows))
        assert rows_of(path, VectorReader()) == rows
        (block,) = blocks_of(path, VectorReader(), 0, rows, 10)
        assert block.inputs.array.tolist() == [[rows, rows]] * rows


def test_tensors_of_bfloat16_and_of_no_rows(tmp_path):
    path = tmp_path / "vectors.safetensors"
    save_file({"vectors": torch.arange(6).reshape(3, 2).bfloat16()}, path)
    (block,) = blocks_of(path, VectorReader(), 1, 3, 10)
    assert block.inputs.read(1, "here").tolist() == [4, 5]
    save_file({"number": torch.tensor(1.0)}, path)
    with pytest.raises(InputError, match="holds a single number, expected rows"):
        rows_of(path, VectorReader())
    save_file({"one": torch.ones(3, 2), "two": torch.ones(3, 2)}, path)
    with pytest.raises(
        InputError, match=r"holds 2 tensors \('one, two'\), expected one; name one of them with --embeddings"
    ):
        rows_of(path, VectorReader())
    with pytest.raises(InputError, match=r"has no tensor 'three', only 'one, two'"):
        rows_of(path, VectorReader("three"))
    assert rows_of(path, VectorReader("two")) == 3


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"torn\.parquet cannot be read"):
        rows_of(tmp_path / "torn.parquet", VectorReader())
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        rows_of(tmp_path / "objects.npy", VectorReader())
    with pytest.raises(InputError, match="no such file"):
        row_files([tmp_path / "none.npy"], VectorReader())
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    with pytest.raises(InputError, match="did you mean 'text'"):
        rows_of(tmp_path / "texts.parquet", TextReader("texts"))


def test_a_list_of_pictures_is_that_of_the_small_predict(tmp_path):
    """In its order, in parts; hidden files and others are left out."""
    for name in ("b/2.png", "b/10.jpg", "a.png", "b.png", "B/x.jpeg", ".hidden.png", "b/.h/y.png", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path) if path.suffix != ".txt" else path.write_text("x")
    wanted = [tmp_path / "photos" / name for name in ("B/x.jpeg", "a.png", "b/10.jpg", "b/2.png", "b.png")]
    assert images_in([tmp_path / "photos"]) == wanted
    assert write_picture_list([tmp_path / "photos"], tmp_path / "list", 2) == 5
    assert [path for part in range(3) for path in listed_pictures(tmp_path / "list", part)] == wanted
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        write_picture_list([tmp_path / "none"], tmp_path / "other", 2)
    assert not (tmp_path / "other").exists()


def test_a_folder_of_pictures_that_cannot_be_listed_is_bad_input(tmp_path, monkeypatch):
    """And not said to be the list, which is what is written meanwhile."""

    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("comodulation.data.streams.picture_lists.os.scandir", refused)
    with pytest.raises(InputError, match=r"cannot list the images in .*: Permission denied"):
        write_picture_list([tmp_path], tmp_path / "list", 2)
    with pytest.raises(InputError, match=r"cannot list the images in .*: Permission denied"):
        images_in([tmp_path])


def test_a_part_of_a_list_of_pictures_may_be_longer_than_parquet_s_usual_row_groups(tmp_path, monkeypatch):
    number = 2**20 + 1
    monkeypatch.setattr(picture_lists, "pictures_in", lambda given: itertools.repeat(tmp_path, number))
    assert write_picture_list([tmp_path], tmp_path / "list", number) == number
    assert pq.read_metadata(tmp_path / "list").num_row_groups == 1
