"""How a command ends. Exit status: 0 done, 1 failed or interrupted, 2 bad input; an expected error is one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import typer

from ...errors import InputError, RunError, one_line
from ...processes import safe_children


def run(command: Callable[..., Any]) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have signs that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        with safe_children():
            status = int(command(standalone_mode=False) or 0)
        if status == 130:  # what newer versions of Typer make of Ctrl-C
            raise KeyboardInterrupt
        return status
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):
            _say_usage(error)
            return 2
        if (reason := _expected(error)) is None:
            raise
        say(f"error: {reason}")
        return 2 if isinstance(error, InputError) else 1


def _expected(error: Exception) -> str | None:
    """What a user is told of an error that the library raises or the machine causes; None of any other, which is a defect."""
    if isinstance(error, (InputError, RunError)):
        return str(error)
    if isinstance(error, OSError):
        where = f"{one_line(error.filename)}: " if error.filename else ""
        return f"{where}{one_line(error.strerror or error)}"
    if _out_of_memory(error):
        return "out of memory; what is finished is kept. Smaller networks, images or batches, or fewer processes, take less"
    return None


def _say_usage(error: Any) -> None:
    """Say a usage error of Typer's. Where their class lives depends on its version, what they can do does not."""
    message = error.format_message()
    if message.startswith("Usage:"):
        print(message)
        return
    # Newer versions parse with pydantic, and leave out the value.
    if parsing := getattr(error.__cause__, "errors", None):
        message += f" (given: {parsing()[0]['input']!r})"
    say(f"error: {message}")


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, torch or NumPy could not have the memory that they asked for."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's on the CPU


def say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)
