"""What used to end in a traceback, or to reach the terminal as it is, is one line that says what to do."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from support.command import comodulate, fit
from support.synthetic import encode, picture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "~nobody-of-that-name/x"], "'~nobody-of-that-name/x': no home folder of that user is known"),
        (["--labels", "~nobody-of-that-name/x.csv"], "no home folder of that user is known; give the path in full"),
        (["--channels", "65536"], r"the head .* has [0-9,]+ parameters and takes [0-9.]+ GiB of memory, but only"),
        (
            ["--learning-rate", "1e300"],
            r"learning_rate 1e\+300 is out of range, expected a positive number up to 1e\+06",
        ),
        (["--pretraining-learning-rate", "1e38"], "pretraining: learning_rate .* is out of range"),
    ],
)
def test_options_that_are_refused(options, message, data, refused):
    labels = [] if "--labels" in options else None
    refused(lambda out, cache: fit(data, out, cache, *options, labels=labels), message)


def test_a_user_without_a_home(data, tmp_path, monkeypatch):
    """As in a container: no HOME, and a number that the system has no name for."""
    import pwd

    for name in ("HOME", "XDG_CACHE_HOME", "COMODULATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    outcome = comodulate("fit", "--data", data, "--out", tmp_path / "run")
    assert outcome.line == (
        "error: this user has no home folder for the cache; name a folder with --cache or $COMODULATION_CACHE"
    )
    assert outcome.status == 2


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..b", "no.such.host.invalid"])
def test_hosts_that_do_not_resolve(host, run):
    outcome = comodulate("serve", run, "--host", host, "--allow-remote", "--port", 0)
    assert outcome.status == 2
    assert outcome.line.startswith(f"error: cannot serve on {host}, port 0: ")
    assert outcome.line.endswith("; choose another --port or --host")


@pytest.mark.parametrize("raised", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), "torch"])
def test_out_of_memory(raised, monkeypatch, run, tmp_path):
    """Python's own error, that of a GPU, and torch's on the CPU, which is really asked for too much."""

    def much(*arguments):
        if raised == "torch":
            torch.empty(2**60, dtype=torch.uint8)
        raise raised

    (tmp_path / "x.png").write_bytes(encode(picture("red", 1)))
    monkeypatch.setattr("comodulation.runs.run.in_batches", much)
    outcome = comodulate("predict", run, tmp_path / "x.png")
    assert outcome.status == 1
    assert outcome.line.startswith("error: out of memory; what is finished is kept")


def test_names_that_the_terminal_has_no_signs_for(tmp_path):
    """Class names and files in an encoding of 128 signs: shown as Python writes them."""
    code = "from comodulation.app.cli.exits import run\nrun(lambda **_: print('größe \\u6570') or 0)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("gr\\xf6\\xdfe \\u6570\n", "")


def test_metrics_that_are_empty(data, run, tmp_path, cache):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "metrics.json").write_text("{}")
    outcome = fit(data, folder, cache, "--resume")
    assert (outcome.status, outcome.line) == (
        2, f"error: {folder / 'metrics.json'} is damaged: method: Field required (found: {{}})"
    )  # fmt: skip


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.5])
def test_ctrl_c_in_the_first_moments(after):
    """While the command's own modules are imported, or later those that it needs."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from comodulation.app.cli.entry import main\n"
        "class Here:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'comodulation.app.cli.commands': print('here', flush=True)\n"
        "sys.meta_path.insert(0, Here)\n"
        "main()"
    )
    words = [sys.executable, "-c", code, "fit", "--data", "nowhere", "--out", "nothing"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "interrupted" in err
