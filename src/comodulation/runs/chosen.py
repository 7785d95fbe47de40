"""What a run chose and how it learned: candidates with their out-of-fold losses and weights, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..networks.methods import Method, ReadoutMethod
from ..report import Block, Details, Figure, Section, Table, Text, losses_figure, svg

TOGETHER = "together"
MOST_ROWS = 12  # tasks whose weights are shown; more are folded away
FINE_TUNING = ("Learning curve", "while the method is fine-tuned")
PRETRAINING = ("Pretraining", "while the layers are pretrained, without tasks")
PRACTICALLY = 0.995  # a weight that is all of it; what is left to the others is not told


def chosen_sections(method: Method, result: Mapping[str, Any]) -> list[Section]:
    """Sections of what was chosen, for each time that readouts were fitted, and of learning curves; none where nothing is known.

    Args:
        method: fitted. result: the content of metrics.json.
    """
    sections = []
    entries = [result, *result.get("added", [])]
    fitted = [entry for entry in entries if (entry.get("readouts") or {}).get("weights")]
    if isinstance(method, ReadoutMethod) and len(fitted) == len(method.parts):
        first = 0
        for entry, part in zip(fitted, method.parts, strict=True):
            weights = part.weights.tolist()
            tasks = method.family.tasks[first : first + len(weights)] if method.family.kind != "classes" else ("all",)
            first += len(weights)
            title = "What was chosen" if entry is result else f"What was chosen for {', '.join(tasks)}"
            sections.append(Section(title, _chosen(entry["readouts"], tasks, weights)))
    curves = [_epochs(result.get("history") or [], FINE_TUNING), _epochs(result.get("pretraining") or [], PRETRAINING)]
    if shown := [curve for curve in curves if curve]:
        sections.append(Section("Learning curve", shown))
    return sections


def chosen_sentence(nll: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """What was taken and why, said from the numbers.

    Args:
        nll: mean NLL out of fold of each candidate, and of all ``together``. weights: mean weight of each candidate.

    >>> chosen_sentence({"linear, pooled": 0.5, "together": 0.5}, {"linear, pooled": 1.0})
    'The only candidate is **linear, pooled**, with an out-of-fold NLL of 0.500.'
    """
    single = {name: value for name, value in nll.items() if name != TOGETHER}
    together, leader = nll.get(TOGETHER, math.nan), max(weights, key=lambda name: weights[name])
    if len(single) < 2:
        return f"The only candidate is **{leader}**, with an out-of-fold NLL of {together:.3f}."
    if weights[leader] >= PRACTICALLY:
        taken = f"**{leader}** has practically all of the weight"
    else:
        shares = sorted(
            ((name, share) for name, share in weights.items() if share > 1 - PRACTICALLY), key=lambda item: -item[1]
        )
        taken = "The answer is the weighted mean of " + ", ".join(
            f"**{name}** ({100 * share:.0f}%)" for name, share in shares
        )
    best = min(single, key=lambda name: single[name])
    than = [f"that of the best candidate alone ({best}, {single[best]:.3f})"]
    lines = [name for name in single if name.startswith("linear")]
    gaps = [single[best]]
    if lines and len(lines) < len(single) and not best.startswith("linear"):
        line = min(lines, key=lambda name: single[name])
        than.append(f"that of the best linear one ({line}, {single[line]:.3f})")
        gaps.append(single[line])
    compared = " and ".join(
        f"{_gap(round(gap, 3) - round(together, 3))} {one}" for gap, one in zip(gaps, than, strict=True)
    )
    return f"{taken}, with weights fitted to out-of-fold predictions: NLL {together:.3f}, {compared}."


def _gap(value: float) -> str:
    shown = f"{abs(value):.3f}"
    return "equal to" if shown == "0.000" else f"{shown} {'below' if value > 0 else 'above'}"


def _chosen(about: Mapping[str, Any], tasks: Sequence[str], weights: Sequence[Sequence[float]]) -> list[Block]:
    nll, shares = about.get("nll_out_of_fold", {}), about["weights"]
    table = Table(
        ("candidate", "NLL out of fold", "weight"),
        [(name, nll.get(name), share) for name, share in sorted(shares.items(), key=lambda item: -item[1])],
        "**Candidates.** How to read it: negative log-likelihood in nats (0 is best) of predictions for training images by "
        "networks that have not seen them, in five folds; and the weight of each candidate, the mean over tasks. Linear: logistic "
        "regression; class means: the class whose mean is nearest; committee: small networks, one for each fold; pooled: on means "
        "over the image; map: on its parts. "
        "The weights are fitted to the same predictions, so the first row is slightly too good.",
        formats={"NLL out of fold": ".3f", "weight": ".1%"},
        fixed=[("together", nll.get(TOGETHER), sum(shares.values()))] if len(shares) > 1 else (),
    )
    blocks: list[Block] = [Text(chosen_sentence(nll, shares)), table]
    if len(tasks) > 1 and len(shares) > 1 and all(len(row) == len(shares) for row in weights):
        own = Table(
            ("task", *shares),
            [(name, *row) for name, row in zip(tasks, weights, strict=True)],
            "**Weights of each task.** The weights of tasks with few labels are shrunk to those of all tasks together.",
            formats=dict.fromkeys(shares, ".1%"),
        )
        blocks.append(own if len(tasks) <= MOST_ROWS else Details(f"Weights of {len(tasks)} tasks", [own]))
    curves = {name: _curve(entries, "step") for name, entries in about.get("committees", {}).items()}
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if curves:
        levels = {name: nll[name] for name in nll if name.startswith("linear") and math.isfinite(nll[name])}
        blocks.append(
            Figure(
                svg(losses_figure(curves, levels, xlabel="steps", ylabel="NLL out of fold (nats)")),
                "How to read it: NLL of predictions for training images by networks that have not seen them, in nats, lower is "
                "better, during the training of the committees. A ring marks the step that is kept. Broken lines are the linear "
                "candidates. "
                "The first steps may lie above the figure.",
                "Learning curves",
            )
        )
    return blocks


def _epochs(history: Sequence[Mapping[str, float]], what: tuple[str, str]) -> Figure | None:
    """Validation loss over epochs, of methods with layers. what: title, and of what it is."""
    curve = _curve(history, "epoch")
    if not curve[0]:
        return None
    return Figure(
        svg(losses_figure({"validation": curve}, {}, xlabel="epoch", ylabel="validation NLL (nats)")),
        f"How to read it: negative log-likelihood on validation images, in nats, lower is better, {what[1]}. "
        "A ring marks the epoch with the lowest.",
        what[0],
    )


def _curve(entries: Sequence[Mapping[str, float]], place: str) -> tuple[list[float], list[float]]:
    """Places and losses of a history; what is no number is left out."""
    kept = [(entry[place], entry["nll"]) for entry in entries if place in entry and "nll" in entry]
    kept = [(x, y) for x, y in kept if math.isfinite(x) and math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]
