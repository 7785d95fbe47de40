"""Jobs in real processes: order, events, errors, and processes that are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comodulation.errors import InputError, RunError
from comodulation.studies.cells.pool import Clock, run_jobs
from support.command import Process
from support.pool_worker import worker


def jobs(*values):
    return [(f"job {value}", value) for value in values]


def test_in_this_process():
    """One device, or one job: no process is started; jobs in order."""
    for values, devices in (((3, 1, 2), 1), ((7,), 4)):
        events = []
        run_jobs(jobs(*values), worker, ("a",), devices, events.append)
        assert events == [("a", value, os.getpid()) for value in values for _ in range(2)]
    run_jobs([], worker, ("a",), 4, events.append)


def test_in_this_process_errors_pass():
    for value, kind in (("input", InputError), ("run", RunError), ("bug", KeyError)):
        with pytest.raises(kind):
            run_jobs(jobs(1, value), worker, ("a",), 1, lambda event: None)


def test_two_processes():
    """Every job once, with all its events; a process takes its jobs in their order. An error at the end is raised here."""
    events = []
    with pytest.raises(InputError, match=r"^a column is missing$"):
        run_jobs(jobs(*range(12), "wait", "wait", "input"), worker, ("a",), 2, events.append)
    assert multiprocessing.active_children() == []
    assert sorted(job for _, job, _ in events) == sorted([*range(12), *range(12)])
    by_process = {}
    for prefix, job, process in events:
        assert prefix == "a"
        assert process != os.getpid()
        by_process.setdefault(process, []).append(job)
    assert 1 <= len(by_process) <= 2
    assert all(taken == sorted(taken) for taken in by_process.values())


@pytest.mark.parametrize(
    ("job", "kind", "message"),
    [
        pytest.param("run", RunError, "^the disk is full$", marks=pytest.mark.slow),
        pytest.param(
            "bug", RunError, r"a worker failed: (.|\n)*in work(.|\n)*KeyError: 'no such place'", marks=pytest.mark.slow
        ),
        (
            "kill",
            RunError,
            "a worker process ended with status -9 .killed, or out of memory.; the same command goes on",
        ),
        pytest.param("leave", RunError, "a worker process ended", marks=pytest.mark.slow),
    ],
)
def test_errors_of_a_worker(job, kind, message):
    """The parent raises the same, and no process stays behind."""
    with pytest.raises(kind, match=message):
        run_jobs(jobs(job, 1, job), worker, ("a",), 2, lambda event: None)
    assert multiprocessing.active_children() == []


def test_processes_leave_nothing_to_the_system():
    """A lock that a worker's libraries hold is given back when its work is done, and nobody is warned of one that was not."""
    script = (
        "from comodulation.studies.cells.pool import run_jobs; from support.pool_worker import worker; "
        "run_jobs([(job, job) for job in ('lock', 'lock', 'lock')], worker, ('a',), 2, lambda event: print(event[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["lock"] * 6, "")


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    """A parent that is killed leaves no one who would go on writing into the folder."""
    places = [tmp_path / "a", tmp_path / "b"]

    def call():
        run_jobs(jobs(*places), worker, ("a",), 2, lambda event: None)
        return 0

    process = Process(tmp_path / "process", call)
    numbers = [int(_appears(place)) for place in places]
    os.kill(process.number, signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    ends = time.monotonic() + 20
    while any(_alive(number) for number in numbers) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(_alive(number) for number in numbers)


def _appears(path, seconds=60):
    ends = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < ends, f"{path} does not appear"
        time.sleep(0.05)
    return path.read_text()


def _alive(number):
    """Whether a process is there and not just waiting for someone to ask how it ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_time_left():
    """Mean seconds of each kind, by the number that is left; unknown kinds cost the mean of all; devices share."""
    clock = Clock({"a": 3, "b": 2}, devices=2)
    assert clock.remaining() is None
    clock.finish("a", 10.0)
    assert clock.remaining() == (2 * 10 + 2 * 10) / 2
    clock.finish("b", 40.0)
    assert clock.remaining() == (2 * 10 + 1 * 40) / 2
    for kind, seconds in (("a", 20.0), ("a", 30.0), ("b", 40.0)):
        clock.finish(kind, seconds)
    assert clock.remaining() == 0
