"""Figures, as SVG that is the same for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import foreign_letters
from .theme import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Text and axes in one colour on nothing, which the page turns into its own text colour, light or dark.
_INKED: dict[Any, str] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def gains_figure(
    encoder_gains: np.ndarray, decoder_gains: np.ndarray, tasks: Sequence[str], *, title: str = ""
) -> Figure:
    """Learned encoder gains and the decoder gains that follow from them, a row per task.

    Neurons are sorted by the task for which their gain is most above its mean over tasks, so that task-specific gain
    shows as a block diagonal, and gain that all tasks share as columns. Colour is log2 of the gain, white at 1, from
    orange (below) to purple (above), a pair that colour-blind readers can tell apart.

    Args:
        encoder_gains: ``(K, E)``. decoder_gains: ``(K, D)``. tasks: K names.
    """
    import matplotlib
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    panels = (
        (encoder_gains, "Encoder gain, learned", "encoder neuron"),
        (decoder_gains, "Decoder gain, computed", "decoder neuron"),
    )
    logs = [np.log2(np.clip(gains, 2.0**-8, 2.0**8)) for gains, _, _ in panels]
    limit = max(0.25, *(float(np.quantile(np.abs(values), 0.99)) for values in logs))
    style: dict[str, Any] = {
        "aspect": "auto",
        "cmap": "PuOr",
        "norm": TwoSlopeNorm(0, -limit, limit),
        "interpolation": "nearest",
    }
    with matplotlib.rc_context(_INKED):
        figure = Figure(figsize=(9.5, 1.9 + 0.2 * len(tasks)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, values, (_, name, neurons) in zip(axes, logs, panels, strict=True):
            order = np.lexsort((-np.ptp(values, axis=0), np.argmax(values - values.mean(0), axis=0)))
            image = axis.imshow(values[:, order], **style)
            image.set_rasterized(True)
            axis.set_title(name, fontsize=10)
            axis.set_xlabel(f"{neurons}, sorted by preferred task")
        # Names are data: a dollar sign in one is no formula.
        names = [name.replace("_", " ") for name in tasks]
        axes[0].set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
        bar.set_label("log2 gain (0: unchanged)")
        if title:
            figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def svg(figure: Figure) -> str:
    """A figure as an SVG element, without date or random ids."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "comodulation", "svg.fonttype": "none", "font.family": "sans-serif"}):
        sink = io.StringIO()
        with foreign_letters():
            figure.savefig(sink, format="svg", metadata={"Date": None}, dpi=150)
    text = sink.getvalue()
    return text[text.index("<svg") :]
