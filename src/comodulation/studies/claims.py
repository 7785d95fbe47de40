"""The paper's claims C1 to C5 (arXiv 2311.15053), each judged by a paired comparison over seeds.

A claim about a sign holds where the 95% t interval of the mean difference lies on its side of 0, does not hold where it lies on
the other, and cannot be told where it includes 0. A claim about a size does not hold where the interval excludes that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..classification import BINARY_METRICS, relative_improvement
from ..report.page import Verdict
from ..statistics import PairedDifference, paired_difference
from .plan import PRIMARY
from .results import Result, compare, values

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"
CLAIMED_POINTS, CLAIMED_RELATIVE = 1.8, 2.8  # points of accuracy over attention (C2), per cent over hard sharing (C1)


def judge_claims(results: Sequence[Result], binary: bool) -> list[Verdict]:
    """A verdict for every claim, in order; those that need what this study lacks cannot be told, and say what would tell.

    Args:
        results: finished cells. binary: whether the tasks are binary attributes.
    """
    return [*_c1(results, binary), *_c2(results), *_c3(results), *_c4(results), *_c5(results)]


def sign_verdict(difference: PairedDifference | None, positive: bool = True) -> str:
    """Whether a difference has the claimed sign; seeds that all differ by the same amount decide nothing."""
    if difference is None or not difference.decided or not difference.sd:
        return UNKNOWN
    return HOLDS if (difference.low > 0) == positive else FAILS


def relative_to_hard_sharing(
    results: Sequence[Result], variant: str, name: str, metric: str
) -> PairedDifference | None:
    """Relative improvement over hard sharing, (1/K) sum_k (M_k - M_k^hard) / M_k^hard, over seeds; None with too few."""
    by_seed: dict[str, dict[int, dict[str, float]]] = {name: {}, "hard-sharing": {}}
    for result in results:
        cell = result.cell
        if (cell.variant, cell.readout) == (variant, "open") and result.name in by_seed and "binary" in result.numbers:
            tasks = result.numbers["binary"]["tasks"]
            by_seed[result.name][cell.seed] = {task: row[metric] for task, row in tasks.items()}
    seeds = sorted(by_seed[name].keys() & by_seed["hard-sharing"].keys())
    gains = [relative_improvement(by_seed[name][s], by_seed["hard-sharing"][s]).mean for s in seeds]
    gains = [gain for gain in gains if math.isfinite(gain)]  # undefined where hard sharing never says yes
    return paired_difference(gains, [0.0] * len(gains)) if len(gains) > 1 else None


def _c1(results: Sequence[Result], binary: bool) -> list[Verdict]:
    statement = f"Comodulation beats hard sharing on binary attributes (CelebA: by {CLAIMED_RELATIVE}% relative)."
    if not binary:
        note = "Not a question of this study: its tasks are classes. See `comodulate reproduce attributes` or `celeba`."
        return [Verdict("C1 attributes", statement, UNKNOWN, note=note)]
    found = {m: relative_to_hard_sharing(results, "residual", "comodulation", m) for m in BINARY_METRICS}
    main = found["accuracy"]
    if main is None:
        return [
            Verdict("C1 attributes", statement, UNKNOWN, note="Hard sharing or comodulation has fewer than two seeds.")
        ]
    others = ", ".join(
        f"{m.replace('_', ' ')} {_percent(d)}" for m, d in found.items() if d is not None and m != "accuracy"
    )
    size = "excludes" if not main.low * 100 <= CLAIMED_RELATIVE <= main.high * 100 else "includes"
    note = f"Residual variant, accuracy; the interval {size} {CLAIMED_RELATIVE}%. Relative improvement in {others}."
    return [_verdict("C1 attributes", statement, sign_verdict(main), main, 100, "%", note)]


def _c2(results: Sequence[Result]) -> list[Verdict]:
    variant, readout, metric, a, b = PRIMARY
    found = {v: compare(results, v, readout, metric, a, b).difference for v in ("residual", "base")}
    main = found[variant]
    extra = "The primary comparison, named beforehand. "
    if main is not None:
        extra += " ".join(part for part in (strength(main, 100, "points"), main.note) if part)
    better = _verdict(
        "C2 accuracy", "Comodulation is more accurate than deterministic attention with as many parameters "
        "(residual).",
        sign_verdict(main), main, 100, "points", extra.strip(),
    )  # fmt: skip
    size, note = UNKNOWN, ""
    if main is not None:
        size = FAILS if 100 * main.high < CLAIMED_POINTS else HOLDS if 100 * main.low >= CLAIMED_POINTS else UNKNOWN
        note = f"Reached: {100 * main.mean:.2f} of {CLAIMED_POINTS}."
    claimed = _verdict(
        "C2 size", f"The advantage is {CLAIMED_POINTS} points in the residual variant.", size, main, 100, "points", note
    )
    return [better, claimed, _interaction(results)]


def _interaction(results: Sequence[Result]) -> Verdict:
    """Whether the advantage over attention is larger in the residual variant."""
    series = [
        values(results, variant, "open", name, "accuracy")
        for variant in ("residual", "base")
        for name in ("comodulation", "attention")
    ]
    seeds = sorted(set.intersection(*(set(s) for s in series)))
    difference = None
    if len(seeds) > 1:
        residual, base = ([left[s] - right[s] for s in seeds] for left, right in (series[:2], series[2:]))
        difference = paired_difference(residual, base)
    statement = "The advantage over attention is larger in the residual variant than in the base variant."
    return _verdict("C2 residual", statement, sign_verdict(difference), difference, 100, "points")


def _c3(results: Sequence[Result]) -> list[Verdict]:
    found = {
        m: compare(results, "residual", "open", f"mechanism.{m}", "comodulation", "attention").difference
        for m in ("dprime", "fisher")
    }
    over_base = compare(results, "residual", "open", "mechanism.dprime", "comodulation", "base").difference
    main = found["dprime"]
    fisher = found["fisher"]
    note = (
        "d' between the task's classes, axes fitted on validation images and measured on test images, mean over tasks."
    )
    if fisher is not None:
        note += f" Fisher ratio {_signed(fisher, 1)}."
    if over_base is not None:
        note += f" Against the network without a task: d' {_signed(over_base, 1)}."
    statement = "Classes separate better in the task-relevant subspace of the decoder than under attention (residual)."
    return [_verdict("C3 separation", statement, sign_verdict(main), main, 1, "d'", note)]


def _c4(results: Sequence[Result]) -> list[Verdict]:
    def difference(metric: str) -> PairedDifference | None:
        return compare(results, "residual", "open", metric, "comodulation", "attention").difference

    main, nll, scaled, scaled_nll = (difference(m) for m in ("ece", "nll", "scaled.ece", "scaled.nll"))
    parts = []
    for name, d, unit in (
        ("NLL", nll, 1),
        ("ECE after temperature scaling", scaled, 100),
        ("NLL after it", scaled_nll, 1),
    ):
        if d is not None:
            parts.append(f"{name} {_signed(d, unit)}")
    statement = "Confidence is better calibrated than under attention: lower ECE (residual)."
    return [
        _verdict(
            "C4 calibration",
            statement,
            sign_verdict(main, positive=False),
            main,
            100,
            "points",
            "; ".join(parts) + "." if parts else "",
        )
    ]


def _c5(results: Sequence[Result]) -> list[Verdict]:
    def sparser(name: str, threshold: str) -> PairedDifference | None:
        metric = ("mechanism", "decoder", "below", threshold)
        by_variant: list[dict[int, float]] = []
        for variant in ("residual", "base"):
            found = {}
            for result in results:
                cell = result.cell
                if (cell.variant, cell.readout, result.name) == (variant, "open", name):
                    value: Any = result.numbers
                    for part in metric:
                        value = value.get(part) if isinstance(value, dict) else None
                    if value is not None and math.isfinite(value):
                        found[cell.seed] = float(value)
            by_variant.append(found)
        seeds = sorted(by_variant[0].keys() & by_variant[1].keys())
        residual, base = ([found[s] for s in seeds] for found in by_variant)
        return paired_difference(residual, base) if len(seeds) > 1 else None

    # Sparsity depends on beta more than on anything else, and the searches choose it for each variant.
    rows = {"exponential link, beta 1": "comodulation beta=1.0", "rectified link": "comodulation link=rectified"}
    main = sparser(rows["exponential link, beta 1"], "0.3")
    notes = ["Share of decoder gains below 0.3, residual minus base, exponential link at beta 1 in both variants."]
    for link, name in rows.items():
        for threshold in ("0.01", "0.03", "0.1", "0.3"):
            d = sparser(name, threshold)
            shown = d is not None and (name, threshold) != ("comodulation beta=1.0", "0.3")
            if d is not None and shown and (d.mean or d.sd):  # a link that cannot fall below a threshold is left out
                notes.append(f"{link}, below {threshold}: {_signed(d, 100)}.")
    searched = sparser("comodulation", "0.3")
    if searched is not None:
        notes.append(f"With each variant's own searched beta, below 0.3: {_signed(searched, 100)}.")
    statement = "Residual connections make decoder gains sparser."
    verdicts = [_verdict("C5 sparsity", statement, sign_verdict(main), main, 100, "% of gains", " ".join(notes))]
    hurt = {}
    for name in ("attention", "comodulation"):
        series = [
            values(results, v, "open", n, "accuracy")
            for v in ("residual", "base")
            for n in (name, "class-mask", "base")
        ]
        reference = 1 if series[1] and series[4] else 2
        left = (series[0], series[reference], series[3], series[3 + reference])
        seeds = sorted(set.intersection(*(set(s) for s in left)))
        if len(seeds) > 1:
            hurt[name] = paired_difference(
                [left[0][s] - left[1][s] for s in seeds], [left[2][s] - left[3][s] for s in seeds]
            )
    attention, comodulation = hurt.get("attention"), hurt.get("comodulation")
    statement = "Residual connections help comodulation and hurt attention."
    if attention is None or comodulation is None:
        return [*verdicts, _verdict("C5 consequence", statement, UNKNOWN, None, 100, "points")]
    parts = (sign_verdict(comodulation), sign_verdict(attention, positive=False))
    verdict = HOLDS if parts == (HOLDS, HOLDS) else FAILS if FAILS in parts else UNKNOWN
    note = (
        "What residual connections change in accuracy beyond what they change in the network that both adapt "
        "(under its class "
        f"mask, where there is one): comodulation {_signed(comodulation, 100)}, attention {_signed(attention, 100)} "
        "points."
    )
    return [*verdicts, _verdict("C5 consequence", statement, verdict, comodulation, 100, "points", note)]


def _verdict(
    claim: str, statement: str, verdict: str, d: PairedDifference | None, scale: float, unit: str, note: str = ""
) -> Verdict:
    if d is None:
        return Verdict(claim, statement, UNKNOWN, note=f"Fewer than two seeds have what this needs. {note}".strip())
    digits = 3 if scale == 1 else 2
    return Verdict(
        claim,
        statement,
        verdict,
        f"{scale * d.mean:+.{digits}f} {unit}",
        f"[{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}], 95%",
        shown_p(d.p),
        f"{d.n} seeds",
        note,
    )


def strength(d: PairedDifference, scale: float, unit: str) -> str:
    """Effect size, and what so many seeds find, as a sentence; what is not defined (two seeds, equal differences) is left out."""
    parts = [] if math.isnan(d.hedges_gz) else [f"Hedges' g {d.hedges_gz:.2f}"]
    if not math.isnan(d.detectable):
        parts.append(f"{d.n} seeds of this spread find {scale * d.detectable:.2f} {unit} with power 0.8")
    return "; ".join(parts) + "." if parts else ""


def shown_p(p: float) -> str:
    """A p value as it is shown: three digits, or a bound."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _signed(d: PairedDifference, scale: float) -> str:
    digits = 3 if scale == 1 else 2
    return f"{scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"


def _percent(d: PairedDifference) -> str:
    return f"{100 * d.mean:+.2f}% [{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
