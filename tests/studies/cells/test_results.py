"""The two tables for machines: their columns, and that anyone can recompute the second from the first."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from comodulation.errors import InputError
from comodulation.evaluation import expected_calibration_error
from comodulation.studies.cells import CELLS
from comodulation.studies.cells.results import (
    PRIMARY,
    Result,
    all_comparisons,
    cells_csv,
    compare,
    comparisons_csv,
    held_constant,
    incomplete_yardsticks,
    pairs,
    read_cells_csv,
    read_scores,
    values,
)
from comodulation.studies.cells.rows import Cell, Row
from support.small_study import small_study

CELL_COLUMNS = "variant,readout,method,options,seed,accuracy,nll,ece,brier,learnable_parameters,seconds"
COMPARISON_COLUMNS = (
    "variant,readout,metric,a,b,n,difference,low,high,p_t,p_wilcoxon,p_holm,family,low_family,high_family"
)
METRICS = ("accuracy", "nll", "ece", "brier")


def made(seeds=8):
    """Cells of six rows in two variants and readouts over seeds, with numbers drawn at random."""
    rng, results = np.random.default_rng(0), []
    labels = (
        "base", "attention", "comodulation", "comodulation link=rectified", "comodulation task_bias=True", "task-bias",
        "attention task_bias=True", "comodulation images=25", "attention images=25",
    )  # fmt: skip
    for variant in ("residual", "base"):
        for readout in ("open", "restricted"):
            for label in labels:
                row, level = Row.parse(label), rng.normal(0, 0.02)
                for seed in range(seeds - 2 * (label == "task-bias")):
                    numbers = {m: float(0.5 + level + rng.normal(0, 0.01)) for m in METRICS}
                    if label == "attention task_bias=True":
                        numbers["accuracy"] = 0.5
                    numbers |= {
                        "variant": variant, "readout": readout, "method": row.method, "options": row.described,
                        "seed": seed, "learnable_parameters": 16, "seconds": 1.5,
                    }  # fmt: skip
                    results.append(Result(Cell(variant, readout, row, seed), numbers))
    return results


def recomputed(cells):
    """Every comparison of the file, from the cells alone, with scipy: {key: (n, mean, low, high, p, p_wilcoxon)}."""
    by_row = {}
    for row in cells:
        label = f"{row['method']} {row['options']}".strip()
        by_row.setdefault((row["variant"], row["readout"], label), {})[int(row["seed"])] = row

    def side_of(variant, readout, label):
        """The linear readout is the same everywhere, and stands in the table once."""
        return by_row["residual", "open", label] if label.startswith("linear") else by_row[variant, readout, label]

    def numbers(variant, readout, metric, a, b):
        left, right = (side_of(variant, readout, label) for label in (a, b))
        seeds = sorted(left.keys() & right.keys())
        x, y = (np.array([float(side[s][metric]) for s in seeds]) for side in (left, right))
        d = x - y
        if len(seeds) < 2:
            return (len(seeds), *[math.nan] * 5)
        scale = max(np.abs(x).max(), np.abs(y).max())
        signed = np.round(d / scale, 12)
        wilcoxon = math.nan
        if len(seeds) >= 6 and signed.any():
            wilcoxon = stats.wilcoxon(signed[signed != 0], method="exact").pvalue
        if np.ptp(signed) == 0:
            return (len(seeds), d.mean(), d.mean(), d.mean(), math.nan, wilcoxon)
        low, high = stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d))
        return (len(seeds), d.mean(), low, high, stats.ttest_rel(x, y).pvalue, wilcoxon)

    return numbers


def holm(p_values):
    """Holm (1979) by hand: step down, the largest so far, at most 1."""
    order = np.argsort(p_values)
    adjusted, largest = np.empty(len(p_values)), 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def agree(cells_path, comparisons_path):
    """Recompute all of a comparisons.csv from its cells.csv."""
    with open(cells_path, newline="") as handle:
        numbers = recomputed(list(csv.DictReader(handle)))
    with open(comparisons_path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows
    tables = {}  # of one variant, readout and metric
    for row in rows:
        key = tuple(row[c] for c in ("variant", "readout", "metric", "a", "b"))
        expected = numbers(*key)
        shown = [float(row[c]) if row[c] else math.nan for c in ("n", "difference", "low", "high", "p_t", "p_wilcoxon")]
        assert shown == pytest.approx(expected, abs=1e-6, nan_ok=True), key
        if key == PRIMARY:
            assert row["p_holm"] == ""
            if row["difference"]:
                assert (row["family"], row["low_family"], row["high_family"]) == ("1", row["low"], row["high"])
        elif row["difference"]:
            tables.setdefault(key[:3], []).append((row, expected))
        else:
            assert (row["p_holm"], row["family"], row["low_family"]) == ("", "", "")
    for table in tables.values():
        p_holm = holm(np.array([1.0 if math.isnan(expected[4]) else expected[4] for _, expected in table]))
        for (row, (n, mean, _, high, p, _)), adjusted in zip(table, p_holm, strict=True):
            assert int(row["family"]) == len(table)
            assert (float(row["p_holm"]) if row["p_holm"] else math.nan) == pytest.approx(
                math.nan if math.isnan(p) else adjusted, abs=1e-6, nan_ok=True
            )
            # From the interval of one comparison, by the ratio of two quantiles of Student's t.
            wider = stats.t.isf(0.025 / len(table), n - 1) / stats.t.isf(0.025, n - 1)
            half = (high - mean) * wider
            together = float(row["low_family"]), float(row["high_family"])
            assert together == pytest.approx((mean - half, mean + half), abs=1e-6)
    return rows


# ---- made-up cells ----


def test_comparisons_can_be_recomputed_from_cells(tmp_path):
    """Eight seeds, so that every test is made; rows with fewer seeds, and a row without spread."""
    results = made()
    (tmp_path / "cells.csv").write_text(cells_csv(results))
    (tmp_path / "comparisons.csv").write_text(comparisons_csv(all_comparisons(results)))
    rows = agree(tmp_path / "cells.csv", tmp_path / "comparisons.csv")
    assert {row["n"] for row in rows} == {"8", "6"}
    assert all(row["p_wilcoxon"] for row in rows)
    assert len({tuple(row.values())[:5] for row in rows}) == len(rows)  # no comparison twice
    # The same from the table as from the cells.
    again = read_cells_csv(tmp_path / "cells.csv")
    assert comparisons_csv(all_comparisons(again)) == (tmp_path / "comparisons.csv").read_text()
    assert cells_csv(again) == (tmp_path / "cells.csv").read_text()


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_few_seeds(seeds, tmp_path):
    """One seed: n and nothing else; no Wilcoxon test below six."""
    results = [r for r in made() if r.cell.seed < seeds]
    (tmp_path / "cells.csv").write_text(cells_csv(results))
    (tmp_path / "comparisons.csv").write_text(comparisons_csv(all_comparisons(results)))
    rows = agree(tmp_path / "cells.csv", tmp_path / "comparisons.csv")
    assert all(row["p_wilcoxon"] == "" for row in rows)
    if seeds == 1:
        assert all(row[c] == "" for row in rows for c in ("difference", "low", "high", "p_t", "p_holm"))


def test_which_rows_are_compared():
    names = [
        "attention", "comodulation", "class-mask", "comodulation link=rectified", "comodulation task_bias=True",
        "task-bias", "attention task_bias=True", "comodulation images=25", "attention images=25", "ia3 images=25",
        "film distractors=1", "comodulation distractors=1",
    ]  # fmt: skip
    found = pairs(names)
    assert found[:3] == [("comodulation", b) for b in ("attention", "class-mask", "task-bias")]
    assert ("comodulation images=25", "attention images=25") in found
    assert ("comodulation images=25", "ia3 images=25") in found
    assert ("comodulation distractors=1", "film distractors=1") in found
    assert ("comodulation link=rectified", "comodulation") in found
    assert ("comodulation task_bias=True", "attention task_bias=True") in found
    assert ("attention task_bias=True", "attention") in found
    assert not any(("images" in a) != ("images" in b) for a, b in found)  # never across what the data are
    assert len(found) == len(set(found))
    assert all(a in names and b in names and a != b for a, b in found)


def test_values_that_are_not_numbers_do_not_count():
    cell = Cell("residual", "open", Row("attention"), 0)
    for value in (math.nan, math.inf, None):
        assert (
            values(
                [Result(cell, {"mechanism": {"fisher": value}})], "residual", "open", "attention", "mechanism.fisher"
            )
            == {}
        )
    assert values([Result(cell, {})], "residual", "open", "attention", "mechanism.fisher") == {}
    assert compare([], "residual", "open", "accuracy", "a", "b").difference is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "line 2: not a row of cells.csv"),
        (f"{CELL_COLUMNS}\nresidual,open,atention,,0,1,1,1,1,1,1\n", "line 2: .*did you mean 'attention'"),
        (f"{CELL_COLUMNS}\nresidual,open,attention,,0,x,1,1,1,1,1\n", "line 2: not a row"),
        (f"{CELL_COLUMNS}\nresidual,open,attention,,0\n", "line 2: not a row"),
    ],
)
def test_another_table(text, message, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_cells_csv(path)
    with pytest.raises(InputError, match="cannot read"):
        read_cells_csv(tmp_path / "other.csv")


def test_the_family_is_the_table():
    """What is compared in another metric, variant or readout does not change what decides here."""
    results = made()
    whole = {(c.variant, c.readout, c.metric, c.a, c.b): c.judged for c in all_comparisons(results)}
    part = [r for r in results if (r.cell.variant, r.cell.readout) == ("residual", "open")]
    assert len(part) < len(results)
    for c in all_comparisons(part):
        assert c.judged == whole[c.variant, c.readout, c.metric, c.a, c.b]
        if c.judged is not None and not c.primary and c.judged.decided:
            assert c.p_holm < 0.05


def with_linear(*seeds):
    """Made-up cells, and a linear readout of some seeds."""
    numbers = {"method": "linear", "options": "", "variant": "residual", "readout": "open", "learnable_parameters": 9}
    numbers |= {"seconds": 1.0, **dict.fromkeys(METRICS, 0.45)}
    cells = [Cell("residual", "open", Row("linear"), seed) for seed in seeds]
    return [*made(), *(Result(c, {**numbers, "seed": c.seed, "accuracy": 0.45 + 0.01 * c.seed}) for c in cells)]


def test_a_row_that_is_held_constant():
    """One cell stands for all seeds: its value is subtracted from every seed's, and the interval is that of the row alone."""
    results = with_linear(1, 2)
    assert incomplete_yardsticks(results) == ["linear"]
    constant = held_constant(results, ["linear"])
    own = np.array(list(values(results, "residual", "open", "comodulation", "accuracy").values()))
    low, high = stats.t.interval(0.95, 7, own.mean(), own.std(ddof=1) / math.sqrt(8))
    found = compare(constant, "residual", "open", "accuracy", "comodulation", "linear")
    assert found.seeds == tuple(range(8))
    d = found.difference
    assert (d.mean, d.low, d.high) == pytest.approx((own.mean() - 0.46, low - 0.46, high - 0.46))
    back = compare(constant, "residual", "open", "accuracy", "linear", "comodulation").difference
    assert (back.mean, back.low, back.high) == pytest.approx((-d.mean, -d.high, -d.low))
    # The same by the other route: a readout of every seed, all alike.
    alike = [Result(r.cell, {**r.numbers, "accuracy": 0.46}) for r in with_linear(*range(8)) if r.name == "linear"]
    assert compare([*made(), *alike], "residual", "open", "accuracy", "comodulation", "linear").difference == d
    # In every variant and readout; and not without being said.
    rows = [c for c in all_comparisons(constant) if c.b == "linear" and c.a == "comodulation"]
    assert len(rows) == 4 * len(METRICS)
    assert {len(c.seeds) for c in rows} == {8}
    assert {len(c.seeds) for c in all_comparisons(results) if c.b == "linear" and c.a == "comodulation"} == {2}
    assert values(constant, "residual", "open", "linear", "accuracy") == pytest.approx({1: 0.46, 2: 0.47})


