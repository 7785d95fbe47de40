"""`comodulate study`: from data to a verdict, interrupted and resumed, within its time, and what it refuses."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comodulation.errors import DivergedError
from comodulation.evaluation import PairedDifference, paired_difference
from comodulation.studies.cells import (
    Asked,
    Budget,
    Inquiry,
    clock,
    judged,
    read_cell,
    search_of,
    search_path,
    study_config,
)
from comodulation.studies.questions import controller as controllers
from comodulation.studies.questions import registry as questions
from comodulation.studies.questions.noise import answer as trainings
from comodulation.studies.questions.noise import study as training
from comodulation.studies.questions.registry import QUESTIONS
from comodulation.studies.questions.residual import answer as residuals
from comodulation.tensors import read_tensors
from support.command import comodulate
from support.small_study import SMALL
from support.synthetic import snapshot

SHORT = ["--seeds", "2", "--epochs", "2", "--pretraining-epochs", "2", "--devices", "1"]


def study(question, data, out, cache, *options):
    return comodulate("study", question, "--data", data, "--out", out, "--cache", cache, *SMALL, *SHORT, *options)


def first_rows(name, number, monkeypatch, has_yardstick=False):
    """The question with the first rows of its first stage of several alone, with linear readouts beside them or not."""
    whole = QUESTIONS[name]

    def stages(seeds):
        first = next(stage for stage in whole.stages(seeds) if len(stage.cells) > len(seeds))
        kept = list(dict.fromkeys(cell.row for cell in first.cells))[:number]
        return [replace(first, cells=tuple(cell for cell in first.cells if cell.row in kept))]

    monkeypatch.setitem(QUESTIONS, name, replace(whole, stages=stages, has_yardstick=has_yardstick))


def quick_training(monkeypatch):
    """Two numbers of images, one condition, few steps."""
    for module in (training, trainings):
        monkeypatch.setattr(module, "IMAGES", (4, None))
    monkeypatch.setattr(training, "STEPS", 3)
    first_rows("training", 100, monkeypatch)


def files(out):
    """Content of what a study leaves, but for times, dates and the folder's own name."""
    text = {path: content for path, content in snapshot(out).items() if content is not None}
    return {
        path.removeprefix(str(out)): re.sub(rb'"(seconds|seconds_in_all)": [0-9.]+', b"", content)
        for path, content in text.items()
        if not path.endswith((".html", "results.json", "cells.csv", ".lock"))
    }


def last_line(outcome):
    """What a command that had begun says at its end."""
    assert not outcome.out
    return outcome.err.splitlines()[-1]


def table(out):
    return list(csv.DictReader(io.StringIO((out / "cells.csv").read_text())))


@pytest.fixture(autouse=True)
def _known_questions():
    before = dict(QUESTIONS)
    yield
    assert before == QUESTIONS  # monkeypatch puts back what a test narrowed


@pytest.mark.parametrize("name", ["controller", "residual", "training"])
def test_a_study_from_data_to_verdict(name, data, cache, tmp_path, monkeypatch):
    """Verdicts, tables and figures there, and the numbers of the table those of the cells."""
    quick_training(monkeypatch) if name == "training" else first_rows(name, 6 if name == "residual" else 4, monkeypatch)
    out = tmp_path / "study"
    outcome = study(name, data, out, cache, "--json", "--trials", "0")
    assert outcome.status == 0, outcome.err
    found = outcome.json
    assert found["left_out"] == 0
    assert found["verdicts"]
    assert found["verdict"].startswith(found["verdicts"][0]["statement"].rstrip("."))
    assert all(verdict["verdict"] in ("holds", "does not hold", "cannot be told") for verdict in found["verdicts"])
    assert json.loads((out / "results.json").read_text())["verdict"] == found["verdict"]
    page = (out / "report.html").read_text()
    assert QUESTIONS[name].predicts[:40] in page
    intervals = [verdict["interval"] for verdict in found["verdicts"] if verdict["interval"]]
    assert intervals
    assert all(interval in page for interval in intervals)
    assert list((out / "figures").glob("*.svg"))
    assert str(data) not in page
    for row in table(out):
        assert 0 <= float(row["accuracy"]) <= 1
    again = study(name, data, out, cache, "--trials", "0", "--hours", "0")
    assert again.status == 0
    assert found["verdict"] in again.out
    assert str(found["cells"]) in again.out


