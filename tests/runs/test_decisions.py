"""`fit --metric`: what a run decides, that every verb gives that answer, and that probabilities stay as they are."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from comodulation.app.server import Service
from comodulation.errors import InputError
from comodulation.evaluation import Predictions
from comodulation.runs import Run
from comodulation.runs.decisions import Decisions, decision_entry, find_decisions, stored_decisions
from comodulation.tasks import TaskFamily
from support.command import comodulate, fit
from support.synthetic import picture

pytestmark = pytest.mark.usefixtures("undrawn")
FAMILY = TaskFamily.from_columns(["kind", "worn"], [["hat", "shoe", "coat"], ["no", "yes"]])
PROBABILITIES = ("nll", "brier")


def predictions(number=400, seed=0):
    """Answers to both tasks, of which coat and yes are rare, from probabilities that are right."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(number, 5, generator=generator, dtype=torch.float64) - torch.tensor([0, 0, 2.0, 0, 2])
    task = torch.arange(number) % 2
    own = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)[task]
    logs = logits.masked_fill(~own, -torch.inf).log_softmax(1)
    target = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
    return Predictions(torch.arange(number), task, target, logs)


# ---- the decisions themselves ----


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1"])
def test_they_are_better_by_their_metric_and_are_read_as_they_are_written(metric):
    found = predictions(4000)
    decisions = find_decisions(found, FAMILY, metric)
    scores = decisions.scores(found)
    assert all(score["decided"] >= score["most_probable"] for score in scores.values())
    assert scores["worn"]["decided"] > scores["worn"]["most_probable"] + 0.05
    entry = json.loads(json.dumps(decision_entry(decisions, {"validation": found})))
    assert entry["decisions"]["validation"] == scores
    again = stored_decisions(entry, FAMILY)
    assert torch.equal(again.decided(found).answers, decisions.decided(found).answers)
    assert again.metric == metric


def test_answers_are_always_the_task_s_own():
    found = predictions()
    answers = find_decisions(found, FAMILY, "balanced_accuracy").decided(found).answers
    assert set(answers[found.task == 0].tolist()) <= {0, 1, 2}
    assert set(answers[found.task == 1].tolist()) <= {3, 4}


def test_accuracy_has_no_decisions():
    assert find_decisions(predictions(), FAMILY, "accuracy") is None
    assert decision_entry(None, {}) == {}
    assert stored_decisions({"added": [{}]}, FAMILY) is None


def test_decisions_of_added_tasks_stand_with_them():
    first = {"metric": "f1", "offsets": {"kind": {"hat": 0.0, "shoe": 1.0, "coat": 2.0}}}
    later = {"metric": "f1", "offsets": {"worn": {"no": 0.0, "yes": 3.0}}}
    found = stored_decisions({"decisions": first, "added": [{"decisions": later}]}, FAMILY)
    assert found.of_task(0).tolist() == [0, 1, 2, 0, 0]
    assert found.of_task(1).tolist() == [0, 0, 0, 0, 3]
    assert Decisions("f1", FAMILY).of_task(1) is None


@pytest.mark.parametrize("offsets", [{"kind": {"hat": 0.0}}, {"kindd": {"hat": 0.0}}])
def test_decisions_that_do_not_fit_the_tasks(offsets):
    with pytest.raises(InputError, match=r"other classes than the task has|unknown task 'kindd'; did you mean 'kind'"):
        stored_decisions({"decisions": {"metric": "f1", "offsets": offsets}}, FAMILY)


# ---- a run ----


@pytest.fixture(scope="module")
def fitted(data, cache, tmp_path_factory):
    """A run for F1, and the same run with other decisions: yes to `warm` whatever the image shows."""
    place = tmp_path_factory.mktemp("decided")
    labels = ["--attribute", "warm", "--attribute", "cool"]
    outcome = fit(data, place / "run", cache, "--method", "linear", "--metric", "f1", labels=labels)
    assert outcome.status == 0, outcome.err
    assert "Answers are chosen for F1, mean over tasks" in outcome.out
    shutil.copytree(place / "run", place / "yes")
    metrics = json.loads((place / "yes" / "metrics.json").read_text())
    metrics["decisions"]["offsets"]["warm"] = {"no": 0.0, "yes": 60.0}
    (place / "yes" / "metrics.json").write_text(json.dumps(metrics))
    return place


