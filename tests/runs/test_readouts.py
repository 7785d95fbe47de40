"""`comodulate fit` without a method: from a table of labels to answers, the same by every verb."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from comodulation.networks.methods import all_tasks
from comodulation.runs.run import Run
from support.command import GROUPED, SMALL, comodulate
from support.synthetic import CLASSES, GROUPS, picture, snapshot

pytestmark = pytest.mark.usefixtures("undrawn", "quick_onnx")

NAMES = [CLASSES[row % 8] for row in range(104)]
FILES = [f"{row}.png" for row in range(104)]
WARM = ["" if row % 7 == 3 else ("no", "yes")[name in GROUPS["warm"]] for row, name in enumerate(NAMES)]
GREY = [("no", "yes")[name in GROUPS["grey"]] for name in NAMES]
COLOUR = ["" if row % 5 == 2 else name for row, name in enumerate(NAMES)]


@pytest.fixture(autouse=True, scope="module")
def _short():
    """Bags of few steps; the colours are easily told apart."""
    from comodulation.training.readouts import table

    settings = table.BagSettings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "BAGS", [(math.inf, settings(hidden=16, fewest_steps=60, passes=2))])
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """104 images of eight colours, and a table of three columns; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    for row, file in enumerate(FILES):
        picture(NAMES[row], row).save(folder / file)
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "warm", "grey", "colour"), *zip(FILES, WARM, GREY, COLOUR, strict=True)])
    return folder


def fit(pictures, out, cache, *options):
    table = ["--labels", pictures / "labels.csv"]
    return comodulate("fit", "--data", pictures, "--out", out, "--cache", cache, *table, *SMALL, *options)


@pytest.fixture(scope="module")
def columns(pictures, cache, tmp_path_factory):
    """A run of two columns, of which one has eight classes."""
    out = tmp_path_factory.mktemp("columns") / "run"
    outcome = fit(pictures, out, cache, "--task", "warm", "--task", "colour")
    assert outcome.status == 0, outcome.err
    return out


