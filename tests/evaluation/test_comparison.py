"""Paired differences, Holm and the crossed bootstrap against scipy, closed forms and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

from comodulation.evaluation.comparison import (
    EDGE,
    as_family,
    crossed_bootstrap,
    detectable_difference,
    holm,
    paired_by_task,
    paired_difference,
)


def test_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027."""
    d = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert d.mean == 2
    assert d.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert d.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert not d.decided


def test_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), rng.normal(size=12)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.9)
    d = paired_difference(a, b, 0.9)
    assert d.p == pytest.approx(expected.pvalue)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high))
    assert d.n == 12


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [paired_difference(rng.normal(0.3, 1, 5), np.zeros(5)) for _ in range(1000)]
    share = np.mean([d.low <= 0.3 <= d.high for d in covered])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


def test_equal_differences_have_no_p():
    d = paired_difference([1.0, 1.0], [0.5, 0.5])
    assert (d.mean, d.low, d.high, d.sd) == (0.5, 0.5, 0.5, 0)
    assert all(math.isnan(value) for value in (d.p, d.cohen_dz, d.hedges_gz, d.detectable))
    # Equal as accuracies, unequal as floats: 0.1 and 0.10000000000000009.
    assert math.isnan(paired_difference([0.7, 0.8, 1.1], [0.6, 0.7, 1.0]).p)


def test_errors_name_the_numbers():
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        paired_difference([1.0], [1.0])
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="b must be finite, got 2 of 3"):
        paired_difference([1.0, 2.0, 3.0], [math.nan, 2.0, math.inf])
    with pytest.raises(ValueError, match=r"^a must be finite, got 1 of 2"):
        paired_difference([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"got \(3, 4\) and \(3, 5\)"):
        crossed_bootstrap(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="got 1 and 4"):
        crossed_bootstrap(np.zeros((1, 4)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"4 images, got shape \(3,\)"):
        paired_by_task(np.zeros((3, 4)), np.zeros((3, 4)), [0, 0, 1])
    with pytest.raises(ValueError, match="got 1 outside among 2"):
        holm([0.5, 1.5])


def every_sign(differences):
    """Signed-rank p by definition: rank sums at least as far from their mean, over all signs."""
    kept = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(kept))
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(kept))])
    return float(np.mean(np.abs(sums - sums.mean()) >= abs(ranks[kept > 0].sum() - sums.mean()) - 1e-9))


@pytest.mark.parametrize("n", [6, 7, 10, 15])
def test_signed_ranks_against_scipy(n):
    a = np.random.default_rng(n).normal(0.4, 1, n)
    assert paired_difference(a, np.zeros(n)).p_wilcoxon == pytest.approx(stats.wilcoxon(a, method="exact").pvalue)


# The last one: positive ranks 4 of 21, below the middle, with a sum of 4.5 among those that are not counted.
@pytest.mark.parametrize(
    "differences",
    [[1, 1, 2, 2, -1, 3], [0, 0, 1, -1, 2, 2, 2], [-1, 1, -1, 1, -1, 1, 0], [-1, -1, -2, 3, -4, -5]],
)
def test_signed_ranks_with_ties_and_zeros_against_every_sign(differences):
    # Shares of 5,000 test images: tied as numbers of images, unequal as floats.
    a = np.full(len(differences), 0.79) + np.array(differences) / 5000
    d = paired_difference(a, np.full(len(differences), 0.79))
    assert d.p_wilcoxon == pytest.approx(every_sign(differences))


@pytest.mark.parametrize(("a", "b"), [([0.3] * 3, [0.1 + 0.2] * 3), ([0.3, 0.6], [0.1 + 0.2, 0.6])])
def test_differences_of_rounding_alone_decide_nothing(a, b):
    for d in (paired_difference(a, b), paired_difference(b, a)):
        assert (d.mean, d.low, d.high, d.sd) == (0, 0, 0, 0)
        assert not d.decided
    assert paired_difference(a, np.array(b) - 0.01).decided


def test_signed_ranks_need_six_seeds():
    """Five seeds reach 2 / 2^5 = 0.0625 at best, six 0.03125."""
    five, six = paired_difference(range(1, 6), np.zeros(5)), paired_difference(range(1, 7), np.zeros(6))
    assert math.isnan(five.p_wilcoxon)
    assert "at least 6 seeds to reach p < 0.05, got 5" in five.note
    assert six.p_wilcoxon == 2 / 2**6
    assert six.note == ""
    assert math.isnan(paired_difference(np.ones(10), np.ones(10)).p_wilcoxon)


