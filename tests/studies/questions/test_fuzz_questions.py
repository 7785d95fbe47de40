"""Folders of `comodulate study`, damaged in every way: the answer is made of what is valid, or one line names the file."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from comodulation.errors import InputError
from comodulation.files import read_json, write_json
from comodulation.report import finite
from comodulation.studies.cells import (
    CELLS,
    QUESTION,
    SEARCH,
    Inquiry,
    Question,
    cell_path,
    cells_csv,
    claim,
    finished,
    next_rate,
    rates_at_an_end,
    read_probabilities,
    search_of,
    search_path,
    study_config,
    tried_rates,
)
from comodulation.studies.questions import controller as controllers
from comodulation.studies.questions.location import answer as locations
from comodulation.studies.questions.noise import answer as trainings
from comodulation.studies.questions.registry import QUESTIONS
from comodulation.studies.questions.residual import answer as residuals
from comodulation.tensors import write_tensors
from support.mutations import changed, damaged, few_or_many, hunt, refused_or
from support.packed import repacked, unpacked

# A case that is not refused makes every table of the answer.
few_or_a_hundred = pytest.mark.parametrize("cases", [4, pytest.param(100, marks=pytest.mark.slow)])
STAGES = {"controller": 2, "training": 2, "residual": 3, "location": 1}  # enough for every verdict


@dataclass(frozen=True)
class Folder:
    """A finished study with numbers of chance."""

    question: Question
    inquiry: Inquiry
    out: Path

    @property
    def cells(self):
        return [cell for stage in self.question.stages(self.inquiry.seeds) for cell in stage.cells]

    def cell(self, method):
        return next(cell for cell in self.cells if cell.row.method == method)


def probabilities(rng):
    """Of eight test examples, the same for all cells."""
    p = rng.dirichlet(np.ones(3), 8)
    return {
        "probabilities": torch.tensor(p).half(),
        "target": torch.arange(8, dtype=torch.int32) % 3,
        "image": torch.arange(8, dtype=torch.int32),
    }


def write_study(name, out):
    """The files that a study leaves, without the networks."""
    whole = QUESTIONS[name]
    question = Question(
        **vars(whole) | {"stages": lambda seeds: whole.stages(seeds)[: STAGES[name]]}
    )  # a stage is a tuple of cells
    folder = Folder(question, Inquiry(name, study_config("cifar100", "digits"), (0, 1), 2), out)
    rng = np.random.default_rng(0)
    for place in (CELLS, SEARCH):
        (out / place).mkdir(parents=True)
    write_json(out / QUESTION, folder.inquiry.to_json())
    for cell in folder.cells:
        accuracy, nll, ece, brier = rng.uniform(0.1, 0.9, 4).round(4).tolist()
        measured = question.columns if cell.row.method == "comodulation" else ()
        numbers = {
            "variant": cell.variant, "readout": cell.readout, "method": cell.row.method, "options": cell.row.described,
            "seed": cell.seed, "accuracy": accuracy, "nll": nll, "ece": ece, "brier": brier,
            "learnable_parameters": int(rng.integers(1, 9999)), "seconds": 1.5, "settings": {"learning_rate": 0.2},
            "epochs": 2, **{column: float(rng.uniform()) for column in measured}, "seconds_in_all": 1.8,
        }  # fmt: skip
        if name == "location" and cell.row.method == "base":
            numbers["alone"] = 0.8
        write_json(cell_path(out, cell), numbers)
        if name == "training":
            write_tensors(out / CELLS / f"{cell.key}.probabilities.safetensors", probabilities(rng))
        lines = [{"params": {"learning_rate": rate}, "diverged": False, "nll": 1 + rate} for rate in (0.2, 0.6)]
        search_path(out, search_of(question, cell)).write_bytes(as_lines(lines))
    return folder


@pytest.fixture(scope="module", params=sorted(STAGES))
def folder(request, tmp_path_factory):
    return write_study(request.param, tmp_path_factory.mktemp("questions") / request.param)


@pytest.fixture(scope="module")
def of_training(tmp_path_factory):
    return write_study("training", tmp_path_factory.mktemp("questions") / "training")


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    """Figures take as long as all the rest of an answer, and draw what its table says."""
    for module in (controllers, trainings, residuals, locations):
        monkeypatch.setattr(module, "_figures", lambda *given: {})


def read_all(folder):
    """Everything that `comodulate study` reads of a folder that is finished."""
    claim(folder.inquiry, folder.out)
    results = finished(folder.question, folder.inquiry, folder.out)
    cells_csv(results, folder.question.columns)
    answer = folder.question.answer(results, folder.inquiry, folder.out)
    assert answer.verdicts
    json.dumps(finite(answer.numbers), allow_nan=False)
    rates_at_an_end(folder.question, folder.out, folder.cells)


def hunt_in(path, cases, read, *kinds):
    """Damage one file of a study, read, and put it back."""
    whole = path.read_bytes()

    def check(content):
        path.write_bytes(content)
        refused_or(read)

    try:
        hunt(cases, check, st.one_of(damaged(whole), *kinds))
    finally:
        path.write_bytes(whole)


def as_json(value):
    return json.dumps(value).encode()


def as_lines(value):
    return "".join(json.dumps(line) + "\n" for line in (value if isinstance(value, list) else [value])).encode()


def test_a_whole_study_is_read(folder):
    read_all(folder)


@few_or_many
def test_damaged_descriptions(cases, of_training):
    """Read before anything else, and refused or the same inquiry."""
    path = of_training.out / QUESTION
    hunt_in(path, cases, lambda: claim(of_training.inquiry, of_training.out), changed(read_json(path)).map(as_json))


@few_or_a_hundred
@pytest.mark.parametrize("place", [0, -1])
def test_damaged_cells(place, cases, folder):
    """The first cell and the last: a network without a task and one with comodulation, where a question has both."""
    path = cell_path(folder.out, folder.cells[place])
    hunt_in(path, cases, lambda: read_all(folder), changed(read_json(path)).map(as_json))


@few_or_many
def test_damaged_searches(cases, of_training):
    """Whatever a search's file holds, the next rate is one, or the file is refused."""
    search = search_of(of_training.question, of_training.cell("comodulation"))
    path = search_path(of_training.out, search)

    def read():
        tried = tried_rates(of_training.out, search)
        assert 0 < next_rate(tried, 0.2) < math.inf
        rates_at_an_end(of_training.question, of_training.out, [of_training.cell("comodulation")])

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    hunt_in(path, cases, read, changed(lines).map(as_lines))


