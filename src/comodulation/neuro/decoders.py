"""Decoders of the population: which of two stimuli was shown, from the spike counts of a trial.

The learned ones are linear in the counts summed over the trial's bins, and differ in what they know:

- maximum likelihood knows the rates, the couplings and the modulator: weights log lambda(0) / lambda(1);
- modulator-guided learns the size of a weight from the covariance of counts and modulator, its sign from mean counts;
- rate-guided takes the mean count as size, sign-only a constant, with the same signs;
- regression (ridge, penalty chosen by leave-one-out) learns all weights from the labels.

Thresholds are midpoints of the training trials' class means. Where the modulator is known, the threshold follows it.

Source: Haimerl, Savin, Simoncelli (NeurIPS 2019). Departures: the 2019 threshold of the modulator-guided decoder follows
the modulator with the true couplings and rates, here with the estimated ones; regression is ridge. docs/neuro.md, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, choose
from .checks import Floats, Integers
from .population import Population, Trials, summed_gain

PENALTIES = np.logspace(-2, 6, 17)  # of ridge regression, in squared counts
THRESHOLDS = ("following", "constant")


@dataclass(frozen=True)
class LinearDecoder:
    """Stimulus 0 where ``counts @ weights`` exceeds what is expected halfway between the stimuli.

    Attributes:
        weights: of counts summed over a trial, ``(N,)``.
        threshold: in units of the projection; 0 where it follows the modulator.
        expected: where it follows the modulator, each neuron's part of the threshold in a bin without modulation, ``(N,)``.
        coupling: the couplings that it is followed with, ``(N,)``. std: sigma.
    """

    weights: Floats
    threshold: float = 0.0
    expected: Floats | None = None
    coupling: Floats | None = None
    std: float = 0.0

    def statistic(self, totals: Integers | Floats, modulator: Floats) -> Floats:
        """Summed counts ``(R, N)`` and modulator ``(R, T)`` -> what is positive for stimulus 0, ``(R,)``."""
        projected = totals.astype(float) @ self.weights - self.threshold
        if self.expected is None or self.coupling is None:
            return projected
        return projected - summed_gain(self.coupling, modulator, self.std) @ self.expected


def log_likelihood_ratio(population: Population, totals: Integers, modulator: Floats, std: float) -> Floats:
    """log p(counts | stimulus 0, m) - log p(counts | stimulus 1, m), ``(R,)``: the ideal decoder, which knows m.

    Gains multiply both rates alike, so they cancel in the weights and remain in the expected counts only.

    Args:
        totals: counts summed over bins, ``(R, N)``. modulator: ``(R, T)``. std: sigma.
    """
    expected = summed_gain(population.coupling, modulator, std) @ (population.rates[0] - population.rates[1])
    return totals @ population.log_ratio - expected


def guided_weights(training: Trials, std: float) -> Floats:
    """Size of the modulator-guided weights, ``(N,)``: relative covariance of counts and modulator over all bins.

    By Stein's lemma Cov(k_n, m) = sigma^2 w_n (mean rate): divided by sigma^2 times the mean count, it estimates the coupling.
    The modulator's mean is known to be 0, so that it is not estimated.

    Args:
        training: at least one trial. std: sigma; with 0 there is no label, and all weights are 0.
    """
    counts, modulator = training.counts.reshape(-1, training.counts.shape[-1]), training.modulator.ravel()
    mean = counts.mean(0)
    covariance = modulator @ (counts - mean) / len(counts)
    scale = std**2 * mean
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def preferences(training: Trials) -> Floats:
    """Sign of (mean count under stimulus 0 - under stimulus 1), ``(N,)``; 0 for a neuron without a difference."""
    zero, one = _class_means(training)
    return np.sign(zero - one)


def modulator_guided(training: Trials, std: float, *, threshold: str = "following") -> LinearDecoder:
    """Sizes from the modulator, signs from mean counts.

    Args:
        training, std: as for ``guided_weights``.
        threshold: ``following`` the modulator with the estimated couplings, or ``constant``.
    """
    choose(threshold, THRESHOLDS, "threshold")
    weights = guided_weights(training, std) * preferences(training)
    if threshold == "constant":
        return _with_midpoint(weights, training)
    zero, one = _class_means(training)
    midpoint = (zero + one) / (2 * training.modulator.shape[1])
    return LinearDecoder(weights, 0.0, weights * midpoint, guided_weights(training, std), std)


def rate_guided(training: Trials, std: float) -> LinearDecoder:
    """Sizes from mean counts, signs from their differences. ``std`` is not used."""
    totals = training.counts.sum(1)
    return _with_midpoint(totals.mean(0) * preferences(training), training)


def sign_only(training: Trials, std: float) -> LinearDecoder:
    """Equal sizes, signs from differences of mean counts. ``std`` is not used."""
    return _with_midpoint(preferences(training), training)


def regression(training: Trials, std: float) -> LinearDecoder:
    """Ridge regression of the label (1 and -1) on counts, the penalty chosen by leave-one-out. ``std`` is not used."""
    from sklearn.linear_model import RidgeCV

    totals = training.counts.sum(1).astype(float)
    _class_means(training)
    fitted = RidgeCV(alphas=PENALTIES).fit(totals, 1.0 - 2.0 * training.stimulus)
    return LinearDecoder(np.asarray(fitted.coef_, float), -float(fitted.intercept_))


LEARNED: dict[str, Callable[[Trials, float], LinearDecoder]] = {
    "modulator-guided": modulator_guided,
    "rate-guided": rate_guided,
    "sign-only": sign_only,
    "regression": regression,
}
MAXIMUM_LIKELIHOOD = "maximum-likelihood"


def accuracy(statistic: Floats, stimulus: Integers) -> float:
    """Share of trials decided rightly: stimulus 0 where the statistic ``(R,)`` is positive; a tie is half right.

    >>> accuracy(np.array([1.0, -2.0, 0.0]), np.array([0, 0, 1]))
    0.5
    """
    return float((0.5 + 0.5 * np.sign(statistic) * (1 - 2 * stimulus)).mean())


def _with_midpoint(weights: Floats, training: Trials) -> LinearDecoder:
    zero, one = _class_means(training)
    return LinearDecoder(weights, float(weights @ (zero + one)) / 2)


def _class_means(training: Trials) -> tuple[Floats, Floats]:
    """Mean summed counts under either stimulus, each ``(N,)``."""
    totals = training.counts.sum(1)
    numbers = [int((training.stimulus == s).sum()) for s in (0, 1)]
    if not all(numbers):
        raise InputError(
            f"a decoder learns from at least one trial of each stimulus, got {numbers[0]} and {numbers[1]}"
        )
    return totals[training.stimulus == 0].mean(0), totals[training.stimulus == 1].mean(0)
