"""Features in shards: those of an extraction, the same bytes however they come about, learned from as embeddings."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from comodulation.data import images_in, label_table_splits, read_vectors
from comodulation.data.features import BackboneSettings, TextSettings, extract, features_of_given
from comodulation.errors import InputError
from comodulation.files import input_path
from comodulation.places import place as bucket_place
from support.command import comodulate
from support.texts import write_encoder

SMALL = ["--backbone", "test_resnet", "--weights", "random"]
NUMBER = 40
COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of two colours in a folder, and a table of them, in another order."""
    folder = tmp_path_factory.mktemp("extracted")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    lines = []
    for number in range(NUMBER):
        name = list(COLOURS)[number % 2]
        pixels = np.clip(rng.normal(COLOURS[name], 25, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02d}.png")
        lines.insert(0, f"photos/{number:02d}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(["image,colour", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """Features of the table's pictures in three shards, made once."""
    words = ["extract", place / "labels.csv", "--out", place / "whole", *SMALL, "--image-size", 32]
    outcome = comodulate(*words, "--rows-per-shard", 16, "--json")
    assert outcome.json | {"folder": ""} == {
        "folder": "", "what": "image", "rows": NUMBER, "bad": 0, "cut": 0, "made": 3, "shards": 3,
    }  # fmt: skip
    return place / "whole"


def table(out):
    return pa.concat_tables([pq.read_table(part) for part in sorted(out.glob("part-*.parquet"))])


def vectors(out):
    return np.array(table(out)["embedding"].to_pylist(), np.float32)


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_features_are_those_of_an_extraction(place, whole, tmp_path):
    """Two other routes to them: of pictures given in Python, and of a data set through the cache."""
    found = table(whole)
    paths = [place / "photos" / f"{number:02d}.png" for number in reversed(range(NUMBER))]
    assert found["file"].to_pylist() == list(map(str, paths))
    assert found.schema.field("embedding").type == pa.list_(pa.float16())
    encoder = BackboneSettings("test_resnet", "random", 32, output="vector").encoder()
    given = features_of_given(encoder, paths).numpy()
    np.testing.assert_allclose(vectors(whole), given, rtol=2e-3, atol=1e-4)
    rows = {Path(file).name: row for row, file in enumerate(found["file"].to_pylist())}
    for split in label_table_splits(place / "labels.csv", place).values():
        own = [rows[Path(cell["path"]).name] for cell in split.table["image"]]
        stored = extract(encoder, split, tmp_path).rows(slice(None)).flatten(1).numpy()
        np.testing.assert_allclose(vectors(whole)[own], stored, rtol=2e-3, atol=1e-4)


def test_what_is_finished_stays_and_the_rest_gets_the_same_bytes(place, whole, tmp_path):
    """A shard that is gone and one that is torn are made again."""
    before = contents(whole)
    (whole / "part-000001.parquet").unlink()
    torn = whole / "part-000002.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    words = ["extract", place / "labels.csv", "--out", whole, *SMALL, "--image-size", 32, "--rows-per-shard", 16]
    assert comodulate(*words, "--resume", "--json").json["made"] == 2
    assert contents(whole) == before


def test_predict_finds_the_same_pictures_in_tables(place, tmp_path):
    """In the order of the rows, whether they are there or not; a cell without a path is refused."""
    (tmp_path / "some.csv").write_text(f"n,file\n1,{place}/photos/03.png\n2,absent.png\n3,{place}/photos/01.png\n")
    found = [place / "photos" / "03.png", tmp_path / "absent.png", place / "photos" / "01.png"]
    assert images_in([tmp_path / "some.csv"]) == found
    (tmp_path / "some.csv").write_text(f"n,file\n1,{place}/photos/03.png\n2,\n")
    with pytest.raises(InputError, match=r"some\.csv, line 3: column 'file' holds '', expected the path of an image"):
        images_in([tmp_path / "some.csv"])


def test_in_a_bucket(place, whole):
    """The same bytes there, and they are read from there."""
    pytest.importorskip("upath")
    words = ["extract", place / "labels.csv", "--out", "memory://features/whole", *SMALL, "--image-size", 32]
    assert comodulate(*words, "--rows-per-shard", 16).status == 0
    there = bucket_place("memory://features/whole")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == contents(whole)
    assert input_path(str(there)).is_dir()
    np.testing.assert_array_equal(read_vectors(input_path(str(there)))[0], vectors(whole).astype(np.float16))


def test_fit_and_predict_read_the_shards(place, whole, tmp_path):
    """Beside the table whose pictures they are of, in its order; the run answers about the same shards."""
    words = [
        "--embeddings",
        whole,
        "--labels",
        place / "labels.csv",
        "--task",
        "colour",
        "--method",
        "linear",
        "--quality",
        "fast",
    ]
    fitted = comodulate("fit", *words, "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--json")
    assert fitted.status == 0, fitted.err
    outcome = comodulate("predict", tmp_path / "run", whole, "--out", tmp_path / "answers", "--json")
    assert (outcome.status, outcome.json["rows"]) == (0, NUMBER), outcome.err
    labels = [line.split(",")[1] for line in (place / "labels.csv").read_text().split()[1:]]
    assert table(tmp_path / "answers")["colour"].to_pylist() == labels


def test_a_bad_picture_ends_it_or_is_named(place, tmp_path):
    """Where the others' features stay in their rows, and `fit` leaves it out as it does any row without a vector."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.png").write_bytes((place / "photos" / f"{number:02d}.png").read_bytes())
    (photos / "2.png").write_text("no picture")
    words = ["extract", photos, "--out", tmp_path / "out", *SMALL, "--image-size", 32, "--rows-per-shard", 2]
    outcome = comodulate(*words)
    assert outcome.status == 2
    assert f"{photos / '2.png'}" in outcome.err
    assert "with --skip-bad the command continues without it" in outcome.err
    assert {path.name for path in (tmp_path / "out").glob("part*")} == {"part-000000.parquet"}
    outcome = comodulate(*words, "--resume", "--skip-bad", "--json")
    assert (outcome.status, outcome.json["bad"], outcome.json["made"]) == (0, 1, 1)
    found = table(tmp_path / "out").to_pylist()
    assert [one["embedding"] is None for one in found] == [False, False, True, False]
    assert [one["error"] is None for one in found] == [True, True, False, True]


def test_texts_and_their_ids(tmp_path):
    """Of a parquet with ids; each vector is that of the text alone, up to the rounding of float16."""
    pytest.importorskip("transformers")
    texts = ["a short one", "another text, which is longer than the first", "three"]
    pq.write_table(pa.table({"id": ["a", "b", "c"], "query": texts}), tmp_path / "texts.parquet")
    write_encoder(tmp_path / "encoder")
    words = ["--text", "query", "--backbone", tmp_path / "encoder", "--out", tmp_path / "out"]
    outcome = comodulate("extract", tmp_path / "texts.parquet", *words)
    assert outcome.status == 0, outcome.err
    found = table(tmp_path / "out")
    assert (found["id"].to_pylist(), found["row"].to_pylist()) == (["a", "b", "c"], [0, 1, 2])
    given = features_of_given(TextSettings("query", str(tmp_path / "encoder")).encoder(), texts).numpy()
    np.testing.assert_allclose(vectors(tmp_path / "out"), given, atol=2e-3)


def test_the_size_of_small_pictures_is_settled_as_by_fit(place, tmp_path):
    words = ["extract", place / "photos", "--out", tmp_path / "out", *SMALL]
    outcome = comodulate(*words)
    assert outcome.status == 0, outcome.err
    split = label_table_splits(place / "labels.csv", place)["train"]
    settings, note = BackboneSettings("test_resnet", "random", None, output="vector").settled(split)
    assert note in outcome.err
    assert json.loads((tmp_path / "out" / "features.json").read_text())["image_size"] == settings.image_size


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["PHOTOS", "--text", "query", "--image-size", 32], r"--image-size 32 is of images, and --text names a column"),
        (["absent.png"], r"no such image: .*absent.png"),
        (["TABLE", "--image-size", 8], r"image size 8 is out of range"),
        (["TABLE", "--devices", 0], r"--devices 0 is out of range, expected at least 1"),
        (["TABLE", "--devices", 2, "--cluster", "local"], r"give either --devices"),
        (["TABLE", "--precision", "float16"], r"unknown precision 'float16'"),
        (["WORDS"], r"words.csv has no column of paths to files in .*; expected one, among a, b"),
        (
            ["PHOTOS", "--out", "WHOLE", *SMALL, "--image-size", 32],
            r"holds features already; --resume continues them",
        ),
        (
            ["PHOTOS", "--out", "WHOLE", *SMALL, "--image-size", 64, "--resume"],
            r"holds features with another encoder|with another image_size",
        ),
    ],
)
def test_refused(words, pattern, place, whole, tmp_path):
    (tmp_path / "words.csv").write_text("a,b\n1,2\n3,4\n")
    names = {
        "PHOTOS": place / "photos", "TABLE": place / "labels.csv", "WHOLE": whole, "WORDS": tmp_path / "words.csv"
    }  # fmt: skip
    before = contents(whole)
    given = [names.get(word, word) for word in words]
    outcome = comodulate("extract", *given, *([] if "WHOLE" in words else ["--out", tmp_path / "out"]))
    assert outcome.status == 2
    assert re.search(pattern, outcome.line), outcome.line
    assert not (tmp_path / "out").exists()
    assert contents(whole) == before


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(place, whole, tmp_path):
    words = ["extract", place / "labels.csv", "--out", tmp_path / "out", *SMALL, "--image-size", 32]
    outcome = comodulate(*words, "--rows-per-shard", 16, "--devices", 2, "--json")
    assert (outcome.status, outcome.json["made"]) == (0, 3), outcome.err
    assert contents(tmp_path / "out") == contents(whole)
