"""NWB sessions of independent Poisson neurons, written by pynwb: whatever is found to be shared is an artefact."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

SHOWN = 0.5  # seconds of each trial in which neurons fire; a trial starts every second
WINDOW = {"condition": "stimulus", "start": 0.0, "stop": SHOWN, "bin_width": 0.1}


def nwb_session(
    path, *, units=8, trials=24, rate=6.0, seed=0, fires=lambda unit, trial: True, times=lambda unit, spikes: spikes,
    starts=None, of_unit=lambda unit: {}, of_trial=lambda trial: {}, before=lambda file: None, after=lambda file: None,
):  # fmt: skip
    """Write a session and return its path.

    ``fires``: whether a unit has spikes in a trial. ``times``: what is stored in place of a unit's spike times. ``of_unit``,
    ``of_trial``: values of further columns. ``before``, ``after``: what else is added to the file.
    """
    pynwb = pytest.importorskip("pynwb")
    rng, file = np.random.default_rng(seed), pynwb.NWBFile("s", "s", datetime(2024, 1, 1, tzinfo=UTC))
    before(file)
    for name in of_unit(0):
        if name not in ("obs_intervals", "electrodes"):
            file.add_unit_column(name, name)
    for name in ("stimulus", *of_trial(0)):
        if name != "tags":
            file.add_trial_column(name, name, index=isinstance(of_trial(0).get(name), list))
    for unit in range(units):
        spikes = [trial + np.sort(rng.uniform(0, SHOWN, rng.poisson(rate))) for trial in range(trials)]
        spikes = [of for trial, of in enumerate(spikes) if fires(unit, trial)]
        file.add_unit(spike_times=times(unit, np.concatenate([[], *spikes])), **of_unit(unit))
    starts = np.arange(trials, dtype=float) if starts is None else starts
    for trial in range(trials):
        start = float(starts[trial])
        file.add_trial(start_time=start, stop_time=start + SHOWN, stimulus=trial % 2, **of_trial(trial))
    after(file)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path
