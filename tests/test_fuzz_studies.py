"""Study folders, damaged in every way: what a report is made of is what was written or valid in itself, or it is one line."""

import json
import shutil

import pytest
from hypothesis import strategies as st

from command import comodulate
from comodulation.store import read_json
from comodulation.studies import report
from comodulation.studies.claims import judge_claims
from comodulation.studies.diagnosis import diagnose
from comodulation.studies.illustration import read_illustration
from comodulation.studies.reproduce import CELLS, ILLUSTRATION, SEARCH, ablated, claim
from comodulation.studies.results import (
    all_comparisons,
    cells_csv,
    comparisons_csv,
    read_cells_csv,
    read_gains,
    read_scores,
)
from comodulation.studies.search import at_an_end, best_settings, read_trials
from comodulation.studies.tables import (
    ablation_table,
    calibration_rows,
    main_table,
    mechanism_table,
    methods_table,
    search_table,
)
from mutations import changed, damaged, few_or_hundreds, few_or_many, hunt, is_refusal, refused_or
from small_study import small_study
from test_fuzz_runs import repacked, unpacked

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


@few_or_many
def test_damaged_trials(cases, folder):
    study = small_study().study
    cell = study.plan().searches()[0]
    path = next(p for p in sorted((folder / SEARCH).glob("*.jsonl")) if cell.row.method in p.name and read_trials(p))
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def read(folder):
        for entry in read_trials(path):
            assert float(entry["nll"]) == entry["nll"] or entry["nll"] != entry["nll"]
        at_an_end(cell.row, best_settings(path))

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
    path = folder / ILLUSTRATION if kind == "illustration" else folder / CELLS / f"{result.cell.key}.{kind}.safetensors"

    def read(folder):
        if kind == "scores":
            read_scores(folder / CELLS, result)
            calibration_rows(folder, [result])
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
