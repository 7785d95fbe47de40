"""Processes that were started together connect, check that they got the same settings, and notice when one of them is lost.

They use torch's key-value store, which the first process (or torchrun) holds, in a thread beside the computation: also while they
read data, or wait for one another in a collective call.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..errors import InputError, RunError, brief, first_difference
from ..processes import CALLS, code_in_use
from .launching import Place, launched, leave_lost

JOINING = 180.0  # seconds for all processes to come
SILENCE = 300.0  # seconds after which one of which nothing is heard is given up
FIRST_WORD = 20.0  # seconds of waiting before it is said for whom; then each time the wait has doubled
BEAT = 2.0  # seconds between signs of life
_LEFT = "left"


class Company:
    """The processes that were started together, as seen from one of them.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.others = [rank for rank in range(place.number) if rank != place.rank]
        self.store: Any = None
        now = time.monotonic()
        self.heard: dict[int, tuple[str, float]] = {rank: ("", now) for rank in self.others}
        self.unreachable: float | None = None
        self.ended = threading.Event()

    def meet(self) -> None:
        """Wait until all are there. Raises RunError, which names those who are not, after minutes."""
        began = time.monotonic()
        say = _Sayings(began)
        while self.store is None:
            try:
                self.store = _store(self.place)
            except (OSError, RuntimeError) as error:
                time.sleep(0.2)
                say.waiting(f"waiting for {self._names([0])}, at {_address()}")
                if time.monotonic() - began > JOINING:
                    raise RunError(
                        f"waited {JOINING:.0f} s for {self._names([0])}, which cannot be reached at {_address()}: start it, "
                        "or check that this machine can connect to it"
                    ) from error
        self.store.set(f"beat/{self.place.rank}", "0")
        while missing := [rank for rank in self.others if not self.store.check([f"beat/{rank}"])]:
            say.waiting(f"waiting for {self._names(missing)} to start")
            if time.monotonic() - began > JOINING:
                raise RunError(
                    f"waited {JOINING:.0f} s for {self._names(missing)}, which did not connect: start it, or check that it can "
                    f"connect to {_address()}"
                )
            time.sleep(0.1)
        for act in (self._signal, self._watch):
            threading.Thread(target=act, daemon=True, name=f"company-{act.__name__}").start()

    def same(self, what: str, value: Any) -> None:
        """Compare a value, which can be written as JSON, with that of all others.

        Raises:
            InputError: they differ; it names process, place and both values. It is raised in all of them.
        """
        self.store.set(f"{what}/{self.place.rank}", json.dumps(value))
        values = [json.loads(self._value(f"{what}/{rank}")) for rank in range(self.place.number)]
        # The first process may hold the store: it goes on when all others have read.
        self.store.set(f"{what} read/{self.place.rank}", "1")
        if self.place.rank == 0:
            for rank in self.others:
                self._value(f"{what} read/{rank}")
        for rank, other in enumerate(values):
            if differing := first_difference(values[0], other):
                key, first, here = differing
                raise InputError(
                    f"process {rank + 1} of {self.place.number} was given another {key or what}: {brief(here)}, the first "
                    f"process {brief(first)}; start all of them with the same options, data and release"
                )

    def end(self, *, in_order: bool) -> None:
        """Stop looking after the others; tell them where this process ends with an error."""
        self.ended.set()
        if not in_order and self.store is not None:
            with contextlib.suppress(RuntimeError):
                self.store.set(f"beat/{self.place.rank}", _LEFT)

    def _value(self, key: str) -> str:
        """A value as soon as it is there; that its process ends is seen by ``_watch``."""
        say = _Sayings(time.monotonic())
        while not self.store.check([key]):
            say.waiting(f"waiting for {self._names([int(key.rpartition('/')[2])])}")
            time.sleep(0.05)
        return self.store.get(key).decode()

    def _signal(self) -> None:
        """Give signs of life, and take those of the others."""
        try:
            store = _store(self.place)
            beats = 0
            while not self.ended.wait(BEAT):
                beats += 1
                store.set(f"beat/{self.place.rank}", f"{beats} {CALLS.begun}")
                for rank in self.others:
                    sign = store.get(f"beat/{rank}").decode()
                    if sign != self.heard[rank][0]:
                        self.heard[rank] = (sign, time.monotonic())
        except (OSError, RuntimeError):  # the store is gone, and with it the process that held it
            self.unreachable = time.monotonic()

    def _watch(self) -> None:
        """End this process where another one is gone, or silent for minutes; say for whom it waits."""
        say = None
        while not self.ended.wait(0.5):
            now = time.monotonic()
            gone = [rank for rank, (sign, _) in self.heard.items() if sign == _LEFT]
            # What went wrong is said better by what fails in the main thread, where that notices.
            if self.unreachable is not None and now > self.unreachable + 2 * BEAT:
                gone.append(0)
            if gone and not self.ended.wait(2 * BEAT):
                self._leave(f"{self._names(gone)} has ended", lost=True)
            if silent := [rank for rank, (_, when) in self.heard.items() if now - when > SILENCE]:
                self._leave(f"nothing has been heard of {self._names(silent)} for {SILENCE:.0f} s", lost=False)
            if (since := CALLS.since) is None:
                say = None
                continue
            say = say or _Sayings(since)
            behind = [r for r, (sign, _) in self.heard.items() if int((sign.split() or ["0"])[-1]) < CALLS.begun]
            if behind:
                say.waiting(f"waiting for {self._names(behind)}")

    def _leave(self, reason: str, *, lost: bool) -> None:
        if lost and launched():
            leave_lost()
        print(
            f"error: {reason}; what is finished is kept, the same command with --resume continues",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(1)  # the main thread may be in a call that never returns

    def _names(self, ranks: list[int]) -> str:
        numbers = " and ".join(str(rank + 1) for rank in sorted(set(ranks)))
        return f"process{'es' if len(set(ranks)) > 1 else ''} {numbers} of {self.place.number}"


class _Sayings:
    """What is said while something is waited for: not at once, and ever more rarely."""

    def __init__(self, began: float) -> None:
        self.began, self.next = began, FIRST_WORD

    def waiting(self, text: str) -> None:
        if (waited := time.monotonic() - self.began) >= self.next:
            self.next = 2 * waited
            print(f"{text} ({waited:.0f} s)", file=sys.stderr, flush=True)


@contextlib.contextmanager
def company(settings: Any) -> Iterator[Company | None]:
    """All processes that ``launch`` or torchrun started, once they are there and agree in code and settings; None alone.

    Args:
        settings: of this process; can be written as JSON.

    Raises:
        InputError: another process was given other settings, or is of another version. RunError: one does not come.
    """
    place = Place.of_environment()
    if place.number == 1:
        yield None
        return
    found = Company(place)
    try:
        found.meet()
        found.same("version of the code", {"code": code_in_use()})
        found.same("setting", settings)
        yield found
    except BaseException:
        found.end(in_order=False)
        raise
    found.end(in_order=True)


def _address() -> str:
    return f"{os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}"


def _store(place: Place) -> Any:
    """The store of these processes: torchrun's or the first process's. Raises OSError or RuntimeError where there is none yet."""
    from torch.distributed import PrefixStore, TCPStore

    held_here = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not held_here:
        # torch would write a page of its own about each attempt.
        socket.create_connection((host, port), timeout=5).close()
    store = TCPStore(
        host, port, is_master=held_here, timeout=timedelta(seconds=30), wait_for_workers=False, multi_tenant=True
    )
    return PrefixStore(f"comodulation {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
