"""What an NWB file says is no data is left out, counted and said; what cannot be times of a session is refused."""

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.analysis import analyse_recording
from comodulation.neuro.observed import check_rates, intervals_of, touched, within
from comodulation.neuro.reading import read_recording
from support.nwb_sessions import SHOWN, WINDOW, nwb_session

UNITS, TRIALS = 8, 24
BROKEN = range(8, 12)  # trials in which nothing was recorded


def recorded(unit, trial):
    return trial not in BROKEN


def read(path, **changes):
    return read_recording(path, **{**WINDOW, **changes})


# Neurons lost together would share 101% +- 4% of their variability with one another, p = 0.005.
def test_units_lost_in_the_middle_share_nothing(tmp_path):
    path = nwb_session(
        tmp_path / "s.nwb", units=12, trials=80, fires=lambda unit, trial: trial < 40 or not unit % 2,
        of_unit=lambda unit: {"obs_intervals": [[0.0, 40.0 if unit % 2 else 80.0]]},
    )  # fmt: skip
    said = analyse_recording(read(path), resamples=20).verdict()
    assert said[0].startswith("No variability that neurons share was found")
    assert said[-1].startswith("40 of 80 trials are left out, in which not all of 12 neurons were observed")


@pytest.mark.parametrize(
    ("intervals", "left"),
    [
        ([[6.0, 24.0]], range(6, 24)),  # observed late
        ([[0.0, 8.0], [12.0, 24.0]], [*range(8), *range(12, 24)]),  # with a gap
        ([[0.0, 8.3], [8.3, 24.0]], range(24)),  # with none: the second interval goes on where the first ends
        ([[12.0, 24.0], [0.0, 8.0]], [*range(8), *range(12, 24)]),  # in another order
        ([[0.0, 8.2]], range(8)),  # lost within a trial, which is not complete then
    ],
)
def test_trials_in_which_every_neuron_was_observed(tmp_path, intervals, left):
    path = nwb_session(
        tmp_path / "s.nwb", of_unit=lambda unit: {"obs_intervals": intervals if unit == 3 else [[0.0, np.inf]]}
    )
    recording = read(path)
    assert recording.trials == TRIALS
    complete = recording.complete()
    np.testing.assert_array_equal(complete.counts, recording.counts[list(left)])
    assert (complete.counts >= 0).all()
    lost = TRIALS - len(left)
    assert bool(complete.notes) == bool(lost)
    if lost:
        assert f"{lost} of {TRIALS} trials are left out" in complete.notes[-1]
        assert f"neuron 3 in {len(left)}" in complete.notes[-1]
        with pytest.raises(InputError, match="observed"):  # counts taken as they are, by hand
            recording.totals  # noqa: B018
    # Without that neuron, no trial is lost.
    assert recording.with_neurons(np.arange(UNITS) != 3).complete().trials == TRIALS


# A neuron of an area that nothing is asked of costs no trial.
def test_only_neurons_that_are_analysed_must_have_been_observed(tmp_path):
    path = nwb_session(
        tmp_path / "s.nwb", units=18,
        of_unit=lambda unit: {"area": "V1" if unit < 9 else "V4", "obs_intervals": [[0.0, 24.0 if unit < 9 else 2.0]]},
    )  # fmt: skip
    assert analyse_recording(read(path), upstream="V1", resamples=20).trials == TRIALS
    with pytest.raises(InputError, match=r"2 trials|has 1; 22 of 24 trials are left out"):
        analyse_recording(read(path), upstream="V1", downstream="V4")


def test_neurons_that_were_never_observed_together(tmp_path):
    path = nwb_session(
        tmp_path / "s.nwb", of_unit=lambda unit: {"obs_intervals": [[0.0, 12.0] if unit % 2 else [12.0, 24.0]]}
    )
    with pytest.raises(InputError, match="no trial is left: 24 of 24 trials are left out"):
        analyse_recording(read(path))


def invalid(file):
    file.add_invalid_time_interval(start_time=7.9, stop_time=11.9, tags=["probe"])


def artifacts(file):
    from pynwb.epoch import TimeIntervals

    table = TimeIntervals(name="artifact_times", description="saturated")
    table.add_interval(start_time=8.2, stop_time=11.1)
    file.create_processing_module("ecephys", "processed").add(table)


def valid(file):
    from pynwb.epoch import TimeIntervals

    table = TimeIntervals(name="valid_times", description="of the probe")
    for start, stop in ((0.0, 8.0), (12.0, 24.0)):
        table.add_interval(start_time=start, stop_time=stop)
    file.add_time_intervals(table)


