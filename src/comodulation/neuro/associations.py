"""The statistics that are reported for cortex, of one recording: one shared dimension, targeted at informative neurons.

1. Share of the shared variability in the first dimension, noise of single neurons (Poisson noise too) taken out: by factor
   analysis, and between halves of the neurons on trials that the dimensions were not fitted to.
2. Coupling against informativeness, over neurons. 3. The same downstream. The fall of modulation in a control: fall.py.

Intervals of associations are bootstraps over neurons, their p values permutations over neurons: they speak of neurons like these,
of the session at hand; sessions are the repetitions for anything beyond (docs/neuro.md, section 5).
Sources: the questions, Haimerl et al., "Targeted V1 comodulation supports task-adaptive sensory decisions" (Nature
Communications 14:7879, 2023); covariance between halves, Stringer et al., "Spontaneous behaviors drive multidimensional,
brainwide activity" (Science 364, 2019), supplement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from ..errors import InputError
from ..evaluation import informative_auc, neuron_dprime
from .checks import Floats, Integers
from .counts import Groups
from .recording import Recording

RESAMPLES = 2000
MIN_CORRELATED = 8  # neurons: with fewer, hardly any permutation is extreme enough
DIMENSIONS = 5
BLOCKS = 10  # of trials, for the jackknife


@dataclass(frozen=True)
class Association:
    """Rank correlation of coupling and informativeness over neurons.

    Attributes:
        spearman: in [-1, 1]. low, high: 95% bootstrap interval over neurons. p: permutation, two-sided.
        partial: the same with the rank of the mean count held fixed: active neurons may both be informative and fluctuate.
        auc: how well the coupling tells the most informative quarter of neurons from the rest; 0.5 is chance.
        neurons: how many.
    """

    spearman: float
    low: float
    high: float
    p: float
    partial: float
    auc: float
    neurons: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Dimensions:
    """How the shared variability is spread over dimensions.

    Attributes:
        share: of the shared variability in the first dimension, held out; about 1 where there is no other, nan where none is
            shared on held-out trials. error: its standard error, from leaving out a tenth of the trials at a time.
        fitted_share: the same as factor analysis of all trials has it. Lower: further factors always fit some noise.
        shared: part of the counts' variance that is shared with other neurons, mean over neurons; about 0 where none is.
        spectrum: held-out shared variance along each dimension, in units of one neuron's variance, ``(q,)``.
        p: of the held-out variance of the first dimension, against trials permuted within their condition for each neuron by
            itself.
    """

    share: float
    error: float
    fitted_share: float
    shared: float
    spectrum: Floats
    p: float

    @property
    def found(self) -> bool:
        """Whether anything is shared at all; where not, couplings to what is shared mean nothing."""
        return self.p < 0.05


def informativeness(recording: Recording) -> Floats:
    """d' of each neuron between the targets, from counts summed over the trial, ``(N,)``; trials without a target do not count."""
    names, labels = np.unique(recording.target, return_inverse=True)
    labels = np.where(names[labels] == "", -1, labels)
    return neuron_dprime(torch.as_tensor(recording.totals, dtype=torch.float64), torch.as_tensor(labels)).numpy()


