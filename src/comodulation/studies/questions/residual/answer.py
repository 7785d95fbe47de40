"""What the finished cells of the study of skip connections say: the advantage by network, and what predicts it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....evaluation import THRESHOLDS, PairedDifference, paired_difference
from ....report import HOLDS, UNKNOWN, Figure, Section, Table, Text, Verdict
from ...cells import (
    Answer,
    Finding,
    Inquiry,
    Result,
    Row,
    drawn_forest,
    family_words,
    from_zero,
    judged,
    on_common_seeds,
    shown_ends,
    shown_p,
    together,
)
from .prediction import Predictor, predictors
from .predictor_tables import drawn_predictors, predictor_table, shown_rho

STRENGTHS = (0, 1, 0.5, 0.25, 0.75)
PROPERTIES = {
    "influence": "influence of the couplings",
    "encoder_skip_share": "share of the encoder's skip",
    "decoder_skip_share": "share of the decoder's skip",
    **{f"below_{threshold:g}": f"gains below {threshold:g}" for threshold in THRESHOLDS},
}


def skips(encoder: float, decoder: float) -> str:
    return f"encoder_skip={encoder:g} decoder_skip={decoder:g}"


class Network(NamedTuple):
    """A kind of network over the seeds that have attention and comodulation on it.

    Means over seeds are over all of its own.

    ``advantage`` and ``nll`` are comodulation minus attention by seed, ``base`` the accuracy without a task where it is there,
    ``properties`` means over seeds by name.
    """

    options: str
    seeds: tuple[int, ...]
    advantage: list[float]
    nll: list[float]
    attention: float
    base: float
    properties: dict[str, float]

    def over(self, seeds: Sequence[int]) -> Network:
        """The same over some of its seeds, but for what are means over seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        advantage, nll = ([row[place] for place in places] for row in (self.advantage, self.nll))
        return self._replace(seeds=tuple(seeds), advantage=advantage, nll=nll)


def networks(results: Sequence[Result]) -> list[Network]:
    """Every kind of network that has both methods, in the order of the results."""
    table: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for result in results:
        options = result.cell.row.described
        table.setdefault(options, {})[result.cell.row.method, result.cell.seed] = result.numbers
    found = []
    for options, cells in table.items():
        seeds = sorted({s for m, s in cells if m == "attention"} & {s for m, s in cells if m == "comodulation"})
        if not seeds:
            continue
        ours, theirs = ([cells[method, seed] for seed in seeds] for method in ("comodulation", "attention"))
        difference = {
            metric: [a[metric] - b[metric] for a, b in zip(ours, theirs, strict=True)] for metric in ("accuracy", "nll")
        }
        base = [cells["base", seed]["accuracy"] for seed in seeds if ("base", seed) in cells]
        found.append(
            Network(
                options, tuple(seeds), difference["accuracy"], difference["nll"],
                float(np.mean([numbers["accuracy"] for numbers in theirs])), float(np.mean(base)) if base else math.nan,
                {name: float(np.mean([numbers[name] for numbers in ours])) for name in PROPERTIES},
            )
        )  # fmt: skip
    return found


def answer(results: Sequence[Result], inquiry: Inquiry, out: Path) -> Answer:
    """What the skip does to the advantage over attention, and which property of a network predicts that advantage."""
    kinds = networks(results)
    compared = complete(kinds)
    found, constant = tested_properties(compared)
    verdicts = [
        prediction_verdict(found, len(compared)),
        *judged([strength_finding(kinds), place_finding(kinds), *change_findings(kinds)]),
    ]
    sections = [Section("Every network", [_network_table(kinds)])] if kinds else []
    if found:
        table = predictor_table(found, PROPERTIES, "property", "**Properties of a network and its advantage.**")
        sections.append(Section("What predicts the advantage", [table, Text(READING)]))
    notes = []
    if short := [shown(kind.options) for kind in kinds if kind.options not in {item.options for item in compared}]:
        notes.append(
            f"Not among the networks that properties are tested on, because they lack a seed: {'; '.join(short)}."
        )
    if constant:
        notes.append(f"The same in all networks, so that nothing can follow from it: {', '.join(constant)}.")
    numbers = {
        "networks": [kind._asdict() for kind in kinds],
        "predictors": [{**vars(predictor), "predicts": predictor.predicts} for predictor in found],
    }
    return Answer(verdicts, sections, _figures(kinds, compared, found), numbers, _text(kinds, found), notes)


