"""A study's tables, as the report shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis.calibration import perfect_ece
from ..classification import BINARY_METRICS
from ..errors import InputError
from ..evaluation import METRICS
from ..methods import METHODS
from ..report.page import Block, Table
from ..statistics import paired_by_task
from .claims import relative_to_hard_sharing
from .diagnosis import Diagnosis
from .plan import PRIMARY
from .reproduce import CELLS, Study, ablated, search_path
from .results import (
    Comparison,
    Result,
    compare,
    primary_scores,
    scores_by_seed,
    values,
)
from .rows import VARIANTS
from .search import at_an_end, best_settings, read_trials
from .study_figures import as_logs
from .words import interval, mean, parameters, shown_name, spread


def main_table(study: Study, results: Sequence[Result], variant: str) -> Table:
    """Every method in the open readout, and its differences from attention."""
    plan = study.plan()
    rows = []
    for name in (row.label for row in (*plan.core, *plan.others, *plan.layers, *plan.aggregation)):
        found = {m: values(results, variant, "open", name, m) for m in (*METRICS, "scaled.ece", "seconds")}
        if not found["accuracy"]:
            continue
        against = {
            m: compare(results, variant, "open", m, name, "attention").difference for m in ("accuracy", "nll", "ece")
        }
        rows.append(
            [
                shown_name(name),
                len(found["accuracy"]),
                spread(found["accuracy"], 100, 2),
                interval(against["accuracy"], 100, 2),
                spread(found["nll"], 1, 3, with_sd=False),
                interval(against["nll"], 1, 3),
                spread(found["ece"], 100, 2, with_sd=False),
                interval(against["ece"], 100, 2),
                spread(found["scaled.ece"], 100, 2, with_sd=False),
                spread(found["brier"], 1, 3, with_sd=False),
                parameters(results, variant, name),
                spread(found["seconds"], 1, 0, with_sd=False),
            ]
        )
    columns = (
        "method", "seeds", "accuracy, %", "− attention", "NLL", "− attention, NLL", "ECE, %", "− attention, ECE", "ECE scaled, %",
        "Brier", "learned", "seconds",
    )  # fmt: skip
    caption = (
        f"**{variant.capitalize()} variant.** Test split, mean (± sd) over seeds; differences from attention with 95% t "
        "intervals. ECE scaled: after temperature scaling on validation data. Seconds: of training, in one process of several."
    )
    return Table(columns, rows, caption, {"learned": ","})


def bias_table(results: Sequence[Result], variant: str) -> Table | None:
    """Methods beside a task bias, and what they add to it."""
    names = [
        "task-bias",
        *(f"{method} task_bias=True" for method in ("attention", "decoder-gains", "ia3", "comodulation")),
    ]
    rows = []
    for name in names:
        accuracy = values(results, variant, "open", name, "accuracy")
        if not accuracy:
            continue
        row: list[object] = [shown_name(name), len(accuracy), spread(accuracy, 100, 2)]
        for other in ("task-bias", "attention task_bias=True"):
            row.append(interval(compare(results, variant, "open", "accuracy", name, other).difference, 100, 2))
        row.append(spread(values(results, variant, "open", name, "nll"), 1, 3, with_sd=False))
        row.append(interval(compare(results, variant, "open", "nll", name, "task-bias").difference, 1, 3))
        rows.append(row)
    columns = ("method", "seeds", "accuracy, %", "− task bias", "− attention with it", "NLL", "− task bias, NLL")
    caption = f"**{variant.capitalize()} variant, open readout, beside a task bias.** Differences with 95% t intervals over seeds."
    return Table(columns, rows, caption) if len(rows) > 1 else None


def short_table(results: Sequence[Result], variant: str, readout: str) -> Table:
    names = list(dict.fromkeys(r.name for r in results if (r.cell.variant, r.cell.readout) == (variant, readout)))
    rows = []
    for name in names:
        accuracy = values(results, variant, readout, name, "accuracy")
        row: list[object] = [shown_name(name), len(accuracy), spread(accuracy, 100, 2)]
        row += [
            spread(values(results, variant, readout, name, m), s, d, with_sd=False)
            for m, s, d in (("nll", 1, 3), ("ece", 100, 2))
        ]
        row.append(interval(compare(results, variant, readout, "accuracy", name, "base").difference, 100, 2))
        row.append(interval(compare(results, variant, readout, "accuracy", name, "attention").difference, 100, 2))
        rows.append(row)
    columns = ("method", "seeds", "accuracy, %", "NLL", "ECE, %", "accuracy − base", "accuracy − attention")
    return Table(
        columns,
        rows,
        f"**{variant.capitalize()} variant, {readout} readout.** Differences with 95% t intervals over seeds.",
    )


def binary_table(results: Sequence[Result], variant: str) -> Table | None:
    """Metrics of binary tasks, macro over tasks, and the relative improvement over hard sharing."""
    names = dict.fromkeys(r.name for r in results if r.cell.variant == variant and "binary" in r.numbers)
    rows = []
    for name in names:
        row: list[object] = [shown_name(name), len(values(results, variant, "open", name, "accuracy"))]
        for metric in BINARY_METRICS:
            row.append(spread(values(results, variant, "open", name, f"binary.macro.{metric}"), 100, 2, with_sd=False))
        for metric in ("accuracy", "balanced_accuracy", "f1"):
            same = name == "hard-sharing"
            row.append(interval(None if same else relative_to_hard_sharing(results, variant, name, metric), 100, 2))
        rows.append(row)
    shown = [f"{metric.replace('_', ' ')}, %" for metric in BINARY_METRICS]
    columns = ("method", "seeds", *shown, "accuracy, relative %", "balanced, relative %", "F1, relative %")
    caption = (
        f"**{variant.capitalize()} variant.** Means over tasks. Relative: improvement over hard sharing, task by task, in per "
        "cent of its value, with 95% t intervals over seeds."
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


def options_table(results: Sequence[Result]) -> list[Block]:
    blocks: list[Block] = []
    mine = [r for r in results if r.cell.variant == "residual" and r.cell.readout == "open" and r.cell.row.options]
    regimes = {
        "images=25": "**Few images**: 25 a task in fine-tuning.",
        "distractors=1": "**Distractors**: every scene holds a second image of another task, which the network "
        "must not answer about.",
    }
    for mark, caption in regimes.items():
        names = list(dict.fromkeys(r.name for r in mine if mark in r.cell.row.described))
        reference = f"attention {mark}"
        if names:
            text = f"{caption} Residual variant; differences from attention there."
            blocks.append(
                _rows_against(results, names, reference, text, lambda n, m=mark: shown_name(n.replace(f" {m}", "")))
            )
    names = list(
        dict.fromkeys(
            r.name for r in mine if r.cell.row.method == "comodulation" and not any(m in r.name for m in regimes)
        )
    )
    names = [name for name in names if "task_bias" not in name]
    if names:
        text = "**Options of comodulation.** Residual variant; differences from its default on the same seeds."
        blocks.append(_rows_against(results, names, "comodulation", text, shown_name))
    return blocks


def _rows_against(results: Sequence[Result], names: Sequence[str], reference: str, caption: str, shown: Any) -> Table:
    rows = []
    for name in names:
        row: list[object] = [shown(name), len(values(results, "residual", "open", name, "accuracy"))]
        for metric, scale, digits in (("accuracy", 100, 2), ("nll", 1, 3), ("ece", 100, 2)):
            row.append(
                spread(values(results, "residual", "open", name, metric), scale, digits, with_sd=metric == "accuracy")
            )
        for metric, scale, digits in (("accuracy", 100, 2), ("nll", 1, 3)):
            row.append(
                interval(compare(results, "residual", "open", metric, name, reference).difference, scale, digits)
            )
        rows.append(row)
    return Table(("method", "seeds", "accuracy, %", "NLL", "ECE, %", "Δ accuracy", "Δ NLL"), rows, caption)


def calibration_rows(folder: Path, results: Sequence[Result]) -> list[list[Any]]:
    """Variant, name, seeds, ECE, its value under perfect calibration and that one's 95% quantile, and after scaling."""
    rows = []
    for variant in VARIANTS:
        for name in dict.fromkeys(r.name for r in results if (r.cell.variant, r.cell.readout) == (variant, "open")):
            confidence = scores_by_seed(folder / CELLS, results, variant, "open", name, "confidence")
            perfect = [perfect_ece(as_logs(seen), draws=200) for seen in confidence.values()]
            row = [variant, name, len(confidence)]
            row += [mean(values(results, variant, "open", name, "ece").values())]
            row += [mean(p.mean for p in perfect), mean(p.high for p in perfect)]
            row += [
                mean(values(results, variant, "open", name, m).values())
                for m in ("scaled.ece", "nll", "scaled.nll", "temperature")
            ]
            rows.append(row)
    return rows


