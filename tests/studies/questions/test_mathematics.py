"""Search for a rate, pooled intervals, bias and variance, predictors: each against another route to the same numbers."""

import math

import numpy as np
import pytest
import statsmodels.regression.linear_model as linear_model
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from comodulation.evaluation import against_reference, brier_parts, holm, paired_difference, spread_ratio
from comodulation.studies.cells import at_an_end, common_seeds, next_rate
from comodulation.studies.questions.residual import leave_one_out, mean_error, permutation_p, predictors, spearman


def climb(cost, start, trials):
    tried = {}
    for _ in range(trials):
        rate = next_rate(tried, start)
        assert rate not in tried
        tried[rate] = cost(rate)
    return tried


@pytest.mark.parametrize("optimum", [0.004, 0.02, 0.1, 0.7])
def test_the_rate_is_found_wherever_it_lies(optimum):
    """A valley in the logarithm of the rate, from a start up to 25 times away."""
    tried = climb(lambda rate: math.log(rate / optimum) ** 2, 0.1, 7)
    best = min(tried, key=lambda rate: tried[rate])
    assert 1 / 1.75 < best / optimum < 1.75
    assert not at_an_end(tried)


@pytest.mark.parametrize("start", [0.006, 0.2])
def test_a_search_never_wants_for_a_rate(start):
    """A hundred trials, from the best rate, from one beside it and where every one diverges: each another rate (``climb``)."""
    costs = (
        lambda rate: math.log(rate / start) ** 2,
        lambda rate: abs(math.log(rate / start) - 0.03),
        lambda rate: math.inf,
    )
    for cost in costs:
        tried = climb(cost, start, 100)
        assert len(tried) == 100
    assert min(climb(costs[2], start, 4)) < start / 3


def test_a_rate_that_diverges_is_left():
    tried = climb(lambda rate: math.inf if rate > 0.05 else -rate, 0.1, 6)
    assert min(tried, key=lambda rate: tried[rate]) <= 0.05
    assert not at_an_end({0.1: math.inf, 0.03: 1.0, 0.01: 2.0, 0.05: 2.0})
    assert at_an_end({0.1: math.inf, 0.03: 1.0, 0.01: 2.0})


def test_pooled_differences_are_those_of_a_two_way_analysis():
    """The contrasts of a linear model of rows and seeds, fitted by another library."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(5, 1)) + rng.normal(size=(1, 4)) + 0.3 * rng.normal(size=(5, 4))
    found = against_reference(table[1:], table[0])
    row, seed = (index.ravel() for index in np.indices(table.shape))
    design = np.column_stack([np.ones(20), *(row == r for r in range(1, 5)), *(seed == s for s in range(1, 4))])
    fitted = linear_model.OLS(table.ravel(), design).fit()
    for number, d in enumerate(found, 1):
        assert (d.mean, d.low, d.high) == pytest.approx((fitted.params[number], *fitted.conf_int()[number]))
        assert d.p == pytest.approx(fitted.pvalues[number])


def test_two_rows_pooled_are_a_paired_t_test():
    a, b = [0.2, 0.5, -0.1, 0.4], [0.1, 0.1, 0.0, 0.6]
    (pooled,), alone = against_reference([a], b), paired_difference(a, b)
    assert (pooled.mean, pooled.low, pooled.high, pooled.p) == pytest.approx(
        (alone.mean, alone.low, alone.high, alone.p)
    )


def test_pooled_intervals_cover():
    """95% of them, with three seeds that shift all of fifteen rows alike; the tolerance is that of as many independent rounds."""
    rng = np.random.default_rng(1)
    rounds, rows, covered = 200, 15, 0
    for _ in range(rounds):
        table = rng.normal(size=(rows + 1, 3)) + 5 * rng.normal(size=3)
        covered += sum(d.low < 0 < d.high for d in against_reference(table[1:], table[0]))
    assert abs(covered / (rounds * rows) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / rounds)


def test_seeds_that_conditions_share():
    """All of the choices, by enumeration; more finished cells never leave fewer conditions times seeds."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        reached = rng.integers(5, size=rng.integers(1, 8))  # cells of a stage come seed by seed
        conditions = [set(range(number)) for number in reached]

        def worth(seeds, conditions=conditions):
            return sum(set(seeds) <= condition for condition in conditions) * (len(seeds) - 1)

        best = max(worth(range(number)) for number in range(2, 6))
        found = common_seeds(conditions)
        assert (worth(found) if found else 0) == best
        assert common_seeds([{seed + 7 for seed in condition} for condition in conditions]) == tuple(
            s + 7 for s in found
        )
    assert common_seeds([{0, 1, 2}, {0, 2}, {0, 2}, {5}]) == (0, 2)  # those they share, not as many as they share
    assert common_seeds([]) == common_seeds([{1}, {2}]) == ()


def test_unequal_spreads_show():
    rng = np.random.default_rng(2)
    equal = rng.normal(size=(20, 3))
    assert 1.5 < np.mean([spread_ratio(rng.normal(size=(20, 3))) for _ in range(200)]) < 3
    equal[3] *= 30
    assert spread_ratio(equal) > 4
    assert math.isnan(spread_ratio(np.zeros((3, 3))))


def test_seeds_that_agree_leave_nothing_to_test():
    (found,) = against_reference([[0.5, 0.5]], [0, 0])
    assert (found.low, found.high) == (0.5, 0.5)
    assert math.isnan(found.p)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        against_reference([[0.5]], [0.0])
    with pytest.raises(ValueError, match="finite"):
        against_reference([[1.0, 2.0]], [math.nan, 1.0])


