"""Runs that are killed, interrupted, out of disk or run twice: what is left can be resumed, and ends with the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from comodulation.app.cli import ConsoleProgress
from comodulation.data.features import extraction as features
from comodulation.runs import fitting
from support.command import GROUPED, SHORT, SMALL, comodulate, comodulate_here, fit
from support.forked import Process
from support.synthetic import snapshot

pytestmark = pytest.mark.usefixtures("no_figures")
SAME = ("config.yaml", "head.safetensors", "adapter.safetensors", "predictions.parquet")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Three blocks of features in the training split, so that extraction can be stopped between them."""
    monkeypatch.setattr(features, "BLOCK", 64)


def same(folder, reference):
    """Whether two runs agree to the bit, with nothing left over."""
    for name in SAME:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    numbers, expected = (json.loads((path / "metrics.json").read_text()) for path in (folder, reference))
    assert numbers["test"] == expected["test"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()}


def stop_at(phase, place, number):
    """Send this process a signal as soon as an extraction or a training has come to some place."""

    def watch(name):
        real = getattr(ConsoleProgress, name)

        def told(self, what, *state):
            real(self, what, *state)
            if what == phase and (state[0] if name == "extraction" else state[0].number) == place:
                os.kill(os.getpid(), number)

        setattr(ConsoleProgress, name, told)

    watch("extraction")
    watch("epoch")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
@pytest.mark.parametrize(("phase", "place"), [("train", 64), ("pretraining", 2), ("comodulation", 1)])
def test_a_stopped_run_resumes_to_the_same_bits(phase, place, number, data, run, tmp_path):
    """Stopped while features are extracted, layers pretrained or the controller fine-tuned, and resumed."""
    out, cache = tmp_path / "run", tmp_path / "cache"

    def first():
        stop_at(phase, place, number)
        arguments = ["--data", data, "--out", out, "--cache", cache, *GROUPED, *SMALL, *SHORT, "--json"]
        return comodulate_here("fit", *arguments)

    ended = Process(tmp_path / "process", first).wait()
    assert ended.out == ""
    if number == signal.SIGINT:
        assert ended.code == 1, ended.err
        last = "error: interrupted; what is finished is kept, the same command with --resume continues"
        assert ended.err.splitlines()[-1] == last
        assert "Traceback" not in ended.err
    else:
        assert ended.code == -signal.SIGKILL, ended.err
    assert not (out / "metrics.json").exists()
    refused = fit(data, out, cache)
    assert refused.status == 2
    assert "already holds a run; --resume continues it" in refused.line
    resumed = fit(data, out, cache, "--resume")
    assert resumed.status == 0, resumed.err
    same(out, run)
    # It went on where it stopped: what was done is not done again.
    assert f"features, train: {place}/160" not in resumed.err
    if phase != "train":
        assert f"{phase}: epoch {place}/3" not in resumed.err
        assert f"{phase}: epoch {place + 1}/3" in resumed.err
    assert ("pretraining: epoch" in resumed.err) == (phase != "comodulation")


@pytest.mark.parametrize("write", [1, 2, 5, 7, 10, 15, 20])
def test_a_run_killed_while_writing_resumes(write, data, run, tmp_path):
    """Killed with the file written beside its place but not yet moved there; which file, the test after next says."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    moves = []

    def replace(source, target, _real=os.replace):
        moves.append(target)
        if len(moves) == write:
            os.kill(os.getpid(), signal.SIGKILL)
        _real(source, target)

    def first():
        os.replace = replace
        return fit(data, out, cache).status

    ended = Process(tmp_path / "process", first).wait()
    assert ended.code == -signal.SIGKILL, ended.err
    assert list(tmp_path.rglob(".*.partial")) != []
    resumed = fit(data, out, cache, "--resume")
    assert resumed.status == 0, resumed.err
    same(out, run)
    assert list(tmp_path.rglob(".*.partial")) == []


@pytest.mark.parametrize("write", [1, 3, 20])
def test_a_disk_that_fills_up(write, data, run, tmp_path, monkeypatch):
    """At some write of many: status 1, one line that names the file, no partial file, and a run to be resumed."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    synced = []

    def fsync(descriptor, _real=os.fsync):
        synced.append(descriptor)
        if len(synced) >= write:
            raise OSError(28, "No space left on device")
        _real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        outcome = fit(data, out, cache)
    assert outcome.status == 1, outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: cannot write ")
    assert last.endswith("No space left on device")
    assert "Traceback" not in outcome.err
    assert list(tmp_path.rglob("*.partial")) == []
    assert not (out / "metrics.json").exists()
    assert fit(data, out, cache, "--resume").status == 0
    same(out, run)


def test_the_number_of_writes_is_what_the_tests_above_count_on(data, tmp_path, monkeypatch):
    """Configuration, two splits; three epochs, layers, history; three epochs, layers, adapter, predictions,
    tables, report, metrics."""
    written = []
    monkeypatch.setattr(os, "replace", lambda a, b, _real=os.replace: (written.append(b.name), _real(a, b)))
    assert fit(data, tmp_path / "run", tmp_path / "cache").status == 0
    epochs = ["checkpoint.safetensors"] * 3
    splits = ["identity.json", "journal.jsonl"] * 2
    assert written == [
        "config.yaml", *splits, *epochs, "head.safetensors", "history.json", *epochs, "head.safetensors",
        "adapter.safetensors", "predictions.parquet", "classes.csv", "confusions.csv", "report.html", "metrics.json",
    ]  # fmt: skip


