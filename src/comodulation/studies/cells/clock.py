"""The time that is left, and whether it is enough for another unit of work."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .rows import Cell


def kind_of(cell: Cell) -> str:
    """Cells of a kind take about the same time."""
    return cell.row.without("draw", "link", "beta").label


class Budget:
    """Whether there is time for another unit of a kind: never begin what would end after the deadline.

    Args:
        deadline: seconds since the epoch, None for no end.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.longest: dict[str, float] = {}  # seconds of the longest unit of each kind so far

    @property
    def over(self) -> bool:
        return self.deadline is not None and time.time() > self.deadline

    def allows(self, kind: str) -> bool:
        """A kind that has not been seen takes as long as the longest that has; the first unit of all only needs time left."""
        if self.deadline is None:
            return True
        expected = self.longest.get(kind, max(self.longest.values(), default=0.0))
        return time.time() + expected < self.deadline

    def spent(self, kind: str, seconds: float) -> None:
        self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))


class Clock:
    """Time left, from the cost of what is finished: the mean seconds of finished units, by kind.

    Args:
        kinds: of the units that are left, one each.
        workers: that work at the same time.
    """

    def __init__(self, kinds: Iterable[str], workers: int) -> None:
        self.left: dict[str, int] = {}
        for kind in kinds:
            self.left[kind] = self.left.get(kind, 0) + 1
        self.workers = workers
        self.spent: dict[str, list[float]] = {kind: [] for kind in self.left}

    def finish(self, kind: str, seconds: float) -> None:
        self.left[kind] -= 1
        self.spent[kind].append(seconds)

    def remaining(self) -> float | None:
        """Seconds left; None before anything is known."""
        known = [value for values in self.spent.values() for value in values]
        if not known:
            return None
        mean = sum(known) / len(known)
        each = {kind: sum(values) / len(values) if values else mean for kind, values in self.spent.items()}
        return sum(max(0, count) * each[kind] for kind, count in self.left.items()) / self.workers

    def words(self, budget: Budget) -> str:
        """Time left, as the end of a line; at most until the budget's deadline."""
        remaining = self.remaining()
        if budget.deadline is not None:
            until = max(0.0, budget.deadline - time.time())
            remaining = until if remaining is None else min(remaining, until)
        if remaining is None:
            return ""
        return f"; {remaining:.0f} s left" if remaining < 120 else f"; {remaining / 60:.0f} min left"
