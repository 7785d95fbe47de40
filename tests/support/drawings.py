"""What every figure of a report must be: in INK on nothing, legible, the same each time, drawn without a warning."""

import re
from collections.abc import Callable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from comodulation.report import INK, svg


def drawn_texts(figure):
    """The texts of a figure that are seen: ticks beyond an axis' limits exist but are not drawn."""
    unseen = set()
    for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]


def check_drawing(draw: Callable[[], Figure]) -> None:
    """Assert it of a figure that ``draw`` makes anew."""
    figure = draw()
    drawn = svg(figure)
    assert drawn == svg(draw())
    # Whoever embeds it turns INK into currentColor: then no text may be left with a colour of its own.
    texts = re.findall(r"<text [^>]*?style=\"([^\"]*)\"", drawn)
    assert texts
    assert all(INK in style for style in texts)
    assert not re.search(r"(fill|stroke): #(000000|ffffff)", drawn)
    # No text covers another or leaves the page.
    FigureCanvasAgg(figure).draw()
    shown = [(t.get_text(), t.get_window_extent().padded(-1)) for t in drawn_texts(figure)]
    clashes = [(a, b) for i, (a, x) in enumerate(shown) for b, y in shown[i + 1 :] if x.overlaps(y)]
    assert not clashes
    outside = [a for a, x in shown if x.x0 < 0 or x.y0 < 0 or x.x1 > figure.bbox.x1 or x.y1 > figure.bbox.y1]
    assert not outside
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", drawn))
