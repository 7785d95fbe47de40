"""Recordings from Neurodata Without Borders files, through pynwb."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, choose
from .population import Floats
from .recordings import Recording, count_spikes, label_of, seconds

AREA_COLUMNS = ("area", "brain_area", "location", "region")  # of the units table, where no column is named
MOST_BINS = 10_000


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

    Args:
        path: an NWB file with a units table (spike times) and a trials table.
        condition: column of the trials table that says what was shown; several together are one condition.
        target, context: columns of the trials table; see ``Recording``.
        area: column of the units table that says where a neuron was. By default one of {area, brain_area, location,
            region} if there is one, else the location of the unit's electrodes, else of its electrode group.
        start, stop: of the window, in seconds from the event. bin_width: in seconds; the window holds a whole number of bins.
        align: column of the trials table with the event's time in seconds. Trials without a time, or without a condition, are
            left out.

    Raises:
        InputError: pynwb is missing, the file cannot be read, tables or columns that are missing (with the nearest name), an
            ``align`` that holds no times, a window that is no whole number of bins.
    """
    bins = _bins(start, stop, bin_width)
    try:
        import pynwb
    except ImportError as error:
        raise InputError("NWB files need pynwb: pip install 'comodulation[neuro]'") from error
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    # Files of older versions of the format are read with warnings about their version, which say nothing about spikes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            io = pynwb.NWBHDF5IO(str(path), mode="r", load_namespaces=True)
        except Exception as error:  # hdf5, hdmf and pynwb each have their own
            raise InputError(f"{path.name} cannot be read as an NWB file: {error}") from error
        with io:
            try:
                file = io.read()
            except Exception as error:
                raise InputError(f"{path.name} cannot be read as an NWB file: {error}") from error
            return _from_file(file, path.stem, condition, target, context, area, start, bin_width, bins, align)


def _from_file(
    file: Any, name: str, condition: str | Sequence[str], target: str | None, context: str | None, area: str | None,
    start: float, width: float, bins: int, align: str,
) -> Recording:  # fmt: skip
    units, trials = file.units, file.trials
    if units is None or "spike_times" not in units.colnames:
        raise InputError(f"{name}: the file has no units table with spike times")
    if trials is None or not len(trials):
        raise InputError(f"{name}: the file has no trials table")
    columns = [condition] if isinstance(condition, str) else list(condition)
    for column in (*columns, align, *(given for given in (target, context) if given is not None)):
        choose(column, trials.colnames, "column of the trials table")
    times = _times(trials, align)
    shown = [", ".join(parts) for parts in zip(*(_column(trials, column) for column in columns), strict=True)]
    whole = np.array([all(parts) for parts in zip(*(_column(trials, column) for column in columns), strict=True)])
    kept = np.isfinite(times) & whole
    spikes = [np.asarray(units["spike_times"][row], float) for row in range(len(units))]
    for unit, given in enumerate(spikes):
        seconds(given, f"{name}: spike times of unit {unit}")

    def of_trials(column: str | None) -> np.ndarray | None:
        return None if column is None else np.array(_column(trials, column))[kept]

    return Recording.of(
        count_spikes(spikes, times[kept] + start, width, bins),
        np.array(shown)[kept],
        target=of_trials(target),
        context=of_trials(context),
        area=_areas(units, area),
        name=name,
    )


def _areas(units: Any, column: str | None) -> list[str]:
    if column is not None:
        return _column(units, choose(column, units.colnames, "column of the units table"))
    for known in AREA_COLUMNS:
        if known in units.colnames:
            return _column(units, known)
    found = []
    for row in range(len(units)):
        where = "all"
        if "electrodes" in units.colnames:
            where = "+".join(sorted({label_of(place) for place in units["electrodes"][row]["location"]})) or where
        elif "electrode_group" in units.colnames:
            where = label_of(units["electrode_group"][row].location) or where
        found.append(where)
    return found


def _times(trials: Any, align: str) -> Floats:
    try:
        values = np.asarray(trials[align][:])
    except ValueError:  # several values a row, not equally many in each
        values = np.empty(0, object)
    if values.ndim != 1 or values.dtype.kind not in "iuf":  # text of digits and truth values are no times either
        raise InputError(f"column {align!r} of the trials table holds no times")
    return values.astype(float)


def _column(table: Any, name: str) -> list[str]:
    values = table[name][:]
    if np.ndim(values) != 1:
        raise InputError(f"column {name!r} must hold one value a row, got values of shape {np.shape(values)[1:]}")
    return [label_of(value) for value in np.asarray(values).tolist()]


def _bins(start: float, stop: float, width: float) -> int:
    if not (np.isfinite([start, stop, width]).all() and width > 0 and stop > start):
        raise InputError(f"the window must have start < stop and a positive bin width, got {start}, {stop}, {width}")
    number = (stop - start) / width
    if abs(number - round(number)) > 1e-6 or round(number) > MOST_BINS:
        raise InputError(
            f"the window of {stop - start:g} s must hold a whole number of bins of {width:g} s, up to {MOST_BINS}, got {number:g}"
        )
    return round(number)
