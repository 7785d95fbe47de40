"""A study's tables, figures and report, from the files of its finished cells."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...evaluation import CrossedDifference
from ...files import read_json, write_bytes, write_json
from ...report import Block, Details, Figure, Section, Text, Verdict, finite, render
from ..cells import (
    CELLS,
    CLASSES,
    NAMED,
    PRIMARY,
    VARIANTS,
    YARDSTICK,
    Comparison,
    Result,
    all_comparisons,
    cells_csv,
    check_alike,
    checked_numbers,
    compare,
    comparisons_csv,
    diverged_path,
    family_words,
    held_constant,
    incomplete_yardsticks,
    made_by,
    read_results,
    shown_ends,
    shown_p,
    strength,
    study_config,
    values,
    with_yardstick,
    write_figures,
)
from .calibration_tables import calibration_csv, calibration_rows, calibration_table
from .claims import judge_claims, judge_paper_form
from .diagnosis import Diagnosis, diagnose
from .figures import draw_figures
from .named import crossed_named
from .reproduction import STUDY, Study
from .search_tables import ablation_table, search_table
from .tables import (
    bias_table,
    binary_table,
    comparisons_tables,
    diagnosis_table,
    forms_table,
    group_table,
    judged_together,
    main_table,
    mechanism_table,
    methods_table,
    options_table,
    others_table,
    short_table,
    task_table,
)
from .words import constant_note, interval, mean, scale_of, shown_name, subtitle_of, title_of

REPORT, RESULTS = "report.html", "results.json"


@dataclass(frozen=True)
class Found:
    """What a report is made of.

    Attributes:
        folder, study: whose. results: finished cells, with the yardstick in every variant and readout.
        others: the same study with another backbone or image size, and its results.
        number: of finished cells. diverged: names of rows with a training that did.
    """

    folder: Path
    study: Study
    results: list[Result]
    others: list[tuple[Study, list[Result]]]
    number: int
    verdicts: list[Verdict]
    paper_form: list[Verdict]
    crossed: dict[str, CrossedDifference]
    comparisons: list[Comparison]
    diagnoses: list[Diagnosis]
    calibration: list[list[Any]]
    diverged: list[str]


def write_report(folder: Path, also: Sequence[Path] = ()) -> dict[str, Any]:
    """Write cells.csv, comparisons.csv, results.json, figures/ and report.html of a study.

    Args:
        folder: of the study. also: folders of the same study with another backbone or image size.

    Returns:
        What --json prints: verdicts, the primary comparison, diagnoses, files; ``text`` for the terminal.

    Raises:
        InputError: a folder that is not a study, or one without finished cells.
    """
    study, results = open_study(folder)
    found = _find(folder, study, results, _open_others(also, folder, study))
    figures = draw_figures(folder, study, found.results, found.comparisons)
    facts = made_by(command_of(study, folder.name), study.config)
    page = render(
        title_of(study), subtitle_of(study, len(results)), facts, found.verdicts, _sections(found, figures)
    )  # fmt: skip
    write_figures(folder, figures)
    write_bytes(folder / "cells.csv", cells_csv(results).encode())
    write_bytes(folder / "comparisons.csv", comparisons_csv(found.comparisons).encode())
    write_bytes(folder / "calibration.csv", calibration_csv(found.calibration).encode())
    forms = {"verdicts_as_in_the_paper": [vars(verdict) for verdict in found.paper_form]} if found.paper_form else {}
    result = {
        "study": {key: value for key, value in study.to_json().items() if key != "config"},  # which holds local paths
        "command": facts["command"],
        "commit": facts["commit"],
        "verdicts": [vars(verdict) for verdict in found.verdicts],
        **forms,
        "primary": {name: finite(value) for name, value in _primary_json(results, found.crossed).items()},
        "diagnoses": [vars(diagnosis) for diagnosis in found.diagnoses],
        "cells": len(results),
        "constant": [result.name for result in results if result.constant],
        "diverged": found.diverged,
        "report": str(folder / REPORT),
    }
    write_json(folder / RESULTS, result)
    write_bytes(folder / REPORT, page.encode())
    return {**result, "text": describe(found)}


def _open_others(also: Sequence[Path], folder: Path, study: Study) -> list[tuple[Study, list[Result]]]:
    others = []
    for path in also:
        other, results = open_study(path)
        if other.name != study.name:
            raise InputError(f"{path} is a study of {other.name}, expected one of {study.name} as {folder}")
        others.append((other, with_yardstick(results)))
    return others


def _find(folder: Path, study: Study, results: list[Result], others: list[tuple[Study, list[Result]]]) -> Found:
    binary = study.name not in CLASSES
    crossed = crossed_named(folder, results)
    chance = 0.5 if binary else 1 / max(1, results[0].numbers.get("outputs", 100))
    return Found(
        folder, study, with_yardstick(results), others, len(results),
        verdicts=judge_claims(results, binary, crossed),
        paper_form=judge_paper_form(results, binary),
        crossed=crossed,
        comparisons=all_comparisons(results),
        diagnoses=diagnose(results, chance),
        calibration=calibration_rows(folder, results),
        diverged=sorted({shown_name(c.row.label) for c in study.cells if diverged_path(folder, c).exists()}),
    )  # fmt: skip


def open_study(folder: Path) -> tuple[Study, list[Result]]:
    """A study and its finished cells.

    Where the halves are the same for all seeds, and not all seeds have a yardstick, that of the first seed is held constant.

    Raises:
        InputError: there is no study, or nothing finished.
    """
    if not (folder / STUDY).is_file():
        raise InputError(f"{folder} is not a study: it has no {STUDY}; `comodulate reproduce` makes one")
    value = read_json(folder / STUDY)
    try:
        study = Study.from_json(value)
    except InputError as error:
        raise InputError(f"{folder / STUDY}: {error}") from error
    # A yardstick of every seed, where the folder has it: an earlier release fitted them all.
    results = read_results(folder / CELLS, (cell for stage in study.plan().stages(study.seeds) for cell in stage.cells))
    numbers = {folder / CELLS / f"{result.cell.key}.json": result for result in results}
    check_alike({path: checked_numbers(found.cell, found.numbers, path) for path, found in numbers.items()})
    if not results:
        raise InputError(f"{folder} has no finished cell yet; run `comodulate reproduce` again")
    return study, held_constant(results, incomplete_yardsticks(results)) if study.same_halves else results


def _sections(found: Found, figures: Mapping[str, Figure]) -> list[Section]:
    """Every section that has something to show, in the order of the page."""

    def drawn(*names: str) -> list[Block]:
        return [figures[name] for name in names if name in figures]

    study, results = found.study, found.results
    forms = [forms_table(found.verdicts, found.paper_form)] if found.paper_form else []
    main = [table for variant in VARIANTS if (table := main_table(study, results, variant)).rows]
    mechanism = mechanism_table(results)
    mechanism_figures = drawn("one_image", "gain_map", "informativeness", "separability", "noise", "gains")
    lost = (
        [Text(f"Training diverged, so that there is no cell: {', '.join(found.diverged)}.")] if found.diverged else []
    )
    blocks: dict[str, Sequence[Block | None]] = {
        "The comparison named beforehand": _primary_blocks(results, found.crossed),
        "Both forms of the method": forms,
        "All methods, open readout": [*main, *drawn("accuracy", "differences_residual", "differences_base")],
        "Binary tasks": [make(results, v) for v in VARIANTS for make in (binary_table, group_table)],
        "What routing adds beyond mask and bias": _beyond(results),
        "Options, and other regimes": options_table(results),
        "Calibration": [calibration_table(found.calibration), *drawn("reliability", "confidence")],
        "Mechanism": [mechanism, *mechanism_figures] if mechanism else [],
        "By task": [task_table(found.folder, study, results)],
        "Learning": drawn("learning"),
        "Failure signatures": [diagnosis_table(found.diagnoses), *lost],
        "Over what it holds": [others_table(study, results, found.others)] if found.others else [],
        "Searches and defaults": [search_table(found.folder, study), ablation_table(found.folder)],
        "Methods": [methods_table(results)],
        "All comparisons": [
            Details("Every pair, metric, variant and readout", comparisons_tables(found.comparisons, results))
        ],
    }
    there = {title: [block for block in own if block is not None] for title, own in blocks.items()}
    return [Section(title, own) for title, own in there.items() if own]


def _beyond(results: Sequence[Result]) -> list[Block]:
    """What is left of routing where the task's classes are given, and beside a bias."""
    tables: list[Block] = [table for v in VARIANTS if (table := short_table(results, v, "restricted")).rows]
    tables += [biased for v in VARIANTS if (biased := bias_table(results, v)) is not None]
    text = (
        "Most of what the open readout rewards is knowing which classes belong to the task. With the class mask every "
        "method is what it is in the **restricted** readout: the task's classes are given, and what is left is what the "
        "features add (the row **no task** is the class mask itself). Beside a learned **task bias** the same question is "
        "asked in the open readout."
    )
    return [Text(text), *tables] if tables else []


