"""An S3 service on this machine: answers go to its bucket from several processes; what it refuses is one line."""

import importlib.util

import numpy as np
import pytest

from comodulation.places import place
from support.command import comodulate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "upath")),
        reason="needs s3fs and moto[server]",
    ),
    pytest.mark.filterwarnings("default"),  # of the service's own packages
]


@pytest.fixture
def service(monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def test_embeddings_and_answers_in_s3(service, tmp_path):
    rng = np.random.default_rng(0)
    bucket = place("s3://photos")
    bucket.mkdir()
    for name, rows in (("known.npy", 120), ("asked.npy", 900)):
        np.save(tmp_path / name, rng.normal(size=(rows, 6)).astype(np.float16))
        (bucket / "in" / name).write_bytes((tmp_path / name).read_bytes())
    kinds = np.load(tmp_path / "known.npy")[:, :3].argmax(1)
    (bucket / "in" / "labels.csv").write_text("\n".join(["kind", *("abc"[one] for one in kinds)]) + "\n")
    words = ["--embeddings", "s3://photos/in/known.npy", "--labels", "s3://photos/in/labels.csv", "--method", "linear"]
    outcome = comodulate("fit", *words, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert outcome.status == 0, outcome.err
    words = ["predict", tmp_path / "run", "s3://photos/in/asked.npy", "--rows-per-shard", 300, "--cluster", "local"]
    outcome = comodulate(*words, "--out", "s3://photos/answers", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["made"] == 3
    (bucket / "answers" / "part-000001.parquet").unlink()
    outcome = comodulate(*words, "--out", "s3://photos/answers", "--resume", "--json")
    assert outcome.json["made"] == 1
    outcome = comodulate(*words, "--out", "s3://absent/answers")
    assert outcome.status == 1
    assert "cannot" in outcome.err
    assert outcome.err.count("\n") == 1
