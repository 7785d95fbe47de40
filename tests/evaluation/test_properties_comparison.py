"""Properties of the statistics over drawn differences: against scipy and direct formulas, at any scale, with any ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from comodulation.evaluation import comparison as statistics
from comodulation.evaluation.comparison import (
    CrossedDifference,
    PairedDifference,
    _tail,
    crossed_bootstrap,
    detectable_difference,
    holm,
    paired_by_task,
    paired_difference,
)
from support.properties import holds_for

SEEDS = st.integers(0, 10**6)
POWERS = st.integers(-50, 50)  # of two: 1e-15 to 1e15
P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=12)


def drawn(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0.3, 1, shape)


def fields(difference: PairedDifference) -> list[float]:
    return [difference.mean, difference.low, difference.high, difference.sd, difference.p, difference.p_wilcoxon]


# ---- paired differences ------------------------------------------------------------------------------------------------


@holds_for(seed=SEEDS, n=st.integers(2, 30), confidence=st.floats(0.01, 0.999), power=POWERS)
def test_paired_difference_against_scipy_at_any_scale(seed: int, n: int, confidence: float, power: int) -> None:
    a, b = 2.0**power * drawn(seed, n), 2.0**power * drawn(seed + 1, n)
    d, expected = paired_difference(a, b, confidence), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(confidence)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12 * 2.0**power)
    assert d.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert d.sd == pytest.approx(np.std(a - b, ddof=1))
    if n >= 6:
        assert d.p_wilcoxon == pytest.approx(stats.wilcoxon(a - b, method="exact").pvalue, rel=1e-9)
    # The test and the interval are one statement: 0 is outside where p is below 1 - confidence.
    assert d.decided == (d.p < 1 - confidence) or abs(d.p - (1 - confidence)) < 1e-9


@holds_for(seed=SEEDS, n=st.integers(2, 12), power=POWERS, order=st.randoms(use_true_random=False))
def test_symmetries_of_paired_differences(seed: int, n: int, power: int, order: object) -> None:
    a, b = drawn(seed, n), drawn(seed + 1, n)
    d = paired_difference(a, b)
    scaled = paired_difference(2.0**power * a, 2.0**power * b)
    assert [x / 2.0**power for x in fields(scaled)[:4]] == fields(d)[:4]
    assert fields(scaled)[4:] == pytest.approx(fields(d)[4:], nan_ok=True)
    assert (scaled.cohen_dz, scaled.hedges_gz) == pytest.approx((d.cohen_dz, d.hedges_gz), nan_ok=True)
    mirrored = paired_difference(b, a)
    assert (mirrored.mean, mirrored.low, mirrored.high) == pytest.approx((-d.mean, -d.high, -d.low))
    assert fields(mirrored)[3:] == pytest.approx(fields(d)[3:], nan_ok=True)
    places = order.sample(range(n), n)  # type: ignore[attr-defined]
    assert fields(paired_difference(a[places], b[places])) == pytest.approx(fields(d), nan_ok=True)
    # What both share in a seed cancels.
    shared = 10 * drawn(seed + 2, n)
    assert fields(paired_difference(a + shared, b + shared)) == pytest.approx(fields(d), rel=1e-6, nan_ok=True)
    assert d.low < d.mean < d.high
    wide, narrow = paired_difference(a, b, 0.99), paired_difference(a, b, 0.5)
    assert wide.low < d.low < narrow.low < narrow.high < d.high < wide.high


@holds_for(hits=st.lists(st.integers(-3, 3), min_size=6, max_size=10), level=st.integers(0, 5000), images=st.just(5000))
def test_ties_of_shares_of_images_are_ties(hits: list[int], level: int, images: int) -> None:
    # Against all signs of the integers themselves; as shares they are floats that disagree in the last bits.
    a, b = (np.full(len(hits), level) + np.array(hits)) / images, np.full(len(hits), level) / images
    d, kept = paired_difference(a, b), np.array([x for x in hits if x])
    if not len(kept):
        assert math.isnan(d.p_wilcoxon)
    else:
        ranks = stats.rankdata(np.abs(kept))
        signs = (np.arange(2 ** len(kept))[:, None] >> np.arange(len(kept))) & 1
        sums, centre = signs @ ranks, ranks.sum() / 2
        share = np.mean(np.abs(sums - centre) >= abs(ranks[kept > 0].sum() - centre) - 1e-9)
        assert d.p_wilcoxon == pytest.approx(share)
    assert (d.sd == 0) == math.isnan(d.p) == (len(set(hits)) == 1)


@holds_for(few=4, many=40, n=st.integers(2, 12), confidence=st.sampled_from([0.5, 0.8, 0.95, 0.99]), seed=SEEDS)
def test_intervals_cover_as_often_as_they_say(n: int, confidence: float, seed: int) -> None:
    # Four and a half standard errors of a share of 800.
    rng = np.random.default_rng(seed)
    intervals = [paired_difference(row, np.zeros(n), confidence) for row in rng.normal(0.3, 2, (800, n))]
    share = np.mean([d.low <= 0.3 <= d.high for d in intervals])
    assert abs(share - confidence) < 4.5 * math.sqrt(confidence * (1 - confidence) / 800)


@holds_for(few=10, many=200, power_of_sd=POWERS, n=st.integers(2, 60), power=st.floats(0.06, 0.97))
def test_detectable_difference_is_what_the_test_detects(power_of_sd: int, n: int, power: float) -> None:
    # The power of the two-sided t-test at the result, from the noncentral t. It is a multiple of sd, falls with the number
    # of seeds and grows with the power that is asked for; two seeds and a high power too, where it is many sd.
    found, unit = detectable_difference(1.0, n, power), 2.0**power_of_sd
    critical, centre = stats.t.isf(0.025, n - 1), found * math.sqrt(n)
    far = stats.nct.cdf(-critical, n - 1, centre)
    reached = stats.nct.sf(critical, n - 1, centre) + (far if math.isfinite(far) else 0)
    assert reached == pytest.approx(power, abs=1e-6)
    assert detectable_difference(unit, n, power) == unit * found
    assert found > detectable_difference(1.0, n + 1, power)
    assert found < detectable_difference(1.0, n, power + 0.02)
    assert found < detectable_difference(1.0, n, power, alpha=0.01)


@pytest.mark.parametrize(
    "arguments",
    [(1.0, 1), (0.0, 5), (-1.0, 5), (math.nan, 5), (math.inf, 5), (1.0, 5, 1.0), (1.0, 5, 0.05), (1.0, 5, 0.8, 0.0)],
)
def test_what_no_difference_can_be_computed_for_is_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="needs sd > 0, at least 2 seeds and 0 < alpha < power < 1, got sd"):
        detectable_difference(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan, math.inf])
def test_a_confidence_is_between_0_and_1(confidence: float) -> None:
    values, table = [1.0, 2.0, 4.0], [[1.0, 2.0], [2.0, 5.0]]
    message = "confidence must be between 0 and 1, got"
    with pytest.raises(ValueError, match=message):
        paired_difference(values, [0.0, 0.0, 0.0], confidence)
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap(table, np.zeros((2, 2)), confidence=confidence)
    with pytest.raises(ValueError, match=message):
        paired_by_task(table, np.zeros((2, 2)), [0, 1], confidence)


# ---- Holm --------------------------------------------------------------------------------------------------------------


def holm_directly(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """max over smaller p of (H - rank) p, at most 1: the definition, one hypothesis at a time."""
    ranked = np.sort(p)
    steps = [min(1.0, float(max((len(p) - i) * ranked[i] for i in range(k + 1)))) for k in range(len(p))]
    return np.array([steps[int(np.searchsorted(ranked, value))] for value in p])


@holds_for(few=60, p=P_VALUES, missing=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_holm_is_its_definition_and_monotone(p: list[float], missing: int, order: object) -> None:
    values = np.array(p)
    adjusted = holm(values)
    assert adjusted == pytest.approx(holm_directly(values), abs=1e-15)
    assert (adjusted >= values).all()
    assert (adjusted <= np.minimum(1, len(p) * values) + 1e-15).all()  # never above Bonferroni's
    ranked = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[ranked]) >= 0).all()
    # Order and comparisons that were not made are of no account; one more comparison never lowers a p.
    places = order.sample(range(len(p)), len(p))  # type: ignore[attr-defined]
    assert holm(values[places]) == pytest.approx(adjusted[places])
    with_gaps = holm([*p, *[math.nan] * missing])
    assert with_gaps[: len(p)] == pytest.approx(adjusted)
    assert np.isnan(with_gaps[len(p) :]).all()
    assert (holm([*p, 0.5])[:-1] >= adjusted - 1e-15).all()


def test_holm_against_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(5).beta(0.3, 1, 50)
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], rel=1e-12)


def test_holm_takes_integers_and_the_ends_of_the_interval() -> None:
    assert holm([0, 1, 1]).tolist() == [0, 1, 1]
    assert holm([1]).dtype == float


@holds_for(few=4, many=40, hypotheses=st.integers(2, 8), shared=st.floats(0, 0.95), seed=SEEDS)
def test_holm_bounds_the_chance_of_any_false_finding(hypotheses: int, shared: float, seed: int) -> None:
    # All hypotheses true, their statistics correlated: at most one family of twenty, plus four standard errors of 1,000.
    rng = np.random.default_rng(seed)
    common = math.sqrt(shared) * rng.normal(size=(1000, 1))
    z = common + math.sqrt(1 - shared) * rng.normal(size=(1000, hypotheses))
    false = np.mean([(holm(row) < 0.05).any() for row in 2 * stats.norm.sf(np.abs(z))])
    assert false < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 1000)


# ---- seeds and images together -----------------------------------------------------------------------------------------


def numbers(d: CrossedDifference) -> list[float]:
    return [d.mean, d.low, d.high, d.standard_error, d.seed_error, d.image_error, d.cell_error]


@holds_for(
    few=20, many=500, seed=SEEDS, seeds=st.integers(2, 8), images=st.integers(2, 30), power=st.integers(-300, 300)
)
def test_symmetries_of_the_crossed_bootstrap(seed: int, seeds: int, images: int, power: int) -> None:
    # Scales of 1e-90 to 1e90, whose fourth powers no float holds.
    a, b = drawn(seed, seeds, images), drawn(seed + 1, seeds, images)
    d = crossed_bootstrap(a, b, resamples=300, seed=seed)
    scaled = crossed_bootstrap(2.0**power * a, 2.0**power * b, resamples=300, seed=seed)
    assert [x / 2.0**power for x in numbers(scaled)] == pytest.approx(numbers(d), rel=1e-9)
    mirrored = crossed_bootstrap(b, a, resamples=300, seed=seed)
    assert (mirrored.mean, mirrored.low, mirrored.high) == pytest.approx((-d.mean, -d.high, -d.low))
    assert numbers(mirrored)[3:] == pytest.approx(numbers(d)[3:])
    shifted = crossed_bootstrap(a + 0.25, b, resamples=300, seed=seed)
    assert np.subtract(numbers(shifted)[:3], numbers(d)[:3]) == pytest.approx([0.25] * 3)
    assert numbers(shifted)[3:] == pytest.approx(numbers(d)[3:])
    # Order counts only through the draws: mean and errors do not depend on it.
    reversed_ = crossed_bootstrap(a[::-1, ::-1], b[::-1, ::-1], resamples=300, seed=seed)
    assert numbers(reversed_)[4:] == pytest.approx(numbers(d)[4:])
    wide = crossed_bootstrap(a, b, confidence=0.99, resamples=300, seed=seed)
    assert wide.low <= d.low <= d.high <= wide.high
    assert (d.note == "") == (seeds >= 6)
    assert d.decided == (not d.low <= 0 <= d.high)


@holds_for(
    seeds=st.integers(2, 40), images=st.integers(2, 40), confidence=st.floats(0.5, 0.999), power=st.integers(-500, 500)
)
def test_the_tail_is_that_of_expanded_percentiles(seeds: int, images: int, confidence: float, power: int) -> None:
    # Where one factor alone varies: Hesterberg's, Phi(-t sqrt(n / (n - 1))) with t of n - 1 degrees of freedom, at any
    # scale. Where nothing varies, plain percentiles.
    unit = 2.0**power
    for n, errors in ((seeds, (unit, 0.0)), (images, (0.0, unit))):
        t = stats.t.ppf((1 + confidence) / 2, n - 1)
        expected = stats.norm.cdf(-t * math.sqrt(n / (n - 1)))
        assert _tail(*errors, seeds, images, confidence) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert _tail(0.0, 0.0, seeds, images, confidence) == pytest.approx((1 - confidence) / 2)
    # Both alike: Satterthwaite's degrees of freedom, between the smaller factor's and those of both together.
    freedom = 4 / (1 / (seeds - 1) + 1 / (images - 1))
    shrunk = 1 - (1 / seeds + 1 / images) / 2
    expected = stats.norm.sf(stats.t.ppf((1 + confidence) / 2, freedom) / math.sqrt(shrunk))
    assert _tail(unit, unit, seeds, images, confidence) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_interval_is_taken_at_that_tail() -> None:
    # Two seeds that agree on every image: the resampled means are those of an ordinary bootstrap over 50 images.
    row = drawn(11, 50)
    d = crossed_bootstrap(np.stack([row, row]), np.zeros((2, 50)), confidence=0.9, resamples=20_000)
    rng = np.random.default_rng(12)
    means = row[rng.integers(50, size=(20_000, 50))].mean(1)
    tail = stats.norm.cdf(-stats.t.ppf(0.95, 49) * math.sqrt(50 / 49))
    low, high = np.quantile(means, [tail, 1 - tail])
    # A quantile of 20,000 near-normal means at 5% is known to 2.1 sd / sqrt(20,000) = 0.015 sd; two of them differ by 1.4.
    assert (d.low, d.high) == pytest.approx((low, high), abs=5 * 1.4 * 0.015 * means.std())


@pytest.mark.parametrize("weights", [1, 7, 1000])
def test_resamples_in_one_portion_or_in_many_are_the_same(weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table, zeros = drawn(14, 3, 5), np.zeros((3, 5))
    at_once = crossed_bootstrap(table, zeros, resamples=500)
    monkeypatch.setattr(statistics, "WEIGHTS_AT_ONCE", weights)
    assert crossed_bootstrap(table, zeros, resamples=500) == at_once
    assert crossed_bootstrap(table, zeros) == crossed_bootstrap(table, zeros, resamples=5000, seed=0)


@pytest.mark.parametrize("images", [2, 3])
def test_resampled_means_against_all_resamples(images: int) -> None:
    # Of 2 seeds and few images, by enumeration.
    table = drawn(13, 2, images)
    d = crossed_bootstrap(table, np.zeros_like(table), resamples=200_000)
    rows = np.array([[1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1]])
    draws = np.stack(np.meshgrid(*[np.arange(images)] * images), -1).reshape(-1, images)
    columns = np.stack([(draws == i).mean(1) for i in range(images)], 1)
    means = (rows @ table @ columns.T).ravel()
    assert means.mean() == pytest.approx(d.mean)
    assert d.standard_error == pytest.approx(means.std(), rel=0.01)


# ---- tasks -------------------------------------------------------------------------------------------------------------


@holds_for(
    few=15, many=300, seed=SEEDS, labels=st.lists(st.integers(-2, 3), min_size=1, max_size=25), seeds=st.integers(2, 8)
)
def test_tasks_are_their_own_images_alone(seed: int, labels: list[int], seeds: int) -> None:
    a, b = drawn(seed, seeds, len(labels)), drawn(seed + 1, seeds, len(labels))
    rows = paired_by_task(a, b, labels, 0.8)
    assert [row.task for row in rows] == sorted(set(labels))
    for row in rows:
        own = np.array(labels) == row.task
        assert row.images == own.sum()
        expected = paired_difference(a[:, own].mean(1), b[:, own].mean(1), 0.8)
        assert fields(row.difference) == pytest.approx(fields(expected), nan_ok=True)
    assert [row.p_holm for row in rows] == pytest.approx(list(holm([row.difference.p for row in rows])))
    assert fields(paired_by_task(a, b, labels)[0].difference)[1] < fields(rows[0].difference)[1]  # 95% unless told


@pytest.mark.parametrize("kind", [np.uint8, bool, int, np.float16, str])
def test_numbers_of_every_kind_are_floats(kind: type) -> None:
    # Hits are often stored as bytes or booleans, whose differences wrap round or do not exist.
    a, b = np.array([[1, 0, 1], [0, 0, 1]]), np.array([[0, 1, 1], [1, 1, 0]])
    wanted = crossed_bootstrap(a.astype(float), b.astype(float))
    assert crossed_bootstrap(a.astype(kind), b.astype(kind)) == wanted
    found = paired_difference(a[0].astype(kind), b[0].astype(kind))
    assert repr(found) == repr(paired_difference(a[0], b[0]))  # a number of it is nan, which equals nothing
    assert wanted.mean == pytest.approx(-1 / 6)


def test_errors_of_lists_name_the_side() -> None:
    with pytest.raises(ValueError, match=r"^b must have 1 dimension\(s\), got shape \(1, 2\)"):
        paired_difference([1.0, 2.0], [[1.0, 2.0]])  # type: ignore[list-item]


def test_errors_of_tables_name_the_side() -> None:
    good, bad = np.zeros((2, 3)), np.full((2, 3), math.nan)
    for compare in (crossed_bootstrap, lambda a, b: paired_by_task(a, b, [0, 0, 1])):
        with pytest.raises(ValueError, match=r"^values_a must be finite, got 6 of 6"):
            compare(bad, good)
        with pytest.raises(ValueError, match=r"^values_b must be finite, got 6 of 6"):
            compare(good, bad)
        with pytest.raises(ValueError, match=r"^values_a must have 2 dimension\(s\), got shape \(3,\)"):
            compare(good[0], good)
