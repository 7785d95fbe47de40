"""Figures of the claims: differences, accuracies, calibration and training of methods; plain arrays in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .drawing import SUBDUED, add_legend, areas, as_array, finished, named, new_figure, spaced, styles_of
from .theme import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..evaluation import Reliability


class ForestRow(NamedTuple):
    """One comparison: its name (up to about 45 letters), difference, interval, and whether the interval excludes 0."""

    label: str
    difference: float
    low: float
    high: float
    decided: bool


class Curve(NamedTuple):
    """Validation curves of one method: images seen ``(P,)``, NLL in nats ``(S, P)``, accuracy ``(S, P)``, S seeds."""

    images: ArrayLike
    nll: ArrayLike
    accuracy: ArrayLike


def forest_figure(rows: Sequence[ForestRow], *, xlabel: str) -> Figure:
    """Differences with intervals around a line at zero; decided ones in colour and filled, the others grey and hollow.

    Args:
        rows: from top to bottom. xlabel: what the difference is of, with its unit.
    """
    figure = new_figure(0.75 + 0.42 * len(rows))
    axis = figure.subplots()
    for place, row in enumerate(rows):
        colour = "#0072B2" if row.decided else SUBDUED
        axis.plot([0, 0], [place - 0.24, place + 0.24], color=INK, linewidth=1)  # in pieces, not through the labels
        axis.plot([row.low, row.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
        axis.plot(
            row.difference, place, "o", color=colour, markersize=6, markerfacecolor=colour if row.decided else "none"
        )
        for text, x, align in (
            (row.label, 0.0, "left"),
            (f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]".replace("-", "−"), 1.0, "right"),
        ):
            axis.text(x, place - 0.28, text, ha=align, va="bottom", fontsize=8, transform=axis.get_yaxis_transform())
    axis.set(ylim=(len(rows) - 0.6, -0.85), yticks=[], xlabel=xlabel)
    axis.margins(x=0.08)
    return finished(figure, spines=("bottom",))


def accuracy_figure(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A dot per seed and a bar at the mean, a row per method, a panel per group.

    Args:
        groups: variant -> method -> value per seed.
    """
    counts = [len(methods) for methods in groups.values()]
    figure = new_figure(0.6 + sum(0.3 + 0.24 * count for count in counts))
    panels = figure.subplots(len(groups), sharex=True, squeeze=False, height_ratios=[c + 1 for c in counts])[:, 0]
    styles = styles_of(method for methods in groups.values() for method in methods)
    for axis, (variant, methods) in zip(panels, groups.items(), strict=True):
        for place, (method, values) in enumerate(methods.items()):
            colour, marker = styles[method]
            axis.plot(values, [place] * len(values), marker, color=colour, markersize=4.5, linestyle="", alpha=0.75)
            axis.plot([np.mean(values)] * 2, [place - 0.36, place + 0.36], color=colour, linewidth=2.2)
        axis.set_yticks(range(len(methods)), [spaced(method) for method in methods])
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.set_title(variant, loc="left", fontsize=9.5)
        axis.grid(axis="x", color=INK, alpha=0.15)
    panels[-1].set_xlabel("accuracy (%)")
    return finished(figure)


def reliability_figure(methods: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence, and below it the gap between the two; the area of a marker is its share of predictions.

    Args:
        methods: name -> bins of confidence; empty ones are left out.
    """
    figure = new_figure(4.9)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[5, 3.5])
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    lower.axhline(0, color=INK, linewidth=0.8, linestyle="--")
    styles = styles_of(methods)
    for method, bins in methods.items():
        held = bins.count > 0
        confidence, accuracy, area = bins.confidence[held], bins.accuracy[held], areas(bins.count[held])
        colour, marker = styles[method]
        for axis, values in ((upper, accuracy), (lower, 100 * (accuracy - confidence))):
            axis.plot(confidence, values, color=colour, linewidth=1.2)
            axis.scatter(confidence, values, s=area, color=colour, marker=marker, alpha=0.8, linewidths=1)
        named(upper, method, styles[method])
    upper.set(ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    lower.set(ylabel="accuracy − confidence\n(points)", xlabel="confidence")
    for axis in (upper, lower):
        axis.grid(color=INK, alpha=0.15)
    add_legend(upper, loc="upper left")
    return finished(figure)


def confidence_figure(methods: Mapping[str, Reliability]) -> Figure:
    """Share of predictions in each bin of confidence, bins equally wide in [0, 1]; dotted: each method's mean confidence.

    Args:
        methods: name -> bins, as for ``reliability_figure``.
    """
    figure = new_figure(2.7)
    axis = figure.subplots()
    styles = styles_of(methods)
    for method, bins in methods.items():
        colour, marker = styles[method]
        total, edges = max(bins.count.sum(), 1), np.linspace(0, 1, len(bins.count) + 1)
        share = 100 * bins.count / total
        axis.stairs(share, edges, color=colour, linewidth=1.5)
        axis.plot((edges[:-1] + edges[1:]) / 2, share, marker, color=colour, markersize=3.5)
        mean = np.where(bins.count > 0, bins.count * bins.confidence, 0).sum() / total
        axis.axvline(mean, color=colour, linestyle=":", linewidth=1)
        named(axis, method, styles[method])
    axis.set(xlabel="confidence (dotted: mean)", ylabel="predictions (%)", xlim=(0, 1))
    add_legend(axis, loc="best")
    return finished(figure)


def learning_curves_figure(methods: Mapping[str, Curve]) -> Figure:
    """Validation NLL and accuracy against images seen: the mean over seeds, in a band from the lowest to the highest seed."""
    figure = new_figure(4.4 + 0.15 * (len(methods) // 3))
    panels = figure.subplots(2, sharex=True)
    styles = styles_of(methods)
    for method, curve in methods.items():
        colour, marker = styles[method]
        images = as_array(curve.images)
        for axis, values in zip(panels, (as_array(curve.nll), 100 * as_array(curve.accuracy)), strict=True):
            every = max(1, len(images) // 8)
            axis.fill_between(images, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
            axis.plot(
                images, values.mean(0), color=colour, marker=marker, markersize=3.5, markevery=every, linewidth=1.4
            )
        named(panels[0], method, styles[method])
    panels[0].set_ylabel("validation NLL (nats)")
    panels[1].set(ylabel="validation accuracy (%)", xlabel="images seen (mean and range over seeds)")
    for axis in panels:
        axis.grid(color=INK, alpha=0.15)
    figure.legend(frameon=False, fontsize=7.5, loc="outside lower center", ncols=3)
    panels[1].xaxis.set_major_formatter(_thousands)
    return finished(figure)


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value else "0"
