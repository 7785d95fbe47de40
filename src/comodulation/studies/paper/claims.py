"""The paper's claims C1 to C5 (arXiv 2311.15053), each judged by a paired comparison over seeds.

A claim about a sign holds where the interval of the mean difference lies on its side of 0, does not hold where it lies on the
other, and cannot be told where it includes 0 or ends there. A claim about a size does not hold where the interval excludes that
size. The comparison named beforehand is judged apart (named.py); the intervals of all other verdicts are simultaneous (``judged``).

Claims are judged for the library's form of the method, and for the paper's own where a study has rows of it. The verdicts on the
latter are a family of their own, so that those on the former do not depend on whether the other was run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...evaluation import (
    BINARY_METRICS,
    CrossedDifference,
    PairedDifference,
    as_family,
    paired_difference,
    relative_improvement,
)
from ...report import Verdict
from ..cells import Finding, Result, compare, judged, minus, paired, shown_difference, values
from .named import RIVAL, named_verdicts, size_verdict

CLAIMED_RELATIVE = 2.8  # per cent over hard sharing (C1)
LIBRARY, PAPER = "comodulation", "paper"  # the forms of the method


def judge_claims(
    results: Sequence[Result], binary: bool, crossed: Mapping[str, CrossedDifference] | None = None
) -> list[Verdict]:
    """A verdict for every claim, in order; those that need what this study lacks cannot be told, and say what would tell.

    The verdicts on the comparison named beforehand stand apart; those on all other comparisons are one family.

    Args:
        results: finished cells. binary: whether the tasks are binary attributes. crossed: as ``crossed_named``, where there is any.
    """
    attributes, *others = judged(
        [
            _c1(results, binary),
            _interaction(results),
            _c3(results),
            _c4(results),
            _sparsity(results),
            _consequence(results),
        ]
    )
    return [attributes, *named_verdicts(results, crossed or {}), *others]


def judge_paper_form(results: Sequence[Result], binary: bool) -> list[Verdict]:
    """A verdict on the method exactly as in the paper for every claim that this study can judge; none without rows of it.

    Arguments as in ``judge_claims``. C2's comparison is not the one named beforehand, and is one of the family.
    """
    if not any(result.name == PAPER for result in results):
        return []
    accuracy = _against_attention(results, PAPER, "accuracy")
    findings = [
        Finding("C2 accuracy", f"More accurate {RIVAL}", (accuracy,)),
        Finding(
            "C2 likelihood", f"A lower NLL {RIVAL}", (_against_attention(results, PAPER, "nll"),),
            positive=False, scale=1, unit="",
        ),
        _interaction(results, PAPER), _c3(results, PAPER), _c4(results, PAPER), _sparsity(results, PAPER),
        _consequence(results, PAPER),
    ]  # fmt: skip
    findings += [_c1(results, binary, PAPER)] if binary else []
    sign, *others = judged(findings)
    (together, *_) = as_family([d for finding in findings for d in finding.differences])
    return [sign, size_verdict(sign, together), *others]


def relative_to_hard_sharing(
    results: Sequence[Result], variant: str, name: str, metric: str
) -> PairedDifference | None:
    """Relative improvement over hard sharing, (1/K) sum_k (M_k - M_k^hard) / M_k^hard, over seeds; None with too few."""
    by_seed: dict[str, dict[int, dict[str, float]]] = {name: {}, "hard-sharing": {}}
    for result in results:
        if result.series[:2] == (variant, "open") and result.name in by_seed and "binary" in result.numbers:
            tasks = result.numbers["binary"]["tasks"]
            by_seed[result.name][result.cell.seed] = {task: row[metric] for task, row in tasks.items()}
    seeds = sorted(by_seed[name].keys() & by_seed["hard-sharing"].keys())
    gains = [relative_improvement(by_seed[name][s], by_seed["hard-sharing"][s]).mean for s in seeds]
    gains = [gain for gain in gains if math.isfinite(gain)]  # undefined where hard sharing never says yes
    return paired_difference(gains, [0.0] * len(gains)) if len(gains) > 1 else None


def _against_attention(results: Sequence[Result], form: str, metric: str) -> PairedDifference | None:
    return compare(results, "residual", "open", metric, form, "attention").difference


def _c1(results: Sequence[Result], binary: bool, form: str = LIBRARY) -> Finding:
    subject = "Comodulation" if form == LIBRARY else "The method as in the paper"
    statement = f"{subject} beats hard sharing on binary attributes (CelebA: by {CLAIMED_RELATIVE}% relative)."
    if not binary:
        note = "Not a question of this study: its tasks are classes. See `comodulate reproduce attributes` or `celeba`."
        return Finding("C1 attributes", statement, note=note)
    found = {m: relative_to_hard_sharing(results, "residual", form, m) for m in BINARY_METRICS}
    main = found["accuracy"]
    if main is None:
        note = f"Hard sharing or {form} has fewer than two seeds."
        return Finding("C1 attributes", statement, note=note)
    others = ", ".join(
        f"{m.replace('_', ' ')} {_signed(d, 100, '%')}" for m, d in found.items() if d is not None and m != "accuracy"
    )
    size = "excludes" if not main.low * 100 <= CLAIMED_RELATIVE <= main.high * 100 else "includes"
    note = (
        f"Residual variant, accuracy; alone, the interval {size} {CLAIMED_RELATIVE}%. Relative improvement in {others}."
    )
    return Finding("C1 attributes", statement, (main,), note, unit="%")


def _interaction(results: Sequence[Result], form: str = LIBRARY) -> Finding:
    """Whether the advantage over attention is larger in the residual variant."""
    residual, base = (
        minus(*(values(results, variant, "open", name, "accuracy") for name in (form, "attention")))
        for variant in ("residual", "base")
    )
    statement = "The advantage over attention is larger in the residual variant than in the base variant."
    return Finding("C2 residual", statement, (paired(residual, base),))


def _c3(results: Sequence[Result], form: str = LIBRARY) -> Finding:
    main, fisher = (_against_attention(results, form, f"mechanism.{m}") for m in ("dprime", "fisher"))
    over_base = compare(results, "residual", "open", "mechanism.dprime", form, "base").difference
    note = (
        "d' between the task's classes, axes fitted on validation inputs and measured on test inputs, mean over tasks."
    )
    if fisher is not None:
        note += f" Fisher ratio {_signed(fisher, 1)}."
    if over_base is not None:
        note += f" Against the network without a task: d' {_signed(over_base, 1)}."
    statement = "Classes separate better in the task-relevant subspace of the decoder than under attention (residual)."
    return Finding("C3 separation", statement, (main,), note, scale=1, unit="d'")


def _c4(results: Sequence[Result], form: str = LIBRARY) -> Finding:
    main, nll, scaled, scaled_nll = (
        _against_attention(results, form, metric) for metric in ("ece", "nll", "scaled.ece", "scaled.nll")
    )
    others = (("NLL", nll, 1), ("ECE after temperature scaling", scaled, 100), ("NLL after it", scaled_nll, 1))
    parts = [f"{name} {_signed(d, unit)}" for name, d, unit in others if d is not None]
    statement = "Confidence is better calibrated than under attention: lower ECE (residual)."
    note = "; ".join(parts) + "." if parts else ""
    return Finding("C4 calibration", statement, (main,), note, positive=False)


def _sparsity(results: Sequence[Result], form: str = LIBRARY) -> Finding:
    def sparser(name: str, threshold: str = "0.3") -> PairedDifference | None:
        path = ("mechanism", "decoder", "below", threshold)
        return paired(*(values(results, variant, "open", name, path) for variant in ("residual", "base")))

    # The paper's link decides where it was run. Under the other one sparsity depends on beta more than on anything else, and the
    # searches choose it for each variant: there it is read at beta 1.
    rows = {"rectified link, gains averaged over a task's images (those of images are not kept)": f"{PAPER} level=task"}
    if form == LIBRARY:
        rows = {"rectified link": "comodulation link=rectified", "exponential link, beta 1": "comodulation beta=1.0"}
    decisive = next((link for link, name in rows.items() if sparser(name) is not None), next(iter(rows)))
    notes = [f"Share of decoder gains below 0.3, residual minus base, {decisive} in both variants."]
    for link, name in rows.items():
        for threshold in ("0.01", "0.03", "0.1", "0.3"):
            d = sparser(name, threshold)
            shown = (link, threshold) != (decisive, "0.3")
            if d is not None and shown and (d.mean or d.sd):  # a link that cannot fall below a threshold is left out
                notes.append(f"{link}, below {threshold}: {_signed(d, 100)}.")
    if form == LIBRARY and (searched := sparser(form)) is not None:
        notes.append(f"With each variant's own searched beta, below 0.3: {_signed(searched, 100)}.")
    statement = "Residual connections make decoder gains sparser."
    return Finding("C5 sparsity", statement, (sparser(rows[decisive]),), " ".join(notes), unit="% of gains")


def _consequence(results: Sequence[Result], form: str = LIBRARY) -> Finding:
    accuracy = {
        (variant, name): values(results, variant, "open", name, "accuracy")
        for variant in ("residual", "base")
        for name in (form, "attention", "class-mask", "base")
    }
    reference = "class-mask" if accuracy["residual", "class-mask"] and accuracy["base", "class-mask"] else "base"

    def beyond(variant: str, name: str) -> dict[int, float]:
        return minus(accuracy[variant, name], accuracy[variant, reference])

    helped = paired(beyond("residual", form), beyond("base", form))
    hurt = paired(beyond("base", "attention"), beyond("residual", "attention"))
    statement = "Residual connections help comodulation and hurt attention."
    if helped is None or hurt is None:
        return Finding("C5 consequence", statement, (None,))
    note = (
        "What residual connections change in accuracy beyond what they change in the network that both adapt "
        f"(under its class mask, where there is one), for {form}; what they take from attention, each alone: "
        f"{_signed(hurt, 100)} points."
    )
    return Finding("C5 consequence", statement, (helped, hurt), note)


def _signed(d: PairedDifference, scale: float, unit: str = "") -> str:
    """A difference with its own 95% interval, for notes, which describe and do not decide."""
    return shown_difference(d, scale, 3 if scale == 1 else 2, unit)
