"""A study's tables, figures and report, from the files of its finished cells."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...evaluation import CrossedDifference
from ...files import read_json, write_bytes, write_json
from ...report import Block, Details, Figure, Section, Table, Text, Verdict, finite, render, source_commit
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
    read_results,
    shown_p,
    strength,
    study_config,
    values,
    with_yardstick,
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
from .words import constant_note, interval, mean, shown_name, subtitle_of, title_of

REPORT, RESULTS = "report.html", "results.json"


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
    others = {}
    for path in also:
        other, theirs = open_study(path)
        others[str(path)] = (other, with_yardstick(theirs))
        if other.name != study.name:
            raise InputError(f"{path} is a study of {other.name}, expected one of {study.name} as {folder}")
    comparisons, everywhere = all_comparisons(results), with_yardstick(results)
    binary = study.name not in CLASSES
    crossed = crossed_named(folder, results)
    verdicts, paper_form = judge_claims(results, binary, crossed), judge_paper_form(results, binary)
    chance = 0.5 if binary else 1 / max(1, results[0].numbers.get("outputs", 100))
    diagnoses = diagnose(results, chance)
    calibration = calibration_rows(folder, results)
    diverged = sorted({shown_name(cell.row.label) for cell in study.cells if diverged_path(folder, cell).exists()})
    figures = draw_figures(folder, study, everywhere, comparisons)
    page = render(
        title_of(study), subtitle_of(study, results), _facts(folder, study),
        verdicts,
        _sections(
            folder, study, everywhere, comparisons, diagnoses, crossed, calibration, figures, others, diverged,
            forms_table(verdicts, paper_form) if paper_form else None,
        ),
    )  # fmt: skip
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_bytes(folder / "figures" / f"{name}.svg", figure.svg.encode())
    write_bytes(folder / "cells.csv", cells_csv(results).encode())
    write_bytes(folder / "comparisons.csv", comparisons_csv(comparisons).encode())
    write_bytes(folder / "calibration.csv", calibration_csv(calibration).encode())
    result = {
        "study": {key: value for key, value in study.to_json().items() if key != "config"},  # which holds local paths
        "command": _facts(folder, study)["command"],
        "commit": source_commit(),
        "verdicts": [vars(verdict) for verdict in verdicts],
        **({"verdicts_as_in_the_paper": [vars(verdict) for verdict in paper_form]} if paper_form else {}),
        "primary": {name: finite(value) for name, value in _primary_json(results, crossed).items()},
        "diagnoses": [vars(diagnosis) for diagnosis in diagnoses],
        "cells": len(results),
        "constant": [result.name for result in results if result.constant],
        "diverged": diverged,
        "report": str(folder / REPORT),
    }
    write_json(folder / RESULTS, result)
    write_bytes(folder / REPORT, page.encode())
    return {**result, "text": describe(folder, study, results, verdicts, diagnoses, diverged)}


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


def _sections(
    folder: Path,
    study: Study,
    results: Sequence[Result],
    comparisons: Sequence[Comparison],
    diagnoses: Sequence[Diagnosis],
    crossed: Mapping[str, CrossedDifference],
    calibration: Sequence[Sequence[Any]],
    figures: Mapping[str, Figure],
    others: Mapping[str, tuple[Study, list[Result]]],
    diverged: Sequence[str],
    forms: Table | None,
) -> list[Section]:
    def drawn(*names: str) -> list[Block]:
        return [figures[name] for name in names if name in figures]

    sections = [
        Section("The comparison named beforehand", _primary_blocks(results, crossed)),
        *([Section("Both forms of the method", [forms])] if forms else []),
        Section(
            "All methods, open readout",
            [table for variant in VARIANTS if (table := main_table(study, results, variant)).rows]
            + drawn("accuracy", "differences_residual", "differences_base"),
        ),
    ]
    binary: list[Block] = [
        found for v in VARIANTS for make in (binary_table, group_table) if (found := make(results, v))
    ]
    if binary:
        sections.append(Section("Binary tasks", binary))
    beyond: list[Block] = [table for v in VARIANTS if (table := short_table(results, v, "restricted")).rows]
    beyond += [biased for v in VARIANTS if (biased := bias_table(results, v)) is not None]
    if beyond:
        text = (
            "Most of what the open readout rewards is knowing which classes belong to the task. With the class mask every "
            "method is what it is in the **restricted** readout: the task's classes are given, and what is left is what the "
            "features add (the row **no task** is the class mask itself). Beside a learned **task bias** the same question is "
            "asked in the open readout."
        )
        sections.append(Section("What routing adds beyond mask and bias", [Text(text), *beyond]))
    if options := options_table(results):
        sections.append(Section("Options, and other regimes", options))
    sections.append(Section("Calibration", [calibration_table(calibration), *drawn("reliability", "confidence")]))
    if mechanism := mechanism_table(results):
        sections.append(
            Section(
                "Mechanism",
                [mechanism, *drawn("one_image", "gain_map", "informativeness", "separability", "noise", "gains")],
            )
        )
    if by_task := task_table(folder, study, results):
        sections.append(Section("By task", [by_task]))
    if drawn("learning"):
        sections.append(Section("Learning", drawn("learning")))
    lost = [Text(f"Training diverged, so that there is no cell: {', '.join(diverged)}.")] if diverged else []
    sections.append(Section("Failure signatures", [diagnosis_table(diagnoses), *lost]))
    if others:
        sections.append(Section("Over what it holds", [others_table(folder, study, results, others)]))
    sections += [
        Section(
            "Searches and defaults", [block for block in (search_table(folder, study), ablation_table(folder)) if block]
        ),
        Section("Methods", [methods_table(results)]),
        Section(
            "All comparisons",
            [Details("Every pair, metric, variant and readout", comparisons_tables(comparisons, results))],
        ),
    ]
    return sections


def _primary_blocks(results: Sequence[Result], crossed: Mapping[str, CrossedDifference]) -> list[Block]:
    variant, readout, _, a, b = PRIMARY
    lines = []
    for metric in NAMED:
        d = compare(results, variant, readout, metric, a, b).difference
        if d is None:
            return [Text("Fewer than two seeds have both methods: there is nothing to compare yet.")]
        scale, unit, digits = (1, "", 3) if metric == "nll" else (100, " points", 2)

        def between(low: float, high: float, scale: float = scale, digits: int = digits) -> str:
            return f"[{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"

        lines.append(
            f"**{shown_name(a)} minus {shown_name(b)}**, {metric}, {variant} variant, {readout} readout: "
            f"**{scale * d.mean:+.{digits}f}{unit}**, 95% t interval over {d.n} seeds {between(d.low, d.high)}, "
            f"paired t-test p {shown_p(d.p) or 'not computed: all differences are equal'}, "
            f"Wilcoxon p {shown_p(d.p_wilcoxon) or 'not computed: ' + (d.note or 'all differences are 0')}."
        )
        if effect := strength(d, scale, unit.strip()):
            lines.append(effect)
        if (over := crossed.get(metric)) is not None:
            lines.append(
                f"Over other test inputs as well (bootstrap crossed over {over.seeds} seeds and {over.images:,} test inputs, "
                f"95% of the two metrics together, which decides): {between(over.low, over.high)}. {over.note}"
            )
    return [Text("\n\n".join(lines))]


def describe(
    folder: Path,
    study: Study,
    results: Sequence[Result],
    verdicts: Sequence[Verdict],
    diagnoses: Sequence[Diagnosis],
    diverged: Sequence[str],
) -> str:
    """What the terminal shows at the end."""
    lines = [f"{title_of(study)}: {len(results)} cells, {len(study.seeds)} seeds", ""]
    results, plan = with_yardstick(results), study.plan()
    for variant in VARIANTS:
        rows = [row.label for row in (*plan.yardstick, *plan.core)]
        names = [name for name in rows if values(results, variant, "open", name, "accuracy")]
        others = ("attention", *([YARDSTICK] if YARDSTICK in names else []))
        wanted = [(variant, "open", "accuracy", name, other) for name in names for other in others]
        judged = judged_together(results, wanted)
        if names:
            head = "".join(f" {f'− {other}':24s}" for other in others)
            lines.append(f"{variant:30s} accuracy      NLL    ECE  {head}accuracy, {family_words(judged.values())}")
        for name in names:
            accuracy, nll, ece = (
                mean(values(results, variant, "open", name, m).values()) for m in ("accuracy", "nll", "ece")
            )
            found = [judged.get((variant, "open", "accuracy", name, other)) for other in others]
            against = "".join(f" {interval(d, 100, 2).text:24s}" for d in found).rstrip()
            lines.append(f"  {shown_name(name):28s} {100 * accuracy:7.2f}%  {nll:7.3f}  {100 * ece:4.1f}%  {against}")
    lines += [constant_note(results).strip(), ""] if constant_note(results) else [""]
    for v in verdicts:
        numbers = ", ".join(part for part in (v.effect, v.interval, v.p and f"p {v.p}", v.n) if part)
        lines.append(f"{v.claim}: {v.verdict}{f' ({numbers})' if numbers else ''}")
    for signature in diagnoses:
        if signature.found:
            where = f"{signature.name} ({signature.variant})"
            lines.append(f"failure signature: {where}: {signature.evidence}. Try {signature.advice}.")
    if diverged:
        lines.append(f"training diverged, so that there is no cell: {', '.join(diverged)}")
    lines += ["", f"{folder}: {REPORT}, cells.csv, comparisons.csv, calibration.csv, {RESULTS}, figures/"]
    return "\n".join(lines)


def _facts(folder: Path, study: Study) -> dict[str, str]:
    return {
        "command": command_of(study, folder.name),
        "commit": source_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "data": Path(study.config.data).name,
    }


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