def test_two_constants_are_not_compared():
    """Nothing varies over seeds that one cell of each stands for."""
    means = Result(Cell("residual", "open", Row("nearest-class-mean"), 0), dict.fromkeys(METRICS, 0.4))
    results = held_constant([*with_linear(0), means], ["linear", "nearest-class-mean"])
    assert compare(results, "residual", "open", "accuracy", "linear", "nearest-class-mean").difference is None
    assert incomplete_yardsticks(with_linear(*range(8))) == []


@pytest.mark.parametrize("study", ["attributes", "cifar100", "cifar100-192", "cifar100-resnet10", "cifar100-resnet18"])
def test_the_published_comparisons_follow_from_the_published_cells(study):
    folder = Path(__file__).parents[3] / "docs" / "results" / study
    constant = json.loads((folder / "results.json").read_text()).get("constant", [])
    results = held_constant(read_cells_csv(folder / "cells.csv"), constant)
    expected = list(csv.reader(io.StringIO(comparisons_csv(all_comparisons(results)))))
    with open(folder / "comparisons.csv", newline="") as handle:
        published = list(csv.reader(handle))
    assert [row[:6] for row in published] == [row[:6] for row in expected]
    for row, other in zip(published[1:], expected[1:], strict=True):
        assert [float(x or "nan") for x in row[6:]] == pytest.approx(
            [float(x or "nan") for x in other[6:]], nan_ok=True
        )


