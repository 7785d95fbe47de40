"""Damage for every reader: valid files changed a little or a lot, values of the wrong kind, and what a reader may do about it.

A reader may return something or raise InputError or RunError with one readable line. Anything else is a defect: another
exception, a call that does not end (``SECONDS``), or memory beyond ``MEMORY``.
"""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comodulation.errors import InputError, RunError

SECONDS, MEMORY = 20, 2**19  # a case; KiB of resident memory over a whole hunt
LINE = 2000  # characters of a message

# Each test tries a few cases, always the same ones; thousands of others behind the marker `slow`.
few_or_many = pytest.mark.parametrize("cases", [20, pytest.param(2000, marks=pytest.mark.slow)])
few_or_hundreds = pytest.mark.parametrize(
    "cases", [4, pytest.param(300, marks=pytest.mark.slow)]
)  # cases that cost more

ABSURD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf,
    -math.inf, "", " ", "0", "nan", "-1", "x" * 5000, "\0", "\n", "\ud800", "\x1b[31m", "../../x", "/dev/zero", "/",
    "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{ARABIC-INDIC DIGIT THREE}", "1" * 5000, "1:" * 3000 + "1", "*a", "!!python/name:os.system",
    [], {}, [[]], [None], ["a", "a"], {"": 0}, {"a": {"a": 0}},
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b",", b"\t", b'"', b"'", b"NaN", b"1e999", b"-1", b"-",
    b"9" * 5000, b"[" * 3000, b"{" * 50, b"a" * 200_000, b"../../../etc/passwd", b"&a [*a]", b"!!python/object/apply:os.system",
    b": ", b"\xed\xa0\x80", b"\x1b]0;x\x07", b"<<: ", b"null", b"1:" * 2000,
)  # fmt: skip


class TooLong(BaseException):
    """A case did not end; no `except Exception` swallows this."""


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """End what takes more of the processor's time, or waits for long; a busy machine is no hang."""

    def ring(number: int, frame: Any) -> None:
        raise TooLong(f"not done after {seconds} s")

    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds)}
    before = {number: signal.signal(number, ring) for number in clocks}
    for clock, limit in clocks.values():
        signal.setitimer(clock, limit)
    try:
        yield
    finally:
        for clock, _ in clocks.values():
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def hunt(cases: int, check: Callable[..., None], *given_to: st.SearchStrategy) -> None:
    """Run a check on many examples, each within time, all of them within memory."""

    def case(values: tuple[Any, ...]) -> None:
        with bounded():
            check(*values)

    before = peak_memory(afresh=True)
    tried = settings(
        max_examples=cases, derandomize=cases < 100, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    tried(given(st.tuples(*given_to))(case))()
    assert peak_memory() - before < MEMORY


def peak_memory(*, afresh: bool = False) -> int:
    """The most memory that this process has held, in KiB; ``afresh``: from now on (Linux; elsewhere since its beginning)."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def refused_or(read: Callable[[], Any]) -> Any:
    """What a reader returns, or the one line of its refusal as an exception that is returned."""
    try:
        return read()
    except (InputError, RunError) as error:
        line = str(error)
        assert line
        assert "\n" not in line, line
        assert len(line) < LINE, line[:LINE]
        assert "Traceback" not in line
        return error


def is_refusal(found: Any) -> bool:
    return isinstance(found, (InputError, RunError))


# ---- bytes ----


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with up to four changes: flipped bits, cuts, insertions, parts left out, doubled or swapped; or other bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.integers(1, 64)))
        match draw(st.sampled_from(("flip", "flip", "byte", "cut", "insert", "leave out", "double", "swap"))):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "byte" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place:]
            case "insert":
                data[place:place] = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
            case "leave out":
                del data[place:end]
            case "double":
                data[place:place] = data[place:end]
            case "swap":
                other = draw(st.integers(0, len(data)))
                part = bytes(data[place:end])
                data[place:end] = data[other : other + len(part)]
                data[other : other + len(part)] = part
    return bytes(data)


# ---- values ----


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside nested dictionaries and lists, the outermost first."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:20]):
            yield from places(inner, (*path, number))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Nested dictionaries and lists with one to three things replaced, left out, renamed, doubled or put elsewhere."""
    found = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(found))
        path = draw(st.sampled_from(paths))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return copy.deepcopy(draw(st.sampled_from(ABSURD)))
            continue
        holder = found
        for key in path[:-1]:
            holder = holder[key]
        key = path[-1]
        match draw(
            st.sampled_from(("replace", "replace", "replace", "leave out", "rename", "elsewhere", "deep", "wrap"))
        ):
            case "replace":
                holder[key] = copy.deepcopy(
                    draw(st.sampled_from(ABSURD))
                )  # or the next change would be in ABSURD itself
            case "leave out":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(("", "x", f"{key}s", "\0", "__class__", "__metadata__")))] = holder.pop(key)
            case "elsewhere":
                holder[key] = json.loads(json.dumps(_at(found, draw(st.sampled_from(paths)))))
            case "deep":
                deep: Any = 0
                for _ in range(draw(st.sampled_from((5, 31, 40, 400)))):
                    deep = [deep]
                holder[key] = deep
            case "wrap":
                holder[key] = [holder[key]]
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    """What is at a path, or the whole where an earlier change took it away."""
    found = value
    for key in path:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            return None
    return found
