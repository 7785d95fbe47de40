"""Does it matter how a task becomes couplings? Embedding or MLP, size, depth, activation, sign, and what describes a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...evaluation import PairedDifference, against_reference, as_family, spread_ratio
from ...report import FAILS, HOLDS, UNKNOWN, Figure, Point, Section, Table, Text, Verdict, curves_figure, svg
from ...report import Cell as Shown
from ..cells import (
    Answer,
    Cell,
    Inquiry,
    Question,
    Result,
    Row,
    Stage,
    common_seeds,
    drawn_forest,
    drawn_point,
    measure_accuracy,
    shown_difference,
    shown_ends,
    shown_p,
    sign_verdict,
    stage,
    usual_settings,
    values,
)

REFERENCE = "comodulation"  # an embedding: a row of couplings a task, learned directly
MARGIN = 0.005  # half a point of accuracy
# In the order of their worth; each stage is searched and trained before the next.
ROWS = {
    "few and many": (
        REFERENCE,
        "comodulation rank=4",
        "comodulation rank=1",
        "comodulation hidden=64",
    ),
    "sizes": (
        "comodulation rank=2",
        "comodulation rank=8",
        "comodulation rank=16",
        "comodulation hidden=16",
        "comodulation hidden=256",
        "comodulation hidden=1024",
    ),
    "forms": (
        "comodulation link=rectified",
        "comodulation task_vectors=prototypes",
        "comodulation hidden=64x64",
        "comodulation hidden=64 activation=tanh",
        "comodulation hidden=64 activation=gelu",
        "comodulation hidden=64 task_vectors=prototypes",
    ),
    "more forms": (
        "comodulation hidden=64x64x64",
        "comodulation hidden=64 activation=silu",
        "comodulation task_vectors=onehot",
        "comodulation hidden=64 task_vectors=onehot",
        "comodulation hidden=64 embedding_size=8",
        "comodulation hidden=64 embedding_size=128",
        "comodulation hidden=64 link=rectified",
    ),
}
METRICS = {"accuracy": (100.0, "points", 2), "nll": (1.0, "nats", 3), "ece": (100.0, "points", 2)}


def stages(seeds: Sequence[int]) -> list[Stage]:
    """The reference and the sizes first; then what else a controller can be."""
    return [stage(name, labels, seeds) for name, labels in ROWS.items()]


def first_rate(row: Row) -> float:
    """Where the search for a controller's learning rate begins: lower, the more parameters move one coupling."""
    if row.get("hidden"):
        return 0.006
    return 0.06 if row.get("rank") or row.get("task_vectors") == "prototypes" else 0.2


def settings(cell: Cell, inquiry: Inquiry, num_tasks: int) -> dict[str, Any]:
    """The embedding's; without a search, other controllers take the rate at which one would begin."""
    usual = usual_settings(cell)
    return usual if cell.row.without("link") == Row(REFERENCE) else {**usual, "learning_rate": first_rate(cell.row)}


class Controller(NamedTuple):
    """A controller's cells: its row, how many numbers it learns, and each metric by seed."""

    name: str
    learned: int
    by_seed: dict[str, dict[int, float]]

    def mean(self, metric: str) -> float:
        return float(np.mean(list(self.by_seed[metric].values())))


def controllers(results: Sequence[Result]) -> list[Controller]:
    """Every controller, in the order of the results."""
    learned = {result.name: int(result.numbers["learnable_parameters"]) for result in results}
    return [
        Controller(name, number, {metric: values(results, "residual", "open", name, metric) for metric in METRICS})
        for name, number in learned.items()
    ]


def answer(results: Sequence[Result], inquiry: Inquiry, out: Path) -> Answer:
    """Every controller against the embedding, over the seeds that both have."""
    every = controllers(results)
    tables = {metric: _complete(every, metric) for metric in METRICS}
    found = {metric: compared(*table) for metric, table in tables.items()}
    differences, learned = found["accuracy"], {one.name: one.learned for one in every}
    notes = []
    if missing := [one.name for one in every if one.name != REFERENCE and one.name not in differences]:
        notes.append(f"Not compared, for want of seeds: {', '.join(shown(name) for name in missing)}.")
    rows, reference = tables["accuracy"]
    if differences and (ratio := spread_ratio([np.subtract(row, reference) for row in rows.values()])) > 4:
        notes.append(
            f"One controller varies {ratio:.1f} times as much over seeds as the median one: its interval is too narrow, the "
            "others' too wide."
        )
    numbers = {
        one.name: {
            "learnable_parameters": one.learned,
            **{metric: one.mean(metric) for metric in METRICS},
            **{f"{m}_difference": _json(found[m][one.name]) for m in METRICS if one.name in found[m]},
        }
        for one in every
    }
    shown_tables = [_table(every, metric, found[metric]) for metric in METRICS]
    return Answer(
        [form_verdict(differences), size_verdict(differences, learned)],
        [Section("All controllers", [*shown_tables, Text(READING)])],
        _figures(differences, learned),
        numbers,
        _text(every, differences),
        notes,
    )


