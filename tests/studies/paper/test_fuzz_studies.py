"""Study folders, damaged in every way: what a report is made of is what was written or valid in itself, or it is one line."""

import json
import re
import shutil

import pytest
from hypothesis import strategies as st

from comodulation.errors import InputError
from comodulation.files import read_json
from comodulation.studies.cells import (
    CELLS,
    SEARCH,
    all_comparisons,
    best_settings,
    cells_csv,
    check_alike,
    claim,
    comparisons_csv,
    params_at_an_end,
    read_cells_csv,
    read_gains,
    read_scores,
    read_trials,
)
from comodulation.studies.paper import report
from comodulation.studies.paper.calibration_tables import calibration_rows
from comodulation.studies.paper.claims import judge_claims
from comodulation.studies.paper.diagnosis import diagnose
from comodulation.studies.paper.illustration import read_illustration
from comodulation.studies.paper.reproduction import ILLUSTRATION, ablated
from comodulation.studies.paper.search_tables import ablation_table, search_table
from comodulation.studies.paper.tables import (
    binary_table,
    group_table,
    main_table,
    mechanism_table,
    methods_table,
    task_table,
)
from comodulation.tensors import read_tensors, write_tensors
from support.command import comodulate
from support.mutations import changed, damaged, few_or_hundreds, few_or_many, hunt, is_refusal, refused_or
from support.packed import repacked, unpacked
from support.small_study import small_study

