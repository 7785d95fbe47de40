"""The Poisson latent model: exact derivatives, recovery of couplings and modulator with errors that cover, bad input."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, poisson

from comodulation.errors import InputError
from comodulation.neuro.counts import Groups
from comodulation.neuro.latent import _Model, fit_modulator, initial_coupling
from support.neuro_simulation import modulated_counts


def model_of(simulated, spacing=0.2, by_bin=False):
    groups = Groups.of(simulated.counts, simulated.condition, by_bin=by_bin)
    beta = np.log(simulated.rates)[np.arange(len(groups.totals)) // (simulated.counts.shape[1] if by_bin else 1)]
    return _Model(groups, spacing), np.concatenate([simulated.coupling, beta.ravel()])


# Oracle: the integral over the modulator by an adaptive method, bin by bin.
def test_marginal_likelihood_against_numerical_integration():
    simulated = modulated_counts(trials=24, bins=1, neurons=4, rate=3.0, strength=0.7)
    model, parameters = model_of(simulated)

    def joint(m, counts, rates):
        w = simulated.coupling
        return norm.pdf(m) * poisson.pmf(counts, rates * np.exp(w * m - w**2 / 2)).prod()

    expected = sum(
        np.log(quad(joint, -12, 12, (counts, simulated.rates[c]), epsabs=0, epsrel=1e-10, limit=200, points=[0.0])[0])
        for counts, c in zip(simulated.counts[:, 0], simulated.condition, strict=True)
    )
    assert -model.negative(parameters)[0] + model.groups.constant == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("by_bin", [False, True])
def test_gradient_and_covariance_against_differences(by_bin):
    model, parameters = model_of(modulated_counts(trials=40, bins=3, neurons=4), by_bin=by_bin)
    steps = 1e-5 * np.eye(len(parameters))
    numeric = [(model.negative(parameters + s)[0] - model.negative(parameters - s)[0]) / 2e-5 for s in steps]
    np.testing.assert_allclose(model.negative(parameters)[1], numeric, atol=1e-6)
    hessian = [(model.negative(parameters + s)[1] - model.negative(parameters - s)[1]) / 2e-5 for s in steps]
    expected = np.linalg.inv(np.array(hessian))[:4, :4]
    np.testing.assert_allclose(model.covariance(*model.unpack(parameters), "model"), expected, atol=1e-8)


@pytest.fixture(scope="module")
def fits():
    """Twenty-four recordings with the same couplings."""
    simulated = [modulated_counts(seed, trials=80) for seed in range(24)]
    return [(s, fit_modulator(s.counts, s.condition, rates_by_bin=False)) for s in simulated]


# 480 intervals of 95%: recordings share one modulator among neurons, so the tolerance is that of about 200 independent ones.
def test_errors_of_couplings_cover_the_truth(fits):
    z = np.array([(fit.coupling - s.coupling) / fit.coupling_error for s, fit in fits])
    assert 0.90 <= (np.abs(z) < 1.96).mean() <= 0.99
    assert abs(z.mean()) < 0.3
    assert 0.88 < z.std() < 1.12
    assert np.abs(np.mean([fit.coupling - s.coupling for s, fit in fits])) < 0.02


def test_errors_of_the_modulator_cover_the_truth(fits):
    inside = [np.abs(fit.modulator - s.modulator) < 1.96 * fit.modulator_error for s, fit in fits]
    assert 0.92 <= np.mean(inside) <= 0.965
    # The posterior's own account of how much it knows: squared error equals its variance, and what the rates took up of the mean.
    error = np.mean([(fit.modulator - s.modulator) ** 2 for s, fit in fits])
    assert error == pytest.approx(np.mean([fit.modulator_error**2 for _, fit in fits]), rel=0.08)
    assert np.mean([np.corrcoef(fit.modulator.ravel(), s.modulator.ravel())[0, 1] for s, fit in fits]) > 0.85


def test_what_is_fitted_is_likelier_than_the_truth_and_than_independence(fits):
    for s, fit in fits[:5]:
        model, parameters = model_of(s)
        assert fit.converged
        assert fit.log_likelihood > -model.negative(parameters)[0] + model.groups.constant
        assert fit.log_likelihood > fit.independent + 100
        assert fit.gain_in_bits > 0


# Where the modulator outlasts a bin, bins are not independent: the model's errors are too small, those over trials are not.
def test_errors_over_trials_cover_where_the_modulator_outlasts_a_bin():
    z = {"model": [], "trials": []}
    for seed in range(6):
        s = modulated_counts(seed, trials=150, bins=6, outlasts=0.95, strength=0.7, neurons=12)
        for errors, values in z.items():
            fit = fit_modulator(s.counts, s.condition, rates_by_bin=False, errors=errors)
            values.append((fit.coupling - s.coupling) / fit.coupling_error)
    assert np.std(z["trials"]) < np.std(z["model"])
    assert (np.abs(z["trials"]) < 1.96).mean() >= 0.85


# A response to the stimulus's onset is not the modulator, as long as rates may differ between bins.
def test_onset_responses_are_not_taken_for_a_modulator():
    s = modulated_counts(trials=150, strength=0.0, onset=1.0)
    kept, fooled = (fit_modulator(s.counts, s.condition, rates_by_bin=by_bin) for by_bin in (True, False))
    assert np.median(fooled.coupling) > 0.3
    assert np.median(np.abs(kept.coupling)) < 0.1


# Second route to the couplings: moments alone.
def test_moments_and_likelihood_agree():
    s = modulated_counts(trials=1500, neurons=10, rate=3.0)
    groups = Groups.of(s.counts, s.condition, by_bin=False)
    fit = fit_modulator(s.counts, s.condition, rates_by_bin=False)
    np.testing.assert_allclose(initial_coupling(groups), fit.coupling, atol=0.06)
    np.testing.assert_allclose(fit.coupling, s.coupling, atol=0.06)
    np.testing.assert_allclose(fit.rates, s.rates, rtol=0.06)


def test_order_of_neurons_trials_and_names_of_conditions_change_nothing():
    s = modulated_counts(trials=60, neurons=8)
    fit = fit_modulator(s.counts, s.condition)
    order, neurons = np.random.default_rng(0).permutation(60), np.random.default_rng(1).permutation(8)
    other = fit_modulator(s.counts[order][:, :, neurons], np.array(["left", "right"])[s.condition[order]])
    np.testing.assert_allclose(other.coupling, fit.coupling[neurons], atol=1e-4)
    np.testing.assert_allclose(other.modulator, fit.modulator[order], atol=1e-3)


# Many active neurons make the posterior much narrower than the first grid.
def test_the_grid_follows_a_narrow_posterior():
    s = modulated_counts(trials=40, bins=2, neurons=60, rate=40.0)
    fit = fit_modulator(s.counts, s.condition, rates_by_bin=False)
    assert fit.modulator_error.max() < 0.1
    # Mean and scale of m are those of the sample, 40 bins a condition, which rates and couplings take up.
    found, truth = (np.concatenate([m[s.condition == c] - m[s.condition == c].mean() for c in (0, 1)]).ravel()
                    for m in (fit.modulator, s.modulator))  # fmt: skip
    slope = found @ truth / (truth @ truth)
    assert np.corrcoef(found, truth)[0, 1] > 0.995
    np.testing.assert_allclose(fit.coupling * slope, s.coupling, atol=0.06)


def test_neurons_that_are_silent_in_a_condition_are_no_problem():
    s = modulated_counts(trials=80, neurons=6, rate=2.0)
    s.counts[s.condition == 0, :, 2] = 0
    fit = fit_modulator(s.counts, s.condition, rates_by_bin=False)
    assert fit.rates[0, 2] == 0
    assert np.isfinite(fit.coupling_error).all()
    assert np.isfinite(fit.log_likelihood)


def test_bad_input():
    s = modulated_counts(trials=40, neurons=5, rate=2.0)

    def refused(message, counts=s.counts, condition=s.condition, **options):
        with pytest.raises(InputError, match=message):
            fit_modulator(counts, condition, **options)

    refused("condition 1 has 3 trials; at least 10", condition=np.r_[np.zeros(37, int), 1, 1, 1])
    refused("at least 10 trials of each", condition=np.arange(40))
    refused("no trials", counts=s.counts[:0], condition=s.condition[:0])
    refused("at least 3 neurons, got 2", counts=s.counts[:, :, :2])
    refused(
        "must not be negative, got 1 of",
        counts=np.where(np.arange(s.counts.size).reshape(s.counts.shape) == 7, -1, s.counts),
    )
    refused("whole numbers of spikes, got 1000 of 1000", counts=s.counts + 0.5)
    refused("must be finite, got 1000", counts=np.full(s.counts.shape, np.nan))
    refused("must be numbers", counts=s.counts.astype(str))
    refused("1 of 5 neurons fire fewer than 25 spikes.*neurons 3", counts=s.counts * (np.arange(5) != 3))
    refused("one condition for each of 40 trials", condition=s.condition[:-1])
    refused("did you mean 'trials'", errors="trial")
    refused(
        "more than 50 trials for 25 neurons, got 40; take errors='model'", counts=np.tile(s.counts, 5), errors="trials"
    )


def test_neurons_that_are_never_active_together():
    """Of two neurons silent in each other's conditions nothing common is known; the others' couplings are found all the same."""
    s = modulated_counts(seed=3, trials=400, conditions=2, neurons=10, rate=2.0)
    counts = s.counts.copy()
    counts[s.condition == 0, :, 0] = 0
    counts[s.condition == 1, :, 1] = 0
    groups = Groups.of(counts, s.condition, by_bin=False)
    assert groups.gain_covariance()[0, 1] == 0
    fit = fit_modulator(counts, s.condition, rates_by_bin=False)
    assert fit.converged
    assert (np.abs(fit.coupling - s.coupling) < 4 * fit.coupling_error).all()
