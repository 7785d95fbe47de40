"""`comodulate population` and `comodulate recording`, as a user calls them."""

from __future__ import annotations

import csv
import html
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from comodulation.app.cli.recording import EXAMPLE, unique_names
from comodulation.networks.methods import make_method
from comodulation.neuro import write_recording
from comodulation.runs import Run
from support.command import comodulate
from support.neuro_simulation import two_areas

NWB = ["--condition", "orientation"]
BESIDE = ["--data", "images", "--network-task", "t", "--network-control", "u"]
SMALL = ["population", "--seeds", "2", "--neurons", "20", "--informative", "4"]


@pytest.fixture
def session(tmp_path):
    write_recording(two_areas()[0], tmp_path / "session.npz")
    return tmp_path / "session.npz"


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without their figures, which take as long as what they show."""
    for name in ("population_figure", "recording_figure", "comparison_figure"):
        monkeypatch.setattr(f"comodulation.neuro.report.{name}", lambda found: None)
    monkeypatch.setattr("comodulation.neuro.report.svg", lambda figure: "<svg></svg>")


def test_a_recording(session, tmp_path):
    words = ["recording", session, "--upstream", "V1", "--downstream", "MT", "--task", "task", "--control", "control"]
    outcome = comodulate(*words, "--out", tmp_path / "out", "--json")
    assert outcome.status == 0, outcome.err
    said = " ".join(outcome.json["verdict"]["session"])
    assert "In the control, their modulation falls" in said  # as it was simulated
    with open(tmp_path / "out" / "rows.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["statistic"] for row in rows] == [row["statistic"] for row in outcome.json["statistics"]]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1
    assert str(tmp_path) not in page


# The command in a report is what a reader would run: where the files are, it gives the same numbers.
def test_the_command_in_the_report_can_be_run(undrawn, tmp_path, monkeypatch):
    write_recording(two_areas()[0], tmp_path / "day one.npz")
    words = ["--upstream", "V1", "--task", "task", "--seed", "3", "--drop-silent", "--errors", "trials"]
    first = comodulate("recording", tmp_path / "day one.npz", *words, "--out", tmp_path / "sessions" / "out")
    assert first.status == 0, first.err
    page = html.unescape((tmp_path / "sessions" / "out" / "report.html").read_text())
    (said,) = set(re.findall(r"comodulate recording [^<]*", page))
    assert str(tmp_path) not in said
    monkeypatch.chdir(tmp_path)
    again = comodulate(*shlex.split(said)[1:])
    assert again.status == 0, again.err
    assert (tmp_path / "out" / "rows.csv").read_bytes() == (tmp_path / "sessions" / "out" / "rows.csv").read_bytes()


# The example's own columns: a choice that is no function of the stimulus, so that both are conditions.
def test_the_example_of_the_help_runs(undrawn, tmp_path, monkeypatch):
    pynwb = pytest.importorskip("pynwb")
    rng, file = np.random.default_rng(0), pynwb.NWBFile("s", "s", datetime(2020, 1, 1, tzinfo=UTC))
    file.add_unit_column("area", "of the brain")
    for unit in range(18):
        file.add_unit(spike_times=np.sort(rng.uniform(0, 48, 960)), area="V1" if unit < 9 else "V4")
    file.add_trial_column("stimulus", "shown")
    file.add_trial_column("choice", "made")
    for trial in range(48):
        file.add_trial(
            start_time=float(trial), stop_time=trial + 1.0, stimulus=f"{trial % 2}", choice="ab"[trial // 2 % 2]
        )
    with pynwb.NWBHDF5IO(str(tmp_path / "session.nwb"), "w") as io:
        io.write(file)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(EXAMPLE)[1:]
    outcome = comodulate(*words)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "runs" / "session" / "report.html").is_file()
    place = words.index("choice")  # without it as a condition, what it does to rates would be the modulator
    assert words[place - 1] == "--condition"
    refused = comodulate(*words[: place - 1], *words[place + 1 :])
    assert refused.status == 2
    assert "have several targets" in refused.line


def test_the_population_model(tmp_path):
    words = ["population", "--seeds", "2", "--neurons", "40", "--informative", "4", "--out", tmp_path / "out"]
    outcome = comodulate(*words)
    assert outcome.status == 0, outcome.err
    assert "maximum likelihood" in outcome.out
    assert (tmp_path / "out" / "figures" / "population.svg").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["recording", "nothing.npz"], "there is no file"),
        (["recording", "SESSION"], "upstream must name the area"),
        (["recording", "SESSION", "--upstream", "V2"], "V1"),
        (["recording", "SESSION", "--upstream", "V1", "--control", "control"], "control is compared"),
        (["recording", "SESSION", "--network", "run"], "--network needs --data"),
        # Without a network these say nothing, and would be passed over in silence.
        (
            ["recording", "SESSION", "--data", "images"],
            "--data: only for a network; name its run folder with --network",
        ),
        (["recording", "SESSION", *BESIDE[2:]], "--network-task, --network-control: only for a network"),
        (["recording", "SESSION", "--network", "run", *BESIDE[:4], "--network-control", "t"], "another task than"),
        (["recording", "x.nwb"], "an NWB file needs the option --condition"),
        # A window that ends at the event, and starts before it: nothing is missing but the file.
        (["recording", "x.nwb", *NWB, "--start", "-0.5", "--stop", "0", "--bin-width", "0.05"], "there is no file"),
        (["recording", "SESSION", "x.nwb"], "an NWB file needs the option --condition"),
        (["recording", "SESSION", *NWB], "--condition: only for NWB files"),
        (["recording", "SESSION", "--stop", "0", "--bin-width", "0.1"], "--stop, --bin-width: only for NWB files"),
        (["recording", "SESSION", "--start", "0"], "--start: only for NWB files"),
        (["recording", "SESSION", "--align", "start_time"], "--align: only for NWB files"),
        (["population", "--seeds", "1"], "at least 2"),
        (["population", "--neurons", "10000000000"], "neurons must be at most 13421"),
        (["population", "--neurons", "10", "--informative", "20"], "informative"),
    ],
)
def test_bad_input_is_one_line(session, tmp_path, words, expected):
    words = [session if word == "SESSION" else word for word in words]
    outcome = comodulate(*words, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_silent_neurons_are_told_and_can_be_left_out(undrawn, tmp_path):
    recording = two_areas()[0]
    counts = np.array(recording.counts)
    counts[:, :, 3] = 0
    write_recording(replace(recording, counts=counts), tmp_path / "silent.npz")
    words = ["recording", tmp_path / "silent.npz", "--upstream", "V1", "--task", "task", "--out", tmp_path / "out"]
    refused = comodulate(*words)
    assert refused.status == 2
    assert "spikes" in refused.err
    outcome = comodulate(*words, "--drop-silent")
    assert outcome.status == 0
    assert "1 of 40 neurons are left out, which fire fewer than 25 spikes" in outcome.out


# What was left out changes what the numbers speak of: on the terminal, in the report and in --json.
def test_trials_that_were_not_observed_are_told(undrawn, tmp_path):
    recording = two_areas()[0].in_area("V1")
    observed = np.ones((recording.trials, recording.neurons), bool)
    observed[:7, 2] = False
    write_recording(replace(recording, observed=observed), tmp_path / "partly.npz")
    words = ["recording", tmp_path / "partly.npz", "--task", "task", "--out", tmp_path / "out"]
    outcome = comodulate(*words)
    assert outcome.status == 0, outcome.err
    said = "7 of 240 trials are left out, in which not all of 24 neurons were observed"
    assert said in outcome.out
    assert said in (tmp_path / "out" / "report.html").read_text()
    assert said in (tmp_path / "out" / "results.json").read_text()


# Sessions of a day, a folder each, are called alike, and so is a run; none may be lost.
def test_recordings_of_one_name_are_told_apart(tmp_path):
    files = [tmp_path / folder / "session.npz" for folder in ("s1", "s2")]
    for seed, path in enumerate(files):
        path.parent.mkdir()
        write_recording(two_areas(seed=seed)[0], path)
    words = ["--upstream", "V1", "--task", "task", "--out", tmp_path / "out", "--json"]
    outcome = comodulate("recording", *files, *words)
    assert outcome.status == 0, outcome.err
    names = ["s1/session", "s2/session"]
    assert list(outcome.json["verdict"]) == names
    assert len({str(said) for said in outcome.json["verdict"].values()}) == 2
    with open(tmp_path / "out" / "rows.csv") as file:
        assert list(dict.fromkeys(row["recording"] for row in csv.DictReader(file))) == names
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"<bdi>{name}</bdi></button></th>" in page for name in names)  # a column each


def test_a_network_of_a_recordings_name(undrawn, run, data, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("comodulation.app.cli.recording.MAX_IMAGES", 6)  # enough for a name
    path = tmp_path / "session" / f"{run.name}.npz"
    path.parent.mkdir()
    write_recording(two_areas()[0].in_area("V1"), path)
    task = Run.open(run).family.tasks[0]
    words = ["--network", run, "--data", data, "--network-task", task, "--cache", cache, "--task", "task"]
    outcome = comodulate("recording", path, *words, "--out", tmp_path / "out", "--json")
    assert outcome.status == 0, outcome.err
    assert list(outcome.json["verdict"]) == ["session/comodulation", f"{run.parent.name}/comodulation"]


# Recordings may take hours; what is wrong with the network is told before.
def test_a_network_that_cannot_be_recorded_is_told_before_anything_is_computed(run, session, tmp_path, monkeypatch):
    def computed(*_, **__):
        raise AssertionError("computed for nothing")

    monkeypatch.setattr("comodulation.neuro.analyse_recording", computed)
    task = Run.open(run).family.tasks[0]

    def refused(message, network, *words):
        words = [session, "--network", network, "--data", "images", *words, "--out", tmp_path / "out"]
        outcome = comodulate("recording", *words)
        assert outcome.status == 2
        assert message in outcome.line

    refused("is not a run folder", tmp_path / "runs", "--network-task", task)
    refused("unknown task", run, "--network-task", f"{task}s")
    refused("unknown task", run, "--network-task", task, "--network-control", "nothing")
    opened = Run.open(run)
    monkeypatch.setattr(Run, "method", make_method("hard-sharing", opened.method.head, opened.family))
    refused("method 'hard-sharing' has no couplings", run, "--network-task", task)


def test_names_are_short_where_they_can_be():
    def names(*paths):
        return unique_names([Path(path) for path in paths])

    assert names("a/s.nwb", "a/t.npz", "runs/mice.v2") == ["s", "t", "mice.v2"]
    assert names("a/s.nwb", "b/s.npz", "runs/s", "t.npz") == ["a/s", "b/s", "runs/s", "t"]
    assert names("a/s.nwb", "a/s.npz", "x/a/s.npz") == ["a/s", "a/s (2)", "a/s (3)"]
    assert names("/s.npz", "/s.npz") == ["s", "s (2)"]


@pytest.mark.parametrize("words", [SMALL, ["recording", "SESSION", "--upstream", "V1", "--task", "task"]])
def test_only_a_folder_of_the_same_verb_is_written_over(undrawn, session, tmp_path, words):
    words = [session if word == "SESSION" else word for word in words]
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    assert comodulate(*words, "--out", out).status == 0
    first = (out / "results.json").read_bytes()
    assert comodulate(*words, "--out", out).status == 0
    assert (out / "results.json").read_bytes() == first
    other = ["recording", session, "--upstream", "V1"] if words[0] == "population" else SMALL
    for path, content in ((out / "results.json", first), (tmp_path / "notes" / "report.html", b"<p>mine</p>")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        for asked in [other] if path.parent == out else [other, words]:
            refused = comodulate(*asked, "--out", path.parent)
            assert refused.status == 2
            assert f"is not empty and not a folder of `comodulate {asked[0]}`" in refused.line
            assert path.read_bytes() == content


# Refused at once: what is asked would take hours, and would be computed for nothing.
@pytest.mark.parametrize("words", [["population", "--seeds", "10000"], ["recording", "SESSION", "--upstream", "V1"]])
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_computed(session, tmp_path, words, monkeypatch):
    def computed(*_, **__):
        raise AssertionError("computed for nothing")

    monkeypatch.setattr("comodulation.neuro.population_study", computed)
    monkeypatch.setattr("comodulation.neuro.analyse_recording", computed)
    words = [session if word == "SESSION" else word for word in words]
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "out", "cannot write to")):
        refused = comodulate(*words, "--out", out)
        assert refused.status == 2
        assert message in refused.line