def test_effect_sizes_by_hand():
    """Differences 1, 2, 3: d_z = 2. The factor for 2 degrees of freedom: gamma(1) / (sqrt(1) gamma(1/2)) = 1 / sqrt(pi)."""
    d = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (d.sd, d.cohen_dz) == (1, 2)
    assert d.hedges_gz == pytest.approx(2 / math.sqrt(math.pi))
    assert math.isnan(paired_difference([1.0, 3.0], [0.0, 0.0]).hedges_gz)


def test_hedges_effect_size_is_unbiased():
    rng = np.random.default_rng(2)
    drawn = [paired_difference(rng.normal(0.8, 1, 6), np.zeros(6)) for _ in range(2000)]
    g, d = np.array([x.hedges_gz for x in drawn]), np.array([x.cohen_dz for x in drawn])
    assert abs(g.mean() - 0.8) < 4 * g.std() / math.sqrt(2000)
    assert d.mean() > 0.8 + 4 * d.std() / math.sqrt(2000)


@pytest.mark.parametrize("n", [2, 3, 6, 10, 50])
def test_detectable_difference_against_the_noncentral_t(n):
    """The far tail, where the mean's sign is mistaken, is below 1e-6 at this power; scipy cannot compute it."""
    critical = stats.t.isf(0.025, n - 1)
    centre = optimize.brentq(lambda c: stats.nct.sf(critical, n - 1, c) - 0.8, 0.1, 20)
    expected = centre / math.sqrt(n)
    assert detectable_difference(2.5, n) == pytest.approx(2.5 * expected, rel=1e-5)


def test_detectable_difference_is_found_four_times_in_five():
    d = paired_difference([0.2, -1.0, 1.3, 0.4, 0.6, -0.5, 1.1, 0.3, -0.9, 0.8], np.zeros(10))
    drawn = np.random.default_rng(3).normal(d.detectable, d.sd, (2000, 10))
    found = np.mean([paired_difference(row, np.zeros(10)).p < 0.05 for row in drawn])
    assert abs(found - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 2000)


