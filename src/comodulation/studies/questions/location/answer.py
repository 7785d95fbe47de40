"""What the finished cells of the study of location say: the best location of each kind of task, and what labels predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....data.sets import KINDS
from ....evaluation import against_reference, paired_difference
from ....report import FAILS, HOLDS, UNKNOWN, Figure, Point, Section, Table, Text, Verdict, curves_figure, svg
from ...cells import (
    Answer,
    Finding,
    Inquiry,
    Result,
    alone,
    common_seeds,
    drawn_forest,
    drawn_point,
    from_zero,
    judged,
    on_common_seeds,
    shown_ends,
    shown_p,
    together,
)
from ..residual import Predictor, drawn_predictors, predictor_table, predictors, spearman
from .network import LOCATIONS

OWN = {"category": "channel", "spatial": "position", "temporal": "moment"}  # the neurons that a kind of task needs
METHODS = ("attention", "comodulation")
ACCURACIES = ("alone", "base", *METHODS)  # of a condition, as tables show them
QUALITIES = {"auc": "decoder gains, AUC", "encoder_auc": "couplings, AUC"}
# Of the accuracy that gains of channels alone can reach where the task names one of four places or moments.
CEILING = 0.25


class Condition(NamedTuple):
    """Kind of task, what a neuron is, and the stage that is the encoder."""

    kind: str
    neurons: str
    location: int

    def label(self, method: str) -> str:
        return f"{method} location={self.location} neurons={self.neurons}"

    @property
    def shown(self) -> str:
        return f"{self.kind}, {self.neurons}, stage {self.location}"


class Measured(NamedTuple):
    """A condition over the seeds that have both methods and no task: accuracies, and comodulation's NLL and ECE minus attention's.

    Each a list by seed, but for ``qualities``, means over seeds by name.
    """

    condition: Condition
    seeds: tuple[int, ...]
    base: list[float]
    alone: list[float]
    attention: list[float]
    comodulation: list[float]
    nll: list[float]
    ece: list[float]
    qualities: dict[str, float]

    @property
    def gain(self) -> list[float]:
        """Accuracy of comodulation minus that without a task, by seed."""
        return self.added("comodulation")

    def added(self, method: str) -> list[float]:
        """Accuracy of a method minus that without a task, by seed."""
        return [a - b for a, b in zip(getattr(self, method), self.base, strict=True)]

    @property
    def advantage(self) -> list[float]:
        """Accuracy of comodulation minus attention, by seed."""
        return [a - b for a, b in zip(self.comodulation, self.attention, strict=True)]

    def mean(self, name: str) -> float:
        """Mean over seeds of a list."""
        return float(np.mean(getattr(self, name)))

    def over(self, seeds: Sequence[int]) -> Measured:
        """The same over some of its seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        base, alone, attention, comodulation, nll, ece = ([row[place] for place in places] for row in self[2:-1])
        return Measured(self.condition, tuple(seeds), base, alone, attention, comodulation, nll, ece, self.qualities)


def conditions(results: Sequence[Result]) -> list[Measured]:
    """Every condition that has both methods and the network without a task, in the order of the results."""
    table = {(r.cell.variant, r.name, r.cell.seed): r.numbers for r in results}
    found: dict[Condition, None] = {}
    for result in results:
        row = result.cell.row
        if row.method != "base":
            found.setdefault(Condition(result.cell.variant, row.get("neurons"), row.get("location")))
    measured = []
    for condition in found:
        names = ("base", *(condition.label(method) for method in METHODS))
        seeds = sorted({s for k, n, s in table if k == condition.kind and all((k, name, s) in table for name in names)})
        if seeds:
            base, attention, ours = ([table[condition.kind, name, seed] for seed in seeds] for name in names)
            measured.append(
                Measured(
                    condition, tuple(seeds), [n["accuracy"] for n in base], [n.get("alone", math.nan) for n in base],
                    [n["accuracy"] for n in attention], [n["accuracy"] for n in ours],
                    [a["nll"] - b["nll"] for a, b in zip(ours, attention, strict=True)],
                    [a["ece"] - b["ece"] for a, b in zip(ours, attention, strict=True)],
                    {name: float(np.mean([n[name] for n in ours])) for name in QUALITIES},
                )
            )  # fmt: skip
    return measured


