"""Verdicts of differences between methods, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...evaluation import WILCOXON_SEEDS, PairedDifference, as_family
from ...report import FAILS, HOLDS, UNKNOWN, Verdict


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
        f"[{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}], 95%"
        + (f" of {d.family} together" if d.family > 1 else ""),
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


def shown_p(p: float) -> str:
    """A p value as it is shown: three digits, or a bound."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
