"""`comodulate population` and `comodulate recording`, as a user calls them."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from command import comodulate
from comodulation.neuro.recordings import write_recording
from neuro_simulation import two_areas


@pytest.fixture
def session(tmp_path):
    write_recording(two_areas()[0], tmp_path / "session.npz")
    return tmp_path / "session.npz"


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
        (["recording", "x.nwb"], "an NWB file needs --condition"),
        (["population", "--seeds", "1"], "at least 2"),
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


def test_silent_neurons_are_told_and_can_be_left_out(tmp_path):
    recording = two_areas()[0]
    counts = np.array(recording.counts)
    counts[:, :, 3] = 0
    write_recording(replace(recording, counts=counts), tmp_path / "silent.npz")
    words = ["recording", tmp_path / "silent.npz", "--upstream", "V1", "--task", "task", "--out", tmp_path / "out"]
    refused = comodulate(*words)
    assert refused.status == 2
    assert "spikes" in refused.err
    assert comodulate(*words, "--drop-silent").status == 0
