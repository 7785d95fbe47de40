"""Answers in shards: the same as one by one, the same bytes however they come about, nothing of half a file."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from comodulation.data.features import Batches
from comodulation.errors import RunError
from comodulation.files import read_json
from comodulation.processes import Resources
from comodulation.runs import Run, shards, stream_answers, streaming
from comodulation.runs.answer_columns import AnswerColumns
from support.command import comodulate

pytestmark = pytest.mark.usefixtures("undrawn")

MANIFEST = AnswerColumns.manifest
ROWS, WIDTH = 2500, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on embeddings with a binary and a categorical column, and embeddings to ask about."""
    folder = tmp_path_factory.mktemp("streamed")
    rng = np.random.default_rng(0)
    known, asked = (rng.normal(size=(rows, WIDTH)).astype(np.float16) for rows in (120, ROWS))
    np.save(folder / "known.npy", known)
    np.save(folder / "asked.npy", asked)
    lines = [f"{'abc'[row[:3].argmax()]},{'yes' if row[3] > 0 else 'no'}" for row in known]
    (folder / "labels.csv").write_text("\n".join(["kind,warm", *lines]) + "\n")
    words = ["--embeddings", folder / "known.npy", "--labels", folder / "labels.csv", "--method", "linear"]
    outcome = comodulate("fit", *words, "--out", folder / "run", "--cache", folder / "cache")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """The answers in one shard of 1,000 rows after the other, made once."""
    out = place / "whole"
    done = stream_answers(place / "run", [place / "asked.npy"], out, rows_per_shard=1000)
    assert (done.rows, done.bad, done.made, done.shards) == (ROWS, 0, 3, 3)
    return out


def table(out):
    return pa.concat_tables([pq.read_table(part) for part in sorted(out.glob("part-*.parquet"))])


def parts(out):
    return {part.name: part.read_bytes() for part in out.glob("part-*.parquet")}