READING = (
    "Differences are from the embedding, over the same seeds. Intervals are 95% t intervals of a two-way layout of controllers and "
    "seeds, the spread over seeds taken from all controllers together, simultaneous for all controllers of a table; p is adjusted "
    "by Holm over them."
)
Compared = dict[str, PairedDifference]


def compared(rows: dict[str, list[float]], reference: list[float]) -> Compared:
    """Difference of each row from the reference, judged together; {} with fewer than two seeds.

    Args:
        rows: name -> value of each seed. reference: values of the same seeds.
    """
    if len(reference) < 2 or not rows:
        return {}
    found = as_family(against_reference(list(rows.values()), reference))
    return {name: d for name, d in zip(rows, found, strict=True) if d is not None}


def form_verdict(differences: Compared) -> Verdict:
    """Whether any controller that can express what an embedding does differs from it in accuracy."""
    statement = "It matters which form the controller has: some differs from the embedding in accuracy."
    forms = {name: d for name, d in differences.items() if not Row.parse(name).get("rank")}
    if not forms:
        return Verdict("Form", statement, UNKNOWN, note="Fewer than two seeds, or no other controller, are there.")
    decided = {name: d for name, d in forms.items() if sign_verdict(d) != UNKNOWN}
    name, d = max((decided or forms).items(), key=lambda item: abs(item[1].mean))
    within = all(d.low > -MARGIN and d.high < MARGIN for d in forms.values())
    verdict = HOLDS if decided else FAILS if within else UNKNOWN
    note = f"The largest {'decided ' if decided else ''}difference of {len(forms)}: {shown(name)}. "
    if decided:
        note += f"With simultaneous intervals {len(decided)} differ: {', '.join(shown(other) for other in decided)}."
    else:
        note += f"{'All' if within else 'Not all'} intervals lie within half a point."
    return _verdict("Form", statement, verdict, d, note, p=f"{shown_p(d.p)} (Holm)")


def size_verdict(differences: Compared, parameters: dict[str, int]) -> Verdict:
    """Whether fewer parameters than an embedding's keep accuracy, and how few."""
    statement = "Fewer parameters than an embedding's keep accuracy within half a point."
    ranks = {name: d for name, d in differences.items() if Row.parse(name).get("rank")}
    full = parameters.get(REFERENCE, 0)
    ranks = {name: d for name, d in ranks.items() if parameters[name] < full}
    if not ranks:
        return Verdict(
            "Size", statement, UNKNOWN, note="Fewer than two seeds, or no controller of low rank, are there."
        )
    kept = sorted((parameters[name], name) for name, d in ranks.items() if d.low > -MARGIN)
    number, name = kept[0] if kept else max((parameters[name], name) for name in ranks)
    note = f"{'The fewest that do' if kept else 'The most that were tried'}: {number:,} of {full:,} parameters ({shown(name)})."
    if kept:
        note += " Its interval lies above -0.5 points."
    lost = all(d.high < -MARGIN for d in ranks.values())
    return _verdict("Size", statement, HOLDS if kept else FAILS if lost else UNKNOWN, ranks[name], note)


def _verdict(claim: str, statement: str, verdict: str, d: PairedDifference, note: str, p: str = "") -> Verdict:
    """In words, with the difference that it is read off."""
    return Verdict(
        claim, statement, verdict, f"{100 * d.mean:+.2f} points", shown_ends(d.low, d.high), p, f"{d.n} seeds", note
    )


def shown(name: str) -> str:
    """A controller in words.

    >>> shown("comodulation rank=4"), shown("comodulation"), shown("comodulation hidden=64x64 activation=tanh")
    ('rank 4', 'embedding', 'MLP 64-64, tanh')
    """
    row = Row.parse(name)
    words = []
    if widths := row.get("hidden"):
        words.append(f"MLP {str(widths).replace('x', '-')}")
    elif row.get("rank"):
        words.append(f"rank {row.get('rank')}")
    elif row.get("task_vectors"):
        words.append("linear")
    else:
        words.append("embedding")
    if kind := row.get("task_vectors"):
        words.append({"onehot": "of one-hot vectors", "prototypes": "of prototypes"}[kind])
    words += [str(row.get("activation"))] if row.get("activation") else []
    words += [f"task embedding {row.get('embedding_size')}"] if row.get("embedding_size") else []
    words += ["positive couplings"] if row.get("link") == "rectified" else []
    return ", ".join(words)