def test_how_far_a_study_is_from_linear_readouts(data, cache, tmp_path, monkeypatch):
    """One readout a seed beside all rows: in the files, on the page, in the terminal; differences are those of the cells."""
    first_rows("controller", 2, monkeypatch, has_yardstick=True)
    out = tmp_path / "study"
    outcome = study("controller", data, out, cache, "--json", "--trials", "0")
    assert outcome.status == 0, outcome.err
    rows = table(out)
    linear = {row["seed"]: float(row["accuracy"]) for row in rows if row["method"] == "linear"}
    assert len(linear) == len([row for row in rows if row["method"] == "linear"]) == 2
    found = outcome.json["yardstick"]
    assert [one["row"] for one in found] == ["comodulation", "comodulation rank=4"]
    for one, options in zip(found, ("", "rank=4"), strict=True):
        own = {
            r["seed"]: float(r["accuracy"]) for r in rows if (r["method"], r["options"]) == ("comodulation", options)
        }
        assert one["accuracy"] == pytest.approx(np.mean(list(own.values())))
        assert one["linear_accuracy"] == pytest.approx(np.mean(list(linear.values())))
        interval = paired_difference([own[s] for s in sorted(own)], [linear[s] for s in sorted(linear)], 1 - 0.05 / 2)
        assert list(one["accuracy_minus_linear"].values()) == pytest.approx([interval.low, interval.high])
    assert "How far from logistic regression" in (out / "report.html").read_text()
    again = study("controller", data, out, cache, "--trials", "0", "--hours", "0").out
    assert "minus logistic regression" in again
    assert f"{100 * found[0]['linear_accuracy']:.2f}%" in again


def test_what_linear_readouts_see():
    """The images and classes of the rows beside them; a draw makes a difference only where images are drawn."""
    config = study_config("cifar100", "digits")
    for name, question in QUESTIONS.items():
        agenda = Asked(question, Inquiry(name, config, (3, 4), 0))
        linear = [cell for cell in agenda.cells if cell.row.method == "linear"]
        assert len(set(linear)) == len(linear)
        if name == "location":
            assert not linear
            continue
        wanted = {(cell.variant, cell.readout, cell.row.yardstick, cell.seed) for cell in agenda.cells}
        assert wanted == {(cell.variant, cell.readout, cell.row, cell.seed) for cell in linear}
    cells = Asked(QUESTIONS["training"], Inquiry("training", config, (0,), 0)).cells
    labels = {cell.row.yardstick.label for cell in cells}
    assert {"linear", "linear classes=2", "linear images=5 draw=0", "linear images=5 draw=1"} <= labels
    assert "linear draw=0" not in labels


def test_a_study_goes_on_where_it_was_interrupted(data, cache, tmp_path, monkeypatch):
    """A process that dies in the third cell: the next one trains that and the rest, to the bits of an uninterrupted study."""
    first_rows("controller", 2, monkeypatch)
    whole = tmp_path / "whole"
    assert study("controller", data, whole, cache, "--trials", "2").status == 0
    narrowed = QUESTIONS["controller"]
    trained = []

    def measure(laboratory, cell, settings, folder):
        trained.append(cell)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return narrowed.measure(laboratory, cell, settings, folder)

    monkeypatch.setitem(QUESTIONS, "controller", replace(narrowed, measure=measure))
    out = tmp_path / "interrupted"
    outcome = study("controller", data, out, cache, "--trials", "2")
    assert (outcome.status, "interrupted" in outcome.err) == (1, True)
    outcome = study("controller", data, out, cache, "--trials", "2")
    assert outcome.status == 0, outcome.err
    assert len(trained) == 5  # four cells, one of them twice
    assert len(set(trained)) == 4
    assert files(out) == files(whole)