# ---- a study ----


def test_the_tables_of_a_study():
    """One row a cell with its numbers; the comparisons follow from them."""
    small = small_study()
    lines = (small.out / "cells.csv").read_text().splitlines()
    assert lines[0] == CELL_COLUMNS
    assert len(lines) - 1 == len(small.results) == len(list((small.out / CELLS).glob("*.json")))
    with open(small.out / "cells.csv", newline="") as handle:
        for row, result in zip(csv.DictReader(handle), small.results, strict=True):
            assert f"{row['method']} {row['options']}".strip() == result.name
            assert (row["variant"], row["readout"], int(row["seed"])) == (
                result.cell.variant, result.cell.readout, result.cell.seed,
            )  # fmt: skip
            for name in (*METRICS, "learnable_parameters", "seconds"):
                assert float(row[name]) == pytest.approx(result.numbers[name], rel=1e-9)
    assert (small.out / "comparisons.csv").read_text().splitlines()[0] == COMPARISON_COLUMNS
    rows = agree(small.out / "cells.csv", small.out / "comparisons.csv")
    assert any(tuple(row.values())[:5] == PRIMARY for row in rows)
    assert {row["a"] for row in rows} >= {"comodulation", "comodulation link=rectified", "comodulation images=25"}


def test_numbers_follow_from_the_stored_scores():
    """Accuracy, NLL, Brier score and ECE of every cell, before and after temperature scaling, and by task."""
    small = small_study()
    for result in small.results:
        found = {name: torch.from_numpy(value) for name, value in read_scores(small.out / CELLS, result).items()}
        for prefix, numbers in (("", result.numbers), ("scaled_", result.numbers["scaled"])):
            nll, confidence = found[f"{prefix}nll"].double(), found[f"{prefix}confidence"].double()
            hit = found["hit"].long()
            assert numbers["accuracy"] == pytest.approx(float(hit.double().mean()))
            assert numbers["nll"] == pytest.approx(float(nll.mean()), abs=1e-5)
            two = torch.stack([confidence, torch.zeros_like(confidence)], 1)  # class 0 is the answer that was given
            assert numbers["ece"] == pytest.approx(expected_calibration_error(two, 1 - hit), abs=1e-5)
        assert result.numbers["brier"] == pytest.approx(float(found["brier"].double().mean()), abs=1e-5)
        for number, task in enumerate(result.numbers["tasks"].values()):
            assert task["accuracy"] == pytest.approx(float(found["hit"][found["task"] == number].double().mean()))
        assert len(found["hit"]) == 40
        if not result.cell.row.get("distractors"):
            assert torch.equal(found["image"].long(), torch.arange(40))


def test_a_temperature_does_not_change_answers():
    for result in small_study().results:
        assert result.numbers["scaled"]["accuracy"] == pytest.approx(result.numbers["accuracy"])
        assert result.numbers["temperature"] > 0