def noisy_predictions(rng, seeds, draws, *, between, within, examples=1, mean=(0.5, 0.3, 0.2)):
    """Vectors around a mean with known variance of each kind; the decomposition never needs them to be probabilities."""
    shape = (seeds, draws, examples, len(mean))
    effects = between * rng.normal(size=(seeds, 1, examples, len(mean))) + within * rng.normal(size=shape)
    return np.array(mean) + effects


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_parts_add_up_to_the_brier_score(seeds):
    rng = np.random.default_rng(seeds)
    p = rng.dirichlet(np.ones(4), size=(seeds, 3, 7))
    y = rng.integers(4, size=7)
    parts = brier_parts(p, y)
    by_hand = np.mean(
        [[np.sum((v - np.eye(4)[t]) ** 2) for v, t in zip(row, y, strict=True)] for row in p.reshape(-1, 7, 4)]
    )
    assert parts.brier == pytest.approx(by_hand)
    assert parts.bias + parts.variance == pytest.approx(parts.brier)


def test_the_parts_are_what_was_put_in():
    """Known variances of seeds and draws: the estimates of many small studies average to them, within their own error."""
    rng = np.random.default_rng(0)
    between, within, answer = 0.3, 0.2, 0
    mean = np.array([0.5, 0.3, 0.2])
    found = [brier_parts(noisy_predictions(rng, 3, 2, between=between, within=within), [answer]) for _ in range(6000)]
    truth = {
        "bias": float(np.sum((mean - np.eye(3)[answer]) ** 2)),
        "between_seeds": 3 * between**2,
        "within_seeds": 3 * within**2,
    }
    for name, expected in truth.items():
        values = np.array([getattr(parts, name) for parts in found])
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error, name
        assert error < 0.1 * expected  # so that the check above can fail


def test_one_seed_is_given_its_base_network():
    """Bias is then the distance of that seed's expectation from the answer."""
    rng = np.random.default_rng(1)
    found = [brier_parts(noisy_predictions(rng, 1, 2, between=0, within=0.2), [0]) for _ in range(4000)]
    bias = np.array([parts.bias for parts in found])
    assert abs(bias.mean() - 0.38) < 4 * bias.std() / math.sqrt(len(bias))
    assert {parts.between_seeds for parts in found} == {0.0}


def test_equal_predictions_have_no_variance():
    p = np.broadcast_to(np.array([[0.7, 0.3], [0.1, 0.9]]), (2, 2, 2, 2))
    parts = brier_parts(p, [0, 0])
    assert parts.variance == pytest.approx(0)
    assert parts.bias == pytest.approx((0.18 + 1.62) / 2)
    for wrong, message in ((p[:, :1], "2 draws"), (p[0], "seeds, draws"), (p * math.nan, "finite")):
        with pytest.raises(ValueError, match=message):
            brier_parts(wrong, [0, 0])


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(4, size=12).astype(float), rng.integers(5, size=12).astype(float)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_permutations_are_exact_for_few_networks():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=6), rng.normal(size=6)
    exact = stats.permutation_test(
        (y,), lambda v: abs(stats.spearmanr(x, v).statistic), permutation_type="pairings", alternative="greater"
    )
    assert permutation_p(x, y) == pytest.approx(exact.pvalue)


def test_random_permutations_agree_with_the_t_approximation():
    rng = np.random.default_rng(4)
    x = rng.normal(size=30)
    y = x + 2.2 * rng.normal(size=30)
    approximate = stats.spearmanr(x, y).pvalue
    assert 0.001 < approximate < 0.5
    assert permutation_p(x, y) == pytest.approx(approximate, rel=0.25)


def test_left_out_networks_are_predicted_as_scikit_learn_does():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=9), rng.normal(size=9)
    predicted = cross_val_predict(LinearRegression(), x[:, None], y, cv=LeaveOneOut())
    assert leave_one_out(x, y) == pytest.approx(math.sqrt(np.mean((y - predicted) ** 2)))
    others = [np.delete(y, place).mean() for place in range(9)]
    assert mean_error(y) == pytest.approx(math.sqrt(np.mean((y - others) ** 2)))
    assert math.isfinite(leave_one_out(np.array([0.0, 0, 0, 1]), y[:4]))  # without the last, no slope is there


def test_what_determines_the_outcome_predicts_it_and_noise_does_not():
    rng = np.random.default_rng(6)
    x = rng.normal(size=13)
    found = {p.name: p for p in predictors({"cause": x, "noise": rng.normal(size=13), "same": np.ones(13)}, 3 * x)}
    assert found["cause"].predicts
    assert found["cause"].rho == pytest.approx(1)
    assert found["cause"].error < 1e-9
    assert not found["noise"].predicts
    assert math.isnan(found["same"].rho)
    assert math.isnan(found["same"].p_holm)
    with pytest.raises(ValueError, match="at least 4 networks"):
        predictors({"x": [1, 2, 3]}, [1, 2, 3])


def test_properties_of_noise_seldom_predict():
    """Five properties that mean nothing: at most 5% of studies find one, within a binomial's error."""
    rng = np.random.default_rng(7)
    studies = 60
    false = 0
    for _ in range(studies):
        outcome = rng.normal(size=6)
        false += min(holm([permutation_p(rng.normal(size=6), outcome) for _ in range(5)])) < 0.05
    assert false <= studies * 0.05 + 4 * math.sqrt(studies * 0.05 * 0.95)
