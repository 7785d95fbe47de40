"""The command line at work: fit, evaluate and predict, what they print and what they leave."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import comodulation
from comodulation.runs import Run, fitting, read_config
from comodulation.runs import run as prediction
from comodulation.tasks import TaskFamily
from support.command import GROUPED, SHORT, SMALL, comodulate, comodulate_here, fit
from support.forked import Process
from support.synthetic import CLASSES, GROUP_NAMES, GROUPS, picture, snapshot

pytestmark = pytest.mark.usefixtures("no_figures")
METRICS = ["accuracy", "nll", "brier", "ece"]
FILES = {
    "config.yaml", "head.safetensors", "adapter.safetensors", "predictions.parquet", "classes.csv",
    "confusions.csv", "report.html", "metrics.json", ".lock",
}  # fmt: skip
LONG = ["--epochs", 15, "--pretraining-epochs", 60, "--pretraining-learning-rate", 0.01]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def extractions(monkeypatch):
    """How many rows each extraction of the test computed."""
    counts = []
    for module in (fitting, prediction):

        def extract(*arguments, _real=module.extract, **options):
            result = _real(*arguments, **options)
            counts.append(result.extracted_rows)
            return result

        monkeypatch.setattr(module, "extract", extract)
    return counts


@pytest.fixture
def image(tmp_path):
    picture("yellow", 77).save(tmp_path / "yellow.png")
    return tmp_path / "yellow.png"


# ---- fit, evaluate, predict ----


def test_fit_evaluate_predict(data, cache, image, tmp_path, extractions):
    """The whole way, with enough epochs to learn: visible classes are told apart, and every number is the same everywhere."""
    out = tmp_path / "run"
    fitted = fit(data, out, cache, *LONG, "--json")
    assert fitted.status == 0, fitted.err
    (run,) = fitted.json["runs"]
    assert {path.name for path in out.iterdir()} == FILES
    assert run == {"folder": str(out), **metrics_of(out)}
    assert run["test"]["accuracy"] > 0.9
    assert run["test"]["count"] == 40
    assert run["learnable_parameters"] == 3 * 16

    extractions.clear()
    evaluated = comodulate("evaluate", out, "--data", data, "--cache", cache, "--json")
    assert evaluated.status == 0
    assert extractions == [0]
    numbers = evaluated.json
    assert all(numbers[name] == run["test"][name] for name in [*METRICS, "count", "tasks", "macro", "worst"])
    assert list(numbers["tasks"]) == GROUP_NAMES
    assert all(0 <= numbers[name] <= 1 for name in ("accuracy", "ece"))
    assert [numbers["tasks"][name]["count"] for name in GROUP_NAMES] == [15, 15, 10]
    assert (numbers["split"], numbers["skipped"], numbers["method"]) == ("test", 0, "comodulation")

    predicted = comodulate("predict", out, image, "--task", "warm", "--json")
    assert predicted.status == 0
    assert predicted.err == ""
    (answer,) = predicted.json["images"]
    assert answer["image"] == str(image)
    assert list(answer["tasks"]) == ["warm"]
    assert answer["tasks"]["warm"]["prediction"] == "yellow"
    probabilities = answer["tasks"]["warm"]["probabilities"]
    assert set(probabilities) == set(GROUPS["warm"])
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    assert answer["tasks"]["warm"]["confidence"] == probabilities["yellow"] > 0.5
    assert sum(probabilities.values()) <= 1 + 1e-6


def test_plain_output(run, data, cache, image, tmp_path):
    """Without --json: a table of percentages, progress on the other stream."""
    evaluated = comodulate("evaluate", run, "--data", data, "--cache", cache)
    lines = evaluated.out.splitlines()
    assert [line.split()[0] for line in lines] == ["test", "all", *GROUP_NAMES]
    assert f"{100 * metrics_of(run)['test']['accuracy']:.2f}%" in lines[1]
    predicted = comodulate("predict", run, image)
    assert predicted.out.splitlines()[0] == str(image)
    assert [line.split()[0] for line in predicted.out.splitlines()[1:]] == GROUP_NAMES
    fitted = fit(data, tmp_path / "run", cache)
    assert "test split" in fitted.out
    assert f"run folder: {tmp_path / 'run'}" in fitted.out
    assert "comodulation: epoch 3/3" in fitted.err


def test_the_run_folder_tells_one_story(run):
    """Predictions, metrics, configuration, adapter and report agree."""
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    numbers = metrics_of(run)["test"]
    hits = np.array(table["prediction"]) == np.array(table["target"])
    assert hits.mean() == numbers["accuracy"]
    assert -np.log(table["target_probability"]).mean() == pytest.approx(numbers["nll"], rel=1e-5)
    assert table["target"] == [CLASSES[row % 8] for row in range(40)]
    assert table["image"] == list(range(40))
    assert len(table["file"]) == 40
    for name in GROUP_NAMES:
        rows = np.array(table["task"]) == name
        assert hits[rows].mean() == numbers["tasks"][name]["accuracy"]
        assert set(np.array(table["target"])[rows]) == set(GROUPS[name])
    config = read_config(run / "config.yaml")
    assert (config.method, config.tuning.epochs, config.head.encoder_channels) == ("comodulation", 3, 16)
    opened = Run.open(run)
    assert opened.metrics == metrics_of(run)
    assert opened.family == TaskFamily("classes", tuple(GROUPS), tuple(CLASSES), ((0, 1, 2), (3, 4, 5), (6, 7)))
    assert load_file(run / "adapter.safetensors")["head.controller.embedding.weight"].shape == (3, 16)
    page = (run / "report.html").read_text()
    date = metrics_of(run)["finished"]
    assert f"<title>comodulation: comodulation on small, seed 0, {date}</title>" in page
    assert "the most frequent class (majority)" in page
    assert f"at the temperature {opened.temperature:.2f}, fitted to" in page
    assert page.count("http-equiv") == 1  # the policy that forbids all loading
    assert "src=" not in page.replace('src="data:image/', "")  # pictures lie in the page itself
    assert all(name in page for name in GROUP_NAMES)


def test_a_second_fit_uses_the_cache(run, data, cache, tmp_path, extractions):
    """Neither features nor pretrained layers are computed again, and the result is the same to the bit."""
    before = snapshot(cache)
    again = fit(data, tmp_path / "again", cache)
    assert again.status == 0
    assert extractions == [0, 0]
    assert "pretrained layers of seed 0 found in the cache" in again.err
    assert "pretraining:" not in again.err
    assert snapshot(cache) == before
    for name in ("head.safetensors", "adapter.safetensors", "predictions.parquet", "config.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes(), name


def test_another_seed_is_another_run(run, data, cache, tmp_path, extractions):
    assert fit(data, tmp_path / "run", cache, "--seed", 2**32 - 1).status == 0
    assert extractions == [0, 0]
    assert (tmp_path / "run" / "head.safetensors").read_bytes() != (run / "head.safetensors").read_bytes()


def test_a_damaged_head_in_the_cache_is_pretrained_again(run, data, tmp_path):
    """A flipped bit, a truncated or foreign file or history: found, and rebuilt to the same bytes."""
    cache = tmp_path / "cache"
    assert fit(data, tmp_path / "first", cache).status == 0
    (head,) = cache.glob("heads/*/head.safetensors")
    history = head.with_name("history.json")
    good, past = head.read_bytes(), history.read_bytes()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    damages = [(bytes(flipped), past), (good[:-8], past), (good, b"{"), (good, b"[]")]
    for place, (content, text) in enumerate(damages):
        head.write_bytes(content)
        history.write_bytes(text)
        outcome = fit(data, tmp_path / str(place), cache)
        assert outcome.status == 0
        assert "pretraining: epoch 3/3" in outcome.err
        assert head.read_bytes() == good
        assert (tmp_path / str(place) / "adapter.safetensors").read_bytes() == (
            run / "adapter.safetensors"
        ).read_bytes()


# ---- predict ----


def test_an_answer_does_not_depend_on_the_other_images(data, cache, tmp_path):
    """A stochastic encoder's noise belongs to the image: alone, in company or in another order, the answer is the same."""
    out = tmp_path / "run"
    assert fit(data, out, cache, "--encoder", "stochastic").status == 0
    paths = [tmp_path / f"{name}.png" for name in ("red", "blue", "dark")]
    for path in paths:
        picture(path.stem, 5).save(path)

    def ask(*images, seed=None):
        options = [] if seed is None else ["--seed", seed]
        answers = comodulate("predict", out, *images, "--json", *options).json["images"]
        return {answer["image"]: answer["tasks"]["warm"]["probabilities"] for answer in answers}

    together = ask(*paths)
    assert list(together) == [str(path) for path in paths]
    for answers in (ask(*paths[::-1]), ask(paths[0]) | ask(paths[1]) | ask(paths[2])):
        for path, probabilities in answers.items():
            assert probabilities == pytest.approx(together[path], abs=1e-5)
    assert ask(*paths, seed=0) == together  # the run's own seed
    assert ask(*paths, seed=1) != together