def answer(results: Sequence[Result], inquiry: Inquiry, out: Path) -> Answer:
    """The best location for each kind of task, what the kind of neuron does, and whether label quality predicts accuracy."""
    everything = conditions(results)
    measured = on_common_seeds(everything)
    found = tested_qualities(measured)
    findings = [
        *(best_finding(everything, kind) for kind in KINDS),
        *(neurons_finding(everything, kind) for kind in KINDS[1:]),
        *(advantage_finding(everything, kind) for kind in KINDS),
    ]
    verdicts = [alone(interaction_finding(everything)), *judged(findings), quality_verdict(found, measured)]
    sections = [Section("Every condition", [_table(everything), Text(READING)])] if everything else []
    if found:
        caption = (
            "**Quality of the labels and what comodulation adds to the accuracy without a task**, over conditions."
        )
        table = predictor_table(found, QUALITIES, "quality", caption)
        sections.append(Section("Do good labels make accurate answers?", [table]))
    notes = [
        "The best location is chosen from the same seeds that it is compared on.",
        "Conditions that share a kind of task are not wholly exchangeable, as the permutation test takes them to be.",
    ]
    compared = {item.condition for item in measured}
    if short := [item.condition.shown for item in everything if item.condition not in compared]:
        notes.append(f"Not among what the labels are tested on, because they lack a seed: {'; '.join(short)}.")
    numbers = {
        "conditions": [{**item._asdict(), "condition": item.condition._asdict()} for item in everything],
        "qualities": [{**vars(item), "predicts": item.predicts} for item in found],
    }
    return Answer(verdicts, sections, _figures(measured, found), numbers, _text(everything), notes)


READING = (
    "Alone: the network without a task on the image to report, by itself. Places and moments cannot be told apart by gains of "
    "channels: there at most a quarter of the canvases can be answered right, whatever the gains (docs/questions.md). AUC: how "
    "well couplings or decoder gains tell the informative quarter of neurons from the others, 0.5 by chance; mean over tasks."
)


def _of(measured: Sequence[Measured], kind: str, neurons: str) -> list[Measured]:
    """The locations of a kind of task that are there, over the same seeds."""
    found = on_common_seeds([item for item in measured if item.condition[:2] == (kind, neurons)])
    return sorted(found, key=lambda item: item.condition.location)


def interaction_finding(measured: Sequence[Measured]) -> Finding:
    """Late minus early, for categories minus for places."""
    statement = "Category tasks want a later encoder than spatial tasks."
    rows = {kind: [i for i in measured if i.condition[:2] == (kind, OWN[kind])] for kind in ("category", "spatial")}
    seeds = [set(item.seeds) for row in rows.values() for item in row]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    rows = {kind: _of([item.over(shared) for item in row], kind, OWN[kind]) for kind, row in rows.items()}
    if any(len(row) < len(LOCATIONS) for row in rows.values()):
        return Finding("Location", statement, note="Not every location of both kinds has two seeds or more.")
    late = {
        kind: [a - b for a, b in zip(row[-1].comodulation, row[0].comodulation, strict=True)]
        for kind, row in rows.items()
    }
    d = paired_difference(late["category"], late["spatial"])
    note = (
        f"Accuracy at stage {LOCATIONS[-1]} minus stage {LOCATIONS[0]}: category "
        f"{100 * float(np.mean(late['category'])):+.1f} points, spatial {100 * float(np.mean(late['spatial'])):+.1f}."
    )
    return Finding("Location", statement, (d,), note)


def best_finding(measured: Sequence[Measured], kind: str) -> Finding:
    """Whether the best location of a kind of task is better than all others: the weakest of the differences is shown."""
    row = _of(measured, kind, OWN[kind])
    if len(row) < 2:
        statement = f"For {kind} tasks one location of the encoder is the best."
        return Finding(f"Best, {kind}", statement, note="Fewer than two locations have two seeds or more.")
    best = max(row, key=lambda item: item.mean("comodulation"))
    others = [item for item in row if item is not best]
    # Reference minus row, so that a positive difference speaks for the best.
    found = against_reference([np.negative(item.comodulation) for item in others], np.negative(best.comodulation))
    ordered = sorted(zip(found, others, strict=True), key=lambda pair: pair[0].mean)
    stages = "; ".join(f"stage {item.condition.location} {100 * item.mean('comodulation'):.1f}%" for item in row)
    note = f"{stages}, no task {100 * best.mean('base'):.1f}%, alone {100 * best.mean('alone'):.1f}%."
    statement = f"For {kind} tasks the encoder is best at stage {best.condition.location}."
    unit = f"points over stage {ordered[0][1].condition.location}"
    return Finding(f"Best, {kind}", statement, tuple(d for d, _ in ordered), note, unit=unit)