def test_holm_by_hand():
    """0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 = 0.04, lifted to 0.06, its predecessor's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, math.nan, 0.03]) == pytest.approx([0.02, math.nan, 0.03], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()
    assert len(holm([])) == 0


def test_tasks_each_on_their_own_images():
    rng = np.random.default_rng(4)
    a, b, task = rng.normal(size=(8, 90)), rng.normal(size=(8, 90)), np.array(["fish", "trees", "fish"] * 30)
    a[:, task == "trees"] += 1
    fish, trees = paired_by_task(a, b, task)
    assert (fish.task, fish.images, trees.task, trees.images) == ("fish", 60, "trees", 30)
    expected = stats.ttest_rel(a[:, task == "trees"].mean(1), b[:, task == "trees"].mean(1))
    assert trees.difference.p == pytest.approx(expected.pvalue)
    assert trees.p_holm == pytest.approx(2 * trees.difference.p)
    assert fish.p_holm == fish.difference.p


def crossed(rng, seeds, images, by_seed, by_image, by_cell):
    """A table with the given standard deviations of seeds, images and cells."""
    rows, columns = rng.normal(0, by_seed, (seeds, 1)), rng.normal(0, by_image, (1, images))
    return rows + columns + rng.normal(0, by_cell, (seeds, images))


def test_crossed_bootstrap_has_the_variance_of_its_closed_form():
    """Rows, columns and cells enter the resampled variance with their sums of squares over S^2, N^2 and (S N)^2."""
    table = crossed(np.random.default_rng(5), 7, 40, 0.2, 0.5, 1.0)
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    cells = table - rows[:, None] - columns + mean
    variance = ((rows - mean) ** 2).sum() / 49 + ((columns - mean) ** 2).sum() / 1600 + (cells**2).sum() / 280**2
    d = crossed_bootstrap(table, np.zeros_like(table), resamples=40000)
    # The standard deviation of 40,000 nearly normal means is known to 1 / sqrt(80,000).
    assert d.standard_error == pytest.approx(math.sqrt(variance), rel=4 / math.sqrt(80000))
    assert (d.mean, d.seeds, d.images) == (pytest.approx(mean), 7, 40)
    assert d.cell_error == pytest.approx(math.sqrt((cells**2).sum() / (6 * 39 * 280)))


def test_crossed_bootstrap_is_the_t_interval_where_images_do_not_vary():
    table = np.repeat(np.random.default_rng(6).normal(0.2, 1, (10, 1)), 30, 1)
    d, t = crossed_bootstrap(table, np.zeros_like(table)), paired_difference(table[:, 0], np.zeros(10))
    assert d.seed_error == pytest.approx(t.sd / math.sqrt(10))
    assert d.image_error == pytest.approx(0, abs=1e-12)
    # Percentiles follow the ten values' skew, the t interval cannot: equal widths to a tenth.
    assert d.high - d.low == pytest.approx(t.high - t.low, rel=0.1)


def test_crossed_bootstrap_is_the_images_standard_error_where_seeds_do_not_vary():
    table = np.repeat(np.random.default_rng(7).normal(0.2, 1, (1, 400)), 3, 0)
    d = crossed_bootstrap(table, np.zeros_like(table))
    assert d.image_error == pytest.approx(stats.sem(table[0]))
    assert (d.low, d.high) == pytest.approx(d.mean + 1.96 * d.image_error * np.array([-1, 1]), abs=0.15 * d.image_error)


@pytest.mark.parametrize("deviations", [(1.0, 0.0, 0.0), (0.2, 1.5, 0.3), (0.3, 1.0, 1.0)])
def test_crossed_bootstrap_covers_at_least_as_often_as_it_says(deviations):
    """Seeds alone, images above all, and all three: with 10 seeds at least 95%, less four standard errors."""
    rng = np.random.default_rng(8)
    tables = [crossed(rng, 10, 60, *deviations) for _ in range(300)]
    drawn = [crossed_bootstrap(table, np.zeros_like(table), resamples=1000) for table in tables]
    share = np.mean([d.low <= 0 <= d.high for d in drawn])
    assert share > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)


def test_crossed_bootstrap_is_reproducible_paired_and_antisymmetric():
    rng = np.random.default_rng(9)
    a = rng.normal(size=(4, 50))
    b = a + rng.normal(0.1, 0.01, size=(4, 50))  # what both share cancels
    d, again, reverse = crossed_bootstrap(a, b), crossed_bootstrap(a, b), crossed_bootstrap(b, a)
    assert d == again != crossed_bootstrap(a, b, seed=1)
    assert (reverse.low, reverse.high) == pytest.approx((-d.high, -d.low))
    assert d.decided
    assert "at least 6 seeds, got 4" in d.note


def test_crossed_bootstrap_of_equal_differences():
    d = crossed_bootstrap(np.ones((3, 4)), np.full((3, 4), 0.5))
    assert (d.low, d.mean, d.high, d.standard_error) == (0.5, 0.5, 0.5, 0)


# ---- what one table claims together ----


def drawn(means, seeds=5, seed=0, shared=0.0):
    """Differences with these true means and sd 1; ``shared`` of the variance is a rival's, the same in all of a seed."""
    rng = np.random.default_rng(seed)
    own, common = rng.normal(size=(len(means), seeds)), rng.normal(size=seeds)
    noise = math.sqrt(1 - shared) * own + math.sqrt(shared) * common
    return [paired_difference(mean + row, np.zeros(seeds)) for mean, row in zip(means, noise, strict=True)]


def test_a_family_against_scipy_and_statsmodels():
    """Each interval is scipy's at the level 1 - 0.05 / 4; p is Holm's of statsmodels."""
    rng = np.random.default_rng(4)
    samples = [rng.normal(mean, 1, n) for mean, n in ((0.2, 10), (1.5, 10), (1.0, 3), (3.0, 5))]
    found = as_family([paired_difference(x, np.zeros(len(x))) for x in samples])
    tests = [stats.ttest_1samp(x, 0) for x in samples]
    for d, test in zip(found, tests, strict=True):
        interval = test.confidence_interval(1 - 0.05 / 4)
        assert (d.low, d.high) == pytest.approx((interval.low, interval.high))
        assert d.family == 4
    assert [d.p for d in found] == pytest.approx(multipletests([t.pvalue for t in tests], method="holm")[1])