READING = (
    "Advantage: accuracy of comodulation minus attention, mean over seeds. Over networks: Spearman's rank correlation, its "
    "bootstrap interval (simultaneous for all properties), a permutation test adjusted by Holm over them, and the error of "
    "predicting a network's advantage from the line through all others, beside the error of predicting their mean. A property "
    "predicts where p is below 0.05, its interval excludes 0 and its error is below the mean's."
)


def complete(kinds: Sequence[Network]) -> list[Network]:
    """Networks with their advantages over the same seeds, whose properties are numbers (a dead layer has none)."""
    return on_common_seeds([kind for kind in kinds if np.isfinite(list(kind.properties.values())).all()])


def tested_properties(kinds: Sequence[Network]) -> tuple[list[Predictor], list[str]]:
    """Every property against the advantage, and the names of those that are the same in all networks."""
    if len(kinds) < 4:
        return [], []
    table = {name: [kind.properties[name] for kind in kinds] for name in PROPERTIES}
    constant = [name for name, series in table.items() if np.ptp(series) == 0]
    varying = {name: series for name, series in table.items() if name not in constant}
    outcome = [float(np.mean(kind.advantage)) for kind in kinds]
    return (predictors(varying, outcome) if varying else []), [PROPERTIES[name] for name in constant]


def prediction_verdict(found: Sequence[Predictor], number: int) -> Verdict:
    """Whether any property predicts the advantage; what is not seen over a dozen networks is not thereby absent."""
    statement = (
        "A property of the network (influence, flow, sparsity) predicts comodulation's advantage over attention."
    )
    defined = [item for item in found if math.isfinite(item.rho)]
    if not defined:
        return Verdict(
            "Predictor",
            statement,
            UNKNOWN,
            note=f"{number} kinds of network have both methods on two seeds; at least 4 are needed.",
        )
    best = min(defined, key=lambda item: (not item.predicts, item.p_holm, item.p))
    note = (
        f"{PROPERTIES[best.name]}, best of {len(defined)}: rank correlation over networks; left-out networks are predicted "
        f"to {100 * best.error:.2f} points, by the others' mean to {100 * best.mean_error:.2f}."
    )
    return Verdict(
        "Predictor", statement, HOLDS if best.predicts else UNKNOWN, f"rho {best.rho:+.2f}",
        shown_ends(best.low, best.high, scale=1), f"{shown_p(best.p_holm)} (Holm)", f"{number} networks", note,
    )  # fmt: skip


def strength_finding(kinds: Sequence[Network]) -> Finding:
    """Slope of the advantage over the strength of both skips, by seed."""
    statement = "The stronger the skip connections, the larger comodulation's advantage over attention."
    strengths = {skips(strength, strength): strength for strength in STRENGTHS}
    line = on_common_seeds([kind for kind in kinds if kind.options in strengths])
    if len(line) < 2:
        return Finding("Strength", statement, note="Fewer than two strengths, or two seeds, are there.")
    x = np.array([strengths[kind.options] for kind in line])
    x = x - x.mean()
    slopes = x @ np.array([kind.advantage for kind in line]) / (x @ x)
    note = f"Slope over {len(line)} strengths, from no skip connections to full ones."
    return Finding("Strength", statement, (from_zero(slopes),), note)


def place_finding(kinds: Sequence[Network]) -> Finding:
    """The skip in the decoder alone against the one in the encoder alone."""
    statement = "A skip connection in the decoder helps comodulation's advantage more than one in the encoder."
    note = "Advantage with a skip in the decoder alone minus that with one in the encoder alone."
    return _between(kinds, skips(0, 1), skips(1, 0), "Place", statement, note)


def change_findings(kinds: Sequence[Network]) -> list[Finding]:
    """The other changes: what each does to the advantage."""
    return [
        _between(
            kinds, f"{skips(1, 1)} batch_norm=True", skips(1, 1), "Normalisation",
            "With normalised layers comodulation's advantage over attention is larger.", "Both skips, with minus without.",
        ),
        _between(
            kinds, f"{skips(1, 1)} depth=2", skips(1, 1), "Depth",
            "With two decoder layers comodulation's advantage over attention is larger.", "Both skips, two layers minus one.",
        ),
        _between(
            kinds, skips(1, 1), f"{skips(1, 1)} channels=128", "Width",
            "With more channels comodulation's advantage over attention is larger.", "Both skips, the usual width minus 128.",
        ),
    ]  # fmt: skip


def _between(kinds: Sequence[Network], a: str, b: str, claim: str, statement: str, note: str) -> Finding:
    found = {kind.options: kind for kind in kinds}
    seeds = sorted(set(found[a].seeds) & set(found[b].seeds)) if a in found and b in found else []
    if len(seeds) < 2:
        return Finding(claim, statement, note="Fewer than two seeds have both networks.")
    left, right = (found[name].over(seeds).advantage for name in (a, b))
    return Finding(claim, statement, (paired_difference(left, right),), note)