@few_or_a_hundred
def test_damaged_probabilities(cases, of_training):
    path = of_training.out / CELLS / f"{of_training.cell('comodulation').key}.probabilities.safetensors"
    header, data = unpacked(path.read_bytes())
    hunt_in(path, cases, lambda: read_all(of_training), changed(header).map(lambda value: repacked(value, data)))


# ---- what a refusal says ----


def refusal(path, content, read):
    """The line about a file with other content, which is put back."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(InputError) as caught:
            read()
        return str(caught.value)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": True}, r"accuracy: .*valid number \(found: True\)"),
        ({"accuracy": "0.5"}, r"accuracy: .*valid number \(found: '0.5'\)"),
        ({"nll": 1e300}, "nll: .*at most 1e.100"),
        ({"brier": None}, "brier: .*valid number"),
        ({"learnable_parameters": -1}, "learnable_parameters: .*greater than or equal to 0"),
        ({"learnable_parameters": 2.0}, "learnable_parameters: .*valid integer"),
        ({"seed": False}, "seed: .*valid integer"),
        ({"influence": True}, r"influence: .*valid number \(found: True\)"),
        ({"influence": 10**400}, "influence: "),
        ({"influence": math.inf}, r"influence: .*finite number \(found: inf\)"),
        ({"accuracy": math.nan}, r"accuracy: .*finite number \(found: nan\)"),
        ({"below_0.01": -1e200}, "below_0.01: .*at most 1e.100"),
        ({"alone": None}, r"alone: .*valid number \(found: None\)"),
    ],
)
def test_a_damaged_number_is_named(change, message, tmp_path):
    folder = write_study("residual", tmp_path / "study")
    path = cell_path(folder.out, folder.cell("comodulation"))
    line = refusal(path, as_json(read_json(path) | change), lambda: read_all(folder))
    assert re.match(f"{re.escape(str(path))} is damaged: {message}", line), line


def test_a_number_that_only_comodulation_measures_is_missing(tmp_path):
    folder = write_study("residual", tmp_path / "study")
    for method, refused in (("comodulation", True), ("attention", False)):
        path = cell_path(folder.out, folder.cell(method))
        numbers = {key: value for key, value in read_json(path).items() if key != "influence"}
        if refused:
            line = refusal(path, as_json(numbers), lambda: read_all(folder))
            assert f"{path} is damaged: influence: Field required" in line
        else:
            path.write_bytes(as_json(numbers))
            read_all(folder)


def test_a_study_begun_before_a_field_existed_goes_on(of_training):
    """What is missing has its default, wherever it is; any other value is another study."""
    path = of_training.out / QUESTION
    whole, written = path.read_bytes(), read_json(path)
    for section, name in (("head", "depth"), ("head", "batch_norm"), ("controller", "rank")):
        del written["config"][section][name]
    try:
        write_json(path, written)
        claim(of_training.inquiry, of_training.out)
        written["config"]["head"]["depth"] = 2
        write_json(path, written)
        with pytest.raises(InputError, match=r"another config\.head\.depth \(2, now 1\)"):
            claim(of_training.inquiry, of_training.out)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": "all"}, r"seeds: .*valid list \(found: 'all'\)"),
        ({"seeds": [0, True]}, r"seeds.1: .*valid integer \(found: True\)"),
        ({"trials": True}, r"trials: .*valid integer \(found: True\)"),
        ({"trials": 2.0}, r"trials: .*valid integer \(found: 2.0\)"),
        ({"schema": 2}, r"schema: Input should be 1 \(found: 2\)"),
        ({"config": []}, r"config: .*valid dictionary"),
    ],
)
def test_a_damaged_description_is_named(change, message, of_training):
    path = of_training.out / QUESTION
    line = refusal(path, as_json(read_json(path) | change), lambda: claim(of_training.inquiry, of_training.out))
    assert re.match(f"{re.escape(str(path))} is damaged: {message}", line), line


@pytest.mark.parametrize("rate", [0, 0.0, -0.2, math.inf, math.nan, 1e-320, 1e308, True, "0.2", None])
def test_a_learning_rate_that_no_search_can_go_on_from(rate, of_training):
    """Neighbours of 0 or infinity are 0 and infinity again: a search would look for a new one without end."""
    search = search_of(of_training.question, of_training.cell("comodulation"))
    path = search_path(of_training.out, search)
    content = as_lines([{"params": {"learning_rate": rate}, "diverged": False, "nll": 1.0}])
    line = refusal(path, content, lambda: tried_rates(of_training.out, search))
    assert str(path) in line
    assert "learning_rate" in line


def test_a_trial_without_its_rate_or_with_a_score_beyond_any(of_training):
    search = search_of(of_training.question, of_training.cell("comodulation"))
    path = search_path(of_training.out, search)
    for params, nll, message in (
        ({"beta": 1.0}, 1.0, "params.learning_rate: Field required"),
        ({"learning_rate": 0.2}, 1e200, "nll: "),
    ):
        content = as_lines([{"params": params, "diverged": False, "nll": nll}])
        line = refusal(path, content, lambda: tried_rates(of_training.out, search))
        assert f"{path} is damaged: {message}" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"target": t["target"]}, "has no probabilities"),
        (lambda t: t | {"probabilities": t["probabilities"][0]}, r"probabilities are \(3,\) and target \(8,\)"),
        (lambda t: t | {"target": t["target"][1:]}, r"probabilities are \(8, 3\) and target \(7,\)"),
        (lambda t: t | {"probabilities": -t["probabilities"]}, "expected 0 to 1"),
        (lambda t: t | {"probabilities": t["probabilities"] / 0}, "expected 0 to 1"),
        (lambda t: t | {"target": t["target"] + 1}, "target is int32 from 1 to 3, expected classes from 0 to 2"),
        (lambda t: t | {"target": t["target"] - 1}, "target is int32 from -1 to 1"),
        (lambda t: t | {"target": t["target"].float()}, "target is float32"),
        (lambda t: t | {"target": t["target"].flip(0)}, "has other test examples than first"),
        (lambda t: {name: value[1:] for name, value in t.items()}, "has other test examples than first"),
    ],
)  # fmt: skip
def test_probabilities_that_do_not_fit(change, message, tmp_path):
    """Whole files, with a checksum of their own: the error over draws can be split only where the examples are the same."""
    rng = np.random.default_rng(0)
    one, other = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    whole = probabilities(rng)
    write_tensors(one, whole)
    write_tensors(other, change(probabilities(rng)))
    with pytest.raises(InputError, match=f"{re.escape(str(other))} .*{message}"):
        read_probabilities([one, other])
    found, target = read_probabilities([one, one])
    assert found.shape == (2, 8, 3)
    np.testing.assert_array_equal(found[1], whole["probabilities"].double().numpy())
    np.testing.assert_array_equal(target, whole["target"].numpy())