@pytest.fixture(scope="module")
def finished(data, cache, tmp_path_factory):
    """A finished study of one network, not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "residual"
    with pytest.MonkeyPatch.context() as monkeypatch:
        first_rows("residual", 3, monkeypatch)
        assert study("residual", data, out, cache).status == 0
    return out


def test_a_torn_cell_is_trained_again(finished, data, cache, tmp_path, monkeypatch):
    first_rows("residual", 3, monkeypatch)
    out = shutil.copytree(finished, tmp_path / "study")
    before = files(out)
    (torn, *_) = sorted((out / "cells").glob("comodulation*.json"))
    torn.write_bytes(torn.read_bytes()[:100])
    (out / "cells" / ".x.json.123.partial").write_bytes(b"{")
    outcome = study("residual", data, out, cache)
    assert outcome.status == 0, outcome.err
    assert "5 of 6 cells are there" in outcome.err
    after = files(out)
    assert {path: after[path] for path in before} == before


def test_time_that_is_over(data, cache, tmp_path, monkeypatch):
    """Cells in the order of their worth; what was left out is said, and the next call trains it."""
    first_rows("controller", 2, monkeypatch)
    out = tmp_path / "study"
    outcome = study("controller", data, out, cache, "--trials", "0", "--hours", "0")
    assert (outcome.status, "no finished cell, of 4" in last_line(outcome)) == (2, True)
    monkeypatch.setattr(clock.Budget, "allows", lambda budget, kind: len(list((out / "cells").glob("*.json"))) < 3)
    outcome = study("controller", data, out, cache, "--trials", "0", "--hours", "1", "--json")
    assert outcome.status == 0, outcome.err
    assert (outcome.json["cells"], outcome.json["left_out"]) == (3, 1)
    assert "1 of 4 cells were not reached" in " ".join(outcome.json["notes"])
    assert "Not reached" in (out / "report.html").read_text()
    kept = [(row["options"], row["seed"]) for row in table(out)]
    assert kept == [("", "0"), ("rank=4", "0"), ("", "1")]
    monkeypatch.undo()
    first_rows("controller", 2, monkeypatch)
    assert study("controller", data, out, cache, "--trials", "0", "--json").json["left_out"] == 0


def test_a_row_is_trained_only_when_its_search_is_complete(data, cache, tmp_path, monkeypatch):
    """Equal trials for all rows: where time ends within a search, the row's cells wait."""
    first_rows("controller", 2, monkeypatch)
    out, allowed = tmp_path / "study", []

    def allows(budget, kind):
        allowed.append(kind)
        return len(allowed) <= 3 or "rank" not in kind

    monkeypatch.setattr(clock.Budget, "allows", allows)
    outcome = study("controller", data, out, cache, "--trials", "2", "--json")
    assert outcome.status == 0, outcome.err
    assert {row["options"] for row in table(out)} == {""}
    assert outcome.json["left_out"] == 2
    lines = {path.name: len(path.read_text().splitlines()) for path in (out / "search").glob("*.jsonl")}
    assert sorted(lines.values()) == [1, 2]


def test_a_budget_never_begins_what_would_end_too_late(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "time", lambda: now[0])
    budget = Budget(100.0)
    assert budget.allows("unknown")
    budget.spent("slow", 60)
    budget.spent("quick", 5)
    now[0] = 50
    assert not budget.allows("slow")
    assert not budget.allows("unknown")
    assert budget.allows("quick")
    assert Budget(None).allows("slow")


def test_a_training_that_diverges_stops_no_other(data, cache, tmp_path, monkeypatch):
    first_rows("controller", 2, monkeypatch)
    narrowed = QUESTIONS["controller"]

    def measure(laboratory, cell, settings, folder):
        if cell.row.get("rank") and cell.seed == 0:
            raise DivergedError("the training loss became nan")
        return narrowed.measure(laboratory, cell, settings, folder)

    monkeypatch.setitem(QUESTIONS, "controller", replace(narrowed, measure=measure))
    outcome = study("controller", data, tmp_path / "study", cache, "--trials", "0", "--json")
    assert (outcome.status, outcome.json["cells"], outcome.json["left_out"]) == (0, 3, 0)
    assert "the training loss became nan" in " ".join(outcome.err.split())
    assert any(note.startswith("Training diverged") and "rank=4" in note for note in outcome.json["notes"])
    assert any("rank 4" in note for note in outcome.json["notes"])  # not compared: it lacks a seed


