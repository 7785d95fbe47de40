"""Known ways in which comodulation fails, recognised in the numbers and named, with what to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cells import Result, compare, shown_difference, values

STILL = 0.01  # mean |ln gain|, in nats, below which gains have not moved
GAIN = 0.01  # accuracy over the network without a task, below which fine-tuning has not helped


@dataclass(frozen=True)
class Diagnosis:
    """One failure signature in one variant: whether it is there, the evidence, and what to try."""

    name: str
    variant: str
    found: bool
    evidence: str
    advice: str


def diagnose(results: Sequence[Result], chance: float) -> list[Diagnosis]:
    """The failure signatures of comodulation in each variant that has it (open readout).

    Args:
        results: finished cells. chance: accuracy of a guess at the primary task.
    """
    found = []
    for variant in dict.fromkeys(result.cell.variant for result in results):
        mine = [result for result in results if result.series == (variant, "open", "comodulation")]
        if mine:
            found += [
                _poor_tasks(results, mine, variant, chance),
                _still_gains(mine, variant),
                _calibration(results, variant),
            ]
    return found


def _poor_tasks(results: Sequence[Result], mine: list[Result], variant: str, chance: float) -> Diagnosis:
    base = values(results, variant, "open", "base", "accuracy")
    gains = [r.numbers["accuracy"] - base[r.cell.seed] for r in mine if r.cell.seed in base]
    primary = _mean([r.numbers["pretraining"].get("accuracy", float("nan")) for r in mine])
    gain = _mean(gains)
    return Diagnosis(
        "poor target tasks despite good pretraining",
        variant,
        # Binary tasks: three times chance is more than can be had, half of what is above chance is not.
        bool(gains) and gain < GAIN and primary > min(3 * chance, (1 + chance) / 2),
        f"comodulation {100 * gain:+.1f} points from the network without a task; pretraining validates at {100 * primary:.1f}%"
        if gains
        else "the network without a task was not tested on these seeds",
        "a higher learning rate of the controller, more epochs, or images that pretraining has not seen (disjoint "
        "halves)",
    )


def _still_gains(mine: list[Result], variant: str) -> Diagnosis:
    moved = [r.numbers["mechanism"]["decoder"]["movement"] for r in mine if "decoder" in r.numbers.get("mechanism", {})]
    return Diagnosis(
        "gains that do not move from 1",
        variant,
        bool(moved) and _mean(moved) < STILL,
        f"mean |ln gain| of the decoder {_mean(moved):.3f} nats" if moved else "no stored decoder gains",
        "a larger beta, a higher learning rate, or the exponential link, which has no dead zone",
    )


def _calibration(results: Sequence[Result], variant: str) -> Diagnosis:
    differences = {
        m: compare(results, variant, "open", m, "comodulation", "attention").difference for m in ("ece", "nll")
    }
    ece, nll = differences["ece"], differences["nll"]
    if ece is None or nll is None:
        return Diagnosis(
            "no better calibration than attention", variant, False, "too few seeds to compare", "more seeds"
        )
    return Diagnosis(
        "no better calibration than attention",
        variant,
        ece.mean >= 0 and nll.mean >= 0,
        f"ECE {shown_difference(ece, unit=' points')}, NLL {shown_difference(nll, 1, 3)}",
        "fewer epochs, weight decay, or temperature scaling on validation data, which needs no new training",
    )


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else float("nan")
