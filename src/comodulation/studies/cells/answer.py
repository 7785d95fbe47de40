"""A question's answer on disk: cells.csv, results.json, figures/, report.html, and what the terminal shows."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...files import write_bytes, write_json
from ...report import Figure, Section, Table, Text, Verdict, finite, render, source_commit
from ...runs import RunConfig
from .agenda import FIGURES
from .asked import Asked, finished, rates_at_an_end
from .folder import diverged_path
from .results import Result, cells_csv
from .rows import YARDSTICK, Cell
from .study import Answer, Inquiry, Question
from .yardstick import Distance, yardstick_distances, yardstick_table, yardstick_text

REPORT, RESULTS, TABLE = "report.html", "results.json", "cells.csv"


def write_answer(question: Question, inquiry: Inquiry, out: Path) -> dict[str, Any]:
    """Judge the finished cells and write what readers see.

    Returns:
        What --json prints: verdict, verdicts, numbers, what was left out, files; ``text`` for the terminal.

    Raises:
        InputError: nothing is finished.
    """
    results = finished(question, inquiry, out)
    cells = Asked(question, inquiry).cells
    if not results:
        raise InputError(
            f"{out} has no finished cell, of {len(cells)}: the time was too short for the first; run it again with more --hours"
        )
    done = {result.cell for result in results}
    left_out = [cell for cell in cells if cell not in done and not diverged_path(out, cell).exists()]
    linear = [result for result in results if result.cell.row.method == YARDSTICK]
    rows_of = [result for result in results if result.cell.row.method != YARDSTICK]
    if not rows_of:
        raise InputError(f"{out} has no finished cell but linear readouts yet; run it again with more --hours")
    answer = question.answer(rows_of, inquiry, out)
    distances = yardstick_distances(rows_of, linear)
    notes = [*answer.notes, *_notes(question, inquiry, out, cells, left_out)]
    facts = made_by(command_of(question, inquiry, out.name), inquiry.config)
    backbone = inquiry.config.backbone
    network = question.network or f"{backbone.name} at {backbone.image_size} px"
    subtitle = (
        f"{question.asks} {len(inquiry.seeds)} seeds on a frozen {network}; "
        f"{len(results)} of {len(cells)} networks trained."
    )
    page = render(
        question.title, subtitle, facts, answer.verdicts, _sections(question, answer, distances, notes, left_out)
    )  # fmt: skip
    write_figures(out, answer.figures)
    write_bytes(out / TABLE, cells_csv(results, question.columns).encode())
    result = {
        "question": question.name,
        "asks": question.asks,
        "verdict": sentence(answer.verdicts[0]),
        "verdicts": [vars(verdict) for verdict in answer.verdicts],
        "numbers": finite(answer.numbers),
        "yardstick": [finite(distance.to_json()) for distance in distances],
        "cells": len(results),
        "left_out": len(left_out),
        "notes": notes,
        "seeds": list(inquiry.seeds),
        "command": facts["command"],
        "commit": facts["commit"],
        "report": str(out / REPORT),
    }
    write_json(out / RESULTS, result)
    write_bytes(out / REPORT, page.encode())
    return {**result, "text": _terminal(question, answer, distances, results, len(cells), notes, out)}


def _sections(
    question: Question, answer: Answer, distances: Sequence[Distance], notes: Sequence[str], left_out: Sequence[Cell]
) -> list[Section]:
    sections = [
        Section("Answer", [Text(sentence(answer.verdicts[0])), *answer.figures.values()]),
        Section("What was expected", [Text(question.predicts)]),
        *answer.sections,
        *([Section("How far from logistic regression", [yardstick_table(distances)])] if distances else []),
        Section("What weakens this", [Text("\n".join(f"- {note}" for note in notes) or "- Nothing was left out.")]),
    ]
    if left_out:
        rows = list(Counter(cell.row.without("draw").label for cell in left_out).items())
        sections.append(Section("Not reached", [Table(("row", "cells"), rows, "Cells that the time did not reach.")]))
    return sections


def write_figures(out: Path, figures: Mapping[str, Figure]) -> None:
    """Write the figures of a report beside it, as files of their own."""
    (out / FIGURES).mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_bytes(out / FIGURES / f"{name}.svg", figure.svg.encode())


def made_by(command: str, config: RunConfig) -> dict[str, str]:
    """How a report was made, for its foot; of the data, their name alone."""
    return {
        "command": command,
        "commit": source_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "data": Path(config.data).name,
    }


def sentence(verdict: Verdict) -> str:
    """A verdict in one sentence, with its interval.

    >>> sentence(Verdict("Depth", "Deeper is better.", "holds", "+1.0 points", "[+0.5, +1.5]", "0.002", "3 seeds"))
    'Deeper is better: holds (+1.0 points [+0.5, +1.5], p 0.002, 3 seeds).'
    """
    numbers = [f"{verdict.effect} {verdict.interval}".strip(), verdict.p and f"p {verdict.p}", verdict.n]
    shown = ", ".join(part for part in numbers if part)
    return f"{verdict.statement.rstrip('.')}: {verdict.verdict}{f' ({shown})' if shown else ''}."


def command_of(question: Question, inquiry: Inquiry, out: str) -> str:
    """The command that asks the question; of folders and files, their names alone."""
    config = inquiry.config
    words = f"comodulate study {question.name} --data {Path(config.data).name} --seeds {len(inquiry.seeds)}"
    words += f" --seed {min(inquiry.seeds)} --trials {inquiry.trials}"
    if not question.network:
        words += f" --backbone {config.backbone.name} --image-size {config.backbone.image_size}"
        if config.backbone.weights != "pretrained":
            words += f" --weights {Path(config.backbone.weights).name}"
        words += f" --channels {config.head.encoder_channels}"
    return f"{words} --epochs {config.tuning.epochs} --pretraining-epochs {config.pretraining.epochs} --out {out}"


def _notes(
    question: Question, inquiry: Inquiry, out: Path, cells: Sequence[Cell], left_out: Sequence[Cell]
) -> list[str]:
    notes = []
    if diverged := sorted({cell.row.label for cell in cells if diverged_path(out, cell).exists()}):
        notes.append(f"Training diverged, so that there is no cell: {', '.join(diverged)}.")
    if left_out:
        notes.append(f"{len(left_out)} of {len(cells)} cells were not reached; the same command goes on.")
    if ends := rates_at_an_end(question, out, cells):
        notes.append(
            f"The best learning rate is the smallest or largest tried that did not diverge, of: {', '.join(ends)}."
        )
    if not inquiry.trials:
        notes.append(question.rates)
    return notes


def _terminal(
    question: Question,
    answer: Answer,
    distances: Sequence[Distance],
    results: Sequence[Result],
    planned: int,
    notes: Sequence[str],
    out: Path,
) -> str:
    lines = [f"{question.title}: {len(results)} of {planned} cells", "", answer.text.rstrip(), ""]
    lines += [*yardstick_text(distances), ""] if distances else []
    lines += [sentence(verdict) for verdict in answer.verdicts]
    lines += ["", *(f"note: {note}" for note in notes)] if notes else []
    return "\n".join([*lines, "", f"{out}: {REPORT}, {TABLE}, {RESULTS}, {FIGURES}/"])