def test_predict_agrees_with_evaluate(run, tmp_path):
    """A test image from a file gets the prediction that the run's table holds for it."""
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    paths = []
    for row in range(8):
        paths.append(tmp_path / f"{row}.png")
        picture(CLASSES[row], 10_000 + row).save(paths[-1])
    answers = comodulate("predict", run, *paths, "--json").json["images"]
    for row, answer in enumerate(answers):
        asked = answer["tasks"][table["task"][row]]
        assert asked["prediction"] == table["prediction"][row]
        assert asked["confidence"] == pytest.approx(table["confidence"][row], abs=2e-3)


def test_one_temperature_everywhere(run, data, cache, tmp_path):
    """A run whose temperature is made another: evaluate, predict, server and graph all answer at it."""
    from comodulation.app.server import Service
    from comodulation.runs import Answers

    numbers = metrics_of(run)
    assert comodulate("evaluate", run, "--data", data, "--cache", cache, "--json").json["nll"] == numbers["test"]["nll"]
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({**numbers, "temperature": 3.0}))
    picture("yellow", 77).save(tmp_path / "yellow.png")
    opened, as_trained = Run.open(tmp_path / "run"), Run.open(run)
    logs = {}
    for name, one in (("given", opened), ("trained", as_trained)):
        answer = one.predict([tmp_path / "yellow.png"], ["warm"])[0]["tasks"]["warm"]["probabilities"]
        logs[name] = np.log([answer[word] for word in GROUPS["warm"]])
    differences = {name: np.diff(values) for name, values in logs.items()}
    expected = differences["trained"] * (as_trained.temperature or 1) / 3
    assert differences["given"] == pytest.approx(expected, abs=1e-4)
    with Image.open(tmp_path / "yellow.png") as file:
        yellow = file.convert("RGB")
    service = Service(opened)
    served = service.predict(service.prepare(yellow), ["warm"])["tasks"]["warm"]["probabilities"]
    pixels = opened.backbone.preprocess(yellow)[None]
    graph = Answers(opened.backbone, opened.method, 0, opened.temperature)(pixels)[0]
    for place, word in enumerate(GROUPS["warm"]):
        assert np.log(served[word]) == pytest.approx(logs["given"][place], abs=1e-4)
        assert float(graph[CLASSES.index(word)].log()) == pytest.approx(logs["given"][place], abs=1e-4)
    evaluated = comodulate("evaluate", tmp_path / "run", "--data", data, "--cache", cache, "--json").json
    assert evaluated["temperature"] == 3.0
    assert evaluated["nll"] != numbers["test"]["nll"]