def epochs(file):
    file.add_epoch(0.0, 8.0, ["task"])
    file.add_epoch(8.0, 12.0, ["task", "artifact"])


@pytest.mark.parametrize(
    "session",
    [
        {"after": invalid}, {"after": artifacts}, {"after": valid}, {"after": epochs},
        {"of_trial": lambda trial: {"bad": trial in BROKEN}},
        {"of_trial": lambda trial: {"isValid": float(trial not in BROKEN)}},
        {"of_trial": lambda trial: {"include_trial": "no" if trial in BROKEN else "yes"}},
        {"of_trial": lambda trial: {"quality": "artifact" if trial in BROKEN else "good"}},
        {"of_trial": lambda trial: {"tags": ["bad", "left"] if trial in BROKEN else ["left"]}},
    ],
)  # fmt: skip
def test_stretches_and_trials_that_are_no_data(tmp_path, session):
    recording = read(nwb_session(tmp_path / "s.nwb", fires=recorded, **session))
    assert recording.trials == TRIALS - len(BROKEN)
    assert (recording.totals.sum(1) > 0).all()
    assert [note for note in recording.notes if note.startswith(f"4 of {TRIALS} trials are left out")]


# "valid" may be that of a cue; a column that is asked for is no flag.
def test_a_column_that_is_asked_for_is_no_flag(tmp_path):
    path = nwb_session(tmp_path / "s.nwb", of_trial=lambda trial: {"valid": trial % 3 > 0})
    assert read(path).trials == 16
    assert read(path, condition=["stimulus", "valid"]).trials == TRIALS
    assert read(path, context="valid").contexts == ("False", "True")


def test_units_and_electrodes_that_are_no_neurons(tmp_path):
    for name, column in (
        ("words", lambda unit: {"quality": "noise" if unit % 2 else "mua"}),
        ("truth", lambda unit: {"is_good": unit % 2 == 0}),
        ("label", lambda unit: {"KSLabel": "bad" if unit % 2 else "good"}),
    ):
        path = nwb_session(
            tmp_path / f"{name}.nwb", fires=lambda unit, trial: not unit % 2 or trial < 12, of_unit=column
        )
        recording = read(path)
        assert recording.neurons == 4
        assert recording.notes == (f"4 of 8 units are left out: by the column {next(iter(column(0)))!r}",)

    def electrodes(file):
        group = file.create_electrode_group("probe", "probe", location="V1", device=file.create_device("probe"))
        for name in ("bad_channel", "imp"):
            file.add_electrode_column(name, name)
        for number in range(UNITS):
            file.add_electrode(location="V1", group=group, bad_channel=number % 2 == 1, imp=1e6)

    # Unit 1 has a sound electrode beside a broken one.
    path = nwb_session(
        tmp_path / "e.nwb", before=electrodes, of_unit=lambda unit: {"electrodes": [1, 2] if unit == 1 else [unit]}
    )
    recording = read(path)
    assert recording.neurons == 5
    assert recording.notes == (
        "3 of 8 units are left out: all of their electrodes are so by the column 'bad_channel'",
        "Of the file's quality, not read: imp of electrodes",
    )


def test_what_is_not_read_is_named(tmp_path):
    path = nwb_session(
        tmp_path / "s.nwb", of_unit=lambda unit: {"presence_ratio": 0.5, "quality": 0.1 * unit, "depth": 1.0},
        of_trial=lambda trial: {"aborted": False, "contrast": 0.5}, after=lambda file: file.add_time_intervals(rest()),
    )  # fmt: skip
    (note,) = read(path).notes
    assert note.endswith("not read: aborted of trials, presence_ratio of units, quality of units, times in 'rest'")


def rest():
    from pynwb.epoch import TimeIntervals

    table = TimeIntervals(name="rest", description="between blocks")
    table.add_interval(start_time=3.0, stop_time=4.0)
    return table


