"""Figures of the studies of open questions: numbers in, a matplotlib figure out, in the style of drawing.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .drawing import STYLES, SUBDUED, add_legend, finished, new_figure, styles_of
from .theme import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """A value with its interval at a place: of a parameter count, a number of images, a property of a network."""

    x: float
    value: float
    low: float
    high: float
    label: str = ""


def curves_figure(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    xlabel: str,
    ylabel: str,
    ticks: Mapping[float, str] | None = None,
    joined: bool = True,
    margin: float | None = None,
) -> Figure:
    """Values with intervals over a logarithmic axis around a line at zero; a panel a group, a colour and marker a series.

    A series named "method, something" has the method's colour, with hollow markers and a broken line.

    Args:
        panels: group -> series -> points. xlabel, ylabel: with units.
        ticks: places and names of the x axis. joined: whether a line joins the points of a series.
        margin: half height of a band around zero, of differences too small to matter.
    """
    from matplotlib.ticker import NullLocator

    figure = new_figure(0.9 + 2.0 * len(panels))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    styles = styles_of(_method_or(name) for panel in panels.values() for name in panel)
    explained: set[str] = set()
    for axis, (title, series) in zip(axes, panels.items(), strict=True):
        if margin is not None:
            axis.axhspan(-margin, margin, color=SUBDUED, alpha=0.2, linewidth=0)
        axis.axhline(0, color=INK, linewidth=0.8)
        for place, (name, points) in enumerate(series.items()):
            colour, marker = styles[_method_or(name)]
            style: dict[str, Any] = {"color": colour, "marker": marker, "label": None if name in explained else name}
            if _method_or(name) != name:
                style |= {"linestyle": "--", "markerfacecolor": "none"}
            if not joined:
                style["linestyle"] = ""
            _draw_points(axis, points, 1.04 ** (place - (len(series) - 1) / 2), style)
        axis.set_xscale("log")
        axis.set(ylabel=ylabel)
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(axis="y", color=INK, alpha=0.15)
        if ticks:
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticks(list(ticks), list(ticks.values()))
        axis.margins(x=0.08)
        if set(series) - explained:
            add_legend(axis, loc="best", ncols=2)
        explained |= set(series)
    axes[-1].set_xlabel(xlabel)
    return finished(figure)


def _draw_points(axis: Axes, points: Sequence[Point], beside: float, style: Mapping[str, Any]) -> None:
    """Points with their intervals and labels; ``beside``: what their places are multiplied by, to lie beside other series."""
    x, y = np.array([point.x for point in points]) * beside, np.array([point.value for point in points])
    spans = np.array([[point.value - point.low, point.high - point.value] for point in points]).T
    axis.errorbar(x, y, spans, markersize=4.5, linewidth=1.2, elinewidth=1, **style)
    for point, at in zip(points, x, strict=True):
        if point.label:
            axis.annotate(point.label, (at, point.value), (4, 3), textcoords="offset points", fontsize=6.5, color=INK)


def _method_or(name: str) -> str:
    """The method of a series named "method, something"; any other name as it is."""
    method, _, rest = name.partition(", ")
    return method if rest and method in STYLES else name


def scatter_figure(panels: Mapping[str, tuple[str, Sequence[Point]]], *, ylabel: str) -> Figure:
    """A number measured on each network against each of its properties, a panel a property.

    Args:
        panels: property -> what was found of it (shown above its panel), and a point a network.
        ylabel: the number, with its unit.
    """
    columns = 2
    rows = -(-len(panels) // columns)
    figure = new_figure(0.4 + 1.75 * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for place, (name, (found, points)) in enumerate(panels.items()):
        axis = axes.flat[place]
        axis.axhline(0, color=INK, linewidth=0.8)
        for point in points:
            axis.plot([point.x, point.x], [point.low, point.high], color=SUBDUED, linewidth=1)
        axis.plot([p.x for p in points], [p.value for p in points], "o", color="#0072B2", markersize=4)
        axis.set_title(found, loc="left", fontsize=7.5)
        axis.set_xlabel(name)
        if place % columns == 0:
            axis.set_ylabel(ylabel)
        axis.margins(x=0.12)
    return finished(figure)
