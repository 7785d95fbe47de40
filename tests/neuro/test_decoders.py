"""Decoders against exact answers: enumerated accuracies, weights that converge to the log ratio, invariances."""

import numpy as np
import pytest
from scipy.stats import poisson

from comodulation.errors import InputError
from comodulation.neuro.decoders import (
    LEARNED,
    LinearDecoder,
    accuracy,
    guided_weights,
    log_likelihood_ratio,
    modulator_guided,
    preferences,
    regression,
    sign_only,
)
from comodulation.neuro.population import Population, Trials, draw_population, gain, simulate, simulate_totals


# One neuron: the best possible share of right answers is half the sum of the larger of two probabilities.
def test_ideal_decoder_reaches_the_enumerated_optimum():
    population, trials = Population(np.array([[3.0], [5.0]]), np.ones(1)), 40_000
    k, shown = np.arange(60), np.arange(trials) % 2
    totals, modulator = simulate_totals(population, shown, 1, 0.8, np.random.default_rng(0))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    rates = population.rates[:, 0, None] * gain([1.0], 0.8 * nodes, 0.8)[:, 0]
    best = np.maximum(*(poisson.pmf(k[:, None], rate) for rate in rates)).sum(0) / 2 @ weights / weights.sum()
    found = accuracy(log_likelihood_ratio(population, totals, modulator, 0.8), shown)
    assert found == pytest.approx(best, abs=4 * np.sqrt(0.25 / trials))


def test_log_likelihood_ratio_is_that_of_the_bins():
    population = draw_population(12, 6, np.random.default_rng(0))
    drawn = simulate(population, [0, 1, 0], 4, 0.6, np.random.default_rng(1))
    gains = gain(population.coupling, drawn.modulator, 0.6)
    logs = [poisson.logpmf(drawn.counts, rate * gains).sum((1, 2)) for rate in population.rates]
    found = log_likelihood_ratio(population, drawn.counts.sum(1), drawn.modulator, 0.6)
    np.testing.assert_allclose(found, logs[0] - logs[1], rtol=1e-9, atol=1e-9)


# Known answer: the relative covariance estimates the coupling, and with the sign the direction of maximum likelihood.
def test_guided_weights_converge_to_the_maximum_likelihood_direction():
    population = draw_population(60, 20, np.random.default_rng(0), rate=3.0)
    drawn = simulate(population, np.arange(4000) % 2, 10, 0.4, np.random.default_rng(1))
    weights = guided_weights(drawn, 0.4)
    bins, mean = drawn.modulator.size, population.rates.mean(0)
    error = np.sqrt((1 / mean + 1) / bins) / 0.4 * np.exp(0.4**2)
    assert (np.abs(weights - population.coupling) < 5 * error).all()
    signed = weights * preferences(drawn)
    cosine = signed @ population.log_ratio / np.linalg.norm(signed) / np.linalg.norm(population.log_ratio)
    assert cosine > 0.98


# Without fluctuation nothing is labelled: all weights 0, and every answer a coin's.
def test_no_modulator_no_label():
    population = draw_population(20, 4, np.random.default_rng(0))
    drawn = simulate(population, np.arange(20) % 2, 5, 0.0, np.random.default_rng(1))
    decoder = modulator_guided(drawn, 0.0)
    assert (decoder.weights == 0).all()
    assert accuracy(decoder.statistic(drawn.counts.sum(1), drawn.modulator), drawn.stimulus) == 0.5


@pytest.mark.parametrize("name", LEARNED)
def test_order_of_neurons_and_names_of_stimuli_change_nothing(name):
    population = draw_population(20, 10, np.random.default_rng(0), rate=2.0)
    drawn = simulate(population, np.arange(40) % 2, 5, 0.5, np.random.default_rng(1))
    totals, order = drawn.counts.sum(1), np.random.default_rng(2).permutation(20)
    statistic = LEARNED[name](drawn, 0.5).statistic(totals, drawn.modulator)
    permuted = LEARNED[name](Trials(drawn.counts[:, :, order], drawn.modulator, drawn.stimulus), 0.5)
    np.testing.assert_allclose(permuted.statistic(totals[:, order], drawn.modulator), statistic, atol=1e-8)
    swapped = LEARNED[name](Trials(drawn.counts, drawn.modulator, 1 - drawn.stimulus), 0.5)
    np.testing.assert_allclose(swapped.statistic(totals, drawn.modulator), -statistic, atol=1e-8)


# With plenty of trials and hardly any modulation, a constant threshold and one that follows the modulator are the same.
def test_the_following_threshold_is_the_constant_one_without_modulation():
    population = draw_population(20, 10, np.random.default_rng(0), rate=2.0)
    drawn = simulate(population, np.arange(400) % 2, 5, 1e-4, np.random.default_rng(1))
    totals = drawn.counts.sum(1)
    follow, constant = (
        modulator_guided(drawn, 1e-4, threshold=kind).statistic(totals, drawn.modulator)
        for kind in ("following", "constant")
    )
    # Estimated couplings are of the order of 1 / (sigma sqrt(bins)), so that even here they are followed a little.
    assert np.corrcoef(follow, constant)[0, 1] > 0.999


def test_accuracy_by_hand():
    assert accuracy(np.array([2.0, -1.0, -3.0, 0.0]), np.array([0, 0, 1, 1])) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    decoder = LinearDecoder(np.array([1.0, -1.0]), 2.0)
    assert decoder.statistic(np.array([[5, 1]]), np.zeros((1, 3))).tolist() == [2.0]


def test_bad_input():
    population = draw_population(20, 10, np.random.default_rng(0))
    drawn = simulate(population, [0, 0, 0], 5, 0.5, np.random.default_rng(1))
    for train in (regression, sign_only):
        with pytest.raises(InputError, match="one trial of each stimulus, got 3 and 0"):
            train(drawn, 0.5)
    with pytest.raises(InputError, match="unknown threshold"):
        modulator_guided(drawn, 0.5, threshold="moving")
