"""What another process has held of memory."""

from pathlib import Path

import pytest


def peak_memory(pid: int) -> float:
    """The most that a process has had in memory so far, in MiB; the test is skipped where no system call tells it.

    macOS tells it of children alone, and after their end (getrusage); the server must be asked while it runs. CI runs on Linux,
    where nothing is skipped.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        # Reason: VmHWM in /proc is Linux's alone; there is nothing to measure with elsewhere.
        pytest.skip("only Linux, where CI runs, tells the peak memory of another process (/proc)")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024
