"""Opening data by name: every row of a folder is read, by the split that it belongs to, or the folder is refused."""

import io
import json
import socket
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comodulation.data.labels import label_names
from comodulation.data.opening import available_splits, find_splits, open_split
from comodulation.data.pictures import BadImageError
from comodulation.errors import InputError
from support.synthetic import encode, picture

NAMES = ["cat.png", "a train.png", "test tubes.png", "boat.png"]


def save(folder, names, kind="red"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(kind, number, 8).save(folder / name)


def metadata(folder, names, kind="csv", column="file_name"):
    rows = [{column: name, "size": ("small", "large")[number % 2]} for number, name in enumerate(names)]
    path = folder / f"metadata.{kind}"
    if kind == "csv":
        path.write_text(f"{column},size\n" + "".join(f"{row[column]},{row['size']}\n" for row in rows))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def parquet(path, count=4, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [encode(picture("red", number, 8)) for number in range(count)]
    columns = columns or {"bright": [number % 2 for number in range(count)]}
    pq.write_table(pa.table({"image": images, **columns}), path)


def sizes(folder):
    return {name: len(opened()) for name, opened in find_splits(folder).items()}


# ---- images with metadata ----


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_in_the_folders_of_the_splits(kind, tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split, NAMES)
        metadata(tmp_path / split, NAMES, kind)
    assert sizes(tmp_path) == {"train": 4, "test": 4}
    train = open_split(tmp_path, "train")
    assert (train.image_column, train.label_columns) == ("image", ["size"])
    assert train.column("size") == ["small", "large", "small", "large"]
    assert train.image(3).size == (8, 8)


def test_words_of_splits_in_names_of_images_lose_no_row(tmp_path):
    save(tmp_path, NAMES)
    metadata(tmp_path, NAMES)
    assert sizes(tmp_path) == {"train": 4}


def test_the_folders_that_metadata_names_are_splits(tmp_path):
    names = ["train/a.png", "train/b.png", "test/a.png"]
    save(tmp_path, names)
    metadata(tmp_path, names)
    assert sizes(tmp_path) == {"train": 2, "test": 1}


def test_images_that_metadata_does_not_name_are_said(tmp_path):
    save(tmp_path, NAMES)
    metadata(tmp_path, NAMES[:3])
    (note,) = open_split(tmp_path, "train").notes
    assert "left out: 1 images" in note
    assert "boat.png" in note


def test_metadata_that_cannot_be_used(tmp_path):
    save(tmp_path, ["train/a.png", "b.png"])
    path = metadata(tmp_path, ["train/a.png", "b.png"])
    with pytest.raises(InputError, match="1 of 2 rows are in no folder of a split"):
        available_splits(tmp_path)
    metadata(tmp_path, ["a.png"], column="name")
    with pytest.raises(InputError, match="has no column 'file_name'"):
        available_splits(tmp_path)
    metadata(tmp_path, ["../secret.png"])
    with pytest.raises(InputError, match=r"'\.\./secret\.png' is outside the folder"):
        available_splits(tmp_path)
    metadata(tmp_path, ["gone.png"])
    with pytest.raises(InputError, match=r"none of the 1 images .* first 'gone\.png'"):
        available_splits(tmp_path)
    path.unlink()
    metadata(tmp_path / "train", ["a.png"])
    metadata(tmp_path, ["train/a.png"])
    with pytest.raises(InputError, match="both describe the images of one folder"):
        available_splits(tmp_path)


# ---- tables ----


def test_files_of_a_table_are_of_the_splits_that_they_say(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "val", "my_test"):
        parquet(tmp_path / f"{name}.parquet")
    assert sizes(tmp_path) == {"train": 8, "validation": 4, "test": 4}
    parquet(tmp_path / "more.parquet")
    with pytest.raises(InputError, match=r"more\.parquet does not say which split it is of"):
        available_splits(tmp_path)


def test_parts_of_splits_with_names_of_their_own(tmp_path):
    """As the hub's repositories have them."""
    for name in ("train", "extra"):
        parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    assert sizes(tmp_path) == {"train": 4, "extra": 4}


def test_folders_of_splits_of_tables(tmp_path):
    for split in ("train", "test"):
        parquet(tmp_path / split / "0.parquet")
        parquet(tmp_path / split / "1.parquet")
    assert sizes(tmp_path) == {"train": 8, "test": 8}


def test_outputs_inside_the_data_are_no_data(tmp_path):
    """A run and a cache that were written into the folder, and the page of a study."""
    parquet(tmp_path / "data.parquet")
    for name, files in {
        "run": ("config.yaml", ".lock", "predictions.parquet"),
        "runs/first": ("config.yaml", "adapter.safetensors", "predictions.parquet"),
    }.items():
        (tmp_path / name).mkdir(parents=True)
        for file in files:
            (tmp_path / name / file).write_text("")
        pq.write_table(pa.table({"image": [0, 1], "task": ["a", "a"]}), tmp_path / name / "predictions.parquet")
    assert sizes(tmp_path) == {"train": 4}


README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: http://127.0.0.1:9/x.parquet
dataset_info:
  features:
  - name: url
    dtype: image
---
"""


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar", "csv", "jsonl", "folders", "metadata"])
def test_a_readme_is_not_followed(kind, tmp_path, monkeypatch):
    """`datasets` fetches the addresses that a README.md of a folder lists. Those that a table holds are paths, of no file here."""
    rows = [{"image": "http://127.0.0.1:9/x.png", "bright": number % 2} for number in range(4)]
    if kind == "parquet":
        parquet(tmp_path / "train.parquet")
    elif kind == "arrow":
        datasets.Dataset.from_list(rows).save_to_disk(tmp_path)
    elif kind == "tar":
        with tarfile.open(tmp_path / "train.tar", "w") as file:
            for number in range(4):
                for suffix, content in (("png", encode(picture("red", number, 8))), ("cls", b"1")):
                    about = tarfile.TarInfo(f"{number}.{suffix}")
                    about.size = len(content)
                    file.addfile(about, io.BytesIO(content))
    elif kind in ("csv", "jsonl"):
        lines = ["image,bright", *(f"{row['image']},{row['bright']}" for row in rows)]
        lines = lines if kind == "csv" else [json.dumps(row) for row in rows]
        (tmp_path / f"train.{kind}").write_text("\n".join(lines))
    else:
        save(tmp_path, [f"{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(4)])
        if kind == "metadata":
            metadata(tmp_path, [f"{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(4)])
    (tmp_path / "README.md").write_text(README)

    def refuse(*arguments):
        pytest.fail("an address was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert sum(sizes(tmp_path).values()) == 4
    split = open_split(tmp_path, "train")
    assert len(split.fingerprint) == 64
    if kind in ("arrow", "csv", "jsonl"):
        with pytest.raises(BadImageError, match="there is no such file"):
            split.image(0)
    else:
        assert split.image(0).size == (8, 8)


@pytest.mark.parametrize("name", ["zip:x", "[ab]", "x*", "a?b", "a#b", "100%20", ".hidden"])
def test_folders_and_files_of_any_name(name, tmp_path):
    """`datasets` takes names for patterns and protocols."""
    parquet(tmp_path / name / "train.parquet")
    parquet(tmp_path / "other" / f"x{name} train.parquet")
    parquet(tmp_path / "other" / "test.parquet", 2)
    assert sizes(tmp_path / name) == {"train": 4}
    assert sizes(tmp_path / "other") == {"train": 4, "test": 2}


def test_names_that_are_addresses_to_datasets_are_refused(tmp_path):
    parquet(tmp_path / "a::https:" / "example.org" / "train.parquet")
    with pytest.raises(InputError, match="has '::' in it, which `datasets` takes for an address; rename it"):
        open_split(tmp_path / "a::https:" / "example.org", "train")


def test_a_table_in_the_folder_of_a_class_is_not_the_data(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name, [f"{number}.png" for number in range(10)])
    parquet(tmp_path / "cat" / "features.parquet")
    assert label_names(open_split(tmp_path, "train"), "label") == ["cat", "dog"]


@pytest.mark.parametrize("values", [[[0.5] * 320] * 4, [0.5, 1.5, 2.5, 3.5], [1, 2, 3, 4], [[[0.5, 1.0]] * 2] * 4])
def test_numbers_are_no_images(values, tmp_path):
    """An embedding would be a picture that is one pixel high."""
    parquet(tmp_path / "train.parquet", embedding=values)
    wrong = r"'embedding' .* does not hold images: it holds (List|float|int).*--embeddings embedding;"
    with pytest.raises(InputError, match=wrong):
        open_split(tmp_path, "train", image_column="embedding")


def test_paths_are_relative_to_the_folder(tmp_path, monkeypatch):
    for name, side in (("mine", 8), ("other", 12)):
        (tmp_path / name / "img").mkdir(parents=True)
        for number in range(4):
            picture("red", number, side).save(tmp_path / name / "img" / f"{number}.png")
    pq.write_table(
        pa.table({"image": [f"img/{number}.png" for number in range(4)]}), tmp_path / "mine" / "train.parquet"
    )
    monkeypatch.chdir(tmp_path / "other")
    split = open_split("../mine", "train")
    assert split.image(0).size == (8, 8)
    before = split.fingerprint
    monkeypatch.chdir(tmp_path)
    assert open_split("mine", "train").fingerprint == before


def test_a_path_out_of_the_folder_is_refused_whatever_is_skipped(tmp_path):
    """Such data are not what they seem, or the folder is the wrong one: no picture of theirs is merely bad."""
    save(tmp_path, ["secret.png", "mine/1.png"])
    for paths in (["1.png", "../secret.png"], ["1.png", "x/../../secret.png"]):
        pq.write_table(pa.table({"image": paths, "bright": [0, 1]}), tmp_path / "mine" / "train.parquet")
        split = open_split(tmp_path / "mine", "train")
        message = r"secret\.png' is outside the folder .*mine; give the folder that holds all images as --data"
        with pytest.raises(InputError, match=message) as refused:
            split.image(1)
        assert not isinstance(refused.value, BadImageError)
        with pytest.raises(InputError, match=message):
            _ = split.fingerprint