def test_folders_and_tables(run, tmp_path):
    """A folder stands for its images; a bad file among them is named, and the others are answered."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for place, name in enumerate(("a.png", "b.png", "more/c.jpg")):
        picture(CLASSES[place], 7).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image by its name")
    (folder / ".hidden.png").write_bytes(b"no image")
    for out in ("t.csv", "t.parquet"):
        outcome = comodulate("predict", run, folder, "--task", "warm", "--out", tmp_path / out)
        assert outcome.status == 2
        assert "broken.png" in outcome.err.splitlines()[0]
        assert "1 of 4 images cannot be read; the others are answered" in outcome.err.splitlines()[-1]
    written = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [row["image"] for row in written] == [
        str(folder / n) for n in ("a.png", "b.png", "more/c.jpg", "broken.png")
    ]
    assert [bool(row["error"]) for row in written] == [False, False, False, True]
    parquet = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert parquet["prediction"] == [row["prediction"] or None for row in written]
    assert parquet["confidence"][:3] == pytest.approx([float(row["confidence"]) for row in written[:3]])
    shown = comodulate("predict", run, folder / "broken.png", folder / "a.png", "--json")
    assert [each["image"] for each in json.loads(shown.out)["images"]] == [str(folder / "a.png")]
    assert [each["image"] for each in json.loads(shown.out)["bad"]] == [str(folder / "broken.png")]
    again = comodulate("predict", run, folder, "--out", tmp_path / "t.csv")
    assert "is there already" in again.line
    (tmp_path / "empty").mkdir()
    assert "holds no images" in comodulate("predict", run, tmp_path / "empty").line


def test_tasks_are_answered_in_the_order_asked(run, image):
    answers = comodulate("predict", run, image, "--task", "grey", "--task", "warm", "--json").json["images"][0]["tasks"]
    assert list(answers) == ["grey", "warm"]


def test_the_streams_of_a_process(data, cache, tmp_path):
    """Down to the file descriptors, whichever library writes: standard output is the JSON object and nothing else."""
    arguments = ["--data", data, "--out", tmp_path / "run", "--cache", cache, *GROUPED, *SMALL, *SHORT, "--json"]
    ended = Process(tmp_path / "process", lambda: comodulate_here("fit", *arguments)).wait()
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    assert json.loads(ended.out)["runs"][0]["test"] == metrics_of(tmp_path / "run")["test"]
    known = ("features, ", "pretrained layers", "pretraining: ", "comodulation: ")
    lines = ended.err.splitlines()
    assert lines[0].startswith("3 tasks; "), ended.err
    assert all(line.startswith(known) for line in lines[5:]), ended.err  # after a title, a header, a line a task


# ---- help ----


def test_version_and_module():
    """`--version` before anything is loaded; `python -m comodulation` is the command."""
    assert comodulate("--version").out == f"comodulation {comodulation.__version__}\n"
    process = subprocess.run(
        [sys.executable, "-m", "comodulation", "--version"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout == f"comodulation {comodulation.__version__}\n"


def test_help():
    assert comodulate("--help").status == 0
    for verb in ("fit", "evaluate", "predict", "demo"):
        outcome = comodulate(verb, "--help")
        assert outcome.status == 0
        assert f"Example: comodulate {verb}" in " ".join(outcome.out.split())
        assert "--json" in outcome.out
        assert "--seed" in outcome.out
    bare = comodulate()
    assert bare.status == 2
    assert "evaluate" in bare.out


def test_help_names_every_method():
    from comodulation.networks.methods import METHODS

    text = "".join(comodulate("fit", "--help").out.split())  # lines may break at a hyphen
    assert all(name in text for name in METHODS)


def test_json_is_one_line_that_any_reader_reads(run, data, cache):
    """No NaN, no Infinity, nothing before or after."""
    outcome = comodulate("evaluate", run, "--data", data, "--cache", cache, "--json")

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(outcome.out, parse_constant=refuse)
    assert outcome.out.endswith("}\n")
    assert len(list(csv.reader(io.StringIO(outcome.out.replace('"', ""))))) == 1


def test_the_global_random_state_is_left_alone(run, data, cache, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert fit(data, tmp_path / "run", cache).status == 0
    assert torch.equal(torch.rand(2), expected)
