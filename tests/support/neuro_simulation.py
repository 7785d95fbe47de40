"""Simulated recordings with a known modulator and known couplings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from comodulation.neuro import Recording


@dataclass(frozen=True)
class Simulated:
    counts: np.ndarray  # (R, T, N)
    condition: np.ndarray  # (R,)
    coupling: np.ndarray  # (N,)
    modulator: np.ndarray  # (R, T)
    rates: np.ndarray  # (C, N)


def modulated_counts(
    seed=0, trials=200, bins=5, neurons=20, conditions=2, rate=1.0, strength=0.5, outlasts=0.0, onset=0.0, private=0.0
) -> Simulated:
    """Rates differ between conditions. ``outlasts``: correlation of the modulator from bin to bin. ``onset``: a log gain of the
    first bin that all neurons share. ``private``: standard deviation of a log gain of each neuron's own."""
    fixed, rng = np.random.default_rng([7, neurons]), np.random.default_rng(seed)
    coupling = fixed.uniform(0, 2 * strength, neurons)
    rates = rate * np.exp(0.4 * fixed.standard_normal((conditions, neurons)))
    modulator = rng.standard_normal((trials, bins))
    for t in range(1, bins):
        modulator[:, t] = outlasts * modulator[:, t - 1] + np.sqrt(1 - outlasts**2) * modulator[:, t]
    condition = np.arange(trials) % conditions
    log_gain = modulator[..., None] * coupling - coupling**2 / 2 + onset * (np.arange(bins) == 0)[:, None]
    log_gain = log_gain + private * rng.standard_normal((trials, bins, neurons)) - private**2 / 2
    return Simulated(rng.poisson(rates[condition][:, None] * np.exp(log_gain)), condition, coupling, modulator, rates)


def two_areas(seed=0, trials=120, bins=5, neurons=(24, 16), control=0.3, targeted=True) -> tuple[Recording, np.ndarray]:
    """V1 and MT with one modulator, coupled to informative neurons, weaker in the control. Returns the task's couplings too."""
    rng, number = np.random.default_rng(seed), sum(neurons)
    preference = 0.7 * np.abs(rng.standard_normal(number))
    coupling = 0.1 + 0.5 * (preference if targeted else rng.permutation(preference))
    signed, base = preference * rng.choice([-1, 1], number), 1.5 * np.exp(0.3 * rng.standard_normal(number))
    counts = []
    for scale in (1.0, control):
        w, m = scale * coupling, rng.standard_normal((trials, bins, 1))
        side = np.arange(trials) % 2 - 0.5
        counts.append(rng.poisson(base * np.exp(side[:, None, None] * signed + m * w - w**2 / 2)))
    recording = Recording.of(
        np.concatenate(counts), np.tile(np.arange(trials) % 2, 2), context=np.repeat(["task", "control"], trials),
        area=np.repeat(["V1", "MT"], neurons), name="simulated",
    )  # fmt: skip
    return recording, coupling
