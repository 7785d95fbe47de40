"""The population model and recordings on disk: rows.csv, results.json, figures/ and one self-contained report.html."""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation import PairedDifference
from ..files import PARTIAL, read_json, writable, write_bytes, write_json
from ..report import FAILS, HOLDS, UNKNOWN, Figure, Section, Table, Text, Verdict, finite, render, source_commit, svg
from .analysis import RecordingStatistics, comparison_table
from .experiment import PopulationStudy
from .figures import comparison_figure, population_figure, recording_figure

TABLE, RESULTS, REPORT, FIGURES = "rows.csv", "results.json", "report.html", "figures"
POPULATION, RECORDING = "population", "recording"  # what a folder holds


@contextlib.contextmanager
def claimed(out: Path, kind: str) -> Iterator[None]:
    """A folder to write to, found fit for it before anything is computed: new, empty, or of the same kind, which is replaced.

    Raises:
        InputError: it holds something else, or cannot be written to.
    """
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file, expected a folder to write to")
        found = [path.name for path in out.iterdir()] if out.exists() else []
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error
    if any(not name.endswith(PARTIAL) for name in found) and _kind(out) != kind:
        raise InputError(f"{out} is not empty and not a folder of `comodulate {kind}`; choose another --out")
    with writable(out):
        yield


def write_population(study: PopulationStudy, out: Path, command: str) -> dict[str, Any]:
    """Write what the population model answers; returns what --json prints."""
    said, s = study.verdict(), study.settings
    figure = Figure(
        svg(population_figure(study)),
        "Mean over populations with its 95% interval. Above: with few training trials, decoders that know the modulator are near "
        "the ideal one, regression is not. Below: a stronger modulator harms the ideal decoder and helps those that learn from it.",
        "Accuracy of each decoder",
    )
    verdicts = [
        Verdict("Labels", said[0], _decided(study.labels_help(), study.ahead()[1])),
        Verdict("Trade-off", said[1], _decided(study.trades_off(), study.harmed())),
    ]
    means = [[decoder, *(float(value) for value in values.mean(0))] for decoder, values in study.learning.items()]
    columns = ["decoder", *(f"{number} trials" for number in s.learning_trials)]
    table = Table(columns, means, "Mean accuracy after so many training trials.", dict.fromkeys(columns[1:], ".1%"))
    page = render(
        "A population under a shared modulator",
        f"{s.neurons} Poisson neurons, {s.informative} of them informative; {len(s.seeds)} populations.",
        _facts(command), verdicts, [Section("Accuracy", [figure, table])],
    )  # fmt: skip
    numbers = {
        "trials_needed": {name: study.trials_needed(name) for name in study.learning},
        "best_strength": study.peak()[0],
    }
    return _write(out, POPULATION, study.rows(), {"population": figure}, page, {"verdict": said, **numbers})


def write_recordings(found: Sequence[RecordingStatistics], out: Path, command: str) -> dict[str, Any]:
    """Write the statistics of recordings (and networks), side by side; returns what --json prints."""
    sections, figures = [], {}
    table = comparison_table(found)
    blocks: list[Any] = [
        Table(
            list(table[0]), [list(row.values()) for row in table],
            "A row a statistic, with its 95% interval. Couplings and informativeness: rank correlation over neurons.",
        )
    ]  # fmt: skip
    if len(found) > 1:
        caption = "Each statistic with its interval, for all recordings: where they overlap, they agree."
        figures["comparison"] = Figure(svg(comparison_figure(found)), caption, "Side by side")
        blocks.append(figures["comparison"])
    sections.append(Section("Statistics", blocks))
    for place, one in enumerate(found):
        caption = (
            "A dot is a neuron; bars are standard errors of couplings. What a control changes is in the last panel."
        )
        figure = figures[f"recording-{place + 1}"] = Figure(svg(recording_figure(one)), caption, one.name)
        sections.append(Section(one.name, [Text("\n\n".join(one.verdict())), figure]))
    said = {one.name: one.verdict() for one in found}
    page = render("A shared modulator in spike counts", ", ".join(said), _facts(command), [], sections)
    rows = [row for one in found for row in one.rows()]
    return _write(out, RECORDING, rows, figures, page, {"verdict": said, "statistics": rows})


def _kind(out: Path) -> str | None:
    """What a folder holds; None where neither of the two."""
    try:
        found = read_json(out / RESULTS)
    except InputError:
        return None
    return found.get("kind") if isinstance(found, dict) else None


def _decided(holds: bool, difference: PairedDifference) -> str:
    """A verdict; a difference that is decidedly negative refutes."""
    return HOLDS if holds else FAILS if difference.decided and difference.mean < 0 else UNKNOWN


def _facts(command: str) -> dict[str, str]:
    return {"command": command, "commit": source_commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}


def _write(
    out: Path,
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Figure],
    page: str,
    result: dict[str, Any],
) -> dict[str, Any]:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with writable(out):
        # First, so that a folder that was not written to its end can be told from another's.
        result = finite({"kind": kind, **result, "report": str(out / REPORT)})
        write_json(out / RESULTS, result)
        (out / FIGURES).mkdir(exist_ok=True)
        for name, figure in figures.items():
            write_bytes(out / FIGURES / f"{name}.svg", figure.svg.encode())
        write_bytes(out / TABLE, text.getvalue().encode())
        write_bytes(out / REPORT, page.encode())
    return result
