"""The comparison named beforehand: comodulation minus attention, in accuracy and in NLL, decided over seeds and test images.

docs/preregistration.md names it. Its two differences are one family: intervals that hold together with 95%, from the bootstrap
crossed over seeds and test images, which covers what another draw of either would change. Where no test predictions are at hand,
the t intervals over seeds stand in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...evaluation import ALPHA, EDGE, CrossedDifference, PairedDifference, as_family, crossed_bootstrap
from ...report import FAILS, HOLDS, UNKNOWN, Verdict
from ..cells import CELLS, NAMED, PRIMARY, Result, compare, primary_scores, shown_ends, shown_p, strength

CLAIMED_POINTS = 1.8  # of accuracy over attention
RIVAL = "than deterministic attention with as many parameters (residual)."
STATEMENTS = {
    "accuracy": ("C2 accuracy", f"Comodulation is more accurate {RIVAL}"),
    "nll": ("C2 likelihood", f"Comodulation has a lower NLL {RIVAL}"),
}
_SHOWN = {"accuracy": (100, "points", 2), "nll": (1, "", 3)}


def crossed_named(folder: Path, results: Sequence[Result]) -> dict[str, CrossedDifference]:
    """Both differences with seeds and test images resampled, by metric, intervals simultaneous; {} with fewer than two seeds."""
    found = {}
    for metric, score in NAMED.items():
        if (scores := primary_scores(folder / CELLS, results, score)) is not None:
            left, right = (np.stack([by_image(own, scores.image) for own in side]) for side in (scores.a, scores.b))
            found[metric] = crossed_bootstrap(left, right, 1 - ALPHA / len(NAMED))
    return found


def by_image(scores: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean score of each image over its predictions (binary tasks ask several of one image), in order of images."""
    _, place = np.unique(images, return_inverse=True)
    return np.bincount(place, scores.astype(float)) / np.bincount(place)


def named_differences(results: Sequence[Result]) -> dict[str, PairedDifference | None]:
    """Both differences over seeds, by metric, as a family of two; None with fewer than two seeds."""
    variant, readout, _, a, b = PRIMARY
    alone = [compare(results, variant, readout, metric, a, b).difference for metric in NAMED]
    return dict(zip(NAMED, as_family(alone), strict=True))


def named_verdicts(results: Sequence[Result], crossed: Mapping[str, CrossedDifference]) -> list[Verdict]:
    """On accuracy, on the size of that advantage, and on NLL.

    Args:
        results: finished cells. crossed: as ``crossed_named``.
    """
    differences = named_differences(results)
    accuracy, nll = (_verdict(metric, differences[metric], crossed.get(metric)) for metric in ("accuracy", "nll"))
    return [accuracy, size_verdict(accuracy, differences["accuracy"], crossed.get("accuracy")), nll]


def _verdict(metric: str, d: PairedDifference | None, over: CrossedDifference | None) -> Verdict:
    """Whether a difference has the claimed sign, by the bootstrap where there is one."""
    if d is None:
        return Verdict(*STATEMENTS[metric], UNKNOWN, note="Fewer than two seeds have what this needs.")
    scale, unit, digits = _SHOWN[metric]
    low, high = _ends(d, over)
    edge = min(abs(low), abs(high)) < EDGE * (high - low) / 2
    positive = metric == "accuracy"
    word = UNKNOWN if edge or low <= 0 <= high or not d.sd else HOLDS if (low > 0) == positive else FAILS
    kind = "over seeds" if over is None else f"over seeds and {over.images:,} test inputs"
    notes = ["The primary comparison, named beforehand."]
    notes += ["At the edge: an end of the interval is 0 as far as rounding lets it be told."] * edge
    notes += [part for part in (strength(d, scale, unit), d.note) if part]
    return Verdict(
        *STATEMENTS[metric], word, f"{scale * d.mean:+.{digits}f} {unit}".rstrip(),
        f"{shown_ends(low, high, scale, digits)}, 95% of {len(NAMED)} together, {kind}",
        shown_p(d.p) + (" (Holm)" if shown_p(d.p) else ""), f"{d.n} seeds", " ".join(notes),
    )  # fmt: skip


def _ends(d: PairedDifference, over: CrossedDifference | None) -> tuple[float, float]:
    """Of the interval that decides."""
    return (d.low, d.high) if over is None else (over.low, over.high)


def size_verdict(sign: Verdict, d: PairedDifference | None, over: CrossedDifference | None = None) -> Verdict:
    """Whether an advantage in accuracy has the claimed size, read off the interval of the verdict on its sign."""
    claim, statement = "C2 size", f"The advantage is {CLAIMED_POINTS} points in the residual variant."
    if d is None:
        return Verdict(claim, statement, UNKNOWN, note=sign.note)
    low, high = _ends(d, over)
    reached = FAILS if 100 * high < CLAIMED_POINTS else HOLDS if 100 * low >= CLAIMED_POINTS else UNKNOWN
    note = f"Reached: {100 * d.mean:.2f} of {CLAIMED_POINTS}. Read off the same interval."
    return Verdict(claim, statement, reached, sign.effect, sign.interval, sign.p, sign.n, note)