def association(
    coupling: Floats, dprime: Floats, activity: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> Association:
    """Coupling against informativeness over neurons.

    Args:
        coupling, dprime, activity (mean counts): ``(N,)``; neurons where one is not a number are left out.
        resamples: of the bootstrap, and permutations. seed: of both.

    Raises:
        InputError: too few neurons.
    """
    known = ~(np.isnan(coupling) | np.isnan(dprime))
    if known.sum() < MIN_CORRELATED:
        raise InputError(f"a correlation over neurons needs at least {MIN_CORRELATED} neurons, got {int(known.sum())}")
    w, d, mean = coupling[known], dprime[known], activity[known]
    found, rng = rank_correlation(w, d), np.random.default_rng(seed)
    drawn = rng.integers(len(w), size=(resamples, len(w)))
    low, high = np.quantile(_rank_correlations(w[drawn], d[drawn]), [0.025, 0.975])
    chance = _rank_correlations(rng.permuted(np.tile(w, (resamples, 1)), axis=1), d[None])
    return Association(
        found, float(low), float(high), _p(np.abs(chance), abs(found)), partial_correlation(w, d, mean),
        informative_auc(torch.as_tensor(d), torch.as_tensor(w)), len(w),
    )  # fmt: skip


def shared_dimensions(
    groups: Groups, *, dimensions: int = DIMENSIONS, splits: int = 20, shuffles: int = 200, seed: int = 0
) -> Dimensions:
    """Dimensions of the residual counts: mean of their group taken away, in units of each neuron's standard deviation.

    The neurons are halved at random, and the trials. Singular vectors u, v of the covariance between the halves of the neurons
    are fitted to one half of the trials; in the other they have the covariance u' C v. Noise of single neurons, of whatever
    distribution, does not covary between different neurons, so that a direction of noise has 0 there on average.

    Args:
        groups: of the neurons. dimensions: q, at most a third of the neurons.
        splits: random halves, each used both ways. shuffles: for p; the trials of each condition are permuted, whole, for each
            neuron by itself. 0: p is nan. seed: of all these.

    Raises:
        InputError: neurons that do not vary, too few trials or neurons.
    """
    residuals = groups.residuals()
    spread = residuals.std(0)
    if still := int((spread == 0).sum()):
        raise InputError(f"{still} of {groups.neurons} neurons do not vary within conditions; leave them out")
    if groups.neurons < MIN_CORRELATED or groups.trials < 2 * MIN_CORRELATED:
        raise InputError(
            f"shared variability is measured between halves, which needs at least "
            f"{MIN_CORRELATED} neurons and {2 * MIN_CORRELATED} trials, got {groups.neurons} and "
            f"{groups.trials}"
        )
    q = max(1, min(dimensions, groups.neurons // 3))
    scaled, rng = residuals / spread, np.random.default_rng(seed)
    by_trial = scaled.reshape(groups.trials, groups.bins, -1)
    # Drawn once: the null differs from what was found in the pairing of neurons alone, and what is left of the halves without
    # a block in that block alone. New halves each time would add their own scatter to the error, threefold.
    halves = [_Halves.draw(groups.neurons, groups.trials, rng) for _ in range(splits)]
    spectrum = _held_out(by_trial, halves, q)
    chance = [_held_out(_shuffled(by_trial, groups.condition, rng), halves, 1)[0] for _ in range(shuffles)]
    blocks = np.array_split(rng.permutation(groups.trials), BLOCKS)
    left = [_share(_held_out(by_trial, [half.without(block) for half in halves], q)) for block in blocks]
    return Dimensions(
        share=_share(spectrum),
        error=math.sqrt((BLOCKS - 1) * float(np.var(left))),
        fitted_share=_fitted_share(scaled, q),
        shared=float(spectrum.sum()) / groups.neurons,
        spectrum=spectrum,
        p=_p(np.array(chance), float(spectrum[0])) if shuffles else math.nan,
    )


def rank_correlation(x: Floats, y: Floats) -> float:
    """Spearman's, of two ``(N,)``; 0 where either is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.0, 1.0, 2.0]))
    1.0
    """
    return float(_rank_correlations(x[None], y[None])[0])


def partial_correlation(x: Floats, y: Floats, given: Floats) -> float:
    """Spearman's of x and y with the rank of ``given`` held fixed, each ``(N,)``; nan where that leaves nothing."""
    xy, xz, yz = rank_correlation(x, y), rank_correlation(x, given), rank_correlation(y, given)
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else math.nan


def _rank_correlations(x: Floats, y: Floats) -> Floats:
    """Spearman's of each row of ``(M, N)``, ``(M,)``; ``(1, N)`` goes with every row."""
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (x, y))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), norm, out=np.zeros(len(norm)), where=norm > 0)


@dataclass(frozen=True)
class _Halves:
    """Indices of either half of the neurons and of the trials."""

    neurons: tuple[Integers, Integers]
    trials: tuple[Integers, Integers]

    @classmethod
    def draw(cls, neurons: int, trials: int, rng: np.random.Generator) -> _Halves:
        a, b = np.array_split(rng.permutation(neurons), 2)
        first, second = np.array_split(rng.permutation(trials), 2)
        return cls((a, b), (first, second))

    def without(self, trials: Integers) -> _Halves:
        first, second = (np.setdiff1d(half, trials) for half in self.trials)
        return _Halves(self.neurons, (first, second))


def _held_out(scaled: Floats, halves: Sequence[_Halves], q: int) -> Floats:
    """Held-out shared variance along each of q dimensions of ``(R, T, N)``, mean over halves and both ways, ``(q,)``."""
    found = []
    for half in halves:
        a, b = half.neurons
        parts = [scaled[trials].reshape(-1, scaled.shape[2]) for trials in half.trials]
        covariance = [part[:, a].T @ part[:, b] / len(part) for part in parts]
        for fitted, held in (covariance, covariance[::-1]):
            u, _, v = np.linalg.svd(fitted, full_matrices=False)
            # A dimension's loadings lie half in either half of the neurons: |w_a| |w_b| is about |w|^2 / 2.
            found.append(2 * np.einsum("aq,ab,qb->q", u[:, :q], held, v[:q]))
    return np.mean(found, axis=0)


def _share(spectrum: Floats) -> float:
    total = float(spectrum.sum())
    return float(spectrum[0]) / total if spectrum[0] > 0 and total > 0 else math.nan


def _fitted_share(scaled: Floats, q: int) -> float:
    """Share of the first dimension in the common variance of q factors, by maximum likelihood."""
    from sklearn.decomposition import FactorAnalysis

    fitted = FactorAnalysis(q, svd_method="lapack", tol=1e-3, max_iter=5000).fit(scaled)
    values = np.linalg.svd(fitted.components_, compute_uv=False) ** 2
    return float(values[0] / values.sum()) if values.sum() else math.nan


def _shuffled(scaled: Floats, condition: Integers, rng: np.random.Generator) -> Floats:
    """``(R, T, N)`` with whole trials permuted within their condition, for each neuron by itself: what is shared goes; what is
    private stays, with its course over the trial (bins permuted one by one would lose it, and with it the scatter it makes).
    """
    shuffled = np.empty_like(scaled)
    for number in np.unique(condition):
        rows = np.flatnonzero(condition == number)
        order = rng.permuted(np.tile(rows[:, None], (1, scaled.shape[2])), axis=0)  # (rows, N)
        shuffled[rows] = np.take_along_axis(scaled, order[:, None], 0)
    return shuffled


def _p(chance: Floats, found: float) -> float:
    """Share of chance values at least as large, the found one counted among them; never 0."""
    return float((1 + (np.asarray(chance) >= found - 1e-12).sum()) / (1 + len(chance)))