def test_settings_and_searches_are_used(data, cache, tmp_path, monkeypatch):
    """The cell's rate is the best of its row's trials, which begin where the question says."""
    first_rows("controller", 2, monkeypatch)
    out = tmp_path / "study"
    assert study("controller", data, out, cache, "--trials", "2").status == 0
    begun = set()
    for path in (out / "search").glob("*.jsonl"):
        trials = [json.loads(line) for line in path.read_text().splitlines()]
        best = min(trials, key=lambda trial: trial["nll"])["params"]["learning_rate"]
        begun.add(trials[0]["params"]["learning_rate"])
        cells = QUESTIONS["controller"].stages((0, 1))[0].cells
        row = next(row for row in cells if search_path(out, search_of(QUESTIONS["controller"], row)) == path)
        assert read_cell(out, row)["settings"]["learning_rate"] == best
    assert begun == {0.2, 0.06}


def test_what_training_keeps_is_what_it_predicts(data, cache, tmp_path, monkeypatch):
    """The kept probabilities give the cell's own Brier score where all test examples are kept; two draws differ."""
    quick_training(monkeypatch)
    out = tmp_path / "study"
    assert study("training", data, out, cache, "--trials", "0").status == 0
    cells = next(stage.cells for stage in QUESTIONS["training"].stages((0, 1)) if stage.name == "images")
    kept = []
    for cell in cells:
        tensors, _ = read_tensors(out / "cells" / f"{cell.key}.probabilities.safetensors")
        p, y = tensors["probabilities"].double().numpy(), tensors["target"].numpy()
        brier = np.square(p - np.eye(p.shape[1])[y]).sum(1).mean()
        assert brier == pytest.approx(
            read_cell(out, cell)["brier"], abs=2e-3
        )  # probabilities are kept in half precision
        kept.append(p)
    quiet = [p for cell, p in zip(cells, kept, strict=True) if "stochastic" not in cell.row.label and cell.seed == 0]
    assert not np.array_equal(quiet[0], quiet[1])
    assert read_cell(out, cells[0])["settings"]["epochs"] == 3  # twelve images are one batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1"], "--seeds must be 2 to 1000"),
        (["--hours", "-1"], "--hours must be"),
        (["--hours", "nan"], "--hours must be"),
        (["--trials", "101"], "--trials must be"),
        (["--devices", "0"], "--devices must be"),
        (["--epochs", "0"], "tuning: epochs"),
    ],
)
def test_bad_options_are_refused(options, message, refused, data):
    refused(lambda out, cache: study("controller", data, out, cache, *options), re.escape(message))


def test_unknown_questions_and_data_are_refused(refused, data, tmp_path):
    refused(lambda out, cache: study("controler", data, out, cache), "did you mean 'controller'")
    refused(lambda out, cache: study("controller", tmp_path / "none", out, cache), "none")


