"""Recordings from arrays and files: what is kept, what is refused, and an NWB file written by pynwb and read back."""

from datetime import UTC, datetime

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.reading import read_recording, write_recording
from comodulation.neuro.recording import Recording, count_spikes
from support.neuro_simulation import two_areas

WINDOW = {"start": 0.0, "stop": 0.5, "bin_width": 0.1}


def test_arrays_become_a_recording():
    counts = np.arange(24).reshape(2, 3, 4)
    recording = Recording.of(counts.astype(float), [45, 90], area=["V1", "V1", "MT", "MT"], context=[1.0, np.nan])
    assert (recording.trials, recording.bins, recording.neurons) == (2, 3, 4)
    assert recording.areas == ("MT", "V1")
    assert recording.contexts == ("1",)
    assert recording.target.tolist() == recording.condition.tolist() == ["45", "90"]
    np.testing.assert_array_equal(recording.in_area("MT").counts, counts[:, :, 2:])
    np.testing.assert_array_equal(recording.in_context("1").counts, counts[:1])
    np.testing.assert_array_equal(recording.totals, counts.sum(1))


def test_active_keeps_neurons_with_spikes_in_every_context():
    counts = np.zeros((4, 1, 3), int)
    counts[:, :, 0], counts[:2, :, 1], counts[2:, :, 2] = 30, 30, 30
    recording = Recording.of(counts, [0, 0, 0, 0], context=[0, 0, 1, 1])
    assert recording.active().neurons == 1
    assert Recording.of(counts, [0, 0, 0, 0]).active().neurons == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, -1]], ["a"]), "must not be negative"), (([[0.5, 1]], ["a"]), "whole numbers"),
        (([[1, 1]], ["a", "b"]), "condition must be one label for each of 1 trials"),
        # Beyond 64 bits, a cast would make other numbers of them; beyond the maximum, they are in another unit.
        (([[1.0, 1e300]], ["a"]), r"at most 1000000, got 1 of 2 that are larger, such as 1e\+300"),
        ((np.array([[1, 2**63 + 5]], np.uint64), ["a"]), "at most 1000000, got 1 of 2"),
        (([[1, 1]], [None]), "every trial needs a condition, got 1 of 1"), (([1, 1], ["a", "b"]), "trials, bins, neurons"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_recording(arguments, message):
    with pytest.raises(InputError, match=message):
        Recording.of(*arguments)


def test_recordings_that_cannot_be_analysed():
    counts = np.full((30, 2, 3), 5)
    with pytest.raises(InputError, match="condition 'b' has 4"):
        Recording.of(counts, ["a"] * 26 + ["b"] * 4).check()
    with pytest.raises(InputError, match="at least 2 targets of at least 2 trials each, got 1"):
        Recording.of(counts, ["a"] * 30).check()
    with pytest.raises(InputError, match="left: 29, right: 1"):
        Recording.of(counts, ["a"] * 30, target=["left"] * 29 + ["right"]).check()
    with pytest.raises(InputError, match=r"condition 'b' have several targets.*as a condition too"):
        Recording.of(counts, ["a", "b"] * 15, target=["left"] * 3 + ["right", "left", "right"] + ["left"] * 24).check()
    # Trials without a target are no other target.
    Recording.of(counts, ["a", "b"] * 15, target=["left", "right", None, "right"] * 7 + ["left", "right"]).check()
    with pytest.raises(InputError, match="there are none"):
        Recording.of(counts[:0], []).check()


def test_files_of_arrays(tmp_path):
    recording, _ = two_areas(trials=12)
    write_recording(recording, tmp_path / "simulated.npz")
    read = read_recording(tmp_path / "simulated.npz")
    assert read.name == "simulated"
    for name in ("counts", "condition", "target", "context", "area"):
        np.testing.assert_array_equal(getattr(read, name), getattr(recording, name))

    def refused(name, message, **arrays):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(InputError, match=message):
            read_recording(tmp_path / name)

    refused("a.npz", "unknown array in a.npz 'conditions'; did you mean 'condition'", counts=[[1]], conditions=["a"])
    refused("b.npz", "holds no array 'condition'", counts=[[1]])
    refused("c.npz", "cannot be read", counts=np.array([{}], dtype=object), condition=["a"])
    (tmp_path / "d.npz").write_bytes((tmp_path / "simulated.npz").read_bytes()[:300])
    (tmp_path / "e.mat").write_bytes(b"")
    for name, message in (
        ("d.npz", "cannot be read"),
        ("e.mat", "an .nwb or an .npz file"),
        ("f.npz", "there is no file"),
    ):
        with pytest.raises(InputError, match=message):
            read_recording(tmp_path / name)
    with pytest.raises(InputError, match=r"options condition are for \.nwb"):
        read_recording(tmp_path / "simulated.npz", condition="orientation")


def test_spikes_on_edges_are_in_the_later_bin():
    counts = count_spikes([[0.3, 0.1, 0.0999999], [], [0.5, -0.01]], [0.0, 0.2], 0.1, 3)
    assert counts[0].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert counts[1].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def spike_times(recording, starts, width, rng):
    """Times that have the recording's counts: uniform within each bin."""
    times = []
    for neuron in range(recording.neurons):
        bins = recording.counts[:, :, neuron]
        left = starts[:, None] + width * np.arange(recording.bins)
        places = np.repeat(left.ravel(), bins.ravel())
        times.append(np.sort(places + width * rng.uniform(0.01, 0.99, len(places))))
    return times


@pytest.fixture(scope="module")
def nwb(tmp_path_factory):
    """A simulated recording as an NWB file, with trials and columns that make it difficult."""
    pynwb = pytest.importorskip("pynwb")
    recording, _ = two_areas(trials=15)
    file = pynwb.NWBFile("simulated", "simulated", datetime(2020, 1, 1, tzinfo=UTC))
    starts = 2.0 * np.arange(recording.trials) + 1 / 3
    device = file.create_device("probe")
    groups = {area: file.create_electrode_group(area, area, location=area, device=device) for area in recording.areas}
    for area in recording.area:
        file.add_electrode(location=str(area), group=groups[str(area)])
    file.add_unit_column("quality", "of sorting")
    for unit, times in enumerate(spike_times(recording, starts, 0.1, np.random.default_rng(0))):
        file.add_unit(spike_times=times, electrodes=[unit], quality="good")
    for name in ("orientation", "side", "attention"):
        file.add_trial_column(name, name)
    file.add_trial_column("onset", "in seconds")
    file.add_trial_column("pulses", "in seconds, one or two a trial", index=True)
    file.add_trial_column("window", "in seconds, from and to")
    file.add_trial_column("rewarded", "or not")
    file.add_trial_column("code", "digits as text")
    for trial, start in enumerate(starts):
        file.add_trial(
            start_time=start - 0.2, stop_time=start + 1, onset=start, orientation=float(recording.condition[trial]) * 45,
            side="left", attention=str(recording.context[trial]), pulses=[start] * (1 + trial % 2), window=[start, start + 1],
            rewarded=True, code="1",
        )  # fmt: skip
    file.add_trial(
        start_time=100.0, stop_time=101.0, onset=np.nan, orientation=0.0, side="left", attention="task", pulses=[100.0],
        window=[100.0, 101.0], rewarded=False, code="1",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path, recording


# Round trip: the counts that were turned into spike times come back, with areas, conditions and contexts.
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_nwb_round_trip(nwb, shift):
    path, recording = nwb
    read = read_recording(
        path, condition=["orientation", "side"], target="orientation", context="attention",
        align="onset" if not shift else "start_time", start=shift, stop=shift + 0.5, bin_width=0.1,
    )  # fmt: skip
    # By its start time, the trial without an onset is one more, but one after all spikes.
    np.testing.assert_array_equal(read.counts, recording.counts)
    assert read.notes[0].startswith("1 of 31 trials are left out: " + ("before" if shift else "without a time"))
    np.testing.assert_array_equal(read.area, recording.area)
    np.testing.assert_array_equal(read.context, recording.context)
    names = np.where(recording.condition == "0", "0", "45")
    np.testing.assert_array_equal(read.target, names)
    np.testing.assert_array_equal(read.condition, [f"{name}, left" for name in names])
    assert read.name == "session"


def test_a_column_is_read_once_however_many_trials_there_are(nwb, monkeypatch):
    from comodulation.neuro import nwb as reader

    path, _ = nwb
    read, column_of = [], reader.column_of
    monkeypatch.setattr(
        reader, "column_of", lambda table, name, **more: read.append(name) or column_of(table, name, **more)
    )
    read_recording(path, condition="orientation", context="attention", align="onset", **WINDOW)
    assert read.count("attention") == 1


def test_nwb_files_that_cannot_be_read_as_asked(nwb, tmp_path):
    path, _ = nwb

    def refused(message, given=path, **changes):
        with pytest.raises(InputError, match=message):
            read_recording(given, **{"condition": "orientation", **WINDOW, **changes})

    refused("did you mean 'orientation'", condition="orientaton")
    refused("unknown column of the trials table 'task'", context="task")
    refused("did you mean 'onset'", align="onsets")
    # Text, and several values a trial: columns there are, but of no times.
    for column in ("side", "attention", "pulses", "window", "rewarded", "code"):
        refused(f"column '{column}' of the trials table holds no times", align=column)
    refused("unknown column of the units table 'brain'", area="brain")
    refused("start < stop", stop=-1.0)
    refused("whole number of bins", bin_width=0.3)
    refused("positive bin width", bin_width=0.0)
    (tmp_path / "broken.nwb").write_bytes(path.read_bytes()[:2000])
    refused("cannot be read as an NWB file", tmp_path / "broken.nwb")
    refused("there is no file", tmp_path / "absent.nwb")


def test_nwb_files_without_units_or_trials(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    for name, message in (("units", "no units table"), ("trials", "no trials table")):
        file = pynwb.NWBFile("empty", "empty", datetime(2020, 1, 1, tzinfo=UTC))
        if name == "trials":
            file.add_unit(spike_times=[0.1])
        else:
            file.add_trial(start_time=0.0, stop_time=1.0)
        with pynwb.NWBHDF5IO(str(tmp_path / f"{name}.nwb"), "w") as io:
            io.write(file)
        with pytest.raises(InputError, match=message):
            read_recording(tmp_path / f"{name}.nwb", condition="orientation", **WINDOW)


def test_neurons_that_were_observed_in_some_trials(tmp_path):
    rng = np.random.default_rng(0)
    counts, observed = rng.poisson(4, (30, 2, 3)).astype(float), np.ones((30, 3), bool)
    observed[20:, 1], counts[20:, :, 1] = False, np.nan
    recording = Recording.of(counts, [0, 1] * 15, observed=observed)
    write_recording(recording, tmp_path / "partly.npz")
    for partly in (recording, read_recording(tmp_path / "partly.npz")):
        np.testing.assert_array_equal(partly.complete().counts, counts[:20])
        assert partly.complete().notes[0].startswith("10 of 30 trials are left out")
        assert partly.with_neurons(np.array([0, 2])).complete().trials == 30
        assert partly.active(200).neurons == 2  # by the spikes of the trials in which a neuron was observed
        with pytest.raises(InputError, match=r"take Recording\.complete"):
            partly.check()
    with pytest.raises(InputError, match="said in `observed`"):
        Recording.of(counts, [0, 1] * 15)
    for wrong in (observed[:5], observed.astype(int)):
        with pytest.raises(InputError, match=r"observed must be truth values \(trials, neurons\)"):
            Recording.of(counts, [0, 1] * 15, observed=wrong)


# A probe that failed for some trials, and nothing says so: independent neurons would seem to share all of their variability.
def test_trials_without_a_spike_of_an_area_where_many_are_expected():
    counts = np.random.default_rng(0).poisson(3, (40, 5, 20))
    counts[10:14, :, :10] = 0
    area = ["V1"] * 10 + ["V4"] * 10
    complete = Recording.of(counts, [0, 1] * 20, area=area).complete()
    np.testing.assert_array_equal(complete.counts, np.delete(counts, range(10, 14), 0))
    assert complete.notes[0].startswith("4 of 40 trials are left out, in which no neuron of an area fires")
    few = Recording.of(counts[:, :1, :], [0, 1] * 20, area=area)  # 30 spikes are expected: a silence may be theirs
    assert few.complete().trials == 40
    blank = Recording.of(counts, np.isin(np.arange(40), range(10, 14)), area=area)  # what makes all neurons silent
    assert blank.complete().trials == 40
