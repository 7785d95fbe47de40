"""Figures of a run's answers: which class is taken for which, is it as sure as it is right, and how it was learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import printable
from .drawing import SUBDUED, WIDTH, add_legend, areas, as_array, finished, new_figure, styles_of
from .theme import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..evaluation import Reliability

BLUE, ORANGE = "#0072B2", "#D55E00"
LONGEST = 22  # letters of a class that axes show
SPREADS = 6  # how far up losses are shown, in multiples of what the ends span
SMALL = 12  # classes that fit on the width of a phone


def confusion_figure(counts: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """A cell for each truth (row) and answer (column), the darker the larger its share of the row, with its count.

    The cells are blue on nothing, faint enough for text in INK to be read on them, light or dark.

    Args:
        counts: ``(R, C)``. rows: R names of true classes. columns: C names of answers.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    table = as_array(counts)
    width = WIDTH if len(columns) <= SMALL else 1.8 + 0.27 * len(columns)
    figure = Figure(figsize=(width, 1.5 + 0.27 * len(rows)), layout="constrained", facecolor="none")
    axis = figure.subplots()
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    pixels = np.empty((*table.shape, 4))
    pixels[..., :3], pixels[..., 3] = to_rgb(BLUE), 0.55 * shares
    axis.imshow(pixels, aspect="auto", interpolation="nearest")
    for row, column in zip(*table.nonzero(), strict=True):
        weight = "bold" if rows[row] == columns[column] else "normal"
        axis.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize=7.5, fontweight=weight)
    axis.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axis.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=90)
    axis.set(xlabel="answer", ylabel="truth")
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=INK, alpha=0.12, linewidth=0.6)
    axis.tick_params(which="both", length=0)
    return finished(figure, spines=())


def confidence_accuracy_figure(bins: Reliability, beside: Reliability | None = None) -> Figure:
    """Accuracy of predictions against their confidence, with intervals; the area of a marker is its share of predictions.

    Args:
        bins: of the predictions. beside: of those that they are compared with, drawn behind them, without intervals.
    """
    figure = new_figure(3.4)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    if beside is not None:
        _draw_bins(axis, beside, color=ORANGE)
    held = bins.count > 0
    axis.vlines(bins.confidence[held], bins.low[held], bins.high[held], color=SUBDUED, linewidth=1.2)
    _draw_bins(axis, bins, color=BLUE, zorder=3)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.03))
    axis.grid(color=INK, alpha=0.15)
    return finished(figure)


def _draw_bins(axis: Axes, bins: Reliability, color: str, **style: Any) -> None:
    """The bins that hold predictions, joined; ``style`` of the markers."""
    held = bins.count > 0
    axis.plot(bins.confidence[held], bins.accuracy[held], color=color, linewidth=1)
    axis.scatter(bins.confidence[held], bins.accuracy[held], s=areas(bins.count[held]), color=color, **style)


def losses_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], levels: Mapping[str, float], *, xlabel: str, ylabel: str
) -> Figure:
    """Losses over steps, and those of what is learned in one go as levels; a ring marks the lowest of each curve.

    Args:
        curves: name -> steps ``(P,)``, losses ``(P,)``, finite, P > 0. levels: name -> loss. xlabel, ylabel: with units.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(3.2)
    axis = figure.subplots()
    styles = styles_of((*curves, *levels))
    for name, (steps, losses) in curves.items():
        x, y = as_array(steps), as_array(losses)
        colour, marker = styles[name]
        axis.plot(x, y, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=name)
        best = int(y.argmin())
        axis.plot(x[best], y[best], "o", color=colour, markersize=9, markerfacecolor="none")
    for name, value in levels.items():
        axis.axhline(value, color=styles[name][0], linestyle="--", linewidth=1.2, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half epoch
    if (top := _upper_end([as_array(losses) for _, losses in curves.values()], levels.values())) is not None:
        axis.set_ylim(top=top)
    axis.grid(color=INK, alpha=0.15)
    add_legend(axis, loc="best")
    return finished(figure)


def _upper_end(curves: Sequence[NDArray[np.float64]], levels: Iterable[float]) -> float | None:
    """Where to cut losses off, so that the first steps do not hide how the ends differ; None where nothing is far above them."""
    lowest = min(float(curve.min()) for curve in curves)
    ends = max([float(curve[-1]) for curve in curves] + list(levels))
    top = lowest + SPREADS * (ends - lowest)
    return top if lowest < top < max(float(curve.max()) for curve in curves) else None


def _short(name: str) -> str:
    """A name as an axis shows it: on one line, with nothing that no font can draw."""
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
