"""The linear readout in every table of a study: what it learns from, where it stands, and how far the others are from it."""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from comodulation.studies.cells import (
    CELLS,
    VARIANTS,
    YARDSTICKS,
    Cell,
    Laboratory,
    Row,
    read_material,
    read_scores,
    with_yardstick,
)
from comodulation.studies.paper import main_table, open_study, short_table, write_report
from comodulation.studies.paper.tables import task_table
from support.small_study import small_study


def linear_of(results):
    return [result for result in results if result.cell.row.method == "linear"]


def accuracy(label, variant, readout, seed):
    return small_study().cell(variant, readout, label, seed).numbers["accuracy"]


def test_one_a_seed():
    """It has no layers, so that one will do for both variants and readouts; every regime has its own."""
    places = [(r.cell.variant, r.cell.readout, r.name, r.cell.seed) for r in linear_of(small_study().results)]
    labels = ("linear", "linear images=25", "linear distractors=1")
    assert sorted(places) == sorted(("residual", "open", label, seed) for label in labels for seed in (0, 1))


def test_what_it_learns_from():
    """The images that other rows learn from and are validated on; in few images the few alone, in scenes the same scenes."""
    small = small_study()
    laboratory = Laboratory(read_material(small.study.name, small.study.config, small.cache))
    session = laboratory.session("residual", 0)
    parts, seen = session.parts, {}
    for label in (
        "linear",
        "attention",
        "linear images=5",
        "attention images=5",
        "linear distractors=1",
        "base distractors=1",
    ):
        seen[label] = laboratory.training_data(session, Cell("residual", "open", Row.parse(label), 0))
    own = sorted([*parts.tuning.tolist(), *parts.tuning_validation.tolist()])
    assert sorted(seen["linear"].tuning.image.tolist()) == own
    assert not set(own) & set(parts.pretraining.tolist())
    assert small.cell("residual", "open", "linear").numbers["tuning_images"] == len(own)
    assert seen["linear images=5"].tuning.image.tolist() == seen["attention images=5"].tuning.image.tolist()
    ours, theirs = seen["linear distractors=1"], seen["base distractors=1"]
    assert ours.features.key == theirs.features.key
    assert ours.tuning.image.tolist() == [*theirs.tuning.image.tolist(), *theirs.validation.image.tolist()]


def test_the_same_wherever_it_stands():
    """In every variant and readout that others have: its numbers, and its scores of every prediction."""
    small = small_study()
    found = [r for r in with_yardstick(small.results) if r.name == "linear" and r.cell.seed == 1]
    assert sorted((r.cell.variant, r.cell.readout) for r in found) == sorted(
        (variant, readout) for variant in VARIANTS for readout in ("open", "restricted")
    )
    assert all(r.numbers == found[0].numbers for r in found)
    hits = [read_scores(small.out / CELLS, r)["hit"] for r in found]
    assert all((one == hits[0]).all() for one in hits)
    assert hits[0].mean() == pytest.approx(found[0].numbers["accuracy"])
    assert not [
        r for r in with_yardstick(small.results) if r.name == "linear images=25" and r.cell.readout == "restricted"
    ]
    means = [r for r in with_yardstick(small.results) if r.name == "nearest-class-mean" and r.cell.seed == 1]
    assert len(means) == len(found)
    without = [r for r in small.results if r.cell.row.method not in ("linear", "nearest-class-mean")]
    assert with_yardstick(without) == without


@pytest.mark.parametrize("variant", VARIANTS)
def test_how_far_the_others_are(variant):
    """The table's differences are those of the cells; the row itself has none."""
    small = small_study()
    results = with_yardstick(small.results)
    for readout, table in (
        ("open", main_table(small.study, results, variant)),
        ("restricted", short_table(results, variant, "restricted")),
    ):
        column = table.columns.index("− linear" if readout == "open" else "accuracy − linear")
        rows = {row[0]: row for row in table.rows}
        assert rows["linear"][column].text == ""
        for label in ("attention", "comodulation"):
            differences = [
                accuracy(label, variant, readout, seed) - accuracy("linear", "residual", "open", seed)
                for seed in (0, 1)
            ]
            assert rows[label][column].text.split()[0] == f"{100 * np.mean(differences):+.2f}"