@pytest.fixture(scope="module")
def binary(data, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("binary") / "run"
    asked = ["--attribute", "warm", "--attribute", "bright"]
    outcome = comodulate("fit", "--data", data, "--out", out, "--cache", cache, *SMALL, *asked)
    assert outcome.status == 0, outcome.err
    return out


def answers(run, *options):
    return comodulate("predict", run, *options, "--json").json["images"]


def test_fit_predict_evaluate(columns, pictures, cache):
    """It is `auto`, it knows the colours, and evaluate finds what fit found."""
    metrics = json.loads((columns / "metrics.json").read_text())
    assert metrics["method"] == "auto"
    assert "temperature" not in metrics
    assert metrics["test"]["tasks"]["warm"]["balanced_accuracy"] > 0.8
    assert metrics["test"]["tasks"]["colour"]["accuracy"] > 0.5
    readouts = metrics["readouts"]
    best = min(readouts["nll_out_of_fold"].values())
    assert readouts["nll_out_of_fold"]["together"] <= best + 0.02
    again = comodulate("evaluate", columns, "--data", pictures, "--cache", cache, "--json").json
    for name, values in metrics["test"]["tasks"].items():
        assert again["tasks"][name] == pytest.approx(values)
    found = answers(columns, pictures / "0.png", pictures / "5.png")
    for answer in found:
        assert set(answer["tasks"]["colour"]["probabilities"]) == set(CLASSES)
        assert set(answer["tasks"]["warm"]["probabilities"]) == {"no", "yes"}
        for one in answer["tasks"].values():
            assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert found[0]["tasks"]["warm"]["prediction"] == "yes"  # red


def test_equal_commands_write_equal_adapters(columns, pictures, cache, tmp_path):
    outcome = fit(pictures, tmp_path / "run", cache, "--task", "warm", "--task", "colour")
    assert outcome.status == 0, outcome.err
    for name in ("adapter.safetensors", "head.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (columns / name).read_bytes()


@pytest.mark.parametrize(("kind", "file"), [("columns", "run.onnx"), ("binary", "run.pt2"), ("groups", "run.pt2")])
def test_the_graph_answers_as_predict(kind, file, columns, binary, groups, pictures, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = {"columns": columns, "binary": binary, "groups": groups}[kind]
    outcome = comodulate("export", folder, "--out", tmp_path / file)
    assert outcome.status == 0, outcome.err
    run = Run.open(folder)
    files = [pictures / file for file in FILES[:5]]
    from PIL import Image

    pixels = np.stack([run.backbone.preprocess(Image.open(file).convert("RGB")).numpy() for file in files])
    if file.endswith(".onnx"):
        session = onnxruntime.InferenceSession(str(tmp_path / file), providers=["CPUExecutionProvider"])
    else:
        program = torch.export.load(tmp_path / file).module()
    predicted = answers(folder, *files)
    for task, name in enumerate(run.family.tasks):
        if file.endswith(".onnx"):
            (given,) = session.run(None, {"images": pixels, "tasks": np.full(5, task)})
        else:
            given = program(torch.from_numpy(pixels), torch.full((5,), task)).numpy()
        places = (0, 1) if run.family.kind == "binary" else run.family.members[task]
        for row, answer in enumerate(predicted):
            words = run.family.targets
            own = {words[place]: given[row, place] for place in places}
            assert own == pytest.approx(answer["tasks"][name]["probabilities"], abs=1e-4)


# ---- groups of classes ----


@pytest.fixture(scope="module")
def groups(data, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("groups") / "run"
    outcome = comodulate("fit", "--data", data, "--out", out, "--cache", cache, *GROUPED, *SMALL)
    assert outcome.status == 0, outcome.err
    return out


def test_answers_within_groups(groups, tmp_path):
    """Whatever is shown, a group answers with one of its own classes."""
    for name in ("red", "blue", "dark"):
        picture(name, 3).save(tmp_path / f"{name}.png")
    found = answers(groups, *sorted(tmp_path.glob("*.png")))
    for answer in found:
        for group, one in answer["tasks"].items():
            assert set(one["probabilities"]) == set(GROUPS[group])
            assert one["prediction"] in GROUPS[group]
            assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert json.loads((groups / "metrics.json").read_text())["test"]["accuracy"] > 0.8


def test_groups_of_known_classes_are_added(groups, data, cache, tmp_path):
    before = snapshot(groups)
    pairs = [text for name in ("red", "blue", "dark") for text in ("--group", f"pure={name}")]
    outcome = comodulate("add-task", groups, "--data", data, "--out", tmp_path / "a", "--cache", cache, *pairs)
    assert outcome.status == 0, outcome.err
    assert snapshot(groups) == before
    first, second = Run.open(groups), Run.open(tmp_path / "a")
    assert_kept(first, second)
    picture("blue", 1).save(tmp_path / "blue.png")
    one = answers(tmp_path / "a", tmp_path / "blue.png")[0]["tasks"]["pure"]
    assert set(one["probabilities"]) == {"red", "blue", "dark"}


# ---- tasks added ----


def assert_kept(before, after):
    """Answers to the old tasks, bit for bit, of the network and in words."""
    features = torch.rand(9, *before.backbone.feature_shape, generator=torch.Generator().manual_seed(0))
    tasks = before.family.num_tasks
    given, found = all_tasks(before.method, features), all_tasks(after.method, features, torch.arange(tasks))
    for task in range(tasks):
        old, new = ((0, 1) if f.kind == "binary" else f.members[task] for f in (before.family, after.family))
        assert torch.equal(found[:, task][:, list(new)], given[:, task][:, list(old)])


def test_tasks_are_added_to_columns(columns, pictures, cache, tmp_path):
    before = snapshot(columns)
    outcome = comodulate(
        "add-task", columns, "--data", pictures, "--out", tmp_path / "a", "--cache", cache, "--task", "grey", "--json"
    )
    assert outcome.status == 0, outcome.err
    assert outcome.json["added"][0]["test"]["tasks"]["grey"]["accuracy"] > 0.8
    assert snapshot(columns) == before
    assert_kept(Run.open(columns), Run.open(tmp_path / "a"))
    old, new = (answers(run, pictures / "3.png", "--task", "colour") for run in (columns, tmp_path / "a"))
    assert old == new
    result = comodulate("evaluate", tmp_path / "a", "--data", pictures, "--cache", cache, "--json").json
    assert set(result["tasks"]) == {"warm", "colour", "grey"}
    shared = Run.from_pretrained(Run.open(tmp_path / "a").save_pretrained(tmp_path / "shared"))
    assert_kept(Run.open(tmp_path / "a"), shared)


@pytest.mark.parametrize("added", [["--attribute", "grey"], ["--task", "counted"]])
def test_tasks_are_added_to_binary_ones(added, binary, data, cache, tmp_path):
    """A binary one, and a column of three classes; then another one."""
    outcome = comodulate("add-task", binary, "--data", data, "--out", tmp_path / "a", "--cache", cache, *added)
    assert outcome.status == 0, outcome.err
    assert_kept(Run.open(binary), Run.open(tmp_path / "a"))
    outcome = comodulate(
        "add-task", tmp_path / "a", "--data", data, "--out", tmp_path / "b", "--cache", cache, "--task", "cool"
    )
    assert outcome.status == 0, outcome.err
    assert_kept(Run.open(tmp_path / "a"), Run.open(tmp_path / "b"))
    old = json.loads((binary / "metrics.json").read_text())["test"]["tasks"]
    result = comodulate("evaluate", tmp_path / "b", "--data", data, "--cache", cache, "--json").json
    for name, values in old.items():
        assert result["tasks"][name]["accuracy"] == pytest.approx(values["accuracy"])
        assert result["tasks"][name]["nll"] == pytest.approx(values["nll"])


# ---- options ----


LINEAR, COMMITTEE, GUESS = {"linear, pooled"}, {"committee, pooled"}, {"frequencies"}
MAP = ["--image-size", "64"]  # of 2x2 positions


@pytest.mark.parametrize(
    ("options", "members"),
    [
        (["--quality", "fast", "--balance", "classes", "--epochs", "2"], {*LINEAR, *GUESS}),
        (["--quality", "best"], {*LINEAR, *COMMITTEE, "committee 2, pooled", *GUESS}),
        (["--method", "linear", *MAP], {*LINEAR, "linear, map"}),
        (["--method", "committee"], COMMITTEE),
        (["--method", "auto", "--no-calibrate", *MAP], {*LINEAR, *COMMITTEE, "linear, map", "committee, map", *GUESS}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_weighed(options, members, pictures, cache, tmp_path):
    outcome = fit(pictures, tmp_path / "run", cache, "--task", "warm", *options)
    assert outcome.status == 0, outcome.err
    told = "warning: --balance classes changes nothing in method 'auto', which weighs all examples alike"
    assert (told in outcome.err) == ("--balance" in options)
    told = "head, tuning" if "--epochs" in options else "head"  # --channels is among the options
    assert f"warning: what is set of {told} changes nothing in method" in outcome.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["readouts"]["weights"]) == members
    assert metrics["test"]["tasks"]["warm"]["balanced_accuracy"] > 0.8
    kept = bool((Run.open(tmp_path / "run").method.parts[0].temperature == 1).all())
    assert kept is ("--no-calibrate" in options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", "good"], "quality 'good'"),
        (["--task-bias"], "has a bias for each output already"),
        (["--method", "linaer"], "did you mean 'linear'"),
    ],
)
def test_bad_options(options, message, pictures, refused):
    refused(lambda out, cache: fit(pictures, out, cache, *options), message)
