"""Spike counts in groups of bins that share their mean rate, checked, with their first and second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from ..errors import InputError, brief
from .checks import Floats, Integers

MIN_TRIALS = 10  # of a condition: with n, a rate estimated from the same trials hides 1/n of the variance around it
MIN_SPIKES = 25  # of a neuron: with s, a coupling has a standard error of at least 1 / sqrt(s)
MAX_COUNT = 1_000_000  # spikes of a neuron in a bin: no neuron's, but the unit of something else
MIN_NEURONS = 3  # with two, only the product of their couplings shows in what they share


@dataclass(frozen=True)
class Groups:
    """B = R T bins of N neurons in G groups.

    Attributes:
        counts: ``(B, N)``, as floats. index: group of each bin, ``(B,)``. trial: of each bin, ``(B,)``.
        condition: number of each trial's, ``(R,)``.
        totals: spikes of each group, ``(G, N)``. sizes: bins of each group, ``(G,)``.
        names: of the groups. trials, bins: R and T.
    """

    counts: Floats
    index: Integers
    trial: Integers
    condition: Integers
    totals: Floats
    sizes: Integers
    names: tuple[str, ...]
    trials: int
    bins: int

    @classmethod
    def of(cls, counts: NDArray[np.generic], condition: NDArray[np.generic], *, by_bin: bool) -> Groups:
        """Group the bins of ``counts`` ``(R, T, N)`` by condition ``(R,)`` of the trial and, ``by_bin``, place in the trial.

        Raises:
            InputError: shapes that do not fit, negative or fractional counts, too few trials of a condition, too few neurons.
        """
        whole, condition = check_counts(counts), np.asarray(condition)
        trials, bins, neurons = whole.shape
        if condition.shape != (trials,):
            raise InputError(
                f"condition must name one condition for each of {trials} trials, got shape {condition.shape}"
            )
        if neurons < MIN_NEURONS:
            raise InputError(f"a shared modulator needs at least {MIN_NEURONS} neurons, got {neurons}")
        if not trials:
            raise InputError(f"there are no trials; at least {MIN_TRIALS} of each condition are needed")
        names, place = np.unique(condition, return_inverse=True)
        numbers = np.bincount(place)
        if numbers.min() < MIN_TRIALS:
            few = names[numbers.argmin()]
            raise InputError(
                f"condition {brief(few.item())} has {numbers.min()} trials; at least {MIN_TRIALS} trials of each condition "
                f"are needed ({len(names)} conditions, {trials} trials); leave it out or join conditions"
            )
        index = np.repeat(place, bins)
        labels = [str(name) for name in names]
        if by_bin:
            index = index * bins + np.tile(np.arange(bins), trials)
            labels = [f"{name}, bin {number}" for name in labels for number in range(bins)]
        return cls._of(whole.astype(float), index.reshape(trials, bins), place, tuple(labels))

    @classmethod
    def _of(cls, counts: Floats, index: Integers, condition: Integers, names: tuple[str, ...]) -> Groups:
        trials, bins, neurons = counts.shape
        flat, group = counts.reshape(-1, neurons), index.ravel()
        totals = np.zeros((len(names), neurons))
        np.add.at(totals, group, flat)
        sizes = np.bincount(group, minlength=len(names))
        return cls(flat, group, np.repeat(np.arange(trials), bins), condition, totals, sizes, names, trials, bins)

    def with_trials(self, kept: NDArray[np.bool_]) -> Groups:
        """The trials of a mask ``(R,)``, which must leave some of every condition."""
        counts = self.counts.reshape(self.trials, self.bins, -1)[kept]
        return Groups._of(counts, self.of_bins()[kept], self.condition[kept], self.names)

    @property
    def neurons(self) -> int:
        return self.counts.shape[1]

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Which neurons fire no spike in a group, ``(G, N)``: their rate there is estimated as 0, and tells nothing."""
        return self.totals == 0

    @property
    def means(self) -> Floats:
        """Mean counts, ``(G, N)``."""
        return self.totals / self.sizes[:, None]

    @property
    def constant(self) -> float:
        """Minus the log of all factorials."""
        return -float(gammaln(self.counts + 1).sum())

    def log_means(self) -> Floats:
        """log of the mean counts, ``(G, N)``; -inf where silent."""
        with np.errstate(divide="ignore"):
            return np.log(self.means)

    def independent_log_likelihood(self) -> float:
        """Of independent Poisson neurons, at their best rates, in nats."""
        return float(xlogy(self.totals, self.means).sum() - self.totals.sum()) + self.constant

    def residuals(self) -> Floats:
        """Counts minus the mean of their group, ``(B, N)``."""
        return self.counts - self.means[self.index]

    def gain_covariance(self) -> Floats:
        """Covariance of the neurons' relative gains, Poisson noise taken out, ``(N, N)``.

        Cov(k, k') / (E[k] E[k']) pooled over groups, minus 1 / E[k] on the diagonal: for gains exp(m w - w^2 / 2) this is
        exp(w w') - 1 for every pair, whatever the rates. Entries of the diagonal may come out negative; a pair that is never
        active in the same group has 0.
        """
        means, residuals = self.means, self.residuals()
        # A mean taken from the same n bins leaves (n - 1) / n of every product.
        scale = np.sqrt(self.sizes / np.maximum(self.sizes - 1, 1))[self.index, None]
        products = (residuals * scale).T @ (residuals * scale)
        products[np.diag_indices_from(products)] -= self.totals.sum(0)
        expected = (means * self.sizes[:, None]).T @ means
        return np.divide(products, expected, out=np.zeros_like(products), where=expected > 0)

    def sum_by_group(self, values: Floats) -> Floats:
        """``(B, Q)`` summed over the bins of each group, ``(G, Q)``."""
        order = np.argsort(self.index, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.add.reduceat(values[order], starts, axis=0)

    def of_bins(self) -> Integers:
        """Group of each bin, ``(R, T)``."""
        return self.index.reshape(self.trials, self.bins)

    def by_trial(self, values: Floats) -> Floats:
        """``(B,)`` -> ``(R, T)``."""
        return values.reshape(self.trials, self.bins)


def check_counts(counts: NDArray[np.generic]) -> Integers:
    """Counts ``(R, T, N)`` as integers; ``(R, N)`` is one bin a trial. Raises InputError for anything that is no count, or
    is larger than ``MAX_COUNT``."""
    given = np.asarray(counts)
    if given.ndim == 2:
        given = given[:, None]
    if given.ndim != 3 or given.dtype.kind not in "biuf":
        raise InputError(
            f"counts must be numbers (trials, bins, neurons) or (trials, neurons), got {given.dtype} of shape {given.shape}"
        )
    if given.dtype.kind == "f":
        if wrong := int((~np.isfinite(given)).sum()):
            raise InputError(
                f"counts must be finite, got {wrong} of {given.size} that are not; which neuron was not observed in which trial is "
                "said in `observed`"
            )
        if wrong := int((given != np.rint(given)).sum()):
            first = given[given != np.rint(given)][0]
            raise InputError(
                f"counts must be whole numbers of spikes, got {wrong} of {given.size} that are not, such as {first:g}; "
                "rates must be given as counts"
            )
    if wrong := int((given < 0).sum()):
        raise InputError(
            f"counts must not be negative, got {wrong} of {given.size} that are, such as {given.min():g}; of a recording that "
            "was not observed throughout, take Recording.complete()"
        )
    # Before the cast: beyond 64 bits, numbers would come out as others.
    if wrong := int((given > MAX_COUNT).sum()):
        raise InputError(
            f"counts must be spikes of one neuron in one bin, at most {MAX_COUNT}, got {wrong} of {given.size} that are larger, "
            f"such as {given.max():g}"
        )
    return given.astype(np.int64)


def check_active(spikes: NDArray[np.generic]) -> None:
    """Raises InputError where one of the neurons' numbers of spikes ``(N,)`` is too small, naming them and what is needed."""
    few = np.flatnonzero(np.asarray(spikes) < MIN_SPIKES)
    if len(few):
        shown = ", ".join(str(neuron) for neuron in few[:10]) + (", ..." if len(few) > 10 else "")
        raise InputError(
            f"{len(few)} of {len(spikes)} neurons fire fewer than {MIN_SPIKES} spikes, too few for a coupling (neurons {shown}); "
            "leave them out, for example with Recording.active()"
        )
