"""What a page says of its own making: the commit it was made from, and numbers that are finite."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any


def source_commit() -> str:
    """The source's commit where it runs from a checkout, else the version."""
    from importlib.metadata import version

    try:
        place = Path(__file__).parent
        found = subprocess.run(
            # git is where the user's PATH says, as in a shell.
            ["git", "-C", place, "rev-parse", "--short", "HEAD"],  # nosec B607
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('comodulation')}"


def finite(value: Any) -> Any:
    """What is not a number becomes null: strict readers of JSON know no nan."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