def _primary_blocks(results: Sequence[Result], crossed: Mapping[str, CrossedDifference]) -> list[Block]:
    variant, readout, _, a, b = PRIMARY
    lines = []
    for metric in NAMED:
        d = compare(results, variant, readout, metric, a, b).difference
        if d is None:
            return [Text("Fewer than two seeds have both methods: there is nothing to compare yet.")]
        unit = "" if metric == "nll" else " points"
        scale, digits = scale_of(metric)
        lines.append(
            f"**{shown_name(a)} minus {shown_name(b)}**, {metric}, {variant} variant, {readout} readout: "
            f"**{scale * d.mean:+.{digits}f}{unit}**, 95% t interval over {d.n} seeds {shown_ends(d.low, d.high, scale, digits)}, "
            f"paired t-test p {shown_p(d.p) or 'not computed: all differences are equal'}, "
            f"Wilcoxon p {shown_p(d.p_wilcoxon) or 'not computed: ' + (d.note or 'all differences are 0')}."
        )
        if effect := strength(d, scale, unit.strip()):
            lines.append(effect)
        if (over := crossed.get(metric)) is not None:
            lines.append(
                f"Over other test inputs as well (bootstrap crossed over {over.seeds} seeds and {over.images:,} test inputs, "
                f"95% of the two metrics together, which decides): {shown_ends(over.low, over.high, scale, digits)}. {over.note}"
            )
    return [Text("\n\n".join(lines))]


