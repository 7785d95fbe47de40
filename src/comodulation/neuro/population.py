"""A population of Poisson neurons whose informative few share a fast stochastic modulator.

Two stimuli are told apart from spike counts. In time bin t of a trial, neuron n fires with rate

    lambda_n(s) exp(m_t w_n - sigma^2 w_n^2 / 2),   m_t ~ N(0, sigma^2),

so that modulation leaves every mean rate as it was. Few neurons are informative; their coupling w_n is proportional to
the weight |log lambda_n(0) / lambda_n(1)| that the best decoder would give them, and that of the others is 0.

Source: Haimerl, Savin, Simoncelli, "Flexible information routing in neural populations through stochastic comodulation"
(NeurIPS 2019), encoding model. Here couplings are scaled to mean 1 over informative neurons, so that sigma is the
standard deviation of their log gain; docs/neuro.md, section 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .checks import Floats, Integers, check_positive, check_whole

MOST_SPIKES = 1e9  # expected in one bin: beyond, neither a neuron nor a Poisson sampler follows


@dataclass(frozen=True)
class Population:
    """Rates and couplings of N neurons.

    Attributes:
        rates: expected spikes a bin under stimulus 0 and 1, without modulation, positive, ``(2, N)``.
        coupling: w of each neuron, ``(N,)``.
    """

    rates: Floats
    coupling: Floats

    def __post_init__(self) -> None:
        if self.rates.ndim != 2 or len(self.rates) != 2 or self.coupling.shape != self.rates.shape[1:]:
            raise InputError(
                f"a population has rates (2, N) and couplings (N,), got {self.rates.shape} and {self.coupling.shape}"
            )
        if not (np.isfinite(self.rates).all() and (self.rates > 0).all() and np.isfinite(self.coupling).all()):
            raise InputError("rates must be positive and finite, couplings finite")

    @property
    def log_ratio(self) -> Floats:
        """log lambda_n(0) / lambda_n(1), positive for neurons that prefer stimulus 0, ``(N,)``."""
        return np.log(self.rates[0]) - np.log(self.rates[1])

    @property
    def informative(self) -> NDArray[np.bool_]:
        """Which neurons tell the stimuli apart, ``(N,)``."""
        return self.rates[0] != self.rates[1]


@dataclass(frozen=True)
class Trials:
    """Simulated trials, bin by bin.

    Attributes:
        counts: spikes, ``(R, T, N)`` for R trials of T bins.
        modulator: its value in each bin, ``(R, T)``.
        stimulus: 0 or 1, ``(R,)``.
    """

    counts: Integers
    modulator: Floats
    stimulus: Integers

    def first(self, number: int) -> Trials:
        """The first ``number`` trials."""
        return Trials(self.counts[:number], self.modulator[:number], self.stimulus[:number])


def draw_population(
    neurons: int,
    informative: int,
    rng: np.random.Generator,
    *,
    rate: float = 0.5,
    contrast: float = 0.3,
    spread: float = 0.5,
) -> Population:
    """A random population, half of its informative neurons preferring either stimulus.

    Args:
        neurons: N. informative: how many of them tell the stimuli apart; even, from 2 to N.
        rng: source of randomness.
        rate: expected spikes a bin of a typical neuron.
        contrast: mean of |log lambda(0) / lambda(1)| over informative neurons, which is uniform in [1/2, 3/2] times it.
        spread: standard deviation of log rates over neurons.

    Raises:
        InputError: numbers out of range.
    """
    check_whole(neurons, 2, "neurons")
    check_whole(informative, 2, "informative")
    if informative > neurons or informative % 2:
        raise InputError(f"informative must be even and at most the {neurons} neurons, got {informative}")
    check_positive(rate, "rate")
    check_positive(contrast, "contrast")
    if not math.isfinite(spread) or spread < 0:
        raise InputError(f"spread must be finite and not negative, got {spread}")
    log_ratio = np.zeros(neurons)
    size = contrast * rng.uniform(0.5, 1.5, informative)
    log_ratio[:informative] = np.where(np.arange(informative) % 2, -size, size)
    base = rate * np.exp(spread * rng.standard_normal(neurons))
    # The mean of the two rates is the base, whatever the contrast: informative neurons are not the active ones.
    first = 2 * base / (1 + np.exp(-log_ratio))
    rates = np.stack([first, 2 * base - first])
    exact = np.log(rates[0]) - np.log(rates[1])
    coupling = np.zeros(neurons)
    coupling[:informative] = np.abs(exact[:informative]) / np.abs(exact[:informative]).mean()
    rates[1, informative:] = rates[0, informative:]  # equal to the last bit
    return Population(rates, coupling)


def gain(coupling: ArrayLike, modulator: ArrayLike, std: float) -> Floats:
    """exp(m w - sigma^2 w^2 / 2): modulator ``(...)`` and couplings ``(N,)`` give ``(..., N)``, with mean 1 over m.

    >>> gain([0.0, 1.0], [0.5], 1.0)
    array([[1., 1.]])
    """
    w, m = np.asarray(coupling, float), np.asarray(modulator, float)
    return np.exp(m[..., None] * w - (std * w) ** 2 / 2)


def simulate(population: Population, stimulus: ArrayLike, bins: int, std: float, rng: np.random.Generator) -> Trials:
    """Counts of every bin: ``stimulus`` ``(R,)`` of 0 and 1 gives counts ``(R, bins, N)``.

    Args:
        population: of N neurons. bins: of a trial; the modulator is drawn anew in each.
        std: sigma; 0 leaves the modulator out.

    Raises:
        InputError: stimuli other than 0 and 1, bins or std out of range, rates beyond what can be drawn.
    """
    shown, modulator = _draw(stimulus, bins, std, rng)
    rates = population.rates[shown][:, None] * gain(population.coupling, modulator, std)
    return Trials(rng.poisson(_possible(rates)), modulator, shown)


def simulate_totals(
    population: Population, stimulus: ArrayLike, bins: int, std: float, rng: np.random.Generator
) -> tuple[Integers, Floats]:
    """Counts summed over the bins of each trial ``(R, N)``, and the modulator ``(R, bins)``.

    The same distribution as the sums of ``simulate``: independent Poisson counts add up to a Poisson count. Decoders
    with constant weights need no more, for a ``bins``-th of the draws.
    """
    shown, modulator = _draw(stimulus, bins, std, rng)
    rates = population.rates[shown] * summed_gain(population.coupling, modulator, std)
    return rng.poisson(_possible(rates)), modulator


def summed_gain(coupling: Floats, modulator: Floats, std: float) -> Floats:
    """Gains summed over bins: modulator ``(R, T)`` and couplings ``(N,)`` give ``(R, N)``."""
    total = np.full((len(modulator), len(coupling)), float(modulator.shape[1]))
    coupled = coupling != 0  # few are, and an exponential is what this costs
    total[:, coupled] = gain(coupling[coupled], modulator, std).sum(1)
    return total


def _draw(stimulus: ArrayLike, bins: int, std: float, rng: np.random.Generator) -> tuple[Integers, Floats]:
    shown = np.asarray(stimulus)
    if shown.ndim != 1 or not np.isin(shown, (0, 1)).all():
        raise InputError(f"stimulus must be (R,) of 0 and 1, got shape {shown.shape}")
    check_whole(bins, 1, "bins")
    if not math.isfinite(std) or std < 0:
        raise InputError(f"std must be finite and not negative, got {std!r}")
    return shown.astype(np.int64), std * rng.standard_normal((len(shown), bins))


def _possible(rates: Floats) -> Floats:
    if rates.size and not rates.max() <= MOST_SPIKES:
        raise InputError(
            f"a neuron would fire {rates.max():.3g} spikes in a trial or bin; at most {MOST_SPIKES:g} can be drawn"
        )
    return rates
