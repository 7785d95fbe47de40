"""Verdicts on hand-made numbers: each claim holds, fails or cannot be told when it must."""

import math
import re

import numpy as np
import pytest

from comodulation.evaluation import CrossedDifference, as_family, paired_difference
from comodulation.report import FAILS, HOLDS, UNKNOWN
from comodulation.studies.cells import Cell, Finding, Result, Row, judged, shown_p, sign_verdict, strength
from comodulation.studies.paper.claims import judge_claims, judge_paper_form, relative_to_hard_sharing
from comodulation.studies.paper.diagnosis import diagnose
from comodulation.studies.paper.tables import forms_table

SEEDS = 6
NOISE = np.array([0.3, -0.2, 0.1, -0.3, 0.2, -0.1])  # mean 0, sd 0.237


def study(effects, seeds=SEEDS, binary=False, **sections):
    """Results of rows whose numbers differ by an effect plus a little noise over seeds.

    Args:
        effects: (variant, row) -> {metric: value}; metrics by their path.
    """
    results = []
    for (variant, label), numbers in effects.items():
        for seed in range(seeds):
            tree = {"mechanism": {}, "scaled": {}, "pretraining": {"accuracy": 0.7}, "history": [], **sections}
            tree |= {"accuracy": 0.5, "nll": 1.0, "ece": 0.1, "brier": 0.5}
            for path, value in numbers.items():
                *places, name = path.split("/")
                node = tree
                for place in places:
                    node = node.setdefault(place, {})
                shift = value(seed) if callable(value) else value
                node[name] = shift
            if binary:
                tree["binary"] = {"tasks": {k: dict.fromkeys(BINARY, v) for k, v in tree["per_task"].items()}}
            results.append(Result(Cell(variant, "open", Row.parse(label), seed), tree))
    return results


BINARY = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")


def noisy(mean, size=0.01):
    """A value by seed with this mean: a t interval of about 1.05 size / sqrt(6) on either side."""
    return lambda seed: mean + size * NOISE[seed]


def pair(metric, difference, scale=0.01, other="attention", variants=("residual", "base")):
    """Comodulation above another row by a difference, over seeds."""
    found = {}
    for variant in variants:
        found[variant, "comodulation"] = {metric: noisy(0.5 + difference, scale)}
        found[variant, other] = {metric: 0.5}
    return found


def verdict(results, claim, binary=False):
    found = [v for v in judge_claims(results, binary) if v.claim == claim]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("difference", "expected"), [(0.02, HOLDS), (-0.02, FAILS), (0.001, UNKNOWN)])
@pytest.mark.parametrize(
    ("claim", "metric", "sign"),
    [("C2 accuracy", "accuracy", 1), ("C3 separation", "mechanism/dprime", 1), ("C4 calibration", "ece", -1)],
)
def test_claims_about_a_sign(claim, metric, sign, difference, expected):
    """The interval lies on the claimed side of 0, on the other, or includes 0."""
    found = verdict(study(pair(metric, sign * difference)), claim)
    assert found.verdict == expected
    assert found.n == "6 seeds"
    unit = 1 if claim == "C3 separation" else 100
    assert found.effect.startswith(f"{unit * sign * difference:+.{3 if unit == 1 else 2}f}")


def test_the_numbers_of_a_verdict():
    """Mean, t interval and p as scipy has them."""
    from scipy import stats

    found = verdict(study(pair("accuracy", 0.02)), "C2 accuracy")
    values = 0.02 + 0.01 * NOISE
    low, high = stats.t.interval(0.975, 5, values.mean(), stats.sem(values))
    assert found.interval == f"[{100 * low:+.2f}, {100 * high:+.2f}], 95% of 2 together, over seeds"
    assert found.p == f"{shown_p(2 * stats.ttest_1samp(values, 0).pvalue)} (Holm)"
    assert "The primary comparison, named beforehand." in found.note
    assert "Hedges' g" in found.note


@pytest.mark.parametrize(
    ("difference", "scale", "expected"),
    [(0.021, 0.001, HOLDS), (0.018, 0.01, UNKNOWN), (0.01, 0.01, FAILS), (-0.01, 0.01, FAILS), (0.01, 0.2, UNKNOWN)],
)
def test_the_size_of_the_advantage(difference, scale, expected):
    """1.8 points are reached, may be, or are excluded."""
    found = verdict(study(pair("accuracy", difference, scale)), "C2 size")
    assert found.verdict == expected
    assert f"{100 * difference:.2f} of 1.8" in found.note


