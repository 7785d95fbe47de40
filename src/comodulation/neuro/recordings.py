"""Recordings: spike counts in time bins, with what is known of trials and neurons; from arrays or NWB files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, brief, choose
from .counts import MIN_SPIKES, MIN_TRIALS, check_active, check_counts
from .population import Floats, Integers

Names = NDArray[np.str_]
ARRAYS = ("counts", "condition", "target", "context", "area")


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
    """

    counts: Integers
    condition: Names
    target: Names
    context: Names
    area: Names
    name: str = "recording"

    @classmethod
    def of(
        cls,
        counts: ArrayLike,
        condition: ArrayLike,
        *,
        target: ArrayLike | None = None,
        context: ArrayLike | None = None,
        area: ArrayLike | None = None,
        name: str = "recording",
    ) -> Recording:
        """From arrays: counts ``(R, T, N)`` or ``(R, N)``, labels ``(R,)`` or ``(N,)`` of any kind, turned into text.

        Raises:
            InputError: negative or fractional counts, labels that do not fit, missing conditions.

        >>> Recording.of([[3, 0], [1, 2]], ["left", "right"]).areas
        ('all',)
        """
        whole = check_counts(np.asarray(counts))
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
        """Counts summed over bins, ``(R, N)``."""
        return self.counts.sum(1)

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
        return replace(self, counts=self.counts[:, :, kept], area=self.area[kept])

    def with_trials(self, kept: NDArray[Any]) -> Recording:
        """The trials of a mask or of indices."""
        return replace(
            self, counts=self.counts[kept], condition=self.condition[kept], target=self.target[kept],
            context=self.context[kept],
        )  # fmt: skip

    def active(self, least: int = MIN_SPIKES) -> Recording:
        """Without neurons that fire fewer than ``least`` spikes in any context (in all trials, where there are none)."""
        groups = [self.context == name for name in self.contexts] or [np.ones(self.trials, bool)]
        spikes = np.min([self.totals[rows].sum(0) for rows in groups], axis=0)
        return self.with_neurons(spikes >= least)

    def check(self) -> Recording:
        """The recording, if it can be analysed.

        Raises:
            InputError: conditions of too few trials or of several targets, silent neurons, fewer than two targets; with the
                number needed.
        """
        names, numbers = np.unique(self.condition, return_counts=True)
        if not self.trials or numbers.min() < MIN_TRIALS:
            few = (
                f"condition {brief(str(names[numbers.argmin()]))} has {numbers.min()}"
                if self.trials
                else "there are none"
            )
            raise InputError(f"at least {MIN_TRIALS} trials of each condition are needed; {few}")
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


def read_recording(path: str | Path, **options: Any) -> Recording:
    """A recording from a file: ``.npz`` with the arrays that ``Recording.of`` takes, or ``.nwb`` with ``read_nwb``'s options.

    Nothing is unpickled.

    Raises:
        InputError: no such file, another kind of file, arrays that are missing, unknown or pickled.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix == ".nwb":
        from .nwb import read_nwb

        return read_nwb(path, **options)
    if path.suffix != ".npz":
        raise InputError(f"a recording is an .nwb or an .npz file, got {path.name}")
    if options:
        raise InputError(f"options {', '.join(options)} are for .nwb files; an .npz file holds {', '.join(ARRAYS)}")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            for name in file.files:
                choose(name, ARRAYS, f"array in {path.name}")
            arrays = {name: file[name] for name in file.files}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
        raise InputError(f"{path.name} cannot be read as arrays: {error}") from error
    for name in ("counts", "condition"):
        if name not in arrays:
            raise InputError(f"{path.name} holds no array {name!r}, only {', '.join(arrays) or 'nothing'}")
    return Recording.of(**arrays, name=path.stem)


def write_recording(recording: Recording, path: str | Path) -> None:
    """As ``.npz``, which ``read_recording`` reads."""
    arrays: dict[str, Any] = {name: getattr(recording, name) for name in ARRAYS}
    np.savez_compressed(path, **arrays)


def count_spikes(spike_times: Sequence[ArrayLike], starts: ArrayLike, width: float, bins: int) -> Integers:
    """Spikes of N neurons in bins after each of R starts, ``(R, bins, N)``; a spike on an edge is in the later bin.

    Args:
        spike_times: of each neuron, in seconds, in any order. starts: of the first bin, in seconds, ``(R,)``.
        width: of a bin, in seconds. bins: number of bins.

    >>> count_spikes([[0.05, 0.1, 0.15]], [0.0], 0.1, 2)[0, :, 0].tolist()
    [1, 2]
    """
    begin = np.asarray(starts, float)
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
    return np.array([label_of(value) for value in given.tolist()], dtype=np.str_).reshape(number)


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
    """Times in seconds as floats. Raises InputError for others."""
    times = np.asarray(values, float)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise InputError(f"{name} must be finite times in seconds, got {int((~np.isfinite(times)).sum())} that are not")
    return times
