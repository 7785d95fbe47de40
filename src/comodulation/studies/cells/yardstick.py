"""How far the rows of an open question are from logistic regression on the same features and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...evaluation import PairedDifference, as_family, paired_difference
from ...report import Cell as Shown
from ...report import Table
from .results import Result
from .verdicts import family_words, shown_difference

COMPARED = ("accuracy", "nll")


class Pair(NamedTuple):
    """A row's cell, and the linear readout that learned from the same images."""

    own: Result
    linear: Result


@dataclass(frozen=True)
class Distance:
    """A row, over its seeds and draws, beside its linear readout.

    Attributes:
        name: of the row, whatever the draw. pairs: its cells, each with its readout.
        judged: row minus readout in accuracy, a value a seed, judged with all others; None with fewer than two seeds.
    """

    name: str
    pairs: tuple[Pair, ...]
    judged: PairedDifference | None = None

    def mean(self, side: str, metric: str, seed: int | None = None) -> float:
        """Mean over draws, of one seed or of all."""
        own = [pair for pair in self.pairs if seed in (None, pair.own.cell.seed)]
        return float(np.mean([getattr(pair, side).numbers[metric] for pair in own]))

    @property
    def seeds(self) -> list[int]:
        return sorted({pair.own.cell.seed for pair in self.pairs})

    def by_seed(self, metric: str) -> tuple[list[float], list[float]]:
        """Means over a seed's draws: of the row, and of its readouts."""
        own, linear = ([self.mean(side, metric, seed) for seed in self.seeds] for side in Pair._fields)
        return own, linear

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"row": self.name, "seeds": self.seeds}
        for metric in COMPARED:
            found |= {metric: self.mean("own", metric), f"linear_{metric}": self.mean("linear", metric)}
        if self.judged is not None:
            found["accuracy_minus_linear"] = {"low": self.judged.low, "high": self.judged.high}
        return found


def yardstick_distances(results: Sequence[Result], linear: Sequence[Result]) -> list[Distance]:
    """Every row beside its readouts, in the order of the results; rows whose readouts are not there are left out.

    Args:
        results: of rows. linear: of readouts.
    """
    known = {result.cell: result for result in linear}
    rows: dict[str, list[Pair]] = {}
    for result in results:
        cell = result.cell
        if found := known.get(type(cell)(cell.variant, cell.readout, cell.row.yardstick, cell.seed)):
            rows.setdefault(cell.row.without("draw").label, []).append(Pair(result, found))
    distances = [Distance(name, tuple(pairs)) for name, pairs in rows.items()]
    alone = [paired_difference(*d.by_seed("accuracy")) if len(d.seeds) > 1 else None for d in distances]
    return [Distance(d.name, d.pairs, own) for d, own in zip(distances, as_family(alone), strict=True)]


def yardstick_table(distances: Sequence[Distance]) -> Table:
    rows = []
    for distance in distances:
        numbers: list[object] = [distance.name, len(distance.seeds)]
        for metric, scale in zip(COMPARED, (100, 1), strict=True):
            numbers += [scale * distance.mean(side, metric) for side in Pair._fields]
        rows.append([*numbers, _interval(distance)])
    columns = ("row", "seeds", "accuracy, %", "linear, %", "NLL", "linear, NLL", "accuracy − linear")
    caption = (
        "**Beside logistic regression** on the same frozen features, fitted to the images that a row learns from and, where these "
        "are all that there are, to those that it is validated on; it answers among the task's own classes. Means over seeds and "
        f"draws; {family_words(d.judged for d in distances)}."
    )
    return Table(columns, rows, caption, {**dict.fromkeys(columns[2:4], ".2f"), **dict.fromkeys(columns[4:6], ".3f")})


def yardstick_text(distances: Sequence[Distance]) -> list[str]:
    lines = [f"{'minus logistic regression':44s} accuracy    linear      NLL   linear   accuracy − linear"]
    for one in distances:
        accuracy, theirs = (100 * one.mean(side, "accuracy") for side in Pair._fields)
        nll, others = (one.mean(side, "nll") for side in Pair._fields)
        shown = f"  {one.name:42s} {accuracy:7.2f}%  {theirs:7.2f}%  {nll:7.3f}  {others:7.3f}   {_interval(one).text}"
        lines.append(shown.rstrip())
    return lines


def _interval(distance: Distance) -> Shown:
    d = distance.judged
    return Shown("", None) if d is None else Shown(shown_difference(d), d.mean)
