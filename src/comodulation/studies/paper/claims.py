"""The paper's claims C1 to C5 (arXiv 2311.15053), each judged by a paired comparison over seeds.

A claim about a sign holds where the interval of the mean difference lies on its side of 0, does not hold where it lies on the
other, and cannot be told where it includes 0 or ends there. A claim about a size does not hold where the interval excludes that
size. The comparison named beforehand is judged apart (named.py); the intervals of all other verdicts are simultaneous (``judged``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...evaluation import BINARY_METRICS, CrossedDifference, PairedDifference, paired_difference, relative_improvement
from ...report import Verdict
from ..cells import Finding, Result, compare, judged, values
from .named import named_verdicts

CLAIMED_RELATIVE = 2.8  # per cent over hard sharing (C1)


def judge_claims(
    results: Sequence[Result], binary: bool, crossed: Mapping[str, CrossedDifference] | None = None
) -> list[Verdict]:
    """A verdict for every claim, in order; those that need what this study lacks cannot be told, and say what would tell.

    The verdicts on the comparison named beforehand stand apart; those on all other comparisons are one family.

    Args:
        results: finished cells. binary: whether the tasks are binary attributes. crossed: as ``crossed_named``, where there is any.
    """
    attributes, *others = judged(
        [_c1(results, binary), _interaction(results), _c3(results), _c4(results), *_c5(results)]
    )
    return [attributes, *named_verdicts(results, crossed or {}), *others]


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


def _c1(results: Sequence[Result], binary: bool) -> Finding:
    statement = f"Comodulation beats hard sharing on binary attributes (CelebA: by {CLAIMED_RELATIVE}% relative)."
    if not binary:
        note = "Not a question of this study: its tasks are classes. See `comodulate reproduce attributes` or `celeba`."
        return Finding("C1 attributes", statement, note=note)
    found = {m: relative_to_hard_sharing(results, "residual", "comodulation", m) for m in BINARY_METRICS}
    main = found["accuracy"]
    if main is None:
        note = "Hard sharing or comodulation has fewer than two seeds."
        return Finding("C1 attributes", statement, note=note)
    others = ", ".join(
        f"{m.replace('_', ' ')} {_signed(d, 100, '%')}" for m, d in found.items() if d is not None and m != "accuracy"
    )
    size = "excludes" if not main.low * 100 <= CLAIMED_RELATIVE <= main.high * 100 else "includes"
    note = (
        f"Residual variant, accuracy; alone, the interval {size} {CLAIMED_RELATIVE}%. Relative improvement in {others}."
    )
    return Finding("C1 attributes", statement, (main,), note, unit="%")


def _interaction(results: Sequence[Result]) -> Finding:
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
    return Finding("C2 residual", statement, (difference,))


def _c3(results: Sequence[Result]) -> Finding:
    main, fisher = (
        compare(results, "residual", "open", f"mechanism.{m}", "comodulation", "attention").difference
        for m in ("dprime", "fisher")
    )
    over_base = compare(results, "residual", "open", "mechanism.dprime", "comodulation", "base").difference
    note = (
        "d' between the task's classes, axes fitted on validation inputs and measured on test inputs, mean over tasks."
    )
    if fisher is not None:
        note += f" Fisher ratio {_signed(fisher, 1)}."
    if over_base is not None:
        note += f" Against the network without a task: d' {_signed(over_base, 1)}."
    statement = "Classes separate better in the task-relevant subspace of the decoder than under attention (residual)."
    return Finding("C3 separation", statement, (main,), note, scale=1, unit="d'")


def _c4(results: Sequence[Result]) -> Finding:
    main, nll, scaled, scaled_nll = (
        compare(results, "residual", "open", metric, "comodulation", "attention").difference
        for metric in ("ece", "nll", "scaled.ece", "scaled.nll")
    )
    others = (("NLL", nll, 1), ("ECE after temperature scaling", scaled, 100), ("NLL after it", scaled_nll, 1))
    parts = [f"{name} {_signed(d, unit)}" for name, d, unit in others if d is not None]
    statement = "Confidence is better calibrated than under attention: lower ECE (residual)."
    note = "; ".join(parts) + "." if parts else ""
    return Finding("C4 calibration", statement, (main,), note, positive=False)


def _c5(results: Sequence[Result]) -> list[Finding]:
    def sparser(name: str, threshold: str) -> PairedDifference | None:
        by_variant: dict[str, dict[int, float]] = {"residual": {}, "base": {}}
        for result in results:
            below = result.numbers.get("mechanism", {}).get("decoder", {}).get("below", {})
            if (result.cell.readout, result.name) == ("open", name) and math.isfinite(below.get(threshold, math.nan)):
                by_variant[result.cell.variant][result.cell.seed] = float(below[threshold])
        residual, base = by_variant.values()
        seeds = sorted(residual.keys() & base.keys())
        return paired_difference([residual[s] for s in seeds], [base[s] for s in seeds]) if len(seeds) > 1 else None

    # The paper's link decides where it was run. Under the other one sparsity depends on beta more than on anything else, and the
    # searches choose it for each variant: there it is read at beta 1.
    rows = {"rectified link": "comodulation link=rectified", "exponential link, beta 1": "comodulation beta=1.0"}
    decisive = next((link for link, name in rows.items() if sparser(name, "0.3") is not None), "rectified link")
    main = sparser(rows[decisive], "0.3")
    notes = [f"Share of decoder gains below 0.3, residual minus base, {decisive} in both variants."]
    for link, name in rows.items():
        for threshold in ("0.01", "0.03", "0.1", "0.3"):
            d = sparser(name, threshold)
            shown = d is not None and (name, threshold) != (rows[decisive], "0.3")
            if d is not None and shown and (d.mean or d.sd):  # a link that cannot fall below a threshold is left out
                notes.append(f"{link}, below {threshold}: {_signed(d, 100)}.")
    searched = sparser("comodulation", "0.3")
    if searched is not None:
        notes.append(f"With each variant's own searched beta, below 0.3: {_signed(searched, 100)}.")
    statement = "Residual connections make decoder gains sparser."
    sparsity = Finding("C5 sparsity", statement, (main,), " ".join(notes), unit="% of gains")
    helped = {}
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
            beyond = [left[0][s] - left[1][s] for s in seeds], [left[2][s] - left[3][s] for s in seeds]
            helped[name] = paired_difference(*(beyond if name == "comodulation" else beyond[::-1]))
    statement = "Residual connections help comodulation and hurt attention."
    if len(helped) < 2:
        return [sparsity, Finding("C5 consequence", statement, (None,))]
    note = (
        "What residual connections change in accuracy beyond what they change in the network that both adapt "
        "(under its class mask, where there is one), for comodulation; what they take from attention, each alone: "
        f"{_signed(helped['attention'], 100)} points."
    )
    return [sparsity, Finding("C5 consequence", statement, (helped["comodulation"], helped["attention"]), note)]


def _signed(d: PairedDifference, scale: float, unit: str = "") -> str:
    """A difference with its own 95% interval, for notes, which describe and do not decide."""
    digits = 3 if scale == 1 else 2
    return f"{scale * d.mean:+.{digits}f}{unit} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"
