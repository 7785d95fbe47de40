"""The seeds on which an unfinished study is judged: conditions are compared on the same seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol, Self, TypeVar


def common_seeds(conditions: Sequence[Collection[int]]) -> tuple[int, ...]:
    """The seeds to compare conditions on, in order: what is lost in conditions must be won in seeds.

    Of the seeds that the most conditions have, as many as make the number of conditions that have all of them, times the number of
    seeds beyond the first, the largest; of equal choices the one with more seeds.

    Args:
        conditions: the seeds of each.

    Returns:
        At least two seeds; () where no condition has two.

    >>> common_seeds([{0, 1, 2}, {0, 1}, {0, 1}, {0, 1}]), common_seeds([{0, 1, 2}, {0, 1, 2}, {0, 1}]), common_seeds([{0}])
    ((0, 1), (0, 1, 2), ())
    """
    counts = Counter(seed for seeds in conditions for seed in set(seeds))
    ranked = sorted(counts, key=lambda seed: (-counts[seed], seed))
    best: tuple[int, ...] = ()
    most = 0
    for number in range(2, len(ranked) + 1):
        chosen = set(ranked[:number])
        worth = sum(chosen <= set(seeds) for seeds in conditions) * (number - 1)
        if worth and worth >= most:
            best, most = tuple(sorted(chosen)), worth
    return best


class OverSeeds(Protocol):
    """A condition with a value of each of its seeds."""

    @property
    def seeds(self) -> tuple[int, ...]: ...

    def over(self, seeds: Sequence[int]) -> Self:
        """The same over some of its seeds."""


C = TypeVar("C", bound=OverSeeds)


def on_common_seeds(conditions: Sequence[C]) -> list[C]:
    """What can be compared over seeds: the conditions that have all of ``common_seeds``, over these."""
    seeds = common_seeds([condition.seeds for condition in conditions])
    return [condition.over(seeds) for condition in conditions if seeds and set(seeds) <= set(condition.seeds)]
