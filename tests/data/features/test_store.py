"""Several processes on one cache: the same bytes as from one, whoever dies; and a cache where nothing can be written."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from comodulation.data.features import extraction as features
from comodulation.data.features.extraction import extract
from comodulation.data.features.store import FeatureStore
from comodulation.data.opening import open_split
from comodulation.errors import InputError, RunError
from support import extraction_worker
from support.synthetic import snapshot, write

ROWS, BLOCK = 160, extraction_worker.BLOCK
WAIT = 400  # seconds, for a machine that does much else
FILES = ("data.bin", "journal.jsonl", "identity.json")


@pytest.fixture(autouse=True)
def _ten_blocks(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", BLOCK)
    monkeypatch.setattr(features, "BATCH", extraction_worker.BATCH)


@pytest.fixture(scope="module")
def backbone():
    return extraction_worker.backbone()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def split(data):
    return open_split(str(data), "train")


@pytest.fixture
def alone(backbone, split, tmp_path):
    """The cache of one process."""
    extract(backbone, split, tmp_path / "alone")
    return tmp_path / "alone"


def the_file(cache, name):
    (path,) = cache.glob(f"features/*/{name}")
    return path


def equal(cache, alone):
    """Whether a cache's files are those of one process to the byte, and no others are left."""
    names = {path.name for path in cache.glob("features/*/*")}
    return names == {*FILES, "lock"} and all(
        the_file(cache, name).read_bytes() == the_file(alone, name).read_bytes() for name in FILES
    )


def journalled(cache):
    return sum(path.read_bytes().count(b"\n") for path in cache.glob("features/*/journal*.jsonl"))


def until(condition, what, seconds=WAIT):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


@pytest.fixture
def start(data, tmp_path):
    """Start a process on the cache `together`; all of them are gone at the end."""
    processes = []

    def start(rank, world, *stop):
        command = [sys.executable, extraction_worker.__file__, data, tmp_path / "together", rank, world, *stop]
        processes.append(
            subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def finished(process):
    """Rows that a process extracted."""
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    return int(out.split()[-1])


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed(start, backbone, split, alone, tmp_path):
    """The others wait for the block that the first one holds, and take it over as soon as that one is killed."""
    together, found = tmp_path / "together", []
    victim = start(0, 3, BLOCK)
    assert [victim.stdout.readline() for _ in range(2)] == ["started\n", "stopped\n"]
    other = start(1, 3)  # only now: it could have done all blocks before the first one held any
    here = threading.Thread(target=lambda: found.append(extract(backbone, split, together, rank=2, world=3)))
    here.start()
    until(lambda: journalled(together) == 9, "all blocks but the one that is held")
    time.sleep(0.5)
    assert here.is_alive()
    assert other.poll() is None
    victim.kill()
    here.join(WAIT)
    assert found[0].extracted_rows + finished(other) == ROWS - BLOCK
    assert np.array_equal(found[0].array, extract(backbone, split, alone).array)
    assert equal(together, alone)


def test_two_processes_of_equal_rank(start, backbone, split, alone, tmp_path):
    """Neither knows of the other, and this one comes late: each row is extracted once."""
    together = tmp_path / "together"
    first = start(0, 1)
    until(lambda: journalled(together) or first.poll() is not None, "the first block")
    here = extract(backbone, split, together)
    assert here.extracted_rows + finished(first) == ROWS
    assert equal(together, alone)


def test_two_threads_of_one_process(backbone, split, alone, tmp_path):
    """Locks of the system do not tell threads apart; the second waits and finds everything there."""
    found = []

    def work():
        found.append(extract(backbone, split, tmp_path / "threads").extracted_rows)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == ROWS
    assert equal(tmp_path / "threads", alone)


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2), (9, 10), (99, 100)])
def test_any_rank_alone_extracts_everything(rank, world, backbone, split, alone, tmp_path):
    """Where it begins is all that a rank decides."""
    seen = []
    result = extract(
        backbone, split, tmp_path / "c", rank=rank, world=world, report=lambda done, total: seen.append(done)
    )
    assert result.extracted_rows == ROWS
    assert seen == list(range(BLOCK, ROWS + 1, BLOCK))
    assert equal(tmp_path / "c", alone)


