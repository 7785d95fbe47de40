"""The style that all figures of reports have in common.

Made for a page: as wide as a phone, on any background. All text and axes are in INK, which whoever embeds the SVG may
replace by ``currentColor``; nothing else has that colour, and nothing is black or white. Colours are those of Okabe and
Ito ("Color Universal Design", 2008), each with a marker of its own; a method has the same in every figure.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .theme import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.6  # inches; at 8 points, letters stay readable on 360 pixels
STYLES = {
    "comodulation": ("#D55E00", "o"),
    "attention": ("#0072B2", "s"),
    "hard-sharing": ("#009E73", "^"),
    "base": ("#888888", "x"),
    "class-mask": ("#CC79A7", "D"),
    "task-bias": ("#E69F00", "v"),
    "local-mask": ("#404040", "d"),
    "film": ("#56B4E9", "P"),
    "ia3": ("#8C6D31", "*"),
    "decoder-gains": ("#7A52A3", "h"),
    "positions": ("#117733", "<"),
    "paper": ("#882255", ">"),
}
SUBDUED = "#999999"


def new_figure(height: float) -> Figure:
    """Empty, as wide as a phone and ``height`` inches high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")


def finished(figure: Figure, spines: tuple[str, ...] = ("left", "bottom")) -> Figure:
    """Every text and axis in INK, nothing behind them; laid out. Ticks are made when drawn, hence ``tick_params``.

    Names are data: a dollar sign in one is no formula. Powers on logarithmic axes are.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(INK)
        text.set_parse_math(False)
    for axis in figure.axes:
        axis.set_facecolor("none")
        axis.tick_params(which="both", colors=INK, labelsize=8)
        for side, spine in axis.spines.items():
            spine.set_edgecolor(INK)
            spine.set_visible(side in spines)
        for label in (axis.xaxis.label, axis.yaxis.label):
            label.set_fontsize(8.5)
        for part in (axis.xaxis, axis.yaxis):
            part.get_offset_text().set(color=INK, fontsize=8)
            for label in part.get_ticklabels(which="both"):
                label.set_parse_math(part.get_scale() == "log")
    # The solver's positions differ in their last bit from run to run, and with them the SVG: lay out once, round, keep.
    with foreign_letters():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, 6).tolist())
    return figure


@contextlib.contextmanager
def foreign_letters() -> Iterator[None]:
    """Draw names in any script: an SVG keeps them as text, in the reader's fonts, so that what ours lacks is no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def styles_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name: a method's own, and for other names the first that is not in use."""
    names = list(dict.fromkeys(names))
    free = [style for name, style in STYLES.items() if name not in names and style[0] != STYLES["base"][0]]
    styles = {}
    for name in names:
        styles[name] = STYLES.get(name) or (free.pop(0) if free else (SUBDUED, "."))
    return styles


def add_legend(axis: Axes, **where: Any) -> None:
    """A small legend without a frame; ``where`` as in matplotlib."""
    axis.legend(**{"frameon": False, "fontsize": 7.5, "handlelength": 1.6, "labelspacing": 0.25, **where})


def named(axis: Axes, name: str, style: tuple[str, str]) -> None:
    """A line of the legend for what is drawn in several pieces, by its colour and marker."""
    colour, marker = style
    axis.plot([], [], marker, color=colour, linestyle="-", markersize=4, label=spaced(name))


def areas(counts: ArrayLike) -> NDArray[np.float64]:
    """Areas of markers that show each count's share of the whole, in square points."""
    number = as_array(counts)
    return 8 + 150 * number / max(number.sum(), 1)


def spaced(name: str) -> str:
    """A name as words."""
    return name.replace("-", " ").replace("_", " ")


def as_array(values: ArrayLike) -> NDArray[np.float64]:
    """Values as float64."""
    return np.asarray(values, np.float64)
