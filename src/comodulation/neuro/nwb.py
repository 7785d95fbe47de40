"""Recordings from Neurodata Without Borders files, through pynwb."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, choose
from .checks import Floats
from .flags import concerns, flagged, means, tells
from .hdf5 import opened, unreadable
from .nwb_tables import column_of, electrodes_of, intervals_in, ragged_of, spans_of
from .observed import Mask, check_apart, check_rates, check_span, check_spikes, intervals_of, touched, within
from .recording import Recording, count_spikes, label_of, seconds

AREA_COLUMNS = ("area", "brain_area", "location", "region")  # of the units table, where no column is named
MOST_BINS = 10_000
MOST_NAMED = 12


def read_nwb(
    path: str | Path,
    *,
    condition: str | Sequence[str],
    target: str | None = None,
    context: str | None = None,
    area: str | None = None,
    start: float = 0.0,
    stop: float,
    bin_width: float,
    align: str = "start_time",
) -> Recording:
    """Counts in bins of equal width around an event of each trial.

    Left out, and counted in the recording's ``notes``: trials without a time or a condition, trials and units that a column of
    their table (or of the electrodes) says are no data, trials in intervals that are invalid, and trials outside all that was
    recorded. When each unit was observed (``obs_intervals``) is in ``observed``. What else the file says of its quality is not
    read, and named (docs/neuro.md, section 5).

    Args:
        path: an NWB file with a units table (spike times) and a trials table.
        condition: column of the trials table that says what was shown; several together are one condition.
        target, context: columns of the trials table; see ``Recording``.
        area: column of the units table that says where a neuron was. By default one of {area, brain_area, location,
            region} if there is one, else the location of the unit's electrodes, else of its electrode group.
        start, stop: of the window, in seconds from the event. bin_width: in seconds; the window holds a whole number of bins.
        align: column of the trials table with the event's time in seconds.

    Raises:
        InputError: pynwb is missing, the file cannot be read or keeps values in other files, tables or columns that are missing
            (with the nearest name) or hold no single value a row, an ``align`` that holds no times, a window that is no whole
            number of bins or overlaps the next trial's, spike times that cannot be seconds of the session.
    """
    window = _Window(start, bin_width, _bins(start, stop, bin_width))
    try:
        import pynwb
    except ImportError as error:
        raise InputError("NWB files need pynwb: pip install 'comodulation[neuro]'") from error
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    columns = [condition] if isinstance(condition, str) else list(condition)
    # Files of older versions of the format are read with warnings about their version, which say nothing about spikes.
    with warnings.catch_warnings(), opened(path) as hdf5:
        warnings.simplefilter("ignore")
        try:
            io = pynwb.NWBHDF5IO(file=hdf5, mode="r", load_namespaces=True)
            file = io.read()
        except Exception as error:  # hdf5, hdmf and pynwb each have their own
            raise unreadable(path, error) from error
        try:
            return _Session(file, path.stem).recording(columns, target, context, area, align, window)
        except InputError as error:
            raise InputError(f"{path.stem}: {error}") from error


class _Window(NamedTuple):
    """Of a trial: where it starts after the event, and the width of its bins, in seconds; how many bins it has."""

    start: float
    width: float
    bins: int


class _Session:
    """One file: what of its trials and units is left, and what was said of the others."""

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name = file, name
        self.units, self.trials = file.units, file.trials
        if self.units is None or "spike_times" not in self.units.colnames:
            raise InputError("the file has no units table with spike times")
        if not len(self.units):
            raise InputError("the units table has no units")
        if self.trials is None or not len(self.trials):
            raise InputError("the file has no trials table")
        self.kept = {"trials": np.ones(len(self.trials), bool), "units": np.ones(len(self.units), bool)}
        self.notes: list[str] = []
        self.unread: list[str] = []

    def recording(
        self, columns: list[str], target: str | None, context: str | None, area: str | None, align: str, window: _Window
    ) -> Recording:
        used = [*columns, align, *(given for given in (target, context) if given is not None)]
        for column in used:
            choose(column, self.trials.colnames, "column of the trials table")
        times = self._times(align)
        starts = times + window.start
        ends = starts + window.width * window.bins
        shown = list(zip(*(_labels(self.trials, column) for column in columns), strict=True))
        self.leave_out("trials", ~np.isfinite(times), f"without a time in {align!r}")
        self.leave_out("trials", np.array([not all(parts) for parts in shown]), "without a condition")
        self.flagged_rows("trials", self.trials, exempt=used)
        self.flagged_rows("units", self.units, exempt=[area] if area is not None else [])
        self.flagged_electrodes()
        self.bad_times(starts, ends)
        units = np.flatnonzero(self.kept["units"])
        names = [f"unit {unit}" for unit in units]
        spikes = self.spikes(units, names)
        observed = self.observed(units, starts, ends)
        self.unrecorded(spikes, starts, ends)
        rows = np.flatnonzero(self.kept["trials"])
        counts = count_spikes(spikes, starts[rows], window.width, window.bins)
        check_rates(counts.sum(1), window.width * window.bins, names)

        def of_trials(column: str | None) -> list[str] | None:
            if column is None:
                return None
            labels = _labels(self.trials, column)
            return [labels[row] for row in rows]

        areas = self.areas(area)
        return Recording.of(
            counts,
            [", ".join(shown[row]) for row in rows],
            target=of_trials(target),
            context=of_trials(context),
            area=[areas[unit] for unit in units],
            observed=None if observed is None else observed[rows],
            name=self.name,
            notes=[*self.notes, *([f"Of the file's quality, not read: {_listed(self.unread)}"] if self.unread else [])],
        )

    def leave_out(self, what: str, wrong: Mask, why: str) -> None:
        """Leave out rows of the trials or units, and note how many."""
        kept = self.kept[what]
        if number := int((kept & wrong).sum()):
            self.notes.append(f"{number} of {len(kept)} {what} are left out: {why}")
            kept &= ~wrong
        if not kept.any():
            raise InputError(f"no {what} are left; {'; '.join(self.notes)}")

    def flagged_rows(self, what: str, table: Any, exempt: Sequence[str]) -> None:
        """Leave out trials or units that a column says are no data."""
        for column in table.colnames:
            if column in exempt or (column == "tags" and what == "units"):
                continue
            wrong = self._flagged(table, column, what, unit=what == "units")
            if wrong is not None:
                self.leave_out(what, wrong, f"by the column {column!r}")

    def flagged_electrodes(self) -> None:
        """Leave out units all of whose electrodes a column of the electrodes table says to be broken."""
        table = self.file.electrodes
        if table is None:
            return
        of_units = electrodes_of(self.units, table)
        for column in table.colnames:
            wrong = self._flagged(table, column, "electrodes", unit=True)
            if wrong is not None and wrong.any():
                if of_units is None:
                    self.unread.append(f"{column} of electrodes, which no unit names")
                    continue
                lost = [len(rows) > 0 and bool(wrong[rows].all()) for rows in of_units]
                self.leave_out("units", np.array(lost), f"all of their electrodes are so by the column {column!r}")

    def bad_times(self, starts: Floats, ends: Floats) -> None:
        """Leave out trials in times that the file says are no data."""
        for table in intervals_in(self.file):
            name = table.name
            if table is self.trials:
                continue
            if sense := means(name):
                joined = intervals_of(spans_of(table), f"times in {name!r}")
                wrong = touched(starts, ends, joined) if sense == "bad" else ~within(starts, ends, joined)
                self.leave_out("trials", wrong, f"in {name!r}" if sense == "bad" else f"not in {name!r}")
                continue
            read = False
            for column in table.colnames:
                rows = self._flagged(table, column, name, unit=False)
                if rows is None:
                    continue
                read = True
                wrong = touched(starts, ends, intervals_of(spans_of(table)[rows], f"times in {name!r}"))
                self.leave_out("trials", wrong, f"in {name!r}, by their column {column!r}")
            if not read:
                self.unread.append(f"times in {name!r}")

    def spikes(self, units: NDArray[np.intp], names: Sequence[str]) -> list[Floats]:
        """Spike times of units, in seconds."""
        given = ragged_of(self.units, "spike_times", units)
        spikes = [seconds(times, f"spike times of {name}") for times, name in zip(given, names, strict=True)]
        check_spikes(spikes, names)
        return spikes

    def unrecorded(self, spikes: Sequence[Floats], starts: Floats, ends: Floats) -> None:
        """Leave out trials outside all that was recorded, once it is clear that those that are left do not overlap."""
        rows = np.flatnonzero(self.kept["trials"])
        check_apart(starts[rows], ends[rows])
        outside = np.zeros(len(starts), bool)
        outside[rows] = check_span(spikes, starts[rows], ends[rows])
        self.leave_out("trials", outside, "before the first or after the last spike of all units")

    def observed(self, units: NDArray[np.intp], starts: Floats, ends: Floats) -> Mask | None:
        """Whether a unit's ``obs_intervals`` hold a trial's window, ``(R, N)``; None where the file does not say. Trials in which
        no unit was observed are left out."""
        if "obs_intervals" not in self.units.colnames:
            return None
        found = ragged_of(self.units, "obs_intervals", units)
        if not any(len(given) for given in found):
            self.unread.append("obs_intervals, which are empty")
            return None
        intervals = [
            intervals_of(given, f"obs_intervals of unit {unit}") for unit, given in zip(units, found, strict=True)
        ]
        held = np.stack([within(starts, ends, of_unit) for of_unit in intervals], 1)
        self.leave_out("trials", np.asarray(~held.any(1)), "in which no unit was observed (obs_intervals)")
        return held

    def areas(self, column: str | None) -> list[str]:
        """Where each unit was."""
        if column is not None:
            return _labels(self.units, choose(column, self.units.colnames, "column of the units table"))
        for known in AREA_COLUMNS:
            if known in self.units.colnames:
                return _labels(self.units, known)
        table = self.file.electrodes
        rows = None if table is None else electrodes_of(self.units, table)
        if rows is not None and "location" in table.colnames:
            places = _labels(table, "location")
            return ["+".join(sorted({places[row] for row in of_unit})) or "all" for of_unit in rows]
        if "electrode_group" in self.units.colnames:
            groups = (self.units["electrode_group"][row] for row in range(len(self.units)))
            return [label_of(group.location) or "all" for group in groups]
        return ["all"] * len(self.units)

    def _flagged(self, table: Any, column: str, what: str, *, unit: bool) -> Mask | None:
        wrong = None
        if tells(column, unit=unit):
            values = column_of(table, column, several=column == "tags")
            wrong = None if values is None else flagged(column, values, unit=unit)
        if wrong is None and concerns(column):
            self.unread.append(f"{column} of {what}")
        return wrong

    def _times(self, align: str) -> Floats:
        values = column_of(self.trials, align)
        if values is None or not all(type(value) in (int, float) for value in values):
            raise InputError(f"column {align!r} of the trials table holds no times")  # text of digits, truth values
        return np.array(values, float)


def _labels(table: Any, name: str) -> list[str]:
    values = column_of(table, name)
    if values is None:
        raise InputError(
            f"column {name!r} must hold one value for each row, a number or a word; it holds several, or rows of other tables"
        )
    return [label_of(value) for value in values]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _bins(start: float, stop: float, width: float) -> int:
    if not (np.isfinite([start, stop, width]).all() and width > 0 and stop > start):
        raise InputError(f"the window must have start < stop and a positive bin width, got {start}, {stop}, {width}")
    number = (stop - start) / width
    if abs(number - round(number)) > 1e-6 or round(number) > MOST_BINS:
        raise InputError(
            f"the window of {stop - start:g} s must hold a whole number of bins of {width:g} s, up to {MOST_BINS}, got {number:g}"
        )
    return round(number)
