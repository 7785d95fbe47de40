"""How a command ends. Exit status: 0 done, 1 failed or interrupted, 2 bad input; an expected error is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer


def run(command: Callable[..., Any]) -> int:
    """Run the command line and return its exit status."""
    from ..errors import InputError, RunError

    try:
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
        say(f"error: {error.filename or ''}: {error.strerror or error}".replace(": :", ":"))
        return 1
    except Exception as error:
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


def say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)