def calibration_table(found: Sequence[Sequence[Any]]) -> Table:
    """Calibration as ``calibration_rows`` found it."""
    rows = []
    for variant, name, seeds, ece, perfect, high, scaled, nll, scaled_nll, temperature in found:
        percents = [100 * value for value in (ece, perfect, high, scaled)]
        rows.append([f"{shown_name(name)}, {variant}", seeds, *percents, nll, scaled_nll, temperature])
    columns = (
        "method", "seeds", "ECE, %", "ECE if perfect, %", "its 95% quantile", "ECE scaled, %", "NLL", "NLL "
        "scaled", "temperature",
    )  # fmt: skip
    caption = (
        "How to read it: an ECE at or below its value under perfect calibration cannot be told from perfect with "
        "so many predictions. "
        "Scaled: after one temperature, fitted on validation data; above 1, the method was too sure."
    )
    formats = {c: ".2f" for c in columns[3:6]} | {
        "ECE, %": ".2f",
        "NLL": ".3f",
        "NLL scaled": ".3f",
        "temperature": ".2f",
    }
    return Table(columns, rows, caption, formats)


def calibration_csv(found: Sequence[Sequence[Any]]) -> str:
    """The same for machines."""
    head = "variant,method,seeds,ece,ece_perfect,ece_perfect_95,ece_scaled,nll,nll_scaled,temperature"
    lines = [",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row) for row in found]
    return "\n".join([head, *lines]) + "\n"


def mechanism_table(results: Sequence[Result]) -> Table | None:
    rows = []
    measures = (
        "dprime", "fisher", "encoder.auc", "decoder.auc", "decoder.movement", "noise.participation_ratio", "noise.share",
        "noise.share_after_gains", "noise.chance",
    )  # fmt: skip
    for variant in VARIANTS:
        for name in dict.fromkeys(r.name for r in results if (r.cell.variant, r.cell.readout) == (variant, "open")):
            found = [values(results, variant, "open", name, f"mechanism.{m}") for m in measures]
            if found[0] and " images=" not in name:
                below = _below(results, variant, name)
                means = [_or_none(mean(f.values())) for f in found]
                rows.append([f"{shown_name(name)}, {variant}", len(found[0]), *means, *map(_or_none, below)])
    columns = (
        "network", "seeds", "d'", "Fisher", "AUC encoder", "AUC decoder", "gain moved", "noise dims", "noise in "
        "task", "after gains",
        "chance", "< 0.01", "< 0.03", "< 0.1", "< 0.3",
    )  # fmt: skip
    caption = (
        "**d', Fisher**: separation of the task's classes where the readout sees them. **AUC**: how well the gain "
        "tells the quarter of "
        "most informative neurons from the others (0.5: not at all). **Gain moved**: mean |ln gain| of the "
        "decoder. **Noise**: "
        "dimensions that the modulator's fluctuation fills in the decoder, its share in the task's subspace before "
        "and after the gains, "
        "and the share of a random subspace. **<**: share of decoder gains below a threshold."
    )
    formats = {column: ".3f" for column in columns[2:]}
    return Table(columns, rows, caption, formats) if rows else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _below(results: Sequence[Result], variant: str, name: str) -> list[float]:
    mine = [r for r in results if (r.cell.variant, r.cell.readout, r.name) == (variant, "open", name)]
    found = [r.numbers["mechanism"]["decoder"]["below"] for r in mine if "decoder" in r.numbers.get("mechanism", {})]
    return [mean(entry[t] for entry in found) for t in ("0.01", "0.03", "0.1", "0.3")]


def task_table(folder: Path, study: Study, results: Sequence[Result]) -> Table | None:
    variant, readout, _, a, _ = PRIMARY
    found = primary_scores(folder / CELLS, results)
    if found is None:
        return None
    first = next(
        r
        for r in results
        if (r.cell.variant, r.cell.readout, r.name, r.cell.seed) == (variant, readout, a, found.seeds[0])
    )
    left, right, task = found.a.astype(float), found.b.astype(float), found.task
    names, numbers = list(first.numbers["tasks"]), sorted(set(task.tolist()))
    if len(names) != len(numbers):
        raise InputError(
            f"{folder / CELLS / first.cell.key}.json names {len(names)} tasks, its scores are of {len(numbers)} tasks"
        )
    rows = []
    for entry in paired_by_task(left, right, task):
        name = names[numbers.index(int(entry.task))]
        d, mine = entry.difference, left[:, task == entry.task].mean()
        rows.append(
            [
                name.replace("_", " "),
                entry.images,
                100 * mine,
                100 * (mine - d.mean),
                interval(d, 100, 2),
                d.p,
                entry.p_holm,
            ]
        )
    columns = ("task", "predictions", "comodulation, %", "attention, %", "difference", "p", "p, Holm")
    shown = f"{variant} variant, open readout, {len(found.seeds)} seeds"
    caption = f"Accuracy by task, {shown}; Holm's correction over the tasks."
    return Table(
        columns, rows, caption, {"comodulation, %": ".1f", "attention, %": ".1f", "p": ".3g", "p, Holm": ".3g"}
    )


def diagnosis_table(diagnoses: Sequence[Diagnosis]) -> Table:
    rows = [
        [d.name, d.variant, "found" if d.found else "not found", d.evidence, d.advice if d.found else ""]
        for d in diagnoses
    ]
    return Table(
        ("signature", "variant", "", "evidence", "what to try"), rows, "Known ways in which comodulation fails."
    )


def others_table(
    folder: Path, study: Study, results: Sequence[Result], others: Mapping[str, tuple[Study, list[Result]]]
) -> Table:
    rows = []
    for own, found in ((study, results), *others.values()):
        for variant in VARIANTS:
            row: list[object] = [f"{own.config.backbone.name}, {own.config.backbone.image_size} px", variant]
            for rival in ("attention", "ia3", "class-mask"):
                row.append(
                    interval(compare(found, variant, "open", "accuracy", "comodulation", rival).difference, 100, 2)
                )
            for metric, scale, digits in (("nll", 1, 3), ("ece", 100, 2)):
                row.append(
                    interval(
                        compare(found, variant, "open", metric, "comodulation", "attention").difference, scale, digits
                    )
                )
            row.append(len(values(found, variant, "open", "comodulation", "accuracy")))
            rows.append(row)
    columns = (
        "backbone", "variant", "accuracy − attention", "accuracy − IA3 style", "accuracy − class mask", "NLL − "
        "attention",
        "ECE − attention", "seeds",
    )  # fmt: skip
    return Table(
        columns, rows, "Comodulation minus its rivals on every backbone tried, with 95% t intervals over seeds."
    )


def search_table(folder: Path, study: Study) -> Table:
    rows = []
    for cell in study.plan().searches():
        path = search_path(folder, cell)
        trials = read_trials(path)
        complete = [t for t in trials if not t["diverged"]]
        if complete:
            best = best_settings(path)
            chosen = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in best.items())
            nll = min(t["nll"] for t in complete)
            rows.append(
                [
                    shown_name(cell.row.label),
                    cell.variant,
                    len(trials),
                    len(complete),
                    nll,
                    chosen,
                    ", ".join(at_an_end(cell.row, best)),
                ]
            )
    caption = (
        f"{study.trials} trials for each method on a seed that is not compared; lowest validation NLL. The last column names "
        "a parameter whose best value lies at an end of its range."
    )
    return Table(
        ("method", "variant", "trials", "finished", "validation NLL", "chosen", "at an end"),
        rows,
        caption,
        {"validation NLL": ".4f"},
    )


