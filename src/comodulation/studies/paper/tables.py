"""A study's tables, as the report shows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ...evaluation import BINARY_METRICS, PairedDifference, as_family, paired_by_task
from ...networks.methods import METHODS
from ...report import Block, Table, Verdict
from ..cells import (
    CELLS,
    PRIMARY,
    VARIANTS,
    YARDSTICK,
    Comparison,
    Result,
    Row,
    as_table,
    compare,
    constant_seed,
    family_words,
    names_of,
    primary_scores,
    scores_by_seed,
    values,
)
from .claims import relative_to_hard_sharing
from .diagnosis import Diagnosis
from .reproduction import Study
from .words import YARDSTICK_NOTE, constant_note, encoder_of, interval, mean, scale_of, shown_name, spread

PRIMARY_APART = " (the primary comparison, comodulation's accuracy minus attention's, stands alone)"
Compared = tuple[str, str, str, str, str]  # variant, readout, metric, a, b


def judged_together(results: Sequence[Result], wanted: Iterable[Compared]) -> dict[Compared, PairedDifference | None]:
    """The differences that one table shows, judged as one family.

    A row is not compared with itself, and a difference that is shown both ways round is one comparison.
    """
    keys = [key for key in dict.fromkeys(wanted) if key[3] != key[4]]
    single = [key for place, key in enumerate(keys) if _reversed(key) not in keys[:place]]
    found = dict(zip(single, as_table([compare(results, *key) for key in single]), strict=True))
    judged = {key: item.judged for key, item in found.items()}
    for key in keys:
        if key not in judged:
            d = judged[_reversed(key)]
            judged[key] = None if d is None else replace(d, mean=-d.mean, low=-d.high, high=-d.low)
    return judged


def _reversed(key: Compared) -> Compared:
    variant, readout, metric, a, b = key
    return variant, readout, metric, b, a


class Column(NamedTuple):
    """What a table of methods shows of each row: a metric's mean over seeds, or its difference from another row's.

    Attributes:
        head: of the column. metric: by its path in a cell's numbers. minus: name of the other row; None for the mean.
        with_sd: whether a mean has its standard deviation beside it.
    """

    head: str
    metric: str
    minus: str | None = None
    with_sd: bool = False


ACCURACY = Column("accuracy, %", "accuracy", with_sd=True)
NLL, ECE = Column("NLL", "nll"), Column("ECE, %", "ece")


def method_table(
    results: Sequence[Result],
    place: tuple[str, str],
    names: Sequence[str],
    columns: Sequence[Column],
    caption: str,
    shown: Callable[[str], str] = shown_name,
) -> Table:
    """Rows of a study beside each other, their differences judged together.

    Args:
        results: finished cells. place: variant and readout. names: of the rows. columns: behind the name and the number of seeds.
        caption: with ``{family}`` where it says how the differences are judged. shown: a row's name for readers.
    """
    judged = judged_together(results, [(*place, c.metric, name, c.minus) for c in columns if c.minus for name in names])

    def cell(name: str, column: Column) -> object:
        if column.minus:
            return interval(judged.get((*place, column.metric, name, column.minus)), column.metric)
        by_seed = values(results, *place, name, column.metric)
        if column.metric == "learnable_parameters":
            return int(next(iter(by_seed.values())))
        return spread(by_seed, column.metric, with_sd=column.with_sd)

    rows = [
        [shown(name), len(values(results, *place, name, "accuracy")), *(cell(name, column) for column in columns)]
        for name in names
    ]
    heads = ("method", "seeds", *(column.head for column in columns))
    formats = {column.head: "," for column in columns if column.metric == "learnable_parameters"}
    return Table(heads, rows, caption.format(family=family_words(judged.values())), formats)


def main_table(study: Study, results: Sequence[Result], variant: str) -> Table:
    """Every method in the open readout, and its differences from attention."""
    plan = study.plan()
    names = [row.label for row in (*plan.yardstick, *plan.core, *plan.others, *plan.layers, *plan.aggregation)]
    names = [name for name in names if values(results, variant, "open", name, "accuracy")]
    columns = [
        ACCURACY, Column("− attention", "accuracy", "attention"), NLL, Column("− attention, NLL", "nll", "attention"),
        ECE, Column("− attention, ECE", "ece", "attention"), Column("ECE scaled, %", "scaled.ece"),
        # The mask with a temperature, beside each row with its own.
        Column("NLL scaled", "scaled.nll"), Column("− class mask, NLL scaled", "scaled.nll", "class-mask"),
        Column("Brier", "brier"), Column("learned", "learnable_parameters"), Column("seconds", "seconds"),
    ]  # fmt: skip
    caption = (
        f"**{variant.capitalize()} variant.** Test split, mean (± sd) over seeds; differences from attention with "
        f"{{family}}{PRIMARY_APART if variant == PRIMARY[0] else ''}. Scaled: after temperature scaling "
        "on validation data, of the class mask too. Seconds: of training, in one process of several."
    )
    if YARDSTICK in names:  # studies from before there was one have none
        columns += [Column("− linear", "accuracy", YARDSTICK), Column("− linear, NLL", "nll", YARDSTICK)]
        caption = f"{caption} {YARDSTICK_NOTE}{constant_note(results)}"
    return method_table(results, (variant, "open"), names, columns, caption)


def forms_table(library: Sequence[Verdict], paper: Sequence[Verdict]) -> Table:
    """Verdicts on both forms of the method, claim by claim."""
    of_paper = {verdict.claim: verdict for verdict in paper}

    def shown(verdict: Verdict) -> str:
        ends, closed, _ = verdict.interval.partition("]")
        found = " ".join(part for part in (verdict.effect, ends + closed) if part)
        return f"{verdict.verdict}: {found}" if found else verdict.verdict

    rows = [
        [own.claim, shown(own), shown(of_paper[own.claim]), of_paper[own.claim].n]
        for own in library
        if own.claim in of_paper
    ]
    columns = ("claim", "library's form", "as in the paper", "seeds, as in the paper")
    caption = (
        "Each form against attention, or against what the claim names, with a search of its own. The intervals of the form as in "
        "the paper hold together for all of its rows; those of the library's form are the ones of the verdicts above. Which form "
        "is which: docs/paper.md."
    )
    return Table(columns, rows, caption)


def bias_table(results: Sequence[Result], variant: str) -> Table | None:
    """Methods beside a task bias, and what they add to it."""
    names = [
        "task-bias",
        *(f"{method} task_bias=True" for method in ("attention", "decoder-gains", "ia3", "comodulation")),
        YARDSTICK,
    ]
    names = [name for name in names if values(results, variant, "open", name, "accuracy")]
    columns = [
        ACCURACY, Column("− task bias", "accuracy", "task-bias"),
        Column("− attention with it", "accuracy", "attention task_bias=True"), NLL,
        Column("− task bias, NLL", "nll", "task-bias"),
    ]  # fmt: skip
    caption = f"**{variant.capitalize()} variant, open readout, beside a task bias.** Differences with {{family}}."
    table = method_table(results, (variant, "open"), names, columns, f"{caption}{constant_note(results)}")
    return table if len(names) > 1 + (YARDSTICK in names) else None


def short_table(results: Sequence[Result], variant: str, readout: str) -> Table:
    names = names_of(results, variant, readout)
    others = ("base", "attention", *([YARDSTICK] if YARDSTICK in names else []))
    columns = [ACCURACY, NLL, ECE, *(Column(f"accuracy − {other}", "accuracy", other) for other in others)]
    caption = (
        f"**{variant.capitalize()} variant, {readout} readout.** Differences with {{family}}.{constant_note(results)}"
    )
    return method_table(results, (variant, readout), names, columns, caption)


def binary_table(results: Sequence[Result], variant: str) -> Table | None:
    """Metrics of binary tasks, macro over tasks, and the relative improvement over hard sharing."""
    names = dict.fromkeys(r.name for r in results if r.cell.variant == variant and "binary" in r.numbers)
    keys = [(name, m) for name in names if name != "hard-sharing" for m in ("accuracy", "balanced_accuracy", "f1")]
    relative = as_family([relative_to_hard_sharing(results, variant, *key) for key in keys])
    judged = dict(zip(keys, relative, strict=True))
    rows = []
    for name in names:
        row: list[object] = [shown_name(name), len(values(results, variant, "open", name, "accuracy"))]
        for metric in BINARY_METRICS:
            row.append(spread(values(results, variant, "open", name, f"binary.macro.{metric}"), metric))
        for metric in ("accuracy", "balanced_accuracy", "f1"):
            row.append(interval(judged.get((name, metric)), metric))
        rows.append(row)
    shown = [f"{metric.replace('_', ' ')}, %" for metric in BINARY_METRICS]
    columns = ("method", "seeds", *shown, "accuracy, relative %", "balanced, relative %", "F1, relative %")
    caption = (
        f"**{variant.capitalize()} variant.** Means over tasks. Relative: improvement over hard sharing, task by task, in per "
        f"cent of its value, with {family_words(relative)}."
    )
    return Table(columns, rows, caption) if rows else None


def group_table(results: Sequence[Result], variant: str) -> Table | None:
    """Balanced accuracy by group of binary tasks, a column a method."""
    mine = [r for r in results if r.cell.variant == variant and not r.cell.row.options and "binary" in r.numbers]
    names = list(dict.fromkeys(r.name for r in mine))
    groups = list(mine[0].numbers["binary"]["groups"]) if mine else []
    rows = []
    for group in groups:
        row: list[object] = [group.replace("_", " ")]
        for name in names:
            found = [r.numbers["binary"]["groups"][group]["balanced_accuracy"] for r in mine if r.name == name]
            row.append(_or_none(100 * mean(found)))
        rows.append(row)
    columns = ("group", *(shown_name(name) for name in names))
    caption = f"**{variant.capitalize()} variant.** Balanced accuracy by group of tasks, %, mean over seeds."
    return Table(columns, rows, caption, {column: ".2f" for column in columns[1:]}) if rows else None


REGIMES = {
    "images=25": "**Few images**: 25 a task in fine-tuning.",
    "distractors=1": "**Distractors**: every scene holds a second image of another task, which the network "
    "must not answer about.",
}


def options_table(results: Sequence[Result]) -> list[Block]:
    """Rows of each regime against attention there, and options of comodulation against its default."""
    blocks: list[Block] = []
    names = [name for name in names_of(results, "residual") if Row.parse(name).options]
    for mark, caption in REGIMES.items():
        if own := [name for name in names if mark in name.split()]:
            caption = f"{caption} Residual variant; differences from attention there."
            blocks.append(_rows_against(results, own, f"attention {mark}", caption))
    usual = [name for name in names if not {"task_bias=True", *REGIMES} & set(name.split())]
    if own := [name for name in usual if Row.parse(name).method == "comodulation"]:
        caption = "**Options of comodulation.** Residual variant; differences from its default on the same seeds."
        blocks.append(_rows_against(results, own, "comodulation", caption))
    return blocks


def _rows_against(results: Sequence[Result], names: Sequence[str], reference: str, caption: str) -> Table:
    """Rows and their differences from another one; what their regime is, the caption says and names do not."""
    columns = [ACCURACY, NLL, ECE, Column("Δ accuracy", "accuracy", reference), Column("Δ NLL", "nll", reference)]

    def shown(name: str) -> str:
        return shown_name(" ".join(word for word in name.split() if word not in REGIMES))

    return method_table(results, ("residual", "open"), names, columns, f"{caption} Δ with {{family}}.", shown)


def mechanism_table(results: Sequence[Result]) -> Table | None:
    rows = []
    measures = (
        "dprime", "fisher", "encoder.auc", "decoder.auc", "decoder.auc_activity", "decoder.movement",
        "noise.participation_ratio", "noise.share", "noise.share_after_gains", "noise.share_permuted", "noise.chance",
    )  # fmt: skip
    paths = [tuple(measure.split(".")) for measure in measures]
    paths += [("decoder", "below", threshold) for threshold in ("0.01", "0.03", "0.1", "0.3")]
    for variant in VARIANTS:
        for name in names_of(results, variant):
            found = [values(results, variant, "open", name, ("mechanism", *path)) for path in paths]
            if found[0] and " images=" not in name:
                means = [_or_none(mean(own.values())) for own in found]
                rows.append([f"{shown_name(name)}, {variant}", len(found[0]), *means])
    columns = (
        "network", "seeds", "d'", "Fisher", "AUC encoder", "AUC decoder", "AUC activity", "gain moved", "noise dims",
        "noise in task", "after gains", "gains permuted", "chance", "< 0.01", "< 0.03", "< 0.1", "< 0.3",
    )  # fmt: skip
    caption = (
        "**d', Fisher**: separation of the task's classes where the readout sees them. **AUC**: how well the gain tells the "
        "quarter of most informative neurons from the others (0.5: not at all); **activity**: how well the neurons' mean activity "
        "under the task does, without any gain. **Gain moved**: mean |ln gain| of the decoder. **Noise**: dimensions that the "
        "modulator's fluctuation fills in the decoder, its share in the task's subspace before and after the gains, after the same "
        "gains given to other neurons at random, and the share of a random subspace. **<**: share of gains below a threshold."
    )
    formats = {column: ".3f" for column in columns[2:]}
    return Table(columns, rows, caption, formats) if rows else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def task_table(folder: Path, study: Study, results: Sequence[Result]) -> Table | None:
    variant, readout, _, a, _ = PRIMARY
    found = primary_scores(folder / CELLS, results)
    if found is None:
        return None
    first = next(r for r in results if (*r.series, r.cell.seed) == (variant, readout, a, found.seeds[0]))
    left, right, task = found.a.astype(float), found.b.astype(float), found.task
    names, numbers = list(first.numbers["tasks"]), sorted(set(task.tolist()))
    if len(names) != len(numbers):
        raise InputError(
            f"{folder / CELLS / first.cell.key}.json names {len(names)} tasks, its scores are of {len(numbers)} tasks"
        )
    rows = []
    entries = paired_by_task(left, right, task)
    judged = as_family([entry.difference for entry in entries])
    for entry, d in zip(entries, judged, strict=True):
        assert d is not None
        name, mine = names[numbers.index(int(entry.task))], left[:, task == entry.task].mean()
        rows.append(
            [
                name.replace("_", " "),
                entry.images,
                100 * mine,
                100 * (mine - d.mean),
                interval(d, "accuracy"),
                entry.difference.p,
                d.p,
            ]
        )
    columns: tuple[str, ...] = ("task", "predictions", "comodulation, %", "attention, %", "difference", "p", "p, Holm")
    formats = {"comodulation, %": ".1f", "attention, %": ".1f", "p": ".3g", "p, Holm": ".3g"}
    linear = scores_by_seed(folder / CELLS, results, variant, readout, YARDSTICK, "hit")
    constant = constant_seed(results, variant, readout, YARDSTICK)
    wanted = found.seeds if constant is None else (constant,)
    if seeds := [seed for seed in wanted if seed in linear and linear[seed].shape == task.shape]:
        columns, formats = (*columns, "linear, %"), formats | {"linear, %": ".1f"}
        for row, number in zip(rows, numbers, strict=True):
            row.append(100 * float(np.mean([linear[seed][task == number].mean() for seed in seeds])))
    shown = f"{variant} variant, open readout, {len(found.seeds)} seeds"
    caption = f"Accuracy by task, {shown}; {family_words(judged)}, Holm's correction over the tasks."
    return Table(columns, rows, caption, formats)


def diagnosis_table(diagnoses: Sequence[Diagnosis]) -> Table:
    rows = [
        [d.name, d.variant, "found" if d.found else "not found", d.evidence, d.advice if d.found else ""]
        for d in diagnoses
    ]
    return Table(
        ("signature", "variant", "", "evidence", "what to try"), rows, "Known ways in which comodulation fails."
    )


def others_table(study: Study, results: Sequence[Result], others: Sequence[tuple[Study, list[Result]]]) -> Table:
    pairs = (
        ("accuracy", "attention"),
        ("accuracy", "ia3"),
        ("accuracy", "class-mask"),
        ("accuracy", YARDSTICK),
        ("nll", "attention"),
        ("ece", "attention"),
    )
    places = [(own, found, v) for own, found in ((study, results), *others) for v in VARIANTS]
    compared = [
        (own, compare(found, variant, "open", metric, "comodulation", rival))
        for own, found, variant in places
        for metric, rival in pairs
    ]
    # This study's primary comparison stands alone; another's is one of the rows here.
    judged = as_family([None if own is study and c.primary else c.difference for own, c in compared])
    shown = iter([c.difference if d is None else d for (_, c), d in zip(compared, judged, strict=True)])
    rows = []
    for own, found, variant in places:
        row: list[object] = [encoder_of(own), variant]
        row += [interval(next(shown), metric) for metric, _ in pairs]
        row.append(len(values(found, variant, "open", "comodulation", "accuracy")))
        rows.append(row)
    columns = (
        "backbone", "variant", "accuracy − attention", "accuracy − IA3 style", "accuracy − class mask", "accuracy − linear",
        "NLL − attention",
        "ECE − attention", "seeds",
    )  # fmt: skip
    caption = f"Comodulation minus its rivals on every backbone tried, with {family_words(judged)}{PRIMARY_APART}."
    caption += "".join(dict.fromkeys(constant_note(found) for _, found, _ in places))
    return Table(columns, rows, caption)


def methods_table(results: Sequence[Result]) -> Table:
    rows = []
    for name in dict.fromkeys(r.cell.row.method for r in results):
        mine = [r for r in results if r.cell.row.method == name]
        plain = [r for r in mine if not r.cell.row.get("task_bias")]
        learned = (plain or mine)[0].numbers["learnable_parameters"]
        rows.append(
            [shown_name(name), int(learned), METHODS[name].paper, (METHODS[name].__doc__ or "").strip().splitlines()[0]]
        )
    return Table(
        ("method", "learned", "source", "what it does"),
        rows,
        "Learnable parameters in the residual variant.",
        {"learned": ","},
    )


def comparisons_tables(comparisons: Sequence[Comparison], results: Sequence[Result]) -> list[Block]:
    """A table for each variant, readout and metric: what is judged together is shown together."""
    found: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in comparisons:
        found.setdefault((c.variant, c.readout, c.metric), []).append(c)
    note = constant_note(results)
    return [_comparisons_table(*place, own, note) for place, own in found.items()]


def _comparisons_table(variant: str, readout: str, metric: str, comparisons: Sequence[Comparison], note: str) -> Table:
    rows = []
    for c in comparisons:
        numbers = [c.difference.p, c.difference.p_wilcoxon, c.p_holm] if c.difference else [None] * 3
        rows.append(
            [
                f"{shown_name(c.a)} − {shown_name(c.b)}",
                len(c.seeds),
                interval(c.judged, metric),
                interval(c.difference, metric),
                *numbers,
            ]
        )
    columns = ("pair", "seeds", "difference", "alone", "p, t-test", "p, Wilcoxon", "p, Holm")
    unit = " (points)" if scale_of(metric)[0] == 100 else ""
    apart = PRIMARY_APART if (variant, readout, metric) == PRIMARY[:3] else ""
    caption = (
        f"**{variant.capitalize()} variant, {readout} readout, {metric}{unit}.** Differences with "
        f"{family_words(c.judged for c in comparisons)}{apart}. Alone: the 95% interval of one difference, which describes and "
        f"does not decide.{note if any(c.b == YARDSTICK for c in comparisons) else ''}"
    )
    return Table(columns, rows, caption, {name: ".3g" for name in columns[-3:]})
