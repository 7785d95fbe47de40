"""Tables of what the searches chose, and of what single changes of the defaults do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...report import Table
from ..cells import Row, best_settings, limits, params_at_an_end, read_trials
from .reproduction import Study, ablated, search_path
from .words import shown_name


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
                    ", ".join(_ends(cell.row, best, trials)),
                ]
            )
    caption = (
        f"{study.trials} trials for each method on a seed that is not compared; lowest validation NLL. A range grows at an "
        "end where the best trial lies. The last column names a parameter whose best value lies at an end all the same: after the "
        "last trial, or where the option itself ends."
    )
    return Table(
        ("method", "variant", "trials", "finished", "validation NLL", "chosen", "at an end"),
        rows,
        caption,
        {"validation NLL": ".4f"},
    )


def _ends(row: Row, best: dict[str, Any], trials: Sequence[dict[str, Any]]) -> list[str]:
    """Parameters at an end, those at a limit of the option marked as such."""
    found = []
    for name in params_at_an_end(row, best, trials):
        final = any(math.isclose(best[name], end, rel_tol=0.05) for end in limits(row, name))
        found.append(name.replace("_", " ") + (" (limit)" if final else ""))
    return found


def ablation_table(folder: Path) -> Table | None:
    """Single changes of the defaults, on validation images."""
    found = ablated(folder)
    rows = [
        [shown_name(label), 100 * line["accuracy"], line["nll"], 100 * line["ece"], line["seconds"]]
        for label, line in sorted(found.items(), key=lambda item: float(item[1].get("nll", math.inf)))
        if "failed" not in line
    ]
    caption = (
        "One change at a time from the settings that the search chose: validation inputs of the search's seed, residual "
        "variant, one network each, so that differences below about half a point mean nothing."
    )
    columns = ("row", "accuracy, %", "NLL", "ECE, %", "seconds")
    formats = {"accuracy, %": ".2f", "NLL": ".4f", "ECE, %": ".2f", "seconds": ".0f"}
    return Table(columns, rows, caption, formats) if rows else None