@pytest.mark.parametrize(
    ("residual", "base", "expected"), [(0.03, 0.01, HOLDS), (0.01, 0.03, FAILS), (0.02, 0.02, UNKNOWN)]
)
def test_the_interaction_with_the_variant(residual, base, expected):
    """Difference of differences, paired over seeds."""
    rows = pair("accuracy", residual, variants=("residual",)) | {
        ("base", "comodulation"): {"accuracy": lambda seed: 0.4 + base - 0.01 * NOISE[seed]},
        ("base", "attention"): {"accuracy": 0.4},
    }
    found = verdict(study(rows), "C2 residual")
    assert found.verdict == expected
    assert found.effect == f"{100 * (residual - base):+.2f} points"


@pytest.mark.parametrize(
    ("metric", "difference", "half", "expected"),
    [
        ("accuracy", 0.02, 0.01, HOLDS), ("accuracy", 0.02, 0.03, UNKNOWN), ("accuracy", -0.02, 0.01, FAILS),
        ("accuracy", 0.02, 0.0185, UNKNOWN), ("nll", -0.02, 0.01, HOLDS), ("nll", 0.02, 0.01, FAILS), ("nll", -0.02, 0.03, UNKNOWN),
    ],
)  # fmt: skip
def test_the_interval_over_seeds_and_images_decides(metric, difference, half, expected):
    """Not the one over seeds, which is narrow here; an end that is nearly 0 decides nothing."""
    over = CrossedDifference(difference, difference - half, difference + half, half / 2, 0.0, half / 2, 0.0, 6, 5000)
    claim = {"accuracy": "C2 accuracy", "nll": "C2 likelihood"}[metric]
    results = study(pair(metric, difference, 0.001))
    found = {v.claim: v for v in judge_claims(results, False, {metric: over})}[claim]
    assert found.verdict == expected
    assert found.interval.endswith("95% of 2 together, over seeds and 5,000 test inputs")


@pytest.mark.parametrize(("residual", "base", "expected"), [(0.3, 0.1, HOLDS), (0.1, 0.3, FAILS), (0.2, 0.2, UNKNOWN)])
def test_sparsity_is_decided_under_the_paper_s_link(residual, base, expected):
    """Whatever the exponential one says."""
    path = "mechanism/decoder/below/0.3"
    rows = {
        ("residual", "comodulation link=rectified"): {path: noisy(residual)},
        ("base", "comodulation link=rectified"): {path: base},
    }
    rows |= {
        ("residual", "comodulation beta=1.0"): {path: noisy(base)},
        ("base", "comodulation beta=1.0"): {path: residual},
    }
    found = verdict(study(rows), "C5 sparsity")
    assert found.verdict == expected
    assert found.effect == f"{100 * (residual - base):+.2f} % of gains"
    assert "rectified link in both variants" in found.note


@pytest.mark.parametrize(("residual", "base", "expected"), [(0.3, 0.1, HOLDS), (0.1, 0.3, FAILS), (0.2, 0.2, UNKNOWN)])
def test_sparsity(residual, base, expected):
    path = "mechanism/decoder/below/0.3"
    name = "comodulation beta=1.0"  # equal in both variants; the paper's link was not run
    rows = {("residual", name): {path: noisy(residual)}, ("base", name): {path: base}}
    found = verdict(study(rows), "C5 sparsity")
    assert found.verdict == expected
    assert found.effect == f"{100 * (residual - base):+.2f} % of gains"


@pytest.mark.parametrize(
    ("comodulation", "attention", "expected"),
    [
        (0.02, -0.02, HOLDS),
        (-0.02, -0.02, FAILS),
        (0.02, 0.02, FAILS),
        (0.02, 0.0, UNKNOWN),
        (0.0, -0.02, UNKNOWN),
    ],
)
@pytest.mark.parametrize("reference", ["class-mask", "base"])
def test_residual_connections_help_one_and_hurt_the_other(comodulation, attention, expected, reference):
    """Beyond what they change in the network that both adapt, under its class mask where there is one."""
    rows = {}
    for variant, shift, own in (("residual", 1, 0.1), ("base", 0, 0.0)):
        rows[variant, reference] = {"accuracy": 0.4 + own}
        rows[variant, "comodulation"] = {"accuracy": noisy(0.5 + own + shift * comodulation, 0.01 * shift)}
        rows[variant, "attention"] = {"accuracy": noisy(0.5 + own + shift * attention, 0.01 * shift)}
        if reference == "class-mask":
            rows[variant, "base"] = {"accuracy": 0.1 - shift}  # not looked at
    found = verdict(study(rows), "C5 consequence")
    assert found.verdict == expected
    assert found.effect == f"{100 * comodulation:+.2f} points"