def test_a_family_of_one_is_the_comparison_alone():
    d = paired_difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0])
    for given in ([d], [None, d, None]):  # a number of it is nan, which equals nothing
        assert list(map(repr, as_family(given))) == list(map(repr, given))
    assert as_family([]) == []
    assert as_family([None]) == [None]


def test_comparisons_that_were_not_made_do_not_count_and_equal_ones_do():
    d, equal = paired_difference([1.0, 2.0, 4.0], [0.0] * 3), paired_difference([1.0, 1.0], [0.0, 0.0])
    found = as_family([d, None, equal])
    assert (found[0].family, found[1]) == (2, None)
    assert found[0].p == pytest.approx(2 * d.p)
    assert (found[2].low, found[2].high) == (1, 1)
    assert math.isnan(found[2].p)
    with pytest.raises(ValueError, match="one family, got one of a family of 2"):
        as_family([found[0], d])
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 1"):
        as_family([d], 1)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_intervals_of_a_family_cover_together(shared):
    """Eight differences, some of them not 0: all eight intervals cover in at least 95% of tables; unadjusted ones do not."""
    means, tables, alone, together = [0, 0, 0, 0.5, 1, 1, 2, 4], 600, 0, 0
    for seed in range(tables):
        differences = drawn(means, seed=seed, shared=shared)
        alone += all(d.low <= m <= d.high for d, m in zip(differences, means, strict=True))
        together += all(d.low <= m <= d.high for d, m in zip(as_family(differences), means, strict=True))
    assert together / tables > 0.95 - 4 * math.sqrt(0.95 * 0.05 / tables)
    assert alone / tables < 0.9


def test_no_interval_excludes_zero_where_holm_does_not_reject():
    """The other way round they may differ: Holm rejects the second of 0.01 and 0.04, whose interval at 97.5% includes 0."""
    for seed in range(50):
        for d in as_family(drawn([0, 0.5, 1, 2, 4], seed=seed)):
            assert d.p < 0.05 or d.low <= 0 <= d.high
    p_values = (0.01, 0.04)
    scores = [stats.t.isf(p / 2, 4) for p in p_values]
    pattern = np.array([1.0, -1, 1, -1, 0])
    pattern = pattern / pattern.std(ddof=1)
    found = as_family([paired_difference(score / math.sqrt(5) + pattern, np.zeros(5)) for score in scores])
    assert [d.p for d in found] == pytest.approx([0.02, 0.04])
    assert [d.low > 0 for d in found] == [True, False]


def test_the_edge():
    """An interval from 0 to 1 is decided only where its end is a tenth of its half width away from 0."""
    pattern = np.array([1.0, -1, 1, -1, 0])
    half = float(paired_difference(pattern, np.zeros(5)).high)
    for share, decided in ((-0.5, False), (-0.05, False), (0.05, False), (0.5, True)):
        for sign in (1, -1):
            d = paired_difference(sign * half * (1 + share) + pattern, np.zeros(5))
            assert d.decided == decided
            assert d.at_the_edge == (abs(share) < EDGE)


def test_skewed_differences_are_covered_less_often():
    """What docs/statistics.md says of t intervals over exponential differences: 88 to 90 of a hundred, and 95 of normal ones."""
    rng = np.random.default_rng(0)
    covered = {}
    for kind, tables in (("normal", rng.standard_normal((1500, 10))), ("skewed", rng.exponential(1, (1500, 10)) - 1)):
        found = [paired_difference(table, np.zeros(10)) for table in tables]
        covered[kind] = np.mean([d.low < 0 < d.high for d in found])
    assert 0.935 < covered["normal"] < 0.965  # 3 standard errors: 0.017
    assert 0.87 < covered["skewed"] < 0.925


def test_what_few_seeds_detect_is_a_range():
    """The ends of the chi-squared interval of the sd; it narrows with seeds, and holds the value at the observed sd."""
    ranges = {}
    for n in (3, 10):
        d = paired_difference(np.arange(n) + 1.0, np.zeros(n))
        low, high = d.detectable_range
        freedom = n - 1
        assert low == pytest.approx(d.detectable * math.sqrt(freedom / stats.chi2.ppf(0.975, freedom)))
        assert low < d.detectable < high
        ranges[n] = high / low
    assert ranges[3] > 10 > 3 > ranges[10]
    assert all(map(math.isnan, paired_difference([1.0, 1.0], [0.0, 0.0]).detectable_range))
