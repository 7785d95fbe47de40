"""Large blocks stay with the process while they are wanted, and go back to the system afterwards."""

import subprocess
import sys

import pytest

from comodulation.data.features.allocator import _glibc
from support import allocation

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or _glibc() is None, reason="another C library than glibc"
)


def holds(what):
    done = subprocess.run([sys.executable, allocation.__file__, what], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("held\n", "", 0)


def test_freed_memory_serves_the_next_activations():
    """Above 32 MiB glibc asks the system each time; within the context a network's passes share their memory.

    Not to the last page: a small block that stays behind a large one can make it too short for the next of its size.
    """
    holds("shared")


def test_what_is_free_goes_back_at_the_end():
    """Also where the context ends with an error."""
    holds("returned")