def attributes(method, hard, seeds=SEEDS):
    rows = {}
    for variant in ("residual", "base"):
        rows[variant, "comodulation"] = {f"per_task/{task}": value for task, value in method.items()}
        rows[variant, "hard-sharing"] = {f"per_task/{task}": value for task, value in hard.items()}
    return study(rows, seeds, binary=True)


@pytest.mark.parametrize(("gain", "expected"), [(0.03, HOLDS), (-0.03, FAILS), (0.0, UNKNOWN)])
def test_relative_improvement_over_hard_sharing(gain, expected):
    """Mean over tasks of (M - H) / H: a task at 0.5 and one at 0.8, both better by the same share."""
    method = {"a": noisy(0.5 * (1 + gain), 0.005), "b": noisy(0.8 * (1 + gain), 0.008)}
    results = attributes(method, {"a": 0.5, "b": 0.8})
    found = verdict(results, "C1 attributes", binary=True)
    assert found.verdict == expected
    assert float(found.effect.removesuffix(" %")) == pytest.approx(100 * gain)
    assert f"the interval {'includes' if gain == 0.03 else 'excludes'} 2.8%" in found.note
    d = relative_to_hard_sharing(results, "residual", "comodulation", "accuracy")
    expected = paired_difference(gain + 0.01 * NOISE, np.zeros(6))
    assert (d.mean, d.low, d.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_undefined_relative_improvement():
    """A seed in which it is undefined for every task is left out; a task in which it is does not count."""
    nan_once = {"a": lambda seed: math.nan if seed == 0 else 0.55}
    d = relative_to_hard_sharing(attributes(nan_once, {"a": 0.5}), "residual", "comodulation", "f1")
    assert d.n == 5
    assert d.mean == pytest.approx(0.1)
    d = relative_to_hard_sharing(
        attributes({"a": 0.55, "b": 0.3}, {"a": 0.5, "b": 0.0}), "residual", "comodulation", "f1"
    )
    assert d.mean == pytest.approx(0.1)
    nothing = attributes({"a": math.nan}, {"a": 0.5})
    assert relative_to_hard_sharing(nothing, "residual", "comodulation", "f1") is None
    assert verdict(nothing, "C1 attributes", binary=True).verdict == UNKNOWN


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("seeds", [0, 1])
def test_fewer_than_two_seeds(binary, seeds):
    """Nothing is computed, and every verdict says why."""
    rows = {}
    for variant in ("residual", "base"):
        for name in ("comodulation", "attention", "hard-sharing", "class-mask", "base"):
            rows[variant, name] = {"per_task/a": 0.5, "mechanism/dprime": 1.0, "mechanism/decoder/below/0.3": 0.1}
    found = judge_claims(study(rows, seeds, binary=binary), binary)
    assert [v.claim.split()[0] for v in found] == ["C1", "C2", "C2", "C2", "C2", "C3", "C4", "C5", "C5"]
    for v in found:
        assert v.verdict == UNKNOWN
        assert (v.effect, v.interval, v.p, v.n) == ("", "", "", "")
        assert "ewer than two seeds" in v.note or (not binary and v.claim == "C1 attributes"), v
    assert "comodulate reproduce attributes" in verdict(study(rows, seeds, binary=binary), "C1 attributes").note


@pytest.mark.parametrize("seeds", [2, 3])
def test_what_two_seeds_do_not_define_is_not_shown(seeds):
    """No nan on the page."""
    for scale in (0.0, 0.01):
        for v in judge_claims(
            study(pair("accuracy", 0.02, scale) | pair("accuracy", 0.1, 0, "class-mask"), seeds), False
        ):
            assert "nan" not in " ".join(vars(v).values()), v


def test_seeds_that_only_one_side_has_do_not_count():
    results = study(pair("accuracy", 0.02))
    results = [r for r in results if not (r.name == "attention" and r.cell.seed > 3)]
    assert verdict(results, "C2 accuracy").n == "4 seeds"


def test_other_readouts_and_rows_do_not_count():
    rows = pair("accuracy", 0.02) | {("residual", "comodulation task_bias=True"): {"accuracy": 0.0}}
    results = study(rows)
    results += [Result(Cell("residual", "restricted", r.cell.row, r.cell.seed), {"accuracy": 0.0}) for r in results]
    assert verdict(results, "C2 accuracy").effect == "+2.00 points"


def test_small_words():
    assert [shown_p(p) for p in (math.nan, 0.0004, 0.001, 0.0456, 1.0)] == ["", "< 0.001", "0.001", "0.046", "1.000"]
    assert sign_verdict(None) == UNKNOWN
    assert strength(paired_difference([1.0, 1.0], [0.0, 0.0]), 1, "points") == ""
    assert strength(paired_difference([1.0, 2.0, 3.0], [0.0] * 3), 1, "points") == "Hedges' g 1.13."
    six = strength(paired_difference([1.0, 2.0, 3.0, 1.0, 2.0, 3.0], [0.0] * 6), 1, "points")
    assert re.search(r"; 6 seeds find a difference of 0\.\d+ to 3\.\d+ points with power 0\.8\.$", six), six


# ---- verdicts that stand together ----


def test_the_comparison_named_beforehand_stands_apart_and_the_others_together():
    """Enough for one of two, not for one of three: the primary claim holds, the others cannot be told, with these numbers."""
    size = 0.056
    just = paired_difference(0.02 + size * NOISE, np.zeros(6))
    assert as_family([just] * 2)[0].decided
    assert not as_family([just] * 3)[0].decided
    rows = {}
    for variant in ("residual", "base"):
        sign = 1 if variant == "residual" else 0  # so that the interaction is the same difference
        rows[variant, "comodulation"] = {
            "accuracy": noisy(0.5 + 0.02 * sign, size * sign), "mechanism/dprime": noisy(1.02, size), "ece": noisy(0.08, size),
        }  # fmt: skip
        rows[variant, "attention"] = {"accuracy": 0.5, "mechanism/dprime": 1.0, "ece": 0.1}
    found = {v.claim: v for v in judge_claims(study(rows), False)}
    assert found["C2 accuracy"].verdict == HOLDS
    assert found["C2 accuracy"].p == f"{shown_p(2 * just.p)} (Holm)"
    assert found["C2 likelihood"].verdict == UNKNOWN  # of equal seeds
    for claim in ("C2 residual", "C3 separation"):
        assert found[claim].verdict == UNKNOWN, claim
        assert found[claim].interval.endswith("95% of 3 together")
        assert found[claim].p == f"{shown_p(as_family([just] * 3)[0].p)} (Holm)"
    assert found["C2 size"].interval == found["C2 accuracy"].interval


def test_a_claim_of_two_differences_needs_both():
    up, down, flat = (paired_difference(m + 0.001 * NOISE, np.zeros(6)) for m in (0.1, -0.1, 0.0))
    words = {
        pair: judged([Finding("X", "x.", pair)])[0].verdict for pair in ((up, up), (up, flat), (flat, down), (up, down))
    }
    assert words == {(up, up): HOLDS, (up, flat): UNKNOWN, (flat, down): FAILS, (up, down): FAILS}
    assert judged([Finding("X", "x.", (up, None))])[0].verdict == UNKNOWN
    assert judged([Finding("X", "x.", (down,), positive=False)])[0].verdict == HOLDS


def test_an_interval_that_ends_at_zero_decides_nothing_and_says_so():
    """Its end is on one side of 0 here and may be on the other on another processor."""
    sd = float(np.std(NOISE, ddof=1))
    half = 2.5705818 * sd / math.sqrt(6)  # t(0.975, 5)
    for end, expected in ((0.02, UNKNOWN), (-0.02, UNKNOWN), (0.3, HOLDS), (-0.3, UNKNOWN)):
        found = judged([Finding("X", "x.", (paired_difference(half * (1 + end) + NOISE, np.zeros(6)),))])[0]
        assert found.verdict == expected
        assert ("At the edge" in found.note) == (abs(end) < 0.1)


# ---- failure signatures ----


def signatures(results, chance=0.01):
    return {(d.name.split()[0], d.variant): d for d in diagnose(results, chance)}


def healthy(variants=("residual", "base")):
    """Comodulation works: better than the network without a task, gains that moved, better calibrated than attention."""
    rows = {}
    for variant in variants:
        rows[variant, "base"] = {"accuracy": 0.3}
        rows[variant, "attention"] = {"accuracy": 0.7, "ece": 0.2, "nll": 1.5}
        rows[variant, "comodulation"] = {
            "accuracy": noisy(0.7), "ece": noisy(0.1), "nll": noisy(1.0), "mechanism/decoder/movement": noisy(0.2),
        }  # fmt: skip
    return rows


def test_nothing_is_wrong():
    found = signatures(study(healthy()))
    assert set(found) == {(name, v) for name in ("poor", "gains", "no") for v in ("residual", "base")}
    assert not any(d.found for d in found.values())
    assert all("nan" not in d.evidence for d in found.values())


@pytest.mark.parametrize(
    ("name", "change", "evidence"),
    [
        (
            "poor",
            {"accuracy": noisy(0.305)},
            r"comodulation \+0.5 points from the network without a task; pretraining validates at 70.0%",
        ),
        ("gains", {"mechanism/decoder/movement": noisy(0.005, 0.001)}, "0.005 nats"),
        ("no", {"ece": noisy(0.21), "nll": noisy(1.5)}, r"ECE \+1.00 points"),
    ],
)
def test_each_signature_alone(name, change, evidence):
    """It appears in the variant in which it was made to, and no other with it."""
    rows = healthy()
    rows["residual", "comodulation"] |= change
    found = signatures(study(rows))
    assert [key for key, d in found.items() if d.found] == [(name, "residual")]
    assert re.search(evidence, found[name, "residual"].evidence)
    assert found[name, "residual"].advice


def test_poor_pretraining_is_another_matter():
    rows = healthy()
    rows["residual", "comodulation"]["accuracy"] = 0.3
    assert not signatures(study(rows, pretraining={"accuracy": 0.02}))["poor", "residual"].found


def test_poor_tasks_among_binary_ones():
    """Chance is a half, so good pretraining cannot be three times as good."""
    rows = healthy()
    rows["residual", "comodulation"]["accuracy"] = 0.3
    assert signatures(study(rows, pretraining={"accuracy": 0.9}), chance=0.5)["poor", "residual"].found
    assert not signatures(study(rows, pretraining={"accuracy": 0.6}), chance=0.5)["poor", "residual"].found


def test_signatures_without_what_they_need():
    """Partial studies: said, not computed."""
    rows = {("residual", "comodulation"): {"accuracy": 0.5}}
    found = signatures(study(rows, seeds=1))
    assert set(found) == {(name, "residual") for name in ("poor", "gains", "no")}
    assert not any(d.found for d in found.values())
    assert all("nan" not in d.evidence for d in found.values())
    assert diagnose([], 0.01) == []
    assert diagnose(study({("residual", "attention"): {}}), 0.01) == []


# ---- the other form of the method ----


def test_both_forms_are_judged_each_by_itself():
    """As in the paper the claim holds, in the library's form it does not; neither verdict depends on the other's numbers."""
    rows = pair("accuracy", -0.02)
    alone = judge_claims(study(rows), False)
    for variant, gain in (("residual", 0.03), ("base", 0.01)):
        rows[variant, "paper"] = {"accuracy": noisy(0.5 + gain), "ece": noisy(0.2), "nll": 1.0}
    results = study(rows)
    assert judge_claims(results, False) == alone
    found = {v.claim: v for v in judge_paper_form(results, False)}
    assert found["C2 accuracy"].verdict == HOLDS
    assert found["C2 accuracy"].effect == "+3.00 points"
    assert found["C2 residual"].verdict == UNKNOWN  # the same differences over seeds, shifted
    assert found["C4 calibration"].verdict == FAILS
    assert found["C3 separation"].verdict == UNKNOWN
    assert found["C2 size"].verdict == HOLDS
    assert found["C2 size"].interval == found["C2 accuracy"].interval
    decided = [v for claim, v in found.items() if v.interval and claim != "C2 size"]
    assert all(v.interval.endswith(f"95% of {len(decided)} together") for v in decided)
    table = forms_table(alone, list(found.values()))
    row = next(row for row in table.rows if row[0] == "C2 accuracy")
    assert row[1].startswith("does not hold: -2.00 points [-2.")
    assert row[2].startswith("holds: +3.00 points [+2.")
    row = next(row for row in table.rows if row[0] == "C3 separation")
    assert row[1:] == ["cannot be told", "cannot be told", ""]


def test_a_study_without_the_papers_form_has_no_verdict_on_it():
    assert judge_paper_form(study(pair("accuracy", 0.02)), False) == []
    single = study(pair("accuracy", 0.02) | {("residual", "paper"): {"accuracy": 0.9}}, seeds=1)
    assert {v.verdict for v in judge_paper_form(single, False)} == {UNKNOWN}


def test_sparsity_of_the_papers_form_is_that_of_its_own_gains():
    rows = {}
    for variant, share in (("residual", 0.3), ("base", 0.1)):
        rows[variant, "paper level=task"] = {"mechanism/decoder/below/0.3": noisy(share)}
        rows[variant, "paper"] = {"accuracy": 0.5}
        rows[variant, "comodulation link=rectified"] = {"mechanism/decoder/below/0.3": 0.5}
    found = {v.claim: v for v in judge_paper_form(study(rows), False)}
    assert found["C5 sparsity"].effect.startswith("+20.00")