def test_the_terminal_and_the_page():
    """A row of every table of methods, a column of the terminal's, and the note that says what it is."""
    small = small_study()
    lines = small.outcome.json["text"].splitlines()
    assert len([line for line in lines if line.startswith("  linear ")]) == 2
    heads = [line for line in lines if line.startswith(VARIANTS)]
    assert len(heads) == 2
    assert all("− attention" in head and "− linear" in head for head in heads)
    page = (small.out / "report.html").read_text()
    assert page.count("Linear: logistic regression on the same frozen features") == 2
    assert re.search(r"comodulation − linear", page)
    with open(small.out / "comparisons.csv", newline="") as file:
        pairs = {(row["variant"], row["readout"], row["a"]) for row in csv.DictReader(file) if row["b"] == "linear"}
    assert pairs == {(v, r, "comodulation") for v in VARIANTS for r in ("open", "restricted")}
    assert (small.out / "cells.csv").read_text().count("residual,open,linear,,") == 2
    assert io.StringIO((small.out / "calibration.csv").read_text()).read().count(",linear,") == 1


@pytest.mark.parametrize("seeds", [(0, 1), (0,), (1,), ()], ids=str)
def test_a_study_whose_seeds_share_their_halves(seeds, no_study_figures, tmp_path):
    """One yardstick stands for every seed; a folder that has all of them, as earlier ones do, pairs them by seed."""
    small, own = small_study(), tmp_path / "study"
    shutil.copytree(small.out, own)
    described = json.loads((own / "study.json").read_text())
    described["config"]["split_seed"] = 0
    (own / "study.json").write_text(json.dumps(described))
    for result in small.results:
        if result.name in YARDSTICKS and result.cell.seed not in seeds:
            for path in (own / CELLS).glob(f"{result.cell.key}.*"):
                path.unlink()
    study, results = open_study(own)
    assert {cell.seed for cell in study.cells if cell.row == Row("linear")} == {0}  # what is left to do
    assert sorted(r.cell.seed for r in results if r.name == "linear") == list(seeds)
    report = write_report(own)
    constant = len(seeds) == 1
    assert report["constant"] == (list(YARDSTICKS) if constant else [])
    page = (own / "report.html").read_text()
    assert ("stand for all" in page) == ("stand for all" in report["text"]) == constant
    with open(own / "comparisons.csv", newline="") as file:
        found = [
            row
            for row in csv.DictReader(file)
            if (row["a"], row["b"], row["metric"]) == ("comodulation", "linear", "accuracy")
        ]
    assert len(found) == (4 if seeds else 0)
    for row in found:
        place = row["variant"], row["readout"]
        pairs = [(seed, seed if seed in seeds else seeds[0]) for seed in (0, 1)]
        differences = [
            accuracy("comodulation", *place, s) - accuracy("linear", "residual", "open", other) for s, other in pairs
        ]
        mean, half = np.mean(differences), stats.t.isf(0.025, 1) * stats.sem(differences)
        assert row["n"] == "2"
        numbers = [float(row[c]) for c in ("difference", "low", "high")]
        assert numbers == pytest.approx([mean, mean - half, mean + half])
    if not seeds:
        return
    table = main_table(study, with_yardstick(results), "residual")
    rows = {row[0]: row for row in table.rows}
    assert rows["linear"][table.columns.index("seeds")] == len(seeds)
    place = table.columns.index("− linear")
    ours = [accuracy("attention", "residual", "open", s) for s in (0, 1)]
    theirs = [accuracy("linear", "residual", "open", s) for s in seeds]
    assert rows["attention"][place].text.split()[0] == f"{100 * (np.mean(ours) - np.mean(theirs)):+.2f}"
    by_task = task_table(own, study, with_yardstick(results))
    share = np.mean([read_scores(own / CELLS, r)["hit"].mean() for r in results if r.name == "linear"])
    sizes = [row[1] for row in by_task.rows]
    assert np.average([row[-1] for row in by_task.rows], weights=sizes) == pytest.approx(100 * share)


def test_a_study_that_was_stopped_before_it_has_its_report(no_study_figures, tmp_path):
    """The tables are those of the methods that are there."""
    small, own = small_study(), tmp_path / "study"
    shutil.copytree(small.out, own)
    for path in (own / CELLS).glob("linear-*"):
        path.unlink()
    write_report(own)
    page = (own / "report.html").read_text()
    assert "Accuracy by task" in page
    assert "linear, %" not in page
