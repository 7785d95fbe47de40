"""Pieces of work in real processes: order, events, errors, and processes that are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from comodulation.errors import InputError, RunError
from comodulation.processes import Resources, run
from support.forked import Process
from support.piece_worker import worker

MADE = partial(worker, "a")


def heard(pieces, workers):
    """What is heard of some pieces."""
    events = []
    run(pieces, Resources(workers), MADE, events.append)
    return events


def test_in_this_process():
    """One worker, or one piece: no process is started; pieces in order."""
    for pieces, workers in (((3, 1, 2), 1), ((7,), 4)):
        assert heard(pieces, workers) == [("a", piece, os.getpid()) for piece in pieces for _ in range(2)]
    assert heard([], 4) == []


def test_in_this_process_errors_pass():
    for value, kind in (("input", InputError), ("run", RunError), ("bug", KeyError)):
        with pytest.raises(kind):
            heard([1, value], 1)


def test_two_processes():
    """Every piece once, with all its events; a process takes its pieces in their order. An error at the end is raised here."""
    events = []
    with pytest.raises(InputError, match=r"^a column is missing$"):
        run([*range(12), "wait", "wait", "input"], Resources(2), MADE, events.append)
    assert multiprocessing.active_children() == []
    assert sorted(piece for _, piece, _ in events) == sorted([*range(12), *range(12)])
    by_process = {}
    for prefix, piece, process in events:
        assert prefix == "a"
        assert process != os.getpid()
        by_process.setdefault(process, []).append(piece)
    assert 1 <= len(by_process) <= 2
    assert all(taken == sorted(taken) for taken in by_process.values())


@pytest.mark.parametrize(
    ("piece", "kind", "message"),
    [
        pytest.param("run", RunError, "^the disk is full$", marks=pytest.mark.slow),
        pytest.param(
            "bug", RunError, r"a worker failed: (.|\n)*in work(.|\n)*KeyError: 'no such place'", marks=pytest.mark.slow
        ),
        (
            "kill",
            RunError,
            "a worker process ended with status -9 .killed, or out of memory.; the same command continues",
        ),
        pytest.param("leave", RunError, "a worker process ended", marks=pytest.mark.slow),
    ],
)
def test_errors_of_a_worker(piece, kind, message):
    """The parent raises the same, and no process stays behind."""
    with pytest.raises(kind, match=message):
        heard([piece, 1, piece], 2)
    assert multiprocessing.active_children() == []


SCRIPT = (
    "import sys; from functools import partial; from comodulation.processes import Resources, run; "
    "from support.piece_worker import worker\n"
    "try: run({pieces}, Resources(2), partial(worker, 'a'), lambda event: print(event[1]))\n"
    "except BaseException as error: print(type(error).__name__)"
)


def script(pieces):
    """A process of its own that runs pieces in two more, and says how it ended."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(pieces=pieces)], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_an_error_stops_the_others_at_once():
    """Those that are in the middle of a piece, or have another one before them; what they hold is given back in silence."""
    with script(["long", "input", "long", "long", 1]) as process:
        began = time.monotonic()
        out, err = process.communicate(timeout=300)
        assert (out.split(), err) == (["InputError"], "")
        assert time.monotonic() - began < 300


@pytest.mark.slow
def test_ctrl_c_reaches_all_and_the_parent_alone_says_so(tmp_path):
    """A terminal sends it to every process: the workers leave it to the parent, which stops them."""
    place = tmp_path / "there"
    with script(f"[__import__('pathlib').Path({str(place)!r}), 'long', 'long']") as process:
        number = int(_appears(place))
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
        assert (out.split(), err) == (["KeyboardInterrupt"], "")
        assert not _alive(number)


def test_processes_leave_nothing_to_the_system():
    """A lock that a worker's libraries hold is given back when its work is done, and nobody is warned of one that was not."""
    with script(["lock", "lock", "lock"]) as process:
        out, err = process.communicate(timeout=120)
        assert (out.split(), err) == (["lock"] * 6, "")


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    """A parent that is killed leaves no one who would go on writing into the folder."""
    places = [tmp_path / "a", tmp_path / "b"]

    def call():
        heard(places, 2)
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
