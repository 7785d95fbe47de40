"""The lock of a file: one holder, whoever removes the file."""

import os

import pytest

from comodulation.errors import InputError, RunError
from comodulation.files import locked
from support.forked import Process


def test_the_lock(tmp_path):
    lock = tmp_path / "lock"
    in_use = pytest.raises(InputError, match=f"{tmp_path} is in use by another process")
    with locked(lock), in_use, locked(lock, wait=False):
        pytest.fail("locked twice")
    with locked(lock, wait=False):
        assert lock.exists()


def test_a_lock_whose_file_is_removed(tmp_path):
    """Holders may remove the file: one that has opened it by then must not take it for the lock of those that come later."""
    lock, held = tmp_path / "lock", tmp_path / "held"

    def work():
        for _ in range(300):
            with locked(lock):
                os.close(os.open(held, os.O_CREAT | os.O_EXCL))  # fails where another process is here too
                os.unlink(held)
                lock.unlink()
        return 0

    ends = [process.wait() for process in [Process(tmp_path / str(number), work) for number in range(3)]]
    assert [(end.code, end.err) for end in ends] == [(0, "")] * 3


def test_a_lock_whose_folder_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"cannot lock .*No such file"), locked(tmp_path / "gone" / "lock"):
        pytest.fail("locked nothing")