def test_resuming_a_finished_run_changes_nothing(data, run, cache):
    before = snapshot(run, cache)
    again = fit(data, run, cache, "--resume", "--json")
    assert again.status == 0
    assert again.json["runs"][0]["test"] == json.loads((run / "metrics.json").read_text())["test"]
    assert snapshot(run, cache) == before


def test_methods_that_are_finished_are_not_repeated(data, tmp_path):
    """Of two methods, the second was stopped: resuming trains the second alone."""
    out, cache = tmp_path / "runs", tmp_path / "cache"
    two = ["--method", "attention", "--method", "comodulation"]

    def first():
        stop_at("comodulation", 2, signal.SIGKILL)
        return fit(data, out, cache, *two).status

    assert Process(tmp_path / "process", first).wait().code == -signal.SIGKILL
    finished = snapshot(out / "attention")
    resumed = fit(data, out, cache, *two, "--resume")
    assert resumed.status == 0, resumed.err
    assert "attention: epoch" not in resumed.err
    assert "comodulation: epoch 3/3" in resumed.err
    assert snapshot(out / "attention") == finished


def test_an_empty_folder_can_be_resumed(data, run, cache, tmp_path):
    """A run that was stopped before it wrote anything: the same command works."""
    (tmp_path / "run").mkdir()
    assert fit(data, tmp_path / "run", cache, "--resume").status == 0
    same(tmp_path / "run", run)


def test_damaged_metrics_of_a_finished_run(data, run, cache, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{")
    assert fit(data, tmp_path / "run", cache, "--resume").status == 0  # they are written last: the run was not finished
    same(tmp_path / "run", run)


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("missing", "head.safetensors"), ("torn", "adapter.safetensors"), ("missing", "predictions.parquet"),
        ("torn", "report.html"), ("missing", "classes.csv"), ("torn", "confusions.csv"),
    ],
)  # fmt: skip
def test_other_damaged_files_of_a_finished_run(how, name, data, run, cache, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if how == "torn":
        (folder / name).write_bytes(content[: len(content) // 2].rstrip(b"\r\n"))
    outcome = fit(data, folder, cache, "--resume")
    assert outcome.status == 0
    assert f"missing or damaged in {folder}: {name}; the run is done again" in outcome.err
    same(folder, run)


# ---- two processes ----


def test_a_run_folder_in_use_is_refused(data, tmp_path):
    """A second process with the same --out, with and without --resume: status 2, and the first one is not disturbed."""
    out, cache, there = tmp_path / "run", tmp_path / "cache", tmp_path / "there"

    def first():
        def pause(self, what, epoch, _real=ConsoleProgress.epoch):
            there.write_text(what)
            while there.exists():  # until the test has done its part
                time.sleep(0.02)

        ConsoleProgress.epoch = pause
        return fit(data, out, cache).status

    process = Process(tmp_path / "process", first)
    ends = time.monotonic() + 60
    while not there.exists() and time.monotonic() < ends:
        time.sleep(0.02)
    before = snapshot(out)
    resumed = fit(data, out, tmp_path / "other", "--resume")
    fresh = fit(data, out, tmp_path / "other")
    assert (resumed.status, fresh.status) == (2, 2)
    assert resumed.line == f"error: {out} is in use by another process"
    assert "already holds a run" in fresh.line
    assert snapshot(out) == before
    assert not (tmp_path / "other").exists()
    while not (out / "metrics.json").exists() and time.monotonic() < ends:  # it pauses after every epoch
        there.unlink(missing_ok=True)
        time.sleep(0.02)
    assert process.wait().code == 0


def test_two_processes_share_one_cache(data, run, tmp_path):
    """Two runs begun at once extract each image once between them, pretrain once, and agree to the bit."""
    cache = tmp_path / "cache"

    def one(name):
        def count(*arguments, _real=fitting.extract, **options):
            result = _real(*arguments, **options)
            with open(tmp_path / "extracted", "a") as file:
                file.write(f"{result.extracted_rows}\n")
            return result

        def call():
            fitting.extract = count
            return fit(data, tmp_path / name, cache).status

        return Process(tmp_path / f"process {name}", call)

    processes = [one("a"), one("b")]
    assert [process.wait().code for process in processes] == [0, 0]
    same(tmp_path / "a", run)
    same(tmp_path / "b", run)
    extracted = [int(line) for line in (tmp_path / "extracted").read_text().split()]
    assert (len(extracted), sum(extracted)) == (4, 160 + 40)


# ---- evaluate and predict ----


def test_evaluate_stopped_and_repeated(data, run, tmp_path):
    """There is nothing to resume but the cache, which continues by itself."""

    def first():
        stop_at("train", 64, signal.SIGINT)
        return comodulate_here(
            "evaluate", run, "--data", data, "--split", "train", "--cache", tmp_path / "cache", "--json"
        )

    ended = Process(tmp_path / "process", first).wait()
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1] == "interrupted"
    again = comodulate("evaluate", run, "--data", data, "--split", "train", "--cache", tmp_path / "cache", "--json")
    assert again.json["count"] == 160
    assert "features, train: 64/160" not in again.err


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(data, tmp_path):
    """The installed command, from outside: it stops at once, with one line, and continues."""
    command = [
        sys.executable,
        "-m",
        "comodulation",
        "fit",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        *GROUPED,
        *SMALL,
        "--method",
        "comodulation",
    ]
    command += ["--cache", tmp_path / "cache", "--pretraining-epochs", "3", "--epochs", "3000", "--json"]
    words = [str(word) for word in command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("comodulation: epoch 5/"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: interrupted; what is finished is kept")
    assert "Traceback" not in err
