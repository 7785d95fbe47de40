"""How a command ends. Exit status: 0 done, 1 failed or interrupted, 2 bad input; an expected error is one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import typer


def run(command: Callable[..., Any]) -> int:
    """Run the command line and return its exit status."""
    from ...errors import InputError, RunError, one_line
    from ...processes import safe_children

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have signs that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        with safe_children():
            status = int(command(standalone_mode=False) or 0)
        if status == 130:  # what newer versions of Typer make of Ctrl-C
            raise KeyboardInterrupt
        return status
    except InputError as error:
        say(f"error: {error}")
        return 2
    except RunError as error:
        say(f"error: {error}")
        return 1
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f"{one_line(error.filename)}: " if error.filename else ""
        say(f"error: {where}{one_line(error.strerror or error)}")
        return 1
    except Exception as error:
        if _out_of_memory(error):
            say(
                "error: out of memory; what is finished is kept. Smaller networks, images or batches, or fewer processes, take less"
            )
            return 1
        # Typer's usage errors; where their class lives depends on its version, what they can do does not.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if parsing := getattr(
            error.__cause__, "errors", None
        ):  # newer versions parse with pydantic, and leave out the value
            message += f" (given: {parsing()[0]['input']!r})"
        say(f"error: {message}") if not message.startswith("Usage:") else print(message)
        return 2


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, torch or NumPy could not have the memory that they asked for."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's on the CPU


def say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)