def _complete(every: Sequence[Controller], metric: str) -> tuple[dict[str, list[float]], list[float]]:
    """Values of the rows over the same seeds, and the reference's."""
    table = {one.name: one.by_seed[metric] for one in every}
    reference = table.pop(REFERENCE, {})
    seeds = common_seeds([reference.keys() & found.keys() for found in table.values()])
    rows = {name: [row[seed] for seed in seeds] for name, row in table.items() if seeds and row.keys() >= set(seeds)}
    return rows, [reference[seed] for seed in seeds]


def _json(d: PairedDifference) -> dict[str, Any]:
    return {"mean": d.mean, "low": d.low, "high": d.high, "p_holm": d.p, "family": d.family, "seeds": d.n}


def _table(every: Sequence[Controller], metric: str, found: Compared) -> Table:
    scale, unit, digits = METRICS[metric]
    title = metric if metric == "accuracy" else metric.upper()
    rows = []
    for one in every:
        mean, d = one.mean(metric), found.get(one.name)
        row: list[object] = [shown(one.name), one.learned, len(one.by_seed[metric])]
        row.append(Shown(f"{scale * mean:.{digits}f}", mean))
        row += (
            [None, None] if d is None else [Shown(shown_difference(d, scale, digits), d.mean), Shown(shown_p(d.p), d.p)]
        )
        rows.append(row)
    columns = ("controller", "learned", "seeds", title, "− embedding", "p, Holm")
    return Table(columns, rows, f"**Sensitivity of {title} ({unit}) to the controller.** Means over seeds.")


def _figures(differences: Compared, learned: dict[str, int]) -> dict[str, Figure]:
    if not differences:
        return {}
    groups: dict[str, list[Point]] = {}
    for name, d in differences.items():
        row = Row.parse(name)
        kind = "low rank" if row.get("rank") else "MLP" if row.get("hidden") else "linear"
        groups.setdefault(kind, []).append(drawn_point(learned[name], d, str(row.get("rank") or "")))
    figure = curves_figure(
        {"accuracy": {kind: sorted(points) for kind, points in groups.items()}},
        xlabel="learned numbers",
        ylabel="minus embedding\n(points)",
        joined=False,
        margin=100 * MARGIN,
    )
    return {
        "parameters": Figure(
            svg(figure),
            "How to read it: a point is a controller, its height the accuracy beyond that of an embedding, with simultaneous 95% "
            "intervals over seeds; the band is half a point either way. Numbers beside points are ranks.",
            "Accuracy by the number of learned parameters",
        ),
        "controllers": Figure(
            drawn_forest({shown(name): d for name, d in differences.items()}, "accuracy minus embedding (points)"),
            "How to read it: to the right of the line, more accurate than an embedding. Filled: the interval, simultaneous "
            "for all controllers, excludes 0.",
            "Every controller against the embedding",
        ),
    }


def _text(every: Sequence[Controller], differences: Compared) -> str:
    lines = [f"{'controller':34s} learned  accuracy      NLL    ECE   accuracy minus embedding [together 95%]"]
    for one in every:
        accuracy, nll, ece = (one.mean(metric) for metric in METRICS)
        against = f"   {shown_difference(differences[one.name])}" if one.name in differences else ""
        lines.append(
            f"  {shown(one.name):30s} {one.learned:9,d}  {100 * accuracy:7.2f}%  {nll:7.3f}  {100 * ece:4.1f}%{against}"
        )
    return "\n".join(lines)


CONTROLLER = Question(
    place=f"{__name__}:CONTROLLER",
    name="controller",
    title="Does the controller matter?",
    asks="How sensitive are accuracy and calibration to how a task becomes couplings?",
    predicts=(
        "An embedding reaches every pattern of couplings that a larger controller reaches, since it has a row for every "
        "task: MLPs should differ from it by how they are optimised alone, by less than half a point. Superclasses "
        "overlap, so couplings should have low rank: rank 8 of at most 20 should keep accuracy within half a point, rank 1 should "
        "not. Given vectors should help with few images, not here. Positive couplings should lose a little."
    ),
    stages=stages,
    measure=measure_accuracy,
    settings=settings,
    answer=answer,
    trials=4,
    first_rate=first_rate,
    rates=(
        "The embedding's learning rate was searched for in another study; other controllers take the rate at which a search begins."
    ),
)