def test_answers_are_those_of_predict(place, whole):
    """Prediction, confidence and every class's probability of each row, up to the rounding of sums in larger batches."""
    rows = [0, 1, 999, 1000, 1024, 2499]
    found = table(whole).take(rows).to_pylist()
    run = Run.open(place / "run")
    asked = run.predict(np.load(place / "asked.npy")[rows])
    schema = pq.read_schema(whole / "part-000000.parquet")
    for row, streamed, one in zip(rows, found, asked, strict=True):
        assert (streamed["row"], streamed["file"], streamed["error"]) == (row, str(place / "asked.npy"), None)
        for task, answer in one["tasks"].items():
            assert streamed[task] == answer["prediction"]
            assert streamed[f"{task} probability"] == pytest.approx(answer["confidence"], abs=1e-6)
            classes = json.loads(schema.field(f"{task} probabilities").metadata[b"classes"])
            assert dict(zip(classes, streamed[f"{task} probabilities"], strict=True)) == pytest.approx(
                answer["probabilities"], abs=1e-6
            )
            assert sum(streamed[f"{task} probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["parquet", "safetensors", "arrow", "folder"])
def test_files_of_every_kind_and_folders_of_them(kind, place, whole, tmp_path):
    """The same numbers in another file: the same answers, with batches and row groups where they may be."""
    array = np.load(place / "asked.npy")
    column = pa.array(list(array), pa.list_(pa.float16()))
    given = tmp_path / f"asked.{kind}"
    if kind == "parquet":
        pq.write_table(
            pa.table({"vector": column, "id": [f"no. {row}" for row in range(ROWS)]}), given, row_group_size=700
        )
    elif kind == "safetensors":
        save_file({"vectors": array}, given)
    elif kind == "arrow":
        with pa.OSFile(str(given), "wb") as file, pa.ipc.new_file(file, pa.schema({"vector": column.type})) as writer:
            writer.write_table(pa.table({"vector": column}))
    else:
        given.mkdir()
        for number, part in enumerate(np.split(array, [300, 1900])):
            np.save(given / f"{number}.npy", part)
        (given / "notes.md").write_text("not asked about")
    out = tmp_path / "out"
    stream_answers(place / "run", [given], out, rows_per_shard=1000)
    found, wanted = table(out), table(whole)
    for name in ("kind", "warm"):
        assert found[name].to_pylist() == wanted[name].to_pylist()
        values = [np.array(one[f"{name} probabilities"].to_pylist()) for one in (found, wanted)]
        np.testing.assert_allclose(*values, atol=1e-6)
    if kind == "parquet":
        assert found["id"].to_pylist() == [f"no. {row}" for row in range(ROWS)]
    if kind == "folder":
        assert found["row"].to_pylist() == [*range(300), *range(1600), *range(600)]


def test_what_is_finished_stays_and_the_rest_gets_the_same_bytes(place, whole, tmp_path, monkeypatch):
    """Interrupted in the second shard: the first is there, no other; a damaged one is made again."""
    out, made = tmp_path / "out", []
    given = (place / "run", [place / "asked.npy"], out)

    def fails(columns, schema, batch):
        made.append(len(batch))
        if len(made) == 3:
            raise RunError("the power failed")
        return computed(columns, schema, batch)

    computed = shards.computed
    monkeypatch.setattr(shards, "computed", fails)
    with pytest.raises(RunError, match="the power failed"):
        stream_answers(*given, rows_per_shard=500)
    monkeypatch.undo()
    assert {path.name for path in out.iterdir()} == {MANIFEST, ".lock", "part-000000.parquet", "part-000001.parquet"}
    torn = out / "part-000001.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    told = []
    done = stream_answers(*given, rows_per_shard=500, resume=True, report=lambda *values: told.append(values))
    assert (done.made, done.shards, told[0], told[-1]) == (4, 5, (500, ROWS), (ROWS, ROWS))
    stream_answers(*given[:2], tmp_path / "at once", rows_per_shard=500)
    assert parts(out) == parts(tmp_path / "at once")
    assert {path.name for path in out.iterdir()} == {MANIFEST, *parts(out)}
    again = stream_answers(*given, rows_per_shard=500, resume=True)
    assert again.made == 0


def test_rows_that_cannot_be_used_are_named_and_the_others_answered(place, whole, tmp_path):
    array = np.load(place / "asked.npy")
    array[7, 2], array[1001] = np.inf, np.nan
    np.save(tmp_path / "asked.npy", array)
    outcome = comodulate(
        "predict", place / "run", tmp_path / "asked.npy", "--out", tmp_path / "out", "--rows-per-shard", 1000
    )
    assert outcome.status == 2
    assert "2 of 2500 embeddings cannot be read" in outcome.err
    found = table(tmp_path / "out")
    assert {row: one for row, one in enumerate(found["error"].to_pylist()) if one} == {
        7: f"{tmp_path / 'asked.npy'}, row 8 holds infinity at place 2; expected finite numbers",
        1001: f"{tmp_path / 'asked.npy'}, row 1002 is missing: it holds no numbers",
    }
    fine = [row for row in range(ROWS) if row not in (7, 1001)]
    for name in ("kind", "warm probability", "warm probabilities"):
        assert found[name].take([7, 1001]).to_pylist() == [None, None]
        assert found[name].take(fine).to_pylist() == table(whole)[name].take(fine).to_pylist()
    again = comodulate(
        "predict",
        place / "run",
        tmp_path / "asked.npy",
        "--out",
        tmp_path / "out",
        "--rows-per-shard",
        1000,
        "--resume",
        "--json",
    )
    assert (again.status, again.json["bad"], again.json["made"]) == (2, 2, 0)


def test_missing_rows_are_named_wherever_batches_begin(place, whole, tmp_path):
    """The first row of a file, and all rows of its last batch."""
    rows = list(np.load(place / "asked.npy")[:1025])
    rows[0] = rows[1024] = None
    pq.write_table(pa.table({"vector": pa.array(rows, pa.list_(pa.float16()))}), tmp_path / "asked.parquet")
    done = stream_answers(place / "run", [tmp_path / "asked.parquet"], tmp_path / "out")
    assert (done.rows, done.bad) == (1025, 2)
    found = table(tmp_path / "out")
    errors = {row: one for row, one in enumerate(found["error"].to_pylist()) if one}
    assert set(errors) == {0, 1024}
    assert all(f"row {row + 1} is missing" in one for row, one in errors.items())
    assert found["kind"].to_pylist()[1:1024] == table(whole)["kind"].to_pylist()[1:1024]


def test_a_shard_that_has_not_come_about_is_no_success(place, tmp_path, monkeypatch):
    """Planned where no GPU is, for processes that have one: nothing is computed here."""
    monkeypatch.setattr(streaming, "run", lambda pieces, *others, **more: None)
    with pytest.raises(RunError, match=r"part-000000\.parquet is not complete"):
        stream_answers(place / "run", [place / "asked.npy"], tmp_path / "out", resources=Resources(1, gpus=1))


def test_a_shard_that_begins_again_counts_once(place, tmp_path, monkeypatch):
    """Its first process is lost after 600 rows, three of them cut."""

    def loses(pieces, resources, make_worker, on_event, shared):
        on_event((pieces[0], 600, 3))
        run(pieces, resources, make_worker, on_event, shared=shared)

    run = streaming.run
    monkeypatch.setattr(streaming, "run", loses)
    told = []
    done = stream_answers(
        place / "run", [place / "asked.npy"], tmp_path / "out", rows_per_shard=1000,
        report=lambda *values: told.append(values),
    )  # fmt: skip
    assert [rows for rows, _ in told] == [0, 600, 1000, 2000, ROWS]
    assert done.cut == 0


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(place, whole, tmp_path):
    words = ["--out", tmp_path / "out", "--rows-per-shard", 1000, "--cluster", "local", "--json"]
    outcome = comodulate("predict", place / "run", place / "asked.npy", *words)
    assert (outcome.status, outcome.json["rows"], outcome.json["made"]) == (0, ROWS, 3)
    assert parts(tmp_path / "out") == parts(whole)


def test_pictures(run, tmp_path):
    """Of a method with layers, whose answers are those of ``predict``; a picture that is none is named."""
    rng = np.random.default_rng(1)
    inner = tmp_path / "photos" / "b"
    inner.mkdir(parents=True)
    paths = [tmp_path / "photos" / "a.png", inner / "1.png", inner / "2.png", tmp_path / "photos" / "c.png"]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    paths[2].write_text("no picture")
    outcome = comodulate("predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--rows-per-shard", 3)
    assert outcome.status == 2
    found = table(tmp_path / "out").to_pylist()
    assert [one["file"] for one in found] == list(map(str, paths))
    assert [one["error"] is None for one in found] == [True, True, False, True]
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    paths[0].rename(tmp_path / "photos" / "z.png")
    again = comodulate(
        "predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--rows-per-shard", 3, "--resume"
    )
    assert (again.status, "holds answers with another inputs" in again.line) == (2, True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "photos" / "z.png").rename(paths[0])
    opened = Run.open(run)
    for one in (found[0], found[3]):
        (alone,) = opened.predict([one["file"]])
        for task, answer in alone["tasks"].items():
            assert one[task] == answer["prediction"]
            assert one[f"{task} probability"] == pytest.approx(answer["confidence"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--out", "answers.csv", "--resume"], r"write to a folder; expected one with --out, got answers.csv"),
        (["--rows-per-shard", 5], r"write to a folder; expected one with --out, got none"),
        (["--out", "OUT", "--rows-per-shard", 0], r"--rows-per-shard must be at least 1, got 0"),
        (["--out", "OUT", "--task", "kinds"], r"did you mean 'kind'"),
        (["--out", "OUT", "--engine", "onxx"], r"unknown engine 'onxx'"),
        (["--out", "RUN"], r"is not empty and no folder of answers"),
        (["--out", "WHOLE"], r"holds answers already; --resume continues them"),
        (["--out", "WHOLE", "--resume", "--task", "kind"], r"holds answers with another tasks"),
        (
            ["--out", "WHOLE", "--resume", "--rows-per-shard", 7],
            r"holds answers with another rows_per_shard \(1000, now 7\)",
        ),
    ],
)
def test_refused(words, pattern, place, whole, tmp_path):
    names = {"OUT": tmp_path / "out", "RUN": place / "run", "WHOLE": whole}
    before = {path: path.read_bytes() for path in whole.iterdir()}
    outcome = comodulate("predict", place / "run", place / "asked.npy", *[names.get(word, word) for word in words])
    assert outcome.status == 2
    assert re.search(pattern, outcome.line), outcome.line
    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in whole.iterdir()} == before


def test_a_run_that_decides_otherwise_does_not_go_on_with_the_answers(place, whole, tmp_path):
    """The same network, whose answers are chosen for another metric: nothing but metrics.json says so."""
    words = ["--embeddings", place / "known.npy", "--labels", place / "labels.csv", "--method", "linear"]
    fitted = comodulate("fit", *words, "--metric", "f1", "--out", tmp_path / "run", "--cache", place / "cache")
    assert fitted.status == 0, fitted.err
    for name in ("head.safetensors", "adapter.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (place / "run" / name).read_bytes()
    outcome = comodulate(
        "predict", tmp_path / "run", place / "asked.npy", "--out", whole, "--rows-per-shard", 1000, "--resume"
    )
    assert (outcome.status, "holds answers with another decisions" in outcome.line) == (2, True), outcome.line


def test_other_inputs_are_refused(place, whole, tmp_path):
    """A file of another shape; a file that has changed since; none at all."""
    np.save(tmp_path / "wide.npy", np.zeros((5, WIDTH + 1)))
    outcome = comodulate("predict", place / "run", tmp_path / "wide.npy", "--out", tmp_path / "out")
    assert (outcome.status, "expected (6,), as in training" in outcome.line) == (2, True)
    assert read_json(whole / MANIFEST)["inputs"][0]["rows"] == ROWS
    array = np.load(place / "asked.npy")
    array[0] = 0
    np.save(tmp_path / "asked.npy", array)
    outcome = comodulate("predict", place / "run", tmp_path / "asked.npy", "--out", whole, "--resume")
    assert (outcome.status, "holds answers with another inputs" in outcome.line) == (2, True)
    (tmp_path / "none").mkdir()
    outcome = comodulate("predict", place / "run", tmp_path / "none", "--out", tmp_path / "out")
    assert (outcome.status, "holds no files that end with" in outcome.line) == (2, True)


def test_memory_does_not_grow_with_the_number_of_rows(place, tmp_path):
    """Numbers that are held at once, by a count of the batches that are read and not yet answered."""
    from comodulation.runs.streamed_inputs import ReadBatch, read_ahead

    held, most = 0, 0

    def load():
        nonlocal held, most
        held += 1
        most = max(most, held)
        return ReadBatch(Batches([(torch.zeros(1, 1),)]), {}, None)

    for _ in read_ahead(load for _ in range(200)):
        held -= 1
    assert (held, most < 12) == (0, True)
