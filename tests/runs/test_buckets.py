"""Inputs and answers in a bucket: the bytes of those on this machine, finished shards stay, several processes write one folder.

The bucket is fsspec's memory, or, for several processes, a folder by its address, which fsspec reaches like one.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comodulation.errors import InputError, RunError
from comodulation.places import place
from comodulation.processes import cluster
from comodulation.runs import shards, stream_answers
from support.command import comodulate

pytestmark = pytest.mark.usefixtures("undrawn")

pytest.importorskip("upath")

ROWS, WIDTH = 900, 6


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run on embeddings, embeddings to ask about, and its answers in a folder of this machine."""
    folder = tmp_path_factory.mktemp("buckets")
    rng = np.random.default_rng(0)
    known, asked = (rng.normal(size=(rows, WIDTH)).astype(np.float16) for rows in (120, ROWS))
    np.save(folder / "known.npy", known)
    np.save(folder / "asked.npy", asked)
    pq.write_table(pa.table({"vector": list(asked)}), folder / "asked.parquet", row_group_size=400)
    lines = [f"{'abc'[row[:3].argmax()]},{'yes' if row[3] > 0 else 'no'}" for row in known]
    (folder / "labels.csv").write_text("\n".join(["kind,warm", *lines]) + "\n")
    words = ["--embeddings", folder / "known.npy", "--labels", folder / "labels.csv", "--method", "linear"]
    outcome = comodulate("fit", *words, "--out", folder / "run", "--cache", folder / "cache")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def bucket(here, tmp_path):
    """A folder of a bucket that holds what the folder on this machine does."""
    found = place(f"memory://tests{tmp_path}")
    for name in ("asked.npy", "asked.parquet", "known.npy", "labels.csv"):
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_bytes((here / name).read_bytes())
    return found


def answers(out):
    """Shards by name, without the name of the file that was asked about."""
    parts = sorted((path for path in out.iterdir() if path.suffix == ".parquet"), key=lambda path: path.name)
    tables = {path.name: pq.read_table(pa.BufferReader(path.read_bytes())) for path in parts}
    return {name: one.drop_columns(["file"]) for name, one in tables.items()}


@pytest.mark.parametrize("name", ["asked.npy", "asked.parquet"])
def test_from_a_bucket_to_a_bucket(name, here, bucket, tmp_path):
    done = stream_answers(here / "run", [bucket / name], bucket / "answers", rows_per_shard=300)
    assert (done.rows, done.bad, done.made) == (ROWS, 0, 3)
    stream_answers(here / "run", [here / name], tmp_path / "answers", rows_per_shard=300)
    assert answers(bucket / "answers") == answers(tmp_path / "answers")
    names = sorted(path.name for path in (bucket / "answers").iterdir())
    assert names == ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet", "predictions.json"]


def test_what_is_finished_stays(here, bucket, monkeypatch):
    """Interrupted in the second shard; a torn one, which a bucket never holds by itself, is made again."""
    given, made = (here / "run", [bucket / "asked.npy"], bucket / "answers"), []

    def fails(columns, schema, batch):
        made.append(len(batch))
        if len(made) == 2:
            raise RunError("the power failed")
        return computed(columns, schema, batch)

    computed = shards.computed
    monkeypatch.setattr(shards, "computed", fails)
    with pytest.raises(RunError, match="the power failed"):
        stream_answers(*given, rows_per_shard=300)
    monkeypatch.undo()
    assert sorted(path.name for path in (bucket / "answers").iterdir()) == ["part-000000.parquet", "predictions.json"]
    whole = (bucket / "answers" / "part-000000.parquet").read_bytes()
    with pytest.raises(InputError, match="holds answers already; --resume continues them"):
        stream_answers(*given, rows_per_shard=300)
    assert stream_answers(*given, rows_per_shard=300, resume=True).made == 2
    (bucket / "answers" / "part-000001.parquet").write_bytes(b"torn")
    assert stream_answers(*given, rows_per_shard=300, resume=True).made == 1
    assert (bucket / "answers" / "part-000000.parquet").read_bytes() == whole


def test_several_processes_write_one_folder(here, tmp_path):
    out = place(f"file://{tmp_path}/bucket/answers")
    with cluster("local", 2) as resources:
        done = stream_answers(
            here / "run", [place(f"file://{here}/asked.npy")], out, rows_per_shard=300, resources=resources
        )
    assert (done.rows, done.made) == (ROWS, 3)
    stream_answers(here / "run", [here / "asked.npy"], tmp_path / "answers", rows_per_shard=300)
    assert answers(tmp_path / "bucket" / "answers") == answers(tmp_path / "answers")


def test_the_command_line(here, bucket, tmp_path):
    """Embeddings and labels of a bucket are learned from as those of this machine, and its answers go there."""
    words = ["--embeddings", bucket / "known.npy", "--labels", bucket / "labels.csv", "--method", "linear"]
    outcome = comodulate("fit", *words, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run" / "head.safetensors").read_bytes() == (here / "run" / "head.safetensors").read_bytes()
    assert f"data: {bucket / 'known.npy'}" in (tmp_path / "run" / "config.yaml").read_text()
    outcome = comodulate("predict", tmp_path / "run", bucket / "asked.parquet", "--out", bucket / "answers", "--json")
    assert outcome.json["rows"] == ROWS
    outcome = comodulate("predict", tmp_path / "run", bucket / "asked.npy", "--json")
    assert len(outcome.json["embeddings"]) == ROWS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope://a/b.npy"], "'nope://a/b.npy': nope:// is no kind of address"),
        (["memory://tests/absent.npy"], "no such file: memory://tests/absent.npy"),
        (["ASKED", "--out", "memory://tests/answers.csv"], "a table is written to this machine; give a folder"),
    ],
)
def test_what_is_refused(words, message, here):
    given = [here / "asked.npy" if word == "ASKED" else word for word in words]
    outcome = comodulate("predict", here / "run", *given)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
