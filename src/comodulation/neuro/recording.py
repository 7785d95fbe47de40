"""Recordings: spike counts in time bins, with what is known of trials and neurons; from arrays or NWB files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, brief, choose
from .checks import Floats, Integers
from .counts import MIN_SPIKES, MIN_TRIALS, check_active, check_counts

Names = NDArray[np.str_]
MOST_BYTES = 2**31  # of a recording's counts in memory: what is estimated from them takes several times as much
LONGEST_LABEL = 1000  # characters
SILENCE = 100  # spikes expected of an area in a trial, beyond which not one is no activity but no recording


@dataclass(frozen=True)
class Recording:
    """Simultaneously recorded neurons.

    Attributes:
        counts: spikes, ``(R, T, N)`` for R trials of T bins.
        condition: of each trial, what was shown, ``(R,)``. Trials of one condition share their mean rates.
        target: of each trial, what had to be told apart, ``(R,)``; empty where the trial has none. A neuron is as informative
            as its counts differ between targets. By default the condition.
        context: of each trial, such as the task and its control, ``(R,)``; empty by default.
        area: of each neuron, ``(N,)``.
        name: for tables and figures.
        observed: whether a neuron was observed in a trial, ``(R, N)``; None where all were, always. Counts are -1 where not.
        notes: sentences on what was left out already, and on what was not read of a file.
    """

    counts: Integers
    condition: Names
    target: Names
    context: Names
    area: Names
    name: str = "recording"
    observed: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        counts: ArrayLike,
        condition: ArrayLike,
        *,
        target: ArrayLike | None = None,
        context: ArrayLike | None = None,
        area: ArrayLike | None = None,
        observed: ArrayLike | None = None,
        name: str = "recording",
        notes: Sequence[str] = (),
    ) -> Recording:
        """From arrays: counts ``(R, T, N)`` or ``(R, N)``, labels ``(R,)`` or ``(N,)`` of any kind, turned into text, and truth
        values ``observed`` ``(R, N)``; where these are false, counts may be anything.

        Raises:
            InputError: negative or fractional counts, labels that do not fit, missing conditions.

        >>> Recording.of([[3, 0], [1, 2]], ["left", "right"]).areas
        ('all',)
        """
        given, seen = np.asarray(counts), None
        if observed is not None:
            seen = np.asarray(observed)
            if given.ndim not in (2, 3) or seen.dtype.kind != "b" or seen.shape != (given.shape[0], given.shape[-1]):
                raise InputError(
                    f"observed must be truth values (trials, neurons) for counts of shape {given.shape}, got {seen.dtype} of "
                    f"shape {seen.shape}"
                )
            given = np.where(seen if given.ndim == 2 else seen[:, None], given, 0)
        whole = check_counts(given)
        if seen is not None:  # no number that could be taken for a count
            whole = np.where(seen[:, None], whole, -1)
        trials, _, neurons = whole.shape
        conditions = _labels(condition, trials, "condition", "trials")
        if missing := int((conditions == "").sum()):
            raise InputError(
                f"every trial needs a condition, got {missing} of {trials} without; leave these trials out"
            )
        return cls(
            whole,
            conditions,
            conditions if target is None else _labels(target, trials, "target", "trials"),
            np.full(trials, "") if context is None else _labels(context, trials, "context", "trials"),
            np.full(neurons, "all") if area is None else _labels(area, neurons, "area", "neurons"),
            name,
            seen,
            tuple(notes),
        )

    @property
    def trials(self) -> int:
        return self.counts.shape[0]

    @property
    def bins(self) -> int:
        return self.counts.shape[1]

    @property
    def neurons(self) -> int:
        return self.counts.shape[2]

    @property
    def areas(self) -> tuple[str, ...]:
        """Names of the areas, sorted."""
        return tuple(str(name) for name in np.unique(self.area))

    @property
    def contexts(self) -> tuple[str, ...]:
        """Names of the contexts, sorted, without the empty one."""
        return tuple(str(name) for name in np.unique(self.context) if name)

    @property
    def totals(self) -> Integers:
        """Counts summed over bins, ``(R, N)``. Raises InputError where neurons were not observed in all trials."""
        return check_counts(self.counts).sum(1)

    def in_area(self, area: str) -> Recording:
        """The neurons of one area. Raises InputError for an unknown one, with the nearest name."""
        choose(area, self.areas, "area")
        return self.with_neurons(self.area == area)

    def in_context(self, context: str) -> Recording:
        """The trials of one context. Raises InputError for an unknown one, with the nearest name."""
        choose(context, self.contexts, "context")
        return self.with_trials(self.context == context)

    def with_neurons(self, kept: NDArray[Any]) -> Recording:
        """The neurons of a mask or of indices."""
        seen = None if self.observed is None else self.observed[:, kept]
        return replace(self, counts=self.counts[:, :, kept], area=self.area[kept], observed=seen)

    def with_trials(self, kept: NDArray[Any]) -> Recording:
        """The trials of a mask or of indices."""
        return replace(
            self, counts=self.counts[kept], condition=self.condition[kept], target=self.target[kept],
            context=self.context[kept], observed=None if self.observed is None else self.observed[kept],
        )  # fmt: skip

    def complete(self) -> Recording:
        """The trials in which all of the neurons were recorded; ``notes`` counts those that are left out.

        They are trials in which a neuron was not observed, and trials in which no neuron of an area fires, though at least 100
        spikes are expected of the area in a trial of that condition: then nothing was recorded. Take the neurons first:
        each that was observed for a part of the time costs the trials of the rest.

        Raises:
            InputError: no trial is left.
        """
        kept: NDArray[np.bool_] = np.ones(self.trials, bool)
        notes = list(self.notes)
        if self.observed is not None and not self.observed.all():
            kept, seen = np.asarray(self.observed.all(1)), self.observed.sum(0)
            notes.append(
                f"{int((~kept).sum())} of {self.trials} trials are left out, in which not all of {self.neurons} neurons were "
                f"observed: {int((seen < self.trials).sum())} were not in all trials, neuron {seen.argmin()} in {seen.min()}"
            )
        silent = self._silent(kept)
        if silent.any():
            notes.append(
                f"{int(silent.sum())} of {self.trials} trials are left out, in which no neuron of an area fires, where at least "
                f"{SILENCE} spikes are expected: nothing was recorded then"
            )
        kept &= ~silent
        if self.trials and not kept.any():
            raise InputError(f"no trial is left: {'; '.join(notes)}; leave neurons out that were observed too little")
        return replace(self.with_trials(kept), observed=None, notes=tuple(notes))

    def _silent(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """In which of some trials ``(R,)`` no neuron of an area fires, though many spikes are expected in that condition."""
        silent = np.zeros(self.trials, bool)
        for area in self.areas:
            spikes = self.counts[:, :, self.area == area].sum((1, 2))
            for condition in np.unique(self.condition):
                rows = kept & (self.condition == condition)
                silent |= rows & (spikes == 0) & (spikes[rows].sum() >= SILENCE * rows.sum())
        return silent

    def active(self, least: int = MIN_SPIKES) -> Recording:
        """Without neurons that fire fewer than ``least`` spikes in any context (in all trials, where there are none); ``notes``
        counts them."""
        groups = [self.context == name for name in self.contexts] or [np.ones(self.trials, bool)]
        totals = self.counts.clip(0).sum(1)
        spikes = np.min([totals[rows].sum(0) for rows in groups], axis=0)
        kept = self.with_neurons(spikes >= least)
        if kept.neurons == self.neurons:
            return kept
        few = f"{self.neurons - kept.neurons} of {self.neurons} neurons are left out, which fire fewer than {least} spikes"
        return replace(kept, notes=(*self.notes, few))

    def check(self) -> Recording:
        """The recording, if it can be analysed.

        Raises:
            InputError: neurons that were not always observed, conditions of too few trials or of several targets, silent
                neurons, fewer than two targets; with the number needed.
        """
        if self.observed is not None:
            raise InputError("not all neurons were observed in all trials; take Recording.complete() first")
        names, numbers = np.unique(self.condition, return_counts=True)
        if not self.trials or numbers.min() < MIN_TRIALS:
            few = (
                f"condition {brief(str(names[numbers.argmin()]))} has {numbers.min()}"
                if self.trials
                else "there are none"
            )
            raise InputError(
                "; ".join([f"at least {MIN_TRIALS} trials of each condition are needed", few, *self.notes])
            )
        check_active(self.totals.sum(0))
        targets, numbers = np.unique(self.target[self.target != ""], return_counts=True)
        if len(targets) < 2 or numbers.min() < 2:
            raise InputError(
                f"informativeness needs at least 2 targets of at least 2 trials each, got {len(targets)} "
                f"({', '.join(f'{t}: {n}' for t, n in zip(targets, numbers, strict=True)) or 'none'})"
            )
        return self.check_targets()

    def check_targets(self) -> Recording:
        """The recording, if no condition's trials have several targets.

        Rates that differ between targets would be left in the residuals of such a condition, and be taken for a modulator to
        which neurons are coupled as strongly as they are informative.

        Raises:
            InputError: naming such a condition.
        """
        aimed = self.target != ""
        pairs = np.unique(np.stack([self.condition[aimed], self.target[aimed]], 1), axis=0)
        names, numbers = np.unique(pairs[:, 0], return_counts=True)
        if (numbers > 1).any():
            raise InputError(
                f"trials of condition {brief(str(names[numbers > 1][0]))} have several targets, whose rates would be taken for a "
                "modulator; name the target's column as a condition too"
            )
        return self


def count_spikes(spike_times: Sequence[ArrayLike], starts: ArrayLike, width: float, bins: int) -> Integers:
    """Spikes of N neurons in bins after each of R starts, ``(R, bins, N)``; a spike on an edge is in the later bin.

    Args:
        spike_times: of each neuron, in seconds, in any order. starts: of the first bin, in seconds, ``(R,)``.
        width: of a bin, in seconds. bins: number of bins.

    Raises:
        InputError: more counts than fit into 2 GiB.

    >>> count_spikes([[0.05, 0.1, 0.15]], [0.0], 0.1, 2)[0, :, 0].tolist()
    [1, 2]
    """
    begin = np.asarray(starts, float)
    if 8 * len(begin) * bins * len(spike_times) > MOST_BYTES:
        raise InputError(
            f"{len(begin)} trials of {bins} bins and {len(spike_times)} neurons would be more than the {MOST_BYTES // 8:,} counts "
            "that are analysed; take wider bins or a shorter window"
        )
    # Edges that floating point puts a hair after a spike on them would move it into the earlier bin.
    edges = begin[:, None] + np.arange(bins + 1) * width - 1e-9 * width
    counts = np.empty((len(begin), bins, len(spike_times)), np.int64)
    for neuron, times in enumerate(spike_times):
        ordered = np.sort(np.asarray(times, float))
        counts[:, :, neuron] = np.diff(np.searchsorted(ordered, edges, side="left"), axis=1)
    return counts


def _labels(values: ArrayLike, number: int, name: str, of: str) -> Names:
    """Labels as text; nan, None and masked ones as empty."""
    given = np.asarray(values)
    if given.shape != (number,):
        raise InputError(f"{name} must be one label for each of {number} {of}, got shape {given.shape}")
    labels = [label_of(value) for value in given.tolist()]
    if (longest := max(map(len, labels), default=0)) > LONGEST_LABEL:  # as an array, all would take as much
        raise InputError(f"{name} must be labels of at most {LONGEST_LABEL} characters, got one of {longest}")
    return np.array(labels, dtype=np.str_).reshape(number)


def label_of(value: object) -> str:
    """A label as text: 1.0 and 1 are one label, nan and None are none.

    >>> [label_of(value) for value in ("left", 45.0, 45, 0.5, float("nan"), None, b"right", True)]
    ['left', '45', '45', '0.5', '', '', 'right', 'True']
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


def seconds(values: ArrayLike, name: str) -> Floats:
    """Times in seconds ``(n,)`` as floats. Raises InputError for others."""
    given = np.asarray(values)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iuf"):
        kind = "text" if given.dtype.kind in "SUO" else f"{given.dtype}"
        raise InputError(f"{name} must be times in seconds, got {kind} of shape {given.shape}")
    times = given.astype(float)
    if wrong := int((~np.isfinite(times)).sum()):
        raise InputError(f"{name} must be finite times in seconds, got {wrong} that are not")
    return times