def shown(options: str) -> str:
    """A network in words.

    >>> shown("encoder_skip=1 decoder_skip=1"), shown("encoder_skip=0.5 decoder_skip=0 batch_norm=True")
    ('skips 1', 'skips 0.5, 0, normalised')
    """
    row = Row.parse(f"base {options}")
    pair = [f"{row.get(name, 1):g}" for name in ("encoder_skip", "decoder_skip")]
    words = ["skips " + ", ".join(pair if pair[0] != pair[1] else pair[:1])]
    words += ["normalised"] if row.get("batch_norm") else []
    words += [f"{row.get('depth')} layers"] if row.get("depth") else []
    words += [f"{row.get('channels')} channels"] if row.get("channels") else []
    return ", ".join(words)


def _advantages(kinds: Sequence[Network]) -> dict[str, PairedDifference]:
    """Mean advantage by network, judged together; networks of one seed have none."""
    tested = [kind for kind in kinds if len(kind.seeds) > 1]
    found = together(kind.advantage for kind in tested)
    return {kind.options: d for kind, d in zip(tested, found, strict=True)}


def _network_table(kinds: Sequence[Network]) -> Table:
    columns = (
        "network",
        "seeds",
        "no task (%)",
        "attention (%)",
        "advantage (points)",
        "low",
        "high",
        "NLL",
        *PROPERTIES.values(),
    )
    advantages = _advantages(kinds)
    rows = []
    for kind in kinds:
        mean, d = float(np.mean(kind.advantage)), advantages.get(kind.options)
        low, high = (d.low, d.high) if d else (math.nan, math.nan)
        rows.append([
            shown(kind.options), len(kind.seeds), 100 * kind.base, 100 * kind.attention, 100 * mean, 100 * low, 100 * high,
            float(np.mean(kind.nll)), *(kind.properties[name] for name in PROPERTIES),
        ])  # fmt: skip
    formats = {**dict.fromkeys(columns[2:4], ".2f"), **dict.fromkeys(columns[4:7], "+.2f")}
    formats |= {"NLL": "+.3f", **dict.fromkeys(PROPERTIES.values(), ".3f")}
    caption = (
        "**Comodulation minus attention** in networks that were pretrained with other skip connections. Intervals: "
        f"{family_words(advantages.values())}. Properties are means over seeds."
    )
    return Table(columns, rows, caption, formats)


def _figures(kinds: Sequence[Network], compared: Sequence[Network], found: Sequence[Predictor]) -> dict[str, Figure]:
    """The networks that properties are tested on, over the seeds they share; and the advantage of every one, over all its own."""
    figures: dict[str, Figure] = {}
    if found:
        properties, outcomes = [kind.properties for kind in compared], list(_advantages(compared).values())
        figures["properties"] = Figure(
            drawn_predictors(found, PROPERTIES, properties, outcomes, "advantage (points)"),
            "How to read it: a dot is a kind of network, its height the advantage over attention with simultaneous 95% intervals. "
            "Above each panel the rank correlation over networks, and p after Holm's correction.",
            "The advantage against properties of the network",
        )
    if advantages := {shown(options): d for options, d in _advantages(kinds).items()}:
        figures["advantages"] = Figure(
            drawn_forest(advantages, "accuracy of comodulation minus attention (points)"),
            "How to read it: to the right of the line, comodulation is more accurate. Filled where the interval, simultaneous "
            "for all networks, excludes 0.",
            "Advantage over attention by network",
        )
    return figures


def _text(kinds: Sequence[Network], found: Sequence[Predictor]) -> str:
    lines = [f"{'network':30s} no task  attention  advantage [together 95%] influence  skip shares   gains < 0.3"]
    advantages = _advantages(kinds)
    for kind in kinds:
        p, d = kind.properties, advantages.get(kind.options)
        interval = shown_ends(d.low, d.high) if d else shown_ends(math.nan, math.nan)
        lines.append(
            f"  {shown(kind.options):28s} {100 * kind.base:6.2f}%   {100 * kind.attention:7.2f}%  "
            f"{100 * float(np.mean(kind.advantage)):+.2f} {interval}   {p['influence']:8.3f}   {p['encoder_skip_share']:.2f}, "
            f"{p['decoder_skip_share']:.2f}   {100 * p['below_0.3']:8.1f}%"
        )
    lines += [f"  {PROPERTIES[item.name]:28s} {shown_rho(item)}, p {item.p_holm:.3f} (Holm)" for item in found]
    return "\n".join(lines)
