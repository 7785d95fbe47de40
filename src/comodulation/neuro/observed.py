"""When a neuron was observed: intervals of time, windows that lie in them, and spike times that cannot be a session's.

A neuron that was not observed has no spikes, as a silent one has none. Counted as 0, neurons that were lost together seem to share
a modulator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .checks import Floats, Integers

Mask = NDArray[np.bool_]
TOLERANCE = 1e-6  # seconds: below one sample of any recording, above what floating point does to times of a day
MOST_RATE = 1000.0  # spikes a second over a trial's window: refractory periods of a millisecond allow no more
FEW_SPIKES = 20  # in a window, below which a rate says little
ALMOST_ALL = 0.9  # of the trials without any recording: then they are no trials of this session
HARDLY_ANY = 0.01  # of the spikes between the first trial and the last
MANY_SPIKES = 100


def intervals_of(values: ArrayLike, what: str) -> Floats:
    """Intervals ``(K, 2)`` from start to end in seconds, sorted, those that touch or overlap joined.

    Raises:
        InputError: no numbers, another shape, ends before starts.

    >>> intervals_of([[5, 6], [0, 2], [2, 3]], "x").tolist()
    [[0.0, 3.0], [5.0, 6.0]]
    """
    given = np.asarray(values)
    if given.size == 0:
        return np.empty((0, 2))
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iuf":
        raise InputError(f"{what} must be pairs of start and end in seconds, got {given.dtype} of shape {given.shape}")
    times = given.astype(float)
    if wrong := int((~(times[:, 0] <= times[:, 1])).sum()):  # nan is not below anything
        raise InputError(f"{what} must end after they start, got {wrong} of {len(times)} that do not")
    times = times[np.argsort(times[:, 0], kind="stable")]
    reached = np.maximum.accumulate(times[:, 1])
    first = np.flatnonzero(np.concatenate([[True], times[1:, 0] > reached[:-1] + TOLERANCE]))
    return np.stack([times[first, 0], reached[np.append(first[1:], len(times)) - 1]], 1)


def within(starts: Floats, ends: Floats, intervals: Floats) -> Mask:
    """Which windows lie wholly in one of the intervals (as ``intervals_of`` has them), ``(R,)``.

    >>> within(np.array([0.0, 2.5]), np.array([1.0, 3.5]), np.array([[0.0, 3.0], [3.2, 9.0]])).tolist()
    [True, False]
    """
    place = np.searchsorted(intervals[:, 0], starts + TOLERANCE, side="right") - 1
    return (place >= 0) & (np.append(intervals[:, 1], -np.inf)[place] >= ends - TOLERANCE)


def touched(starts: Floats, ends: Floats, intervals: Floats) -> Mask:
    """Which windows overlap one of the intervals (as ``intervals_of`` has them), ``(R,)``.

    >>> touched(np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.array([[1.0, 2.5]])).tolist()
    [False, True]
    """
    place = np.searchsorted(intervals[:, 1], starts + TOLERANCE, side="right")
    return np.append(intervals[:, 0], np.inf)[place] < ends - TOLERANCE


def check_spikes(spikes: Sequence[Floats], names: Sequence[str]) -> None:
    """Raises InputError where spike times ``(n,)`` of neurons cannot be seconds of one session."""
    for times, name in zip(spikes, names, strict=True):
        if back := int((np.diff(times) < 0).sum()):
            raise InputError(
                f"spike times of {name} must ascend, got {back} of {len(times)} that are before the one in front; times of the "
                "session are expected, sorted, not times that count from each trial's start"
            )
    total = sum(len(times) for times in spikes)
    if total > MANY_SPIKES and all((times == np.rint(times)).all() for times in spikes):
        raise InputError("all spike times are whole numbers, as numbers of samples are; seconds are expected")


def check_span(spikes: Sequence[Floats], starts: Floats, ends: Floats) -> Mask:
    """Which windows lie before the first spike or after the last one of all neurons, ``(R,)``: nothing was recorded then.

    Raises:
        InputError: almost all do, or almost all spikes lie elsewhere: other clocks or other units of time.
    """
    some = [times for times in spikes if len(times)]
    if not some or not len(starts):
        return np.zeros(len(starts), bool)
    first, last = min(times[0] for times in some), max(times[-1] for times in some)
    outside = (ends < first) | (starts > last)
    span = f"spikes lie between {first:g} and {last:g} s, trials between {starts.min():g} and {ends.max():g} s"
    expected = "both must be seconds of one session, not of each trial, milliseconds or samples"
    if outside.sum() > ALMOST_ALL * len(starts):
        raise InputError(f"{span}, {int(outside.sum())} of {len(starts)} where nothing was recorded; {expected}")
    near = sum(int(np.diff(np.searchsorted(times, [starts.min(), ends.max()]))[0]) for times in some)
    if (total := sum(map(len, some))) > MANY_SPIKES and near < HARDLY_ANY * total:
        raise InputError(f"{span}, and only {near} of {total} spikes among the trials; {expected}")
    return np.asarray(outside)


def check_apart(starts: Floats, ends: Floats) -> None:
    """Raises InputError where windows of two trials overlap: their spikes would count twice, and look shared."""
    order = np.argsort(starts, kind="stable")
    wrong = np.flatnonzero(starts[order][1:] < ends[order][:-1] - TOLERANCE)
    if len(wrong):
        one, other = (int(order[wrong[0] + later]) for later in (0, 1))
        shown = f"{starts[one]:g} to {ends[one]:g} s and {starts[other]:g} to {ends[other]:g} s"
        raise InputError(
            f"the windows of {len(wrong)} of {len(starts)} trials overlap the next one's (such as {shown}), so that spikes would "
            "count twice; a trial's event must be a time of the session, and the window shorter than what lies between events"
        )


def check_rates(totals: Integers, seconds: float, names: Sequence[str]) -> None:
    """Raises InputError where a neuron fires faster than one can: spikes of trials ``(R, N)``, in windows of so many seconds."""
    if not totals.size:
        return
    most = totals.max(0)
    worst = int(most.argmax())
    if most[worst] > max(FEW_SPIKES, MOST_RATE * seconds):
        raise InputError(
            f"{names[worst]} fires {most[worst]} spikes in a trial's {seconds:g} s, {most[worst] / seconds:.0f} a second, as no "
            "neuron does; spike times must be seconds of the session, not of each trial"
        )
