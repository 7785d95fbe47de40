"""The population model: gains of mean 1, known covariances, two ways to draw the same counts, bad input."""

import subprocess
import sys

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.population import Population, draw_population, gain, simulate, simulate_totals, summed_gain


def population(**options):
    return draw_population(40, 10, np.random.default_rng(3), **options)


# The mean of a log-normal, by quadrature instead of sampling.
@pytest.mark.parametrize("std", [1e-8, 0.3, 2.0])
def test_modulation_leaves_mean_rates_as_they_are(std):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    gains = gain([0.0, -1.0, 0.5, 1.5], std * nodes, std)
    np.testing.assert_allclose(weights @ gains / weights.sum(), 1, rtol=1e-9)


def test_few_are_informative_half_prefer_either_stimulus_and_couplings_are_targeted():
    p = population(contrast=0.4)
    assert p.informative.sum() == 10
    assert (p.log_ratio[p.informative] > 0).sum() == 5
    assert (p.coupling[~p.informative] == 0).all()
    np.testing.assert_allclose(
        p.coupling[p.informative], np.abs(p.log_ratio[p.informative]) / np.abs(p.log_ratio[:10]).mean()
    )
    assert np.abs(p.log_ratio[:10]).min() >= 0.2
    assert np.abs(p.log_ratio).max() <= 0.6


# Mean, Poisson variance plus that of the gain, and Stein's covariance with the modulator; errors from the sample size.
def test_moments_of_counts():
    p, std, trials = population(rate=2.0), 0.4, 40_000
    drawn = simulate(p, np.zeros(trials, int), 1, std, np.random.default_rng(0))
    counts, rate, w = drawn.counts[:, 0], p.rates[0], p.coupling
    variance = rate + rate**2 * np.expm1((std * w) ** 2)
    assert (np.abs(counts.mean(0) - rate) < 5 * np.sqrt(variance / trials)).all()
    np.testing.assert_allclose(counts.var(0), variance, rtol=0.1)
    covariance = drawn.modulator[:, 0] @ counts / trials
    second = variance + rate**2 * (1 + (2 * std * w) ** 2)
    assert (np.abs(covariance - std**2 * w * rate) < 5 * std * np.sqrt(second / trials)).all()


# Sums of Poisson counts are Poisson counts: the short way to draw totals has the long way's moments.
def test_totals_are_distributed_as_sums_of_bins():
    p, trials, shown = population(), 20_000, np.arange(20_000) % 2
    long = simulate(p, shown, 4, 0.8, np.random.default_rng(0)).counts.sum(1)
    short, modulator = simulate_totals(p, shown, 4, 0.8, np.random.default_rng(1))
    assert modulator.shape == (trials, 4)
    error = np.sqrt((long.var(0) + short.var(0)) / trials)
    assert (np.abs(long.mean(0) - short.mean(0)) < 5 * error).all()
    np.testing.assert_allclose(long.var(0), short.var(0), rtol=0.15)
    both = np.corrcoef(long[:, :10].T)[np.triu_indices(10, 1)], np.corrcoef(short[:, :10].T)[np.triu_indices(10, 1)]
    assert np.abs(both[0] - both[1]).max() < 8 / np.sqrt(trials)


def test_summed_gain_is_the_sum():
    w, m = np.array([0.0, 0.5, -2.0]), np.random.default_rng(0).standard_normal((3, 5))
    np.testing.assert_allclose(summed_gain(w, m, 0.7), gain(w, m, 0.7).sum(1), rtol=1e-14)


def test_same_seed_same_trials():
    p = population()
    a, b = (simulate(p, [0, 1, 1], 3, 0.5, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a.counts, b.counts)
    assert a.first(2).counts.shape == (2, 3, 40)


def test_bad_input():
    rng = np.random.default_rng(0)
    for number in (3, 0, 60, 2.0):
        with pytest.raises(InputError, match="informative"):
            draw_population(50, number, rng)
    with pytest.raises(InputError, match="rate must be a positive"):
        draw_population(50, 10, rng, rate=0.0)
    with pytest.raises(InputError, match="positive and finite"):
        Population(np.array([[1.0], [0.0]]), np.ones(1))
    with pytest.raises(InputError, match="rates \\(2, N\\)"):
        Population(np.ones((2, 3)), np.ones(2))
    with pytest.raises(InputError, match="0 and 1"):
        simulate(population(), [0, 2], 3, 0.5, rng)
    with pytest.raises(InputError, match="can be drawn"):
        simulate(Population(np.full((2, 1), 1e10), np.ones(1)), [0], 1, 0.5, rng)


# Neuroscience is not loaded by those who do not ask for it, and nothing heavy by those who read no file and draw no figure.
def test_imports_stay_light():
    code = (
        "import sys, comodulation; assert 'comodulation.neuro' not in sys.modules; "
        "import comodulation.neuro.nwb, comodulation.neuro.latent; "
        "assert not {'torch', 'pynwb', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import comodulation.neuro as neuro

    found = {name: getattr(neuro, name) for name in neuro.__all__}
    assert {name for name, value in found.items() if isinstance(value, (str, tuple)) or value.__name__ == name} == set(found)
    with pytest.raises(AttributeError, match=r"No comodulation\.neuro attribute recordings"):
        _ = neuro.recordings
