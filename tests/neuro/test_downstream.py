"""Neurons of another area: couplings without the bias of an uncertain regressor, errors that cover, bad input."""

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.downstream import follow_modulator
from comodulation.neuro.latent import fit_modulator
from support.neuro_simulation import modulated_counts


# Few upstream neurons, so that much of m is unknown: a regression on its estimate as if it were m would still have to be right.
def test_couplings_are_recovered_and_errors_cover():
    z, found, truth = [], [], []
    for seed in range(8):
        s = modulated_counts(seed, trials=300, neurons=24, strength=0.35)
        fit = fit_modulator(s.counts[:, :, :12], s.condition)
        followed = follow_modulator(fit, s.counts[:, :, 12:], s.condition)
        assert fit.modulator_error.mean() > 0.5
        z.append((followed.coupling - s.coupling[12:]) / followed.coupling_error)
        found.append(followed.coupling)
        truth.append(s.coupling[12:])
    assert np.mean(found) == pytest.approx(np.mean(truth), rel=0.06)
    assert (np.abs(z) < 1.96).mean() >= 0.88


def test_neurons_that_do_not_follow_have_no_coupling():
    s, other = modulated_counts(0, trials=200), modulated_counts(99, trials=200)
    followed = follow_modulator(fit_modulator(s.counts, s.condition), other.counts, s.condition)
    assert np.std(followed.coupling / followed.coupling_error) == pytest.approx(1, abs=0.4)


# With the modulator as good as known, this is Poisson regression on it.
def test_against_poisson_regression_on_the_modulator():
    from sklearn.linear_model import PoissonRegressor

    s = modulated_counts(0, trials=60, bins=3, neurons=80, rate=20.0, conditions=1)
    fit = fit_modulator(s.counts[:, :, :70], s.condition, rates_by_bin=False)
    followed = follow_modulator(fit, s.counts[:, :, 70:], s.condition, rates_by_bin=False)
    for neuron, coupling in enumerate(followed.coupling):
        plain = PoissonRegressor(alpha=0, tol=1e-8).fit(
            fit.modulator.reshape(-1, 1), s.counts[:, :, 70 + neuron].ravel()
        )
        assert coupling == pytest.approx(plain.coef_[0], abs=0.01)


def test_bad_input():
    s = modulated_counts(0, trials=40, neurons=8)
    fit = fit_modulator(s.counts, s.condition)
    with pytest.raises(InputError, match="40 trials of 5 bins, the counts have 40 of 4"):
        follow_modulator(fit, s.counts[:, 1:], s.condition)
    with pytest.raises(InputError, match="fewer than 25 spikes"):
        follow_modulator(fit, 0 * s.counts, s.condition)
    s.counts[:, :, 3] = 0  # one silent neuron is refused too, by its number
    with pytest.raises(InputError, match=r"1 of 8 neurons fire fewer than 25 spikes.*neurons 3"):
        follow_modulator(fit, s.counts, s.condition)