def test_the_files_of_a_run_give_the_decided_answers(fitted):
    run = Run.open(fitted / "run")
    assert run.config.metric == "f1"
    offsets = run.metrics["decisions"]["offsets"]
    assert set(offsets) == {"warm", "cool"}
    table = pq.read_table(fitted / "run" / "predictions.parquet").to_pydict()
    for task in ("warm", "cool"):
        threshold = 1 / (1 + math.exp(offsets[task]["yes"] - offsets[task]["no"]))
        rows = [row for row, name in enumerate(table["task"]) if name == task]
        for row in rows:
            yes = table["confidence"][row] if table["prediction"][row] == "yes" else 1 - table["confidence"][row]
            assert (table["prediction"][row] == "yes") == (yes > threshold)
        hits = np.mean([table["prediction"][row] == table["target"][row] for row in rows])
        assert hits == run.metrics["test"]["tasks"][task]["accuracy"]


def _served(run, path):
    """What the server answers about a picture and the task `warm`."""
    service = Service(run)
    return service.predict(service.prepare(Image.open(path)), ["warm"])["tasks"]["warm"]


def test_every_verb_answers_by_the_stored_decisions(fitted, data, cache, tmp_path):
    """The run whose answer to `warm` is always yes: its answers change, its probabilities do not."""
    picture("blue", 5).save(tmp_path / "blue.png")
    plain, always = {}, {}
    for name, found in (("run", plain), ("yes", always)):
        said = comodulate("predict", fitted / name, tmp_path / "blue.png", "--json").json["images"][0]["tasks"]
        found["predict"] = said["warm"]
        found["evaluate"] = comodulate("evaluate", fitted / name, "--data", data, "--cache", cache, "--json").json
        run = Run.open(fitted / name)
        found["serve"] = _served(run, tmp_path / "blue.png")
    assert (plain["predict"]["prediction"], always["predict"]["prediction"]) == ("no", "yes")
    assert always["predict"]["probabilities"] == plain["predict"]["probabilities"]
    assert always["predict"]["confidence"] == always["predict"]["probabilities"]["yes"]
    assert (plain["serve"]["prediction"], always["serve"]["prediction"]) == ("no", "yes")
    before, after = (found["evaluate"]["tasks"]["warm"] for found in (plain, always))
    assert after["accuracy"] == pytest.approx(_share_of_yes(data))
    assert {name: after[name] for name in PROBABILITIES} == {name: before[name] for name in PROBABILITIES}
    assert always["evaluate"]["tasks"]["cool"] == plain["evaluate"]["tasks"]["cool"]
    assert after["balanced_accuracy"] == 0.5


def _share_of_yes(data):
    from comodulation.data import open_split

    cells = [cell for cell in open_split(str(data), "test").column("warm") if cell is not None]
    return np.mean(cells)


def test_an_exported_graph_says_how_its_answers_are_chosen(fitted, tmp_path):
    assert comodulate("export", fitted / "yes", "--out", tmp_path / "run.pt2").status == 0
    notes = {"decisions": ""}
    torch.export.load(tmp_path / "run.pt2", extra_files=notes)
    decisions = json.loads(notes["decisions"])
    assert decisions["metric"] == "f1"
    assert decisions["offsets"]["warm"] == {"no": 0.0, "yes": 60.0}


def test_a_task_that_is_added_has_a_decision_of_its_own(fitted, data, cache, tmp_path):
    out = tmp_path / "grown"
    added = comodulate(
        "add-task", fitted / "yes", "--data", data, "--attribute", "grey", "--out", out, "--cache", cache
    )
    assert added.status == 0, added.err
    run = Run.open(out)
    assert run.metrics["added"][-1]["decisions"]["metric"] == "f1"
    places = [run.family.task_id(name) for name in ("warm", "grey")]
    assert float(run.decision(places[0]).max()) == 60
    assert run.decision(places[1]) is not None


def test_the_page_says_from_which_probability_yes_is_answered(fitted):
    page = (fitted / "run" / "report.html").read_text()
    assert page.count("The answer is yes from a probability of") == 2
    assert "Answers are chosen for F1" in page


def test_bad_decisions_are_refused(fitted, tmp_path):
    shutil.copytree(fitted / "run", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    metrics["decisions"]["offsets"]["warm"]["yes"] = "much"
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    picture("blue", 5).save(tmp_path / "blue.png")
    refused = comodulate("predict", tmp_path / "run", tmp_path / "blue.png")
    assert refused.status == 2
    assert "metrics.json is damaged: decisions.offsets.warm.yes" in refused.line


def test_a_metric_that_is_unknown(refused, data):
    refused(lambda out, cache: fit(data, out, cache, "--metric", "f2"), r"unknown metric 'f2'; did you mean 'f1'\?")