def describe(found: Found) -> str:
    """What the terminal shows at the end."""
    study, note = found.study, constant_note(found.results).strip()
    lines = [f"{title_of(study)}: {found.number} cells, {len(study.seeds)} seeds", ""]
    for variant in VARIANTS:
        lines += _method_lines(study, found.results, variant)
    lines += [note, ""] if note else [""]
    for v in found.verdicts:
        numbers = ", ".join(part for part in (v.effect, v.interval, v.p and f"p {v.p}", v.n) if part)
        lines.append(f"{v.claim}: {v.verdict}{f' ({numbers})' if numbers else ''}")
    for signature in found.diagnoses:
        if signature.found:
            where = f"{signature.name} ({signature.variant})"
            lines.append(f"failure signature: {where}: {signature.evidence}. Try {signature.advice}.")
    if found.diverged:
        lines.append(f"training diverged, so that there is no cell: {', '.join(found.diverged)}")
    lines += ["", f"{found.folder}: {REPORT}, cells.csv, comparisons.csv, calibration.csv, {RESULTS}, figures/"]
    return "\n".join(lines)


def _method_lines(study: Study, results: Sequence[Result], variant: str) -> list[str]:
    """The core's rows of a variant, as lines below a head; none where it has none."""
    rows = [row.label for row in (*study.plan().yardstick, *study.plan().core)]
    names = [name for name in rows if values(results, variant, "open", name, "accuracy")]
    if not names:
        return []
    others = ("attention", *([YARDSTICK] if YARDSTICK in names else []))
    judged = judged_together(
        results, [(variant, "open", "accuracy", name, other) for name in names for other in others]
    )
    head = "".join(f" {f'− {other}':24s}" for other in others)
    lines = [f"{variant:30s} accuracy      NLL    ECE  {head}accuracy, {family_words(judged.values())}"]
    for name in names:
        accuracy, nll, ece = (
            mean(values(results, variant, "open", name, m).values()) for m in ("accuracy", "nll", "ece")
        )
        found = [judged.get((variant, "open", "accuracy", name, other)) for other in others]
        against = "".join(f" {interval(d, 'accuracy').text:24s}" for d in found).rstrip()
        lines.append(f"  {shown_name(name):28s} {100 * accuracy:7.2f}%  {nll:7.3f}  {100 * ece:4.1f}%  {against}")
    return lines


def command_of(study: Study, out: str) -> str:
    """The command that runs a study; of folders and files, their names alone."""
    config, backbone = study.config, study.config.backbone
    usual = study_config(study.name, config.data)
    implied = usual.head.start if config.head.encoder_channels == usual.head.encoder_channels else "random"
    words = f"comodulate reproduce {study.name} --data {shlex.quote(Path(config.data).name)} --seeds {len(study.seeds)}"
    words += f" --seed {min(study.seeds)} --trials {study.trials}"
    if config.text is None:
        words += f" --backbone {backbone.name} --image-size {backbone.image_size}"
    for option, value, default in (
        ("weights", Path(backbone.weights).name, usual.backbone.weights),
        ("split-seed", config.split_seed, usual.split_seed),
        ("start", config.head.start, implied),
        ("channels", config.head.encoder_channels, usual.head.encoder_channels),
        ("epochs", config.tuning.epochs, usual.tuning.epochs),
        ("pretraining-epochs", config.pretraining.epochs, usual.pretraining.epochs),
    ):
        words += f" --{option} {value}" if value != default else ""
    for flag, names in (("method", study.methods), ("part", study.parts), ("variant", study.variants)):
        words += "".join(f" --{flag} {shlex.quote(name)}" for name in names)
    return f"{words} --out {shlex.quote(out)}"


def _primary_json(results: Sequence[Result], crossed: Mapping[str, CrossedDifference]) -> dict[str, Any]:
    """The accuracy's numbers, and under its name those of each other metric."""
    variant, readout, main, a, b = PRIMARY
    found: dict[str, Any] = {"variant": variant, "readout": readout, "metric": main, "a": a, "b": b}
    for metric in NAMED:
        d = compare(results, variant, readout, metric, a, b).difference
        own: dict[str, Any] = {} if d is None else {**vars(d), "hedges_gz": d.hedges_gz, "detectable": d.detectable}
        own |= {"crossed": vars(crossed[metric])} if metric in crossed else {}
        found |= own if metric == main else {metric: own}
    return found
