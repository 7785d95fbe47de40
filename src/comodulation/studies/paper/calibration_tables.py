"""How well probabilities are calibrated, before and after one temperature: a table of the report, and calibration.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...evaluation import perfect_ece
from ...report import Table
from ..cells import CELLS, VARIANTS, Result, names_of, scores_by_seed, values
from .figures import as_logs
from .words import mean, shown_name


def calibration_rows(folder: Path, results: Sequence[Result]) -> list[list[Any]]:
    """Variant, name, seeds, ECE, its value under perfect calibration and that one's 95% quantile, and after scaling."""
    rows = []
    for variant in VARIANTS:
        for name in names_of(results, variant):
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