def ablation_table(folder: Path) -> Table | None:
    """Single changes of the defaults, on validation images."""
    found = ablated(folder)
    rows = [
        [shown_name(label), 100 * line["accuracy"], line["nll"], 100 * line["ece"], line["seconds"]]
        for label, line in sorted(found.items(), key=lambda item: float(item[1].get("nll", math.inf)))
        if "failed" not in line
    ]
    caption = (
        "One change at a time from the settings that the search chose: validation images of the search's seed, residual "
        "variant, one network each, so that differences below about half a point mean nothing."
    )
    columns = ("row", "accuracy, %", "NLL", "ECE, %", "seconds")
    formats = {"accuracy, %": ".2f", "NLL": ".4f", "ECE, %": ".2f", "seconds": ".0f"}
    return Table(columns, rows, caption, formats) if rows else None


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


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    rows = []
    for c in comparisons:
        scale, digits = (100, 2) if c.metric in ("accuracy", "ece") else (1, 3)
        d = c.difference
        numbers = [d.p, d.p_wilcoxon, c.p_holm] if d else [None] * 3
        rows.append(
            [
                f"{shown_name(c.a)} − {shown_name(c.b)}",
                c.variant,
                c.readout,
                c.metric,
                len(c.seeds),
                interval(d, scale, digits),
                *numbers,
            ]
        )
    columns = ("pair", "variant", "readout", "metric", "seeds", "difference", "p, t-test", "p, Wilcoxon", "p, Holm")
    caption = "Accuracy and ECE in points. Holm's correction runs over all but the primary comparison."
    return Table(columns, rows, caption, {name: ".3g" for name in columns[-3:]})