def neurons_finding(measured: Sequence[Measured], kind: str) -> Finding:
    """The neurons that a kind of task needs against channels, mean over locations."""
    statement = f"For {kind} tasks a neuron must be a channel and {OWN[kind]}: channels alone do worse."
    sides = [
        {item.condition.location: item for item in measured if item.condition[:2] == (kind, neurons)}
        for neurons in (OWN[kind], "channel")
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    seeds = common_seeds([set(sides[0][place].seeds) & set(sides[1][place].seeds) for place in shared])
    shared = [place for place in shared if seeds and all(set(seeds) <= set(side[place].seeds) for side in sides)]
    own, channel = ({place: side[place].over(seeds) for place in shared} for side in sides)
    if not shared:
        return Finding(f"Neurons, {kind}", statement, note="No location has both kinds of neuron on two seeds.")
    ours, theirs = (np.mean([side[place].comodulation for place in shared], 0) for side in (own, channel))
    highest = max(max(channel[place].comodulation + channel[place].attention) for place in shared)
    note = (
        f"Mean over {len(shared)} locations. Channels alone: at most {100 * highest:.1f}% on any seed, predicted: no more than "
        f"{100 * CEILING:.0f}% but for chance."
    )
    return Finding(f"Neurons, {kind}", statement, (paired_difference(ours, theirs),), note)


def tested_qualities(measured: Sequence[Measured]) -> list[Predictor]:
    """Each quality of the labels against what comodulation adds to the accuracy without a task, over conditions."""
    if len(measured) < 4:
        return []
    outcome = [item.mean("gain") for item in measured]
    table = {name: [item.qualities[name] for item in measured] for name in QUALITIES}
    return predictors({name: series for name, series in table.items() if np.ptp(series) > 0}, outcome)


def quality_verdict(found: Sequence[Predictor], measured: Sequence[Measured]) -> Verdict:
    """Whether the quality of the decoder's labels predicts accuracy over conditions, of which some cannot name their task."""
    number = len(measured)
    statement = "The better the gains tell informative neurons from others, the more accurate the answers."
    own = next((item for item in found if item.name == "auc" and math.isfinite(item.rho)), None)
    if own is None:
        return Verdict("Labels", statement, UNKNOWN, note=f"{number} conditions have two seeds; at least 4 are needed.")
    verdict = UNKNOWN if not own.decided else (HOLDS if own.rho > 0 else FAILS)
    note = (
        f"Rank correlation of the AUC of decoder gains with the accuracy over no task. Left-out conditions are predicted to "
        f"{100 * own.error:.1f} points, by the others' mean to {100 * own.mean_error:.1f}."
    )
    able = [item for item in measured if item.condition.neurons == OWN[item.condition.kind]]
    if 4 <= len(able) < number:
        rho = spearman(np.array([i.qualities["auc"] for i in able]), np.array([i.mean("gain") for i in able]))
        note += f" Among the {len(able)} conditions whose neurons can name the task: rho {rho:+.2f}."
    return Verdict(
        "Labels", statement, verdict, f"rho {own.rho:+.2f}", shown_ends(own.low, own.high, scale=1),
        f"{shown_p(own.p_holm)} (Holm)", f"{number} conditions", note,
    )  # fmt: skip


def advantage_finding(measured: Sequence[Measured], kind: str) -> Finding:
    """Comodulation against attention for a kind of task, with its own neurons, mean over locations."""
    claim, statement = f"Attention, {kind}", f"For {kind} tasks comodulation is more accurate than attention."
    row = _of(measured, kind, OWN[kind])
    if not row:
        return Finding(claim, statement, note="No location has two seeds.")
    note = (
        f"Mean over {len(row)} locations; NLL {float(np.mean([item.nll for item in row])):+.3f}, ECE "
        f"{100 * float(np.mean([item.ece for item in row])):+.1f} points."
    )
    return Finding(claim, statement, (from_zero(np.mean([item.advantage for item in row], 0)),), note)


def _table(measured: Sequence[Measured]) -> Table:
    columns = (
        "task", "neuron", "encoder", "seeds", "alone (%)", "no task (%)", "attention (%)", "comodulation (%)", "NLL", "ECE",
        *QUALITIES.values(),
    )  # fmt: skip
    rows = [
        [
            item.condition.kind, item.condition.neurons, f"stage {item.condition.location}", len(item.seeds),
            *(100 * item.mean(name) for name in ACCURACIES), item.mean("nll"), 100 * item.mean("ece"),
            *(item.qualities[name] for name in QUALITIES),
        ]
        for item in measured
    ]  # fmt: skip
    formats = {**dict.fromkeys(columns[4:8], ".2f"), "NLL": "+.3f", "ECE": "+.2f", **dict.fromkeys(columns[10:], ".3f")}
    caption = "**Accuracy by task, neuron and location.** Means over seeds; NLL and ECE (points): comodulation minus attention."
    return Table(columns, rows, caption, formats)


def _figures(measured: Sequence[Measured], found: Sequence[Predictor]) -> dict[str, Figure]:
    if not measured:
        return {}
    figures = {
        "locations": Figure(
            _drawn_locations(measured),
            "How to read it: a panel a kind of task; how much of accuracy the task adds with the encoder at each stage and the "
            "decoder at the next. Broken lines: neurons are channels alone, which cannot name a place or a moment. 95% t intervals "
            "over seeds, simultaneous for all points.",
            "Where a task should act",
        )
    }
    if found:
        qualities, gains = [item.qualities for item in measured], together(item.gain for item in measured)
        figures["labels"] = Figure(
            drawn_predictors(found, QUALITIES, qualities, gains, "accuracy over\nno task (points)"),
            "How to read it: a dot is a condition (kind of task, neuron, location). To the right, gains tell informative neurons "
            "from others better; above, comodulation adds more accuracy.",
            "Quality of the labels against accuracy",
        )
    advantages = zip(measured, together(item.advantage for item in measured), strict=True)
    figures["advantages"] = Figure(
        drawn_forest(
            {item.condition.shown: d for item, d in advantages}, "accuracy of comodulation minus attention (points)"
        ),
        "How to read it: to the right of the line, comodulation is more accurate. Filled where the interval, simultaneous for all "
        "conditions, excludes 0.",
        "Advantage over attention by condition",
    )
    return figures


def _drawn_locations(measured: Sequence[Measured]) -> str:
    """What either method adds to the accuracy without a task at each location, with a kind's own neurons and with channels."""
    shown = [
        (
            kind,
            method if neurons == OWN[kind] else f"{method}, channels alone",
            item.condition.location,
            item.added(method),
        )
        for kind in KINDS
        for neurons in dict.fromkeys((OWN[kind], "channel"))
        for method in METHODS
        for item in _of(measured, kind, neurons)
    ]
    panels: dict[str, dict[str, list[Point]]] = {}
    for (kind, name, location, _), d in zip(shown, together(added for *_, added in shown), strict=True):
        panels.setdefault(f"{kind} tasks", {}).setdefault(name, []).append(drawn_point(location, d))
    ticks = {float(location): f"stage {location}" for location in LOCATIONS}
    return svg(curves_figure(panels, xlabel="encoder", ylabel="accuracy over\nno task (points)", ticks=ticks))


def _text(measured: Sequence[Measured]) -> str:
    lines = [f"{'task, neuron, encoder':32s} alone  no task  attention  comodulation   AUC of couplings, gains"]
    for item in measured:
        by_itself, base, attention, ours = (100 * item.mean(name) for name in ACCURACIES)
        lines.append(
            f"  {item.condition.shown:28s} {by_itself:6.2f}%  {base:6.2f}%    {attention:6.2f}%       {ours:6.2f}%   "
            f"{item.qualities['encoder_auc']:.3f}, {item.qualities['auc']:.3f}"
        )
    return "\n".join(lines)