# A case that is not refused makes every table of the study.
few_or_a_hundred = pytest.mark.parametrize("cases", [4, pytest.param(100, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy, to be damaged and mended."""
    return shutil.copytree(small_study().out, tmp_path_factory.mktemp("study") / "study")


def read_all(folder):
    """Everything that `comodulate report` reads, but for the drawing."""
    study, results = report.open_study(folder)
    claim(study, folder)
    all_comparisons(results)
    comparisons_csv(all_comparisons(results))
    cells_csv(results)
    judge_claims(results, binary=False)
    diagnose(results, 0.125)
    for table in (main_table(study, results, "residual"), methods_table(results), search_table(folder, study)):
        assert table.columns
    mechanism_table(results)
    ablation_table(folder)


def hunt_in(folder, path, cases, read, *kinds):
    """Damage one file of a study, read, and put it back."""
    whole = path.read_bytes()

    def check(content):
        path.write_bytes(content)
        refused_or(lambda: read(folder))

    try:
        hunt(cases, check, st.one_of(damaged(whole), *kinds))
    finally:
        path.write_bytes(whole)


def as_json(value):
    return json.dumps(value).encode()


@few_or_a_hundred
def test_damaged_descriptions(cases, folder):
    hunt_in(folder, folder / "study.json", cases, read_all, changed(read_json(folder / "study.json")).map(as_json))


@few_or_a_hundred
@pytest.mark.parametrize("label", ["comodulation", "attention", "base"])
def test_damaged_numbers(label, cases, folder):
    path = folder / CELLS / f"{small_study().cell('residual', 'open', label).cell.key}.json"
    hunt_in(folder, path, cases, read_all, changed(read_json(path)).map(as_json))


def binary_metrics(seed):
    """Metrics of three binary tasks in two groups, as a cell of such a study holds them."""
    names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    rows = [{name: (1 + seed + k + place) / 10 for place, name in enumerate(names)} for k in range(3)]
    means = {**rows[0], "counted": dict.fromkeys(names, 3)}
    return {"tasks": dict(zip("abc", rows, strict=True)), "macro": means, "groups": {"x": means, "y": means}}


@few_or_a_hundred
def test_damaged_binary_metrics(cases, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "study")
    cells = [
        small_study().cell("residual", "open", name, s).cell
        for name in ("comodulation", "hard-sharing")
        for s in (0, 1)
    ]
    for cell in cells:
        place = copy / CELLS / f"{cell.key}.json"
        place.write_text(json.dumps(read_json(place) | {"binary": binary_metrics(cell.seed)}))

    def read(folder):
        _, results = report.open_study(folder)
        judge_claims(results, binary=True)
        for table in (binary_table(results, "residual"), group_table(results, "residual")):
            assert table is None or table.columns

    path = copy / CELLS / f"{cells[0].key}.json"
    whole = read_json(path)
    hunt_in(copy, path, cases, read, changed(whole["binary"]).map(lambda value: as_json(whole | {"binary": value})))


@few_or_many
def test_damaged_trials(cases, folder):
    study = small_study().study
    cell = study.plan().searches()[0]
    path = next(p for p in sorted((folder / SEARCH).glob("*.jsonl")) if cell.row.method in p.name and read_trials(p))
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def read(folder):
        for entry in read_trials(path):
            assert float(entry["nll"]) == entry["nll"] or entry["nll"] != entry["nll"]
        params_at_an_end(cell.row, best_settings(path))

    hunt_in(folder, path, cases, read, changed(lines).map(as_lines))


@few_or_many
def test_damaged_changes(cases, folder):
    path = sorted((folder / SEARCH).glob("ablation-*.jsonl"))[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()][:4]

    def read(folder):
        ablated(folder)
        ablation_table(folder)

    hunt_in(folder, path, cases, read, changed(lines).map(as_lines))


def as_lines(value):
    return "".join(json.dumps(line) + "\n" for line in (value if isinstance(value, list) else [value])).encode()


@few_or_hundreds
@pytest.mark.parametrize("kind", ["scores", "gains", "illustration"])
def test_damaged_tensors(kind, cases, folder):
    result = small_study().cell("residual", "open", "comodulation")
    primary = [
        small_study().cell("residual", "open", name, s) for name in ("comodulation", "attention") for s in (0, 1)
    ]
    path = folder / ILLUSTRATION if kind == "illustration" else folder / CELLS / f"{result.cell.key}.{kind}.safetensors"

    def read(folder):
        if kind == "scores":
            read_scores(folder / CELLS, result)
            calibration_rows(folder, [result])
            task_table(folder, small_study().study, primary)
        elif kind == "gains":
            read_gains(folder / CELLS, result)
        else:
            arrays, names = read_illustration(path)
            assert len(arrays["coupling"]) == len(names["tasks"])

    header, data = unpacked(path.read_bytes())
    hunt_in(folder, path, cases, read, changed(header).map(lambda value: repacked(value, data)))


@few_or_many
def test_damaged_tables_of_cells(cases, folder, tmp_path):
    path = tmp_path / "cells.csv"

    def check(content):
        path.write_bytes(content)
        found = refused_or(lambda: read_cells_csv(path))
        if not is_refusal(found):
            refused_or(lambda: all_comparisons(found))

    hunt(cases, check, damaged((folder / "cells.csv").read_bytes()[:3000]))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("mechanism", "decoder", "below"), {"0.03": 0.0, "0.1": 0.0, "0.3": 0.0}, "below.0.01: Field required"),
        (("mechanism", "decoder"), None, "mechanism.decoder: .*absent where there is none"),
        (("mechanism",), None, "mechanism: .*absent where there is none"),
        (("binary",), None, "binary: .*absent where there is none"),
        (("binary",), {"tasks": {}, "macro": {}, "groups": {}}, "binary.macro.accuracy: Field required"),
        (("history", 1, "nll"), "2.04", r"history.1.nll: .*valid number \(found: '2.04'\)"),
        (("outputs",), 0, "outputs: .*greater than or equal to 1"),
        (("nll",), 1e300, "nll: .*at most 1e.100"),
        (("learnable_parameters",), -1, "learnable_parameters: .*greater than or equal to 0"),
    ],
)
def test_a_damaged_number_is_named(place, value, message, folder):
    """From the command line: the file, the place in it, what was found and what was expected."""
    path = folder / CELLS / f"{small_study().cell('residual', 'open', 'comodulation').cell.key}.json"
    whole = path.read_bytes()
    numbers = json.loads(whole)
    holder = numbers
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path.write_text(json.dumps(numbers))
    try:
        outcome = comodulate("report", folder)
        assert outcome.status == 2
        assert re.search(f"{re.escape(str(path))} is damaged: .*{message}", outcome.line)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: {key: value[1:] for key, value in scores.items()}, "has other test predictions than"),
        (lambda scores: scores | {"task": scores["task"].flip(0)}, "has other test predictions than .*: task"),
        (lambda scores: scores | {"hit": scores["hit"] + 2}, "hit is uint8 from 2 to 3, expected whole numbers from 0"),
        (lambda scores: scores | {"confidence": -scores["confidence"]}, "confidence is float.* from 0 to 1"),
        (lambda scores: scores | {"task": scores["task"].float()}, "task is float32 .*expected whole numbers"),
    ],
)  # fmt: skip
def test_scores_that_do_not_fit(change, message, folder):
    """Whole files, with a checksum of their own: cells that were not tested on the same images cannot be compared."""
    result = small_study().cell("residual", "open", "attention", 1)
    path = folder / CELLS / f"{result.cell.key}.scores.safetensors"
    whole = path.read_bytes()
    write_tensors(path, change(read_tensors(path)[0]))
    try:
        outcome = comodulate("report", folder)
        assert outcome.status == 2
        assert re.search(f"{re.escape(str(path))} .*{message}", outcome.line)
    finally:
        path.write_bytes(whole)


def test_binary_metrics_of_other_tasks(tmp_path):
    """The relative improvement is over the same tasks on both sides."""
    one, other = tmp_path / "a.json", tmp_path / "b.json"
    numbers = {one: {"binary": binary_metrics(0)}, other: {"binary": binary_metrics(1)}, tmp_path / "c.json": {}}
    check_alike(numbers)
    del numbers[other]["binary"]["tasks"]["c"]
    with pytest.raises(InputError, match=r"b.json has binary metrics of other tasks than a.json: \['c'\]"):
        check_alike(numbers)


def test_files_that_are_missing_or_another_cells(folder):
    """From the command line: the report is made of what is there, or it is one line."""
    one, other = (small_study().cell("residual", "open", name).cell.key for name in ("comodulation", "attention"))
    place = folder / CELLS / f"{one}.json"
    whole = place.read_bytes()
    shutil.copy(folder / CELLS / f"{other}.json", place)
    outcome = comodulate("report", folder)
    assert outcome.status == 2
    assert "is another cell's: method is 'attention', expected 'comodulation'" in outcome.line
    place.write_bytes(whole)
    scores = folder / CELLS / f"{one}.scores.safetensors"
    kept = scores.read_bytes()
    scores.unlink()
    outcome = comodulate("report", folder)
    assert outcome.status == 2
    assert "no such file" in outcome.line
    scores.write_bytes(kept)
    (folder / "study.json").rename(folder / "x.json")
    assert "is not a study" in comodulate("report", folder).line
    (folder / "x.json").rename(folder / "study.json")
