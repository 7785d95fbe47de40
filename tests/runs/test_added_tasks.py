"""`add-task`: a finished run gets tasks, in a folder of its own; the others keep their files and their bits."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from comodulation.networks.methods import all_tasks
from comodulation.runs.run import Run
from comodulation.tensors import read_tensors
from support.command import comodulate, fit
from support.synthetic import CLASSES, picture, snapshot

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def binary(data, cache, tmp_path_factory):
    """A finished run of two binary tasks."""
    folder = tmp_path_factory.mktemp("binary") / "run"
    outcome = fit(data, folder, cache, "--epochs", 20, labels=["--attribute", "warm", "--attribute", "bright"])
    assert outcome.status == 0, outcome.err
    return folder


def add(run, data, out, cache, *options):
    return comodulate("add-task", run, "--data", data, "--out", out, "--cache", cache, *options)


def assert_kept(before, after):
    """Answers to the old tasks, bit for bit; their layers and rows."""
    features = torch.rand(9, *before.backbone.feature_shape, generator=torch.Generator().manual_seed(0))
    count = torch.arange(before.family.num_tasks)
    assert torch.equal(all_tasks(after.method, features, count), all_tasks(before.method, features))
    assert (after.folder / "head.safetensors").read_bytes() == (before.folder / "head.safetensors").read_bytes()
    rows = read_tensors(after.folder / "adapter.safetensors")[0]
    for name, value in read_tensors(before.folder / "adapter.safetensors")[0].items():
        assert torch.equal(rows[name][: len(value)], value)


def test_binary_tasks(binary, data, cache, tmp_path):
    """Twice, one after the other: learned (the colours are visible), reported, and found by every other verb."""
    before = snapshot(binary)
    outcome = add(binary, data, tmp_path / "a", cache, "--attribute", "grey", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["added"][0]["test"]["tasks"]["grey"]["accuracy"] > 0.8
    outcome = add(tmp_path / "a", data, tmp_path / "b", cache, "--attribute", "cool")
    assert outcome.status == 0, outcome.err
    assert f"run folder: {tmp_path / 'b'}" in outcome.out
    assert snapshot(binary) == before
    first, second, third = (Run.open(folder) for folder in (binary, tmp_path / "a", tmp_path / "b"))
    assert third.family.tasks == ("warm", "bright", "grey", "cool")
    assert_kept(first, second)
    assert_kept(second, third)
    result = comodulate("evaluate", tmp_path / "b", "--data", data, "--cache", cache, "--json").json
    old = json.loads((binary / "metrics.json").read_text())["test"]["tasks"]
    for name, values in old.items():
        assert result["tasks"][name] == pytest.approx(values)
    added = [entry["test"]["tasks"] for entry in json.loads((tmp_path / "b" / "metrics.json").read_text())["added"]]
    assert result["tasks"]["grey"] == pytest.approx(added[0]["grey"])
    assert result["tasks"]["cool"]["accuracy"] == added[1]["cool"]["accuracy"] > 0.8
    picture("blue", 1).save(tmp_path / "blue.png")
    answers = comodulate("predict", tmp_path / "b", tmp_path / "blue.png", "--task", "warm", "--json").json
    assert (
        answers["images"]
        == comodulate("predict", binary, tmp_path / "blue.png", "--task", "warm", "--json").json["images"]
    )
    shared = Run.from_pretrained(third.save_pretrained(tmp_path / "shared"))
    assert shared.predict([tmp_path / "blue.png"], []) == third.predict([tmp_path / "blue.png"], [])


def test_groups_of_known_classes(run, data, cache, tmp_path):
    pairs = [text for name in ("red", "blue", "dark") for text in ("--group", f"pure={name}")]
    outcome = add(run, data, tmp_path / "a", cache, *pairs, "--json")
    assert outcome.status == 0, outcome.err
    grown = Run.open(tmp_path / "a")
    assert grown.family.tasks == (*Run.open(run).family.tasks, "pure")
    assert grown.family.members[-1] == tuple(CLASSES.index(name) for name in ("red", "blue", "dark"))
    assert_kept(Run.open(run), grown)
    assert outcome.json["added"][0]["test"]["tasks"]["pure"]["count"] == 15
    result = comodulate("evaluate", tmp_path / "a", "--data", data, "--cache", cache, "--json").json
    old = json.loads((run / "metrics.json").read_text())["test"]["tasks"]
    assert result["tasks"].keys() == old.keys()  # in this table no image is of the new group
    for name, values in old.items():
        assert result["tasks"][name] == pytest.approx(values)
    picture("blue", 1).save(tmp_path / "blue.png")
    answer = Run.open(tmp_path / "a").predict([tmp_path / "blue.png"], ["pure"])[0]["tasks"]["pure"]
    assert set(answer["probabilities"]) == {"red", "blue", "dark"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --task or --attribute .* or --group NAME=CLASS"),
        (["--attribute", "grey", "--group", "a=red"], "give either --task"),
        (["--attribute", "gray"], r"unknown column 'gray'; did you mean 'grey'\?"),
        (["--attribute", "warm"], "there is a task 'warm' already"),
        (["--attribute", "counted"], "is not binary"),
        (["--attribute", "all_missing"], "has no labels"),
        (["--group", "a=red"], "tasks are label columns: --task or --attribute adds one"),
        (["--task", "grey", "--attribute", "grey"], "a new task is given twice: grey, grey"),
        (["--task", "warm"], "there is a task 'warm' already"),
    ],
)
def test_bad_additions(options, message, binary, data, refused):
    refused(lambda out, cache: add(binary, data, out, cache, *options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "a"], "--group 'a' is not NAME=CLASS"),
        (["--group", "a=redd", "--group", "a=blue"], r"unknown class 'redd'; did you mean 'red'\?"),
        (["--group", "a=red"], "task 'a' has 1 class"),
        (["--group", "warm=red", "--group", "warm=blue"], "there is a task 'warm' already"),
        (["--attribute", "grey"], "tasks are groups of classes: --group NAME=CLASS adds one"),
        (["--task", "counted"], "tasks are groups of classes: --group NAME=CLASS adds one"),
    ],
)
def test_bad_groups(options, message, run, data, refused):
    refused(lambda out, cache: add(run, data, out, cache, *options), message)


def test_folders_that_are_taken(run, data, cache, tmp_path, refused):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("kept")
    pairs = ["--group", "a=red", "--group", "a=blue"]
    refused(lambda out, cache: add(run, data, tmp_path / "taken", cache, *pairs), "taken is not empty")
    refused(lambda out, cache: add(run, data, run, cache, *pairs), "is not empty")


def test_a_column_of_lists(tmp_path):
    """A new task for each of its labels, as `fit` has."""
    rng = np.random.default_rng(0)
    place, numbers = np.arange(120) % 4, rng.normal(size=(120, 6)).astype(np.float32)
    numbers[:, :4] += 3 * np.eye(4, dtype=np.float32)[place]
    colours = [["red"], ["blue"], ["red", "blue"], []]
    whole = {
        "vector": list(numbers),
        "kind": [str(number) for number in place],
        "tags": [colours[one] for one in place],
    }
    for name, left_out in (("first", ["tags"]), ("second", [])):
        pq.write_table(
            pa.table({key: own for key, own in whole.items() if key not in left_out}), tmp_path / f"{name}.parquet"
        )
    start, grown = tmp_path / "start", tmp_path / "grown"
    common = ("--cache", tmp_path / "cache")
    first = comodulate(
        "fit",
        "--data",
        tmp_path / "first.parquet",
        "--embeddings",
        "vector",
        "--method",
        "linear",
        "--out",
        start,
        *common,
    )
    assert first.status == 0, first.err
    more = comodulate(
        "add-task", start, "--data", tmp_path / "second.parquet", "--task", "tags", "--out", grown, *common
    )
    assert more.status == 0, more.err
    run = Run.open(grown)
    assert run.family.tasks == ("kind", "tags=blue", "tags=red")
    (answer,) = run.predict(3 * np.eye(4, 6, dtype=np.float32)[1:2])
    assert {name: own["prediction"] for name, own in answer["tasks"].items()} == {
        "kind": "1",
        "tags=blue": "yes",
        "tags=red": "no",
    }
