"""Verdicts of differences between methods, and the words and figures for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...evaluation import WILCOXON_SEEDS, PairedDifference, as_family, paired_difference
from ...report import FAILS, HOLDS, UNKNOWN, ForestRow, Point, Verdict, forest_figure, svg


@dataclass(frozen=True)
class Finding:
    """A claim that certain differences are positive, before it is judged beside the others of its table.

    Attributes:
        claim, statement, note: as in ``Verdict``.
        differences: each alone, not yet of a family; the claim holds where all are above 0, and does not where one is below. The
            first is shown. None was not made, and then nothing can be told.
        positive: False where the claim is that they are negative.
        scale, unit: in which the difference is shown.
    """

    claim: str
    statement: str
    differences: tuple[PairedDifference | None, ...] = ()
    note: str = ""
    positive: bool = True
    scale: float = 100
    unit: str = "points"


def from_zero(series: ArrayLike) -> PairedDifference:
    """The mean over seeds of what is a difference already, ``(S,)``."""
    return paired_difference(series, np.zeros_like(series, float))


def together(series: Iterable[ArrayLike]) -> list[PairedDifference]:
    """Such means, each over its seeds, judged as one family: those that one figure or table shows."""
    return [d for d in as_family([from_zero(own) for own in series]) if d is not None]


def judged(findings: Sequence[Finding]) -> list[Verdict]:
    """Verdicts that stand in one table: all their differences together are a family, whose intervals decide."""
    members = iter(as_family([d for finding in findings for d in finding.differences]))
    return [_verdict(finding, [next(members) for _ in finding.differences]) for finding in findings]


def alone(finding: Finding) -> Verdict:
    """The verdict on a comparison named beforehand, which is read as it stands."""
    return _verdict(finding, finding.differences)


def sign_verdict(difference: PairedDifference | None, positive: bool = True) -> str:
    """Whether a difference has the claimed sign; seeds that all differ by the same amount decide nothing."""
    if difference is None or not difference.decided or not difference.sd:
        return UNKNOWN
    return HOLDS if (difference.low > 0) == positive else FAILS


def _verdict(finding: Finding, differences: Sequence[PairedDifference | None]) -> Verdict:
    """In words, from the intervals that decide."""
    claim, statement, note, scale = finding.claim, finding.statement, finding.note, finding.scale
    if not differences:
        return Verdict(claim, statement, UNKNOWN, note=note)
    d = differences[0]
    if d is None or None in differences:
        return Verdict(claim, statement, UNKNOWN, note=f"Fewer than two seeds have what this needs. {note}".strip())
    words = [sign_verdict(other, finding.positive) for other in differences]
    verdict = FAILS if FAILS in words else UNKNOWN if UNKNOWN in words else HOLDS
    if any(other is not None and other.at_the_edge for other in differences):
        note = f"At the edge: an end of the interval is 0 as far as rounding lets it be told. {note}".strip()
    digits = 3 if scale == 1 else 2
    return Verdict(
        claim,
        statement,
        verdict,
        f"{scale * d.mean:+.{digits}f} {finding.unit}".rstrip(),
        f"{shown_ends(d.low, d.high, scale, digits)}, 95%" + (f" of {d.family} together" if d.family > 1 else ""),
        shown_p(d.p) + (" (Holm)" if d.family > 1 and not math.isnan(d.p) else ""),
        f"{d.n} seeds",
        note,
    )


def strength(d: PairedDifference, scale: float, unit: str) -> str:
    """Effect size, and what so many seeds find, as a sentence; what is not defined (two seeds, equal differences) is left out.

    The spread of few seeds is itself uncertain, so that what they find is given as a range, and not at all with fewer than six.
    """
    parts = [] if math.isnan(d.hedges_gz) else [f"Hedges' g {d.hedges_gz:.2f}"]
    if d.sd and d.n >= WILCOXON_SEEDS:
        low, high = (scale * value for value in d.detectable_range)
        digits = 3 if scale == 1 else 2
        parts.append(
            f"{d.n} seeds find a difference of {low:.{digits}f} to {high:.{digits}f} {unit}".rstrip()
            + " with power 0.8"
        )
    return "; ".join(parts) + "." if parts else ""


def family_words(differences: Iterable[PairedDifference | None]) -> str:
    """How the intervals of a table's differences are to be read, for its caption."""
    size = max((d.family for d in differences if d is not None), default=1)
    if size == 1:
        return "95% t intervals over seeds"
    return f"simultaneous 95% t intervals over seeds, adjusted for the {size} differences of this table"


def shown_ends(low: float, high: float, scale: float = 100, digits: int = 2) -> str:
    """The ends of an interval.

    >>> shown_ends(-0.001, 0.0234)
    '[-0.10, +2.34]'
    """
    return f"[{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"


def shown_difference(d: PairedDifference, scale: float = 100, digits: int = 2, unit: str = "") -> str:
    """A mean difference with its interval, as ``+1.20 [+0.40, +2.00]``; the unit stands behind the first number."""
    return f"{scale * d.mean:+.{digits}f}{unit} {shown_ends(d.low, d.high, scale, digits)}"


def shown_p(p: float) -> str:
    """A p value as it is shown: three digits, or a bound."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def drawn_forest(differences: Mapping[str, PairedDifference], xlabel: str) -> str:
    """Differences in points by name, below each other around 0, as svg; filled where they are decided."""
    rows = [ForestRow(name, *_in_points(d), d.decided) for name, d in differences.items()]
    return svg(forest_figure(rows, xlabel=xlabel))


def drawn_point(x: float, d: PairedDifference, label: str = "") -> Point:
    """A difference in points at a place of a figure."""
    return Point(x, *_in_points(d), label)


def _in_points(d: PairedDifference) -> tuple[float, float, float]:
    return 100 * d.mean, 100 * d.low, 100 * d.high