@pytest.mark.parametrize(("rank", "world"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world(rank, world, backbone, split, tmp_path):
    with pytest.raises(InputError, match=f"rank {rank} is not one of {world} processes"):
        extract(backbone, split, tmp_path / "c", rank=rank, world=world)
    assert not (tmp_path / "c").exists()


def test_a_process_killed_before_the_journals_are_merged(backbone, split, alone, tmp_path):
    """Complete, in journals of processes that are gone: nothing is extracted, and the journals become one."""
    cache = tmp_path / "c"
    extract(backbone, split, cache)
    lines = the_file(cache, "journal.jsonl").read_text().splitlines(keepends=True)
    folder = the_file(cache, "journal.jsonl").parent
    (folder / "journal.jsonl").unlink()
    (folder / "journal-a.jsonl").write_text("".join(lines[::-2]))
    (folder / "journal-b.jsonl").write_text("".join(lines[-2::-2]) + lines[3] + '{"rows": [16, 3')
    assert extract(backbone, split, cache).extracted_rows == 0
    assert equal(cache, alone)


def test_a_cache_that_loses_its_data_while_it_is_filled(backbone, split, tmp_path):
    """Blocks that were written and then went are noticed before anything is handed out."""

    def report(done, total):
        if done == 3 * BLOCK:
            the_file(tmp_path, "data.bin").write_bytes(b"")

    with pytest.raises(RunError, match="was damaged while it was filled"):
        extract(backbone, split, tmp_path, report=report)
    assert extract(backbone, split, tmp_path).extracted_rows == 3 * BLOCK


def test_waiting_while_holding_is_refused(tmp_path):
    """Two processes that each waited for the other's block would wait for ever."""
    with FeatureStore(tmp_path / "c", {"shape": [10, 1, 1, 2]}, 3) as store:
        assert store.claim(2) == 2
        assert store.claim(2) == 3
        with pytest.raises(RuntimeError, match="while holding"):
            store.wait()


# ---- a disk that cannot be written ----

_read_only: list[Path] = []


def _refuse_writing(event, arguments):
    """As a read-only file system answers, below the folders in `_read_only`."""
    changes = ("os.mkdir", "os.remove", "os.rename", "os.truncate", "os.utime", "os.chmod")
    if not _read_only or event not in ("open", *changes) or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if any(Path(os.fsdecode(arguments[0])).is_relative_to(folder) for folder in _read_only):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture(scope="module")
def auditing():
    sys.addaudithook(_refuse_writing)  # stays to the end of the process, and does nothing without a folder


@pytest.fixture
def make_read_only(auditing):
    yield _read_only.append
    _read_only.clear()


def test_a_complete_cache_on_a_read_only_disk(backbone, split, alone, make_read_only):
    before = snapshot(alone)
    make_read_only(alone)
    again = extract(backbone, split, alone)
    assert again.extracted_rows == 0
    assert again.array.tobytes() == before[str(the_file(alone, "data.bin"))]
    assert snapshot(alone) == before


def test_a_cache_on_a_read_only_disk_whose_journals_are_not_merged(backbone, split, alone, make_read_only):
    """Merging them would be tidy, not necessary."""
    journal = the_file(alone, "journal.jsonl")
    journal.rename(journal.with_name("journal-a.jsonl"))
    make_read_only(alone)
    assert extract(backbone, split, alone).extracted_rows == 0


def test_an_incomplete_cache_on_a_read_only_disk(backbone, split, alone, make_read_only):
    os.truncate(the_file(alone, "data.bin"), 100)
    make_read_only(alone)
    with pytest.raises(RunError, match=r"cannot write the feature cache .*: Read-only file system"):
        extract(backbone, split, alone)