def test_another_folder_is_refused(data, cache, tmp_path, monkeypatch):
    first_rows("controller", 1, monkeypatch)
    out = tmp_path / "study"
    assert study("controller", data, out, cache, "--trials", "0").status == 0
    before = snapshot(out)
    for options, message in (
        (["--trials", "1"], "another trials"),
        (["--trials", "0", "--channels", "8"], "another config.head"),
    ):
        outcome = study("controller", data, out, cache, *options)
        assert (outcome.status, message in outcome.line) == (2, True), outcome
    outcome = study("residual", data, out, cache)
    assert (outcome.status, "another question" in outcome.line) == (2, True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    outcome = study("controller", data, tmp_path / "other", cache)
    assert (outcome.status, "not a study of an open question" in outcome.line) == (2, True)
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": "high"}, "accuracy"),
        ({"accuracy": True}, "is damaged: accuracy: Input should be a valid number (found: True)"),
        ({"seed": 7}, "another cell's"),
        ({"influence": None}, "influence"),
    ],
)
def test_damaged_numbers_are_refused(change, message, finished, data, cache, tmp_path, monkeypatch):
    first_rows("residual", 3, monkeypatch)
    out = shutil.copytree(finished, tmp_path / "study")
    path = next((out / "cells").glob("comodulation*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    outcome = study("residual", data, out, cache)
    assert (outcome.status, message in last_line(outcome)) == (2, True), outcome


# ---- verdicts ---------------------------------------------------------------------------------------------------------


def words(finding):
    return judged([finding])[0].verdict


def difference(mean, half, seeds=3):
    return PairedDifference(mean, mean - half, mean + half, 0.01, seeds, half / 2.5, float("nan"))


def test_verdicts_on_the_controller():
    """Half a point is what counts: decided, within it, or neither; the fewest numbers that keep it."""
    form = {
        "comodulation hidden=64": difference(-0.01, 0.002),
        "comodulation rank=1": difference(-0.2, 0.1),
    }
    assert controllers.form_verdict(form).verdict == "holds"
    assert "MLP 64" in controllers.form_verdict(form).note  # rank is a matter of size
    assert controllers.form_verdict({"comodulation hidden=64": difference(0.001, 0.003)}).verdict == "does not hold"
    assert controllers.form_verdict({"comodulation hidden=64": difference(0.001, 0.006)}).verdict == "cannot be told"
    assert controllers.form_verdict({}).verdict == "cannot be told"
    parameters = {"comodulation": 5120, **{f"comodulation rank={r}": 276 * r for r in (1, 4, 8, 32)}}
    ranks = {
        1: difference(-0.03, 0.002),
        4: difference(-0.001, 0.003),
        8: difference(0, 0.003),
        32: difference(0, 0.001),
    }
    size = controllers.size_verdict({f"comodulation rank={r}": d for r, d in ranks.items()}, parameters)
    assert (size.verdict, "1,104 of 5,120" in size.note) == ("holds", True)  # not 32: it has more than the embedding
    size = controllers.size_verdict({"comodulation rank=1": ranks[1]}, parameters)
    assert size.verdict == "does not hold"
    size = controllers.size_verdict({"comodulation rank=1": difference(-0.005, 0.002)}, parameters)
    assert size.verdict == "cannot be told"


def pair(images, accuracy, variance=(0.0, 0.0, 0.0), bias=(0.0, 0.0, 0.0), gained=None):
    zeros = [0.0, 0.0, 0.0]
    return trainings.Pair(
        trainings.Condition(images),
        (0, 1, 2),
        list(accuracy),
        zeros,
        zeros,
        list(bias),
        list(variance),
        gained or [-0.1] * 3,
    )


def test_verdicts_on_training():
    """Noise that pays with few images alone, by less variance and more bias; and noise that never pays."""
    pays = [pair(5, (0.03, 0.031, 0.029), (-0.02, -0.021, -0.019), (0.01, 0.011, 0.009)), pair(100, (-0.001, 0, 0.001))]
    verdict, tested = trainings.pays_verdict(pays)
    assert (verdict.verdict, len(tested)) == ("holds", 2)
    assert "5 images" in verdict.note
    assert [v.verdict for v in judged(trainings.explanation_findings(pays))] == ["holds", "holds"]
    assert words(trainings.trend_finding(pays)) == "holds"
    costs = [
        pair(5, (-0.03, -0.031, -0.029), (0.02, 0.021, 0.019), (-0.01, -0.011, -0.009)),
        pair(None, (-0.01, -0.011, -0.009)),
    ]
    assert trainings.pays_verdict(costs)[0].verdict == "does not hold"
    assert [v.verdict for v in judged(trainings.explanation_findings(costs))] == ["does not hold", "does not hold"]
    unclear = [pair(5, (-0.03, 0.031, 0.01))]
    assert trainings.pays_verdict(unclear)[0].verdict == "cannot be told"
    nothing = judged([*trainings.explanation_findings([]), trainings.trend_finding([])])
    for verdict in (*nothing, trainings.pays_verdict([])[0]):
        assert (verdict.verdict, verdict.interval) == ("cannot be told", "")


def test_trainings_that_learned_nothing_are_told_apart():
    """Two networks without a task, whatever their difference; where that network is not there, nothing is known."""
    assert pair(5, (0.0, 0.001, -0.001), gained=[-0.001, 0.0, 0.002]).idle
    assert not pair(5, (0.0, 0.001, -0.001)).idle
    assert not pair(5, (0.0, 0.001, -0.001), gained=[math.nan] * 3).idle


def test_one_steady_condition_makes_no_other_decided():
    """Spreads of very different size: a condition is judged by its own."""
    steady = [pair(images, (0.0001, 0.0, -0.0001)) for images in (5, 25, None)]
    loose = pair(100, (0.002, 0.006, 0.005))
    verdict, tested = trainings.pays_verdict([*steady, loose])
    d = tested[loose.condition]
    together = paired_difference(loose.accuracy, [0, 0, 0], 1 - 0.05 / 4)
    assert (d.low, d.high) == pytest.approx((together.low, together.high))
    assert d.p == pytest.approx(min(1.0, 4 * together.p))
    assert verdict.verdict != "holds"


def network(options, advantage, **properties):
    usual = dict.fromkeys(residuals.PROPERTIES, 0.0)
    return residuals.Network(options, (0, 1, 2), list(advantage), [0.0] * 3, 0.7, 0.6, usual | properties)


def test_verdicts_on_residual_networks():
    """An advantage that grows with the strength, which influence follows too; and one that follows nothing."""
    grows = [
        network(residuals.skips(s, s), (0.01 * s, 0.011 * s, 0.009 * s), influence=s, below_0=1.0)
        for s in (0, 0.25, 0.5, 0.75, 1)
    ] + [
        network(residuals.skips(1, 0), (0.004, 0.004, 0.005), influence=0.4),
        network(residuals.skips(0, 1), (0.006,) * 3, influence=0.6),
    ]
    found, constant = residuals.tested_properties(grows)
    assert [p.name for p in found] == ["influence"]
    assert len(constant) == len(residuals.PROPERTIES) - 1
    assert residuals.prediction_verdict(found, len(grows)).verdict == "holds"
    assert words(residuals.strength_finding(grows)) == "holds"
    assert words(residuals.place_finding(grows)) == "holds"
    begun = grows[1]._replace(seeds=(0,), advantage=grows[1].advantage[:1])
    assert words(residuals.strength_finding([grows[0], begun, *grows[2:]])) == "holds"
    rng = np.random.default_rng(0)
    flat = [network(residuals.skips(s, s), rng.normal(size=3), influence=s) for s in (0, 0.25, 0.5, 0.75, 1)]
    assert words(residuals.strength_finding(flat)) == "cannot be told"
    assert residuals.prediction_verdict(residuals.tested_properties(flat)[0], 5).verdict == "cannot be told"
    assert residuals.tested_properties(grows[:3]) == ([], [])
    assert {v.verdict for v in judged(residuals.change_findings(grows))} == {"cannot be told"}


def test_networks_of_an_unfinished_study():
    """Fifteen on two seeds and one of them on a third are all compared, on the two; a dead network is left out."""
    kinds = [network(residuals.skips(k / 15, 0), (0.1 * k, 0.1 * k, 0.1 * k), influence=k) for k in range(15)]
    two = [kinds[0], *(k._replace(seeds=(0, 2), advantage=k.advantage[:2], nll=k.nll[:2]) for k in kinds[1:])]
    assert [k.seeds for k in residuals.complete(two)] == [(0, 2)] * 15
    dead = network(residuals.skips(1, 1), (0.1, 0.2, 0.3), influence=math.nan)
    assert residuals.complete([*kinds, dead]) == kinds


def test_every_question_has_what_its_page_says():
    """A verb's help and the documentation name every question; no cell is in two stages."""
    names = comodulate("study", "--help").out
    page = (Path(__file__).parents[3] / "docs" / "questions.md").read_text()
    for name, question in questions.QUESTIONS.items():
        assert name in names
        assert f"comodulate study {name}" in page
        cells = [cell for stage in question.stages((0, 1, 2)) for cell in stage.cells]
        assert len(set(cells)) == len(cells)
        assert len({cell.key for cell in cells}) == len(cells)
