"""Figures of the population model and of recordings: a matplotlib figure each, in the style of the other figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t

from ..report import INK, SUBDUED, add_legend, finished, new_figure
from .analysis import AreaStatistics, RecordingStatistics
from .decoders import MAXIMUM_LIKELIHOOD
from .experiment import PopulationStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECODER_STYLES = {
    MAXIMUM_LIKELIHOOD: ("#888888", "x"),
    "modulator-guided": ("#D55E00", "o"),
    "regression": ("#0072B2", "s"),
    "rate-guided": ("#009E73", "^"),
    "sign-only": ("#CC79A7", "D"),
}
PLACES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def population_figure(study: PopulationStudy) -> Figure:
    """Accuracy of each decoder against training trials and the modulator's strength: mean over seeds, with its 95% interval."""
    s, figure = study.settings, new_figure(5.4)
    panels = figure.subplots(2)
    wide = float(t.ppf(0.975, len(s.seeds) - 1)) / np.sqrt(len(s.seeds))
    for axis, table, x in zip(panels, (study.learning, study.strength), (s.learning_trials, s.strengths), strict=True):
        for name, values in table.items():
            colour, marker = DECODER_STYLES[name]
            mean, half = 100 * values.mean(0), 100 * wide * values.std(0, ddof=1)
            axis.fill_between(x, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)
            axis.plot(x, mean, color=colour, marker=marker, markersize=4, linewidth=1.4, label=name.replace("-", " "))
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set(ylabel="accuracy (%)", ylim=(48, 101))
        axis.grid(color=INK, alpha=0.15)
    panels[0].set_xlabel(f"training trials (sd of informative log gain {s.std:g})")
    panels[1].set_xlabel(f"strength of the modulator: sd of informative log gain ({s.trials} trials)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=7.5, loc="outside lower center", ncols=3)
    return finished(figure)


def recording_figure(found: RecordingStatistics) -> Figure:
    """One recording: shared dimensions, coupling against informativeness in either area, modulation in task and control."""
    areas = list(found.areas.values())
    controlled = [part for part in areas if part.control_coupling is not None]
    number = 1 + len(areas) + bool(controlled)
    figure = new_figure(0.4 + 2.3 * number)
    panels = figure.subplots(number, squeeze=False)[:, 0]
    spectrum = found.dimensions.spectrum
    panels[0].axhline(0, color=INK, linewidth=0.8)
    panels[0].plot(np.arange(1, len(spectrum) + 1), spectrum, "o-", color=PLACES[0], markersize=5)
    panels[0].set(
        xlabel=f"dimension of {found.upstream.area}", ylabel="shared variance, held out\n(variances of a neuron)"
    )
    panels[0].set_xticks(np.arange(1, len(spectrum) + 1))
    for axis, part, colour in zip(panels[1:], areas, PLACES, strict=False):
        _scatter(axis, part, colour)
    if controlled:
        axis = panels[-1]
        values = np.concatenate([np.concatenate([p.coupling, p.control_coupling]) for p in controlled])
        ends = [float(np.nanmin(values)), float(np.nanmax(values))]
        axis.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--")
        for part, colour in zip(controlled, PLACES, strict=False):
            axis.plot(part.coupling, part.control_coupling, "o", color=colour, markersize=4, alpha=0.7, label=part.area)
        axis.set(xlabel="coupling in the task", ylabel="coupling in the control")
        add_legend(axis, loc="upper left")
    for axis in panels:
        axis.grid(color=INK, alpha=0.15)
    return finished(figure)


def comparison_figure(recordings: Sequence[RecordingStatistics]) -> Figure:
    """Recordings and networks side by side: a panel a statistic, a row each, with 95% intervals where there are some."""
    statistics = _compared(recordings)
    count = len(recordings)
    figure = new_figure(0.3 + len(statistics) * (0.65 + 0.28 * count))
    panels = figure.subplots(len(statistics), squeeze=False)[:, 0]
    for axis, (title, rows) in zip(panels, statistics.items(), strict=True):
        axis.axvline(0, color=INK, linewidth=0.8)
        for place, row in enumerate(rows):
            if row is None or not np.isfinite(row[0]):
                axis.text(0.02, place, "not measured", va="center", fontsize=7.5)
                continue
            value, low, high = row
            # Of a recording in which nothing is shared, none is decided, whatever the intervals.
            decided = recordings[place].dimensions.found and (low > 0 or high < 0)
            colour = PLACES[place % len(PLACES)] if decided else SUBDUED
            axis.plot([low, high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
            axis.plot(value, place, "o", color=colour, markersize=6, markerfacecolor=colour if decided else "none")
        axis.set_yticks(range(count), [one.name for one in recordings])
        axis.set_ylim(count - 0.4, -0.6)
        axis.set_title(title, loc="left", fontsize=8)
        axis.margins(x=0.08)
    return finished(figure)


def _compared(recordings: Sequence[RecordingStatistics]) -> dict[str, list[tuple[float, float, float] | None]]:
    """Each statistic's value, low and high end, a recording each; None where it was not measured."""
    statistics: dict[str, list[tuple[float, float, float] | None]] = {
        "share of shared variability in the first dimension": [
            (d.share, d.share - 1.96 * d.error, d.share + 1.96 * d.error)
            for d in (one.dimensions for one in recordings)
        ]
    }
    for where in ("upstream", "downstream"):
        parts = [one.areas.get(where) for one in recordings]
        if any(parts):
            statistics[f"coupling against informativeness, {where} (rank correlation)"] = [
                None if part is None else (part.association.spearman, part.association.low, part.association.high)
                for part in parts
            ]
        falls = [None if part is None else part.fall for part in parts]
        if any(falls):
            # In units of the task's, so that a network's modulator and a cortex's can be compared.
            statistics[f"fall of modulation in the control, {where} (share of the task's)"] = [
                None if f is None or f.task <= 0 else (f.difference / f.task, f.low / f.task, f.high / f.task)
                for f in falls
            ]
    return statistics


def _scatter(axis: Axes, part: AreaStatistics, colour: str) -> None:
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.errorbar(
        part.dprime, part.coupling, yerr=part.error, fmt="o", color=colour, markersize=4, linewidth=0.8, alpha=0.7
    )
    a = part.association
    axis.set_title(
        f"{part.area}: rank correlation {a.spearman:+.2f} [{a.low:+.2f}, {a.high:+.2f}]", loc="left", fontsize=8.5
    )
    axis.set(xlabel="informativeness of the neuron, d′ (sd)", ylabel="coupling (sd of log gain)")
