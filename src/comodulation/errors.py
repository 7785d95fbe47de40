"""Errors a user can act on: what was given, what was expected, and the nearest known name."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

LONGEST = 1600  # characters of a message


class InputError(ValueError):
    """What was asked for cannot be done as asked. The command line prints the message alone and exits with status 2."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class BadInputError(InputError):
    """One input of many (a picture, a text, a vector) that cannot be used; the message names it. The others may be."""


class RunError(RuntimeError):
    """Something failed while running (a full disk, an interrupted job). The command line exits with status 1."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class DivergedError(RunError):
    """A training whose loss or predictions are no longer numbers: its settings failed, not the machine."""


@contextlib.contextmanager
def refusing(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Within it, an error of some kinds becomes an InputError, "WHAT: REASON"; one that is an InputError stays as it is."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(f"{what}: {reason_of(error, what)}") from error


def reason_of(error: BaseException, what: str = "") -> str:
    """What an error says first, or its kind. Of an error of the system only its words, where ``what`` names the file already.

    >>> absent = FileNotFoundError(2, "No such file", "a.csv")
    >>> reason_of(absent, "cannot read a.csv"), reason_of(absent), reason_of(ValueError("too large\\nby far"))
    ('No such file', "[Errno 2] No such file: 'a.csv'", 'too large')
    """
    said = str(error).strip()
    if isinstance(error, OSError) and error.strerror and (error.filename is None or str(error.filename) in what):
        said = error.strerror
    return said.splitlines()[0] if said else type(error).__name__


def one_line(text: object) -> str:
    """A text as a line that a terminal can show: names from files may be long, or hold what moves the cursor.

    >>> one_line("no such file:\\n\\x1b[2Ja.png")
    'no such file: \\\\x1b[2Ja.png'
    """
    whole = str(text)
    if len(whole) > LONGEST:
        whole = f"{whole[: LONGEST - 400]} ... {whole[-300:]}"
    return printable(whole)


def printable(text: str) -> str:
    """A name from someone's data as a terminal can show it: on one line, what moves the cursor as Python writes it.

    >>> printable("red\\x1b]0;x\\x07\\nblue")
    'red\\\\x1b]0;x\\\\x07 blue'
    """
    if text.isprintable():
        return text
    return "".join(" " if sign.isspace() else sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def brief(value: object) -> str:
    """A value as an error message shows it: its repr, cut where it is long.

    >>> brief("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        text = repr(value[:64] if isinstance(value, (str, bytes, list, tuple)) and len(value) > 64 else value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 62 else f"{text[:59]}..."


def first_difference(a: object, b: object, where: str = "") -> tuple[str, object, object] | None:
    """Where two nested dictionaries first differ, and the two values there; None if they are equal.

    >>> first_difference({"seed": 0, "head": {"hidden": 8}}, {"seed": 0, "head": {"hidden": 9}})
    ('head.hidden', 8, 9)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*b, *a]):
            if found := first_difference(a.get(key), b.get(key), f"{where}.{key}" if where else str(key)):
                return found
        return None
    return None if a == b else (where, a, b)


def choose(value: str, known: Iterable[str], what: str) -> str:
    """Return ``value`` if it is one of ``known``.

    Raises:
        InputError: names the value, the nearest known name and all known names.

    >>> choose("derivativ", ["quadrature", "derivative"], "estimator")
    Traceback (most recent call last):
    ...
    comodulation.errors.InputError: unknown estimator 'derivativ'; did you mean 'derivative'? known: quadrature, derivative
    """
    names = [str(name) for name in known]
    if value in names:
        return value
    near = difflib.get_close_matches(str(value)[:200], names, n=1, cutoff=0.5)  # longer ones are near to nothing
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    raise InputError(f"unknown {what} {brief(value)}{hint} known: {shown}")
