"""The statistics that are reported for cortex, of one recording: one shared dimension, targeted at informative neurons.

1. Share of the shared variability in the first dimension, noise of single neurons (Poisson noise too) taken out: by factor
   analysis, and between halves of the neurons on trials that the dimensions were not fitted to.
2. Coupling against informativeness, over neurons. 3. The same downstream. 4. The fall of modulation in a control context.

Intervals are bootstraps over neurons, p values permutations over neurons: they speak of neurons like these, of the session at
hand; sessions are the repetitions for anything beyond (docs/neuro.md, section 5).
Sources: the questions, Haimerl et al., "Targeted V1 comodulation supports task-adaptive sensory decisions" (Nature
Communications 14:7879, 2023); covariance between halves, Stringer et al., "Spontaneous behaviors drive multidimensional,
brainwide activity" (Science 364, 2019), supplement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..analysis.informativeness import informative_auc, neuron_dprime
from ..errors import InputError
from .counts import Groups
from .population import Floats
from .recordings import Recording

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
        p: of the held-out variance of the first dimension, against bins permuted within their groups for each neuron by itself.
    """

    share: float
    error: float
    fitted_share: float
    shared: float
    spectrum: Floats
    p: float


@dataclass(frozen=True)
class Fall:
    """Modulation of the same neurons in a task and in its control.

    Attributes:
        task, control: mean variance of the log gain over neurons, the part that is due to the couplings' errors taken out.
        difference: task - control. low, high: 95% bootstrap interval over neurons. p: signs exchanged by neuron, two-sided.
        neurons: how many.
    """

    task: float
    control: float
    difference: float
    low: float
    high: float
    p: float
    neurons: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


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
        splits: random halves, each used both ways. shuffles: for p; the bins of each group are permuted for each neuron by
            itself. 0: p is nan. seed: of all these.

    Raises:
        InputError: neurons that do not vary, too few trials or neurons.
    """
    residuals = groups.residuals()
    spread = residuals.std(0)
    if still := int((spread == 0).sum()):
        raise InputError(f"{still} of {groups.neurons} neurons do not vary within conditions; leave them out")
    if groups.neurons < MIN_CORRELATED or groups.trials < 2 * MIN_CORRELATED:
        raise InputError(
            f"halves need at least {MIN_CORRELATED} neurons and {2 * MIN_CORRELATED} trials, got {groups.neurons} and "
            f"{groups.trials}"
        )
    q = max(1, min(dimensions, groups.neurons // 3))
    scaled, rng = residuals / spread, np.random.default_rng(seed)
    every = np.arange(groups.trials)
    spectrum = _held_out(scaled, groups.trial, every, q, splits, rng)
    # A mean of fewer splits scatters more: with another number than the found value's, p would be too large or too small.
    chance = [
        _held_out(_shuffled(scaled, groups, rng), groups.trial, every, 1, splits, rng)[0] for _ in range(shuffles)
    ]
    blocks = np.array_split(rng.permutation(every), BLOCKS)
    left = [_share(_held_out(scaled, groups.trial, np.setdiff1d(every, out), q, splits, rng)) for out in blocks]
    return Dimensions(
        share=_share(spectrum),
        error=math.sqrt((BLOCKS - 1) * float(np.var(left))),
        fitted_share=_fitted_share(scaled, q),
        shared=float(spectrum.sum()) / groups.neurons,
        spectrum=spectrum,
        p=_p(np.array(chance), float(spectrum[0])) if shuffles else math.nan,
    )


def modulation_fall(
    task: Floats,
    task_error: Floats,
    control: Floats,
    control_error: Floats,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fall:
    """Mean of w^2 - error^2 in task and control, for the same neurons in the same order.

    Args:
        task, control: couplings, ``(N,)``. task_error, control_error: their standard errors, ``(N,)``.

    Raises:
        InputError: other numbers of neurons, too few.
    """
    if not task.shape == task_error.shape == control.shape == control_error.shape:
        raise InputError(f"task and control must be of the same neurons, got {task.shape} and {control.shape}")
    before, after = task**2 - task_error**2, control**2 - control_error**2
    known = ~(np.isnan(before) | np.isnan(after))
    if known.sum() < MIN_CORRELATED:
        raise InputError(f"a comparison over neurons needs at least {MIN_CORRELATED} neurons, got {int(known.sum())}")
    before, after, rng = before[known], after[known], np.random.default_rng(seed)
    difference = before - after
    drawn = difference[rng.integers(len(difference), size=(resamples, len(difference)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    signs = rng.choice([-1.0, 1.0], (resamples, len(difference)))
    mean = float(difference.mean())
    return Fall(
        float(before.mean()), float(after.mean()), mean, float(low), float(high),
        _p(np.abs((signs * difference).mean(1)), abs(mean)), len(difference),
    )  # fmt: skip


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


def _held_out(
    scaled: Floats,
    trial: NDArray[np.integer],
    among: NDArray[np.integer],
    q: int,
    splits: int,
    rng: np.random.Generator,
) -> Floats:
    """Held-out shared variance along each of q dimensions, from the trials ``among``; mean over splits and both ways, ``(q,)``."""
    found = []
    for _ in range(splits):
        chosen, half = rng.permutation(among), np.zeros(trial.max() + 1, int)
        half[chosen[: len(among) // 2]], half[chosen[len(among) // 2 :]] = 1, 2
        a, b = np.array_split(rng.permutation(scaled.shape[1]), 2)
        parts = [scaled[half[trial] == number] for number in (1, 2)]
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


def _shuffled(scaled: Floats, groups: Groups, rng: np.random.Generator) -> Floats:
    """Bins permuted within their group, for each neuron by itself: what is private stays, what is shared goes."""
    shuffled = np.empty_like(scaled)
    order = np.argsort(groups.index, kind="stable")
    keys = groups.index[:, None] + rng.random(scaled.shape)  # sorted: groups in order, bins of each in random order
    shuffled[order] = np.take_along_axis(scaled, keys.argsort(0), 0)
    return shuffled


def _p(chance: Floats, found: float) -> float:
    """Share of chance values at least as large, the found one counted among them; never 0."""
    return float((1 + (np.asarray(chance) >= found - 1e-12).sum()) / (1 + len(chance)))