# Behaviour is often recorded longer than spikes are.
def test_trials_after_the_end_of_the_recording(tmp_path):
    recording = read(nwb_session(tmp_path / "s.nwb", fires=lambda unit, trial: trial < 16, rate=1.0))
    assert recording.trials == 16
    assert recording.notes == ("8 of 24 trials are left out: before the first or after the last spike of all units",)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"times": lambda unit, spikes: spikes % 1}, "spike times of unit 0 must ascend, got 23 of"),
        ({"times": lambda unit, spikes: np.sort(spikes % 1)}, "23 of 24 where nothing was recorded; both must be seconds"),
        ({"times": lambda unit, spikes: np.sort(spikes % 1 - SHOWN)}, "24 of 24 where nothing was recorded"),
        ({"times": lambda unit, spikes: spikes[::-1]}, "must ascend"),
        ({"times": lambda unit, spikes: np.round(30_000 * spikes)}, "whole numbers, as numbers of samples are"),
        ({"times": lambda unit, spikes: 1000 * spikes - 30}, "spikes among the trials; both must be seconds"),
        ({"starts": 1000.0 * np.arange(TRIALS)}, "where nothing was recorded"),
        ({"starts": np.zeros(TRIALS)}, r"windows of 23 of 24 trials overlap the next one's \(such as 0 to 0.5 s"),
        ({"starts": 0.3 * np.arange(TRIALS)}, "overlap the next one's"),
        ({"times": lambda unit, spikes: np.append(spikes, np.nan)}, "unit 0 must be finite times in seconds, got 1"),
        ({"of_unit": lambda unit: {"obs_intervals": [[9.0, 1.0]]}}, "obs_intervals of unit 0 must end after they start"),
        ({"of_unit": lambda unit: {"obs_intervals": [[np.nan, 1.0]]}}, "obs_intervals of unit 0 must end after they start"),
        ({"after": lambda file: file.add_invalid_time_interval(start_time=1.0, stop_time=np.nan)}, "'invalid_times' must end"),
        ({"of_trial": lambda trial: {"bad": True}}, "no trials are left; 24 of 24 trials are left out: by the column 'bad'"),
        ({"of_unit": lambda unit: {"quality": "noise"}}, "no units are left; 8 of 8 units are left out"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_session(tmp_path, session, message):
    with pytest.raises(InputError, match=message) as refused:
        read(nwb_session(tmp_path / "s.nwb", **session))
    assert str(refused.value).startswith("s: ")


# Times before the session's start are times, as long as trials are there too.
def test_negative_times(tmp_path):
    path = nwb_session(tmp_path / "s.nwb", times=lambda unit, spikes: spikes - 10, starts=np.arange(TRIALS) - 10.0)
    plain = read(nwb_session(tmp_path / "plain.nwb"))
    np.testing.assert_array_equal(read(path).counts, plain.counts)


def test_a_neuron_that_fires_faster_than_one_can():
    check_rates(np.array([[480, 3], [0, 3]]), 0.5, ["unit 0", "unit 7"])
    check_rates(np.array([[3, 2]]), 0.001, ["unit 0", "unit 7"])  # few spikes in a short window say nothing
    with pytest.raises(InputError, match=r"unit 7 fires 720 spikes in a trial's 0.5 s, 1440 a second"):
        check_rates(np.array([[9, 720]]), 0.5, ["unit 0", "unit 7"])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"licks": [0.1]}, "column 'licks' must hold one value for each row"),
        ({"tags": ["a", "b"]}, "column 'tags' must hold one value for each row"),
        ({"pair": (1.0, 2.0)}, "column 'pair' must hold one value for each row"),
    ],
)
def test_columns_of_several_values(tmp_path, column, message):
    path = nwb_session(tmp_path / "s.nwb", of_trial=lambda trial: column)
    for role in ("condition", "target", "context"):
        with pytest.raises(InputError, match=message):
            read(path, **{role: next(iter(column))})


def test_intervals_by_hand():
    joined = intervals_of([[5, 6], [0, 2], [1, 1.5], [2, 3]], "x")
    assert joined.tolist() == [[0, 3], [5, 6]]
    starts, ends = np.array([0.0, 2.5, 3.0, 5.0, 6.0]), np.array([3.0, 3.5, 5.0, 5.5, 7.0])
    assert within(starts, ends, joined).tolist() == [True, False, False, True, False]
    assert touched(starts, ends, joined).tolist() == [True, True, False, True, False]
    nothing = intervals_of([], "x")
    assert not within(starts, ends, nothing).any()
    assert not touched(starts, ends, nothing).any()
    assert touched(np.array([0.0]), np.array([2.0]), intervals_of([[1, 1]], "x")).all()  # an instant
    for wrong in ([1.0, 2.0], [["a", "b"]], [[1, 2, 3]], [[2, 1]], [[np.nan, 1]]):
        with pytest.raises(InputError, match="x must"):
            intervals_of(wrong, "x")
