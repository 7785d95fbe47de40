"""Figures of the mechanism: plain arrays in, a matplotlib figure out, in the style of drawing.py."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..evaluation import THRESHOLDS, log2_histogram
from .drawing import STYLES, SUBDUED, add_legend, as_array, finished, new_figure, spaced, styles_of
from .theme import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def separability_figure(measures: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """How far apart classes are, by method: a point per seed, a line through the points of one seed, a bar at the mean.

    Args:
        measures: axis label (Fisher ratio, d') -> method -> value per seed, seeds in the same order.
    """
    figure = new_figure(0.9 + 1.7 * len(measures))
    panels = figure.subplots(len(measures), sharex=True, squeeze=False)[:, 0]
    styles = styles_of(method for methods in measures.values() for method in methods)
    for axis, (label, methods) in zip(panels, measures.items(), strict=True):
        axis.plot(np.array(list(methods.values()), float), color=INK, alpha=0.3, linewidth=0.8)
        for place, (method, values) in enumerate(methods.items()):
            colour, marker = styles[method]
            axis.plot([place] * len(values), values, marker, color=colour, markersize=5, linestyle="", alpha=0.85)
            axis.plot([place - 0.22, place + 0.22], [np.mean(values)] * 2, color=colour, linewidth=2.4)
        axis.set_ylabel(label)
        slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(methods) > 4 else {}
        axis.set_xticks(range(len(methods)), [spaced(method) for method in methods], **slanted)
        axis.margins(x=0.12)
        axis.grid(axis="y", color=INK, alpha=0.15)
    return finished(figure)


def noise_figure(
    spectra: Mapping[str, ArrayLike],
    shares: Mapping[str, ArrayLike],
    chance: Mapping[str, ArrayLike],
    control: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Fluctuation caused by the modulator: how many directions it fills, and its share in the task-relevant subspace.

    Args:
        spectra: name -> eigenvalues of the covariance, ``(D,)``.
        shares: name -> share inside the task's own subspace, per task, ``(K,)``; nan where there is no fluctuation.
        chance: name -> share expected of a random subspace, ``(K,)``.
        control: name -> mean share inside the other tasks' subspaces, ``(K,)``.
    """
    figure = new_figure(3.4 + 0.45 * len(shares))
    upper, lower = figure.subplots(2, height_ratios=[4, 1 + len(shares)])
    styles = styles_of([*spectra, *shares])
    _draw_spectra(upper, spectra, styles)
    for place, (name, share) in enumerate(shares.items()):
        colour, marker = styles[name]
        rows = [(share, colour, marker, 0.17, "own subspace")]
        if control is not None:
            rows.append((control[name], SUBDUED, ".", -0.17, "other tasks' subspaces"))
        for held, shade, shape, lift, label in rows:
            points = 100 * as_array(held)
            points = points[np.isfinite(points)]
            at = place - lift if control is not None else place
            lower.plot(points, np.full(len(points), at), shape, color=shade, markersize=4, alpha=0.6, linestyle="")
            if len(points):
                lower.plot([points.mean()] * 2, [at - 0.16, at + 0.16], color=shade, linewidth=2.2)
            if place == 0 and control is not None:
                lower.plot([], [], shape, color=shade, linestyle="", markersize=4, label=label)
        expected = 100 * float(np.mean(as_array(chance[name])))
        lower.plot([expected] * 2, [place - 0.42, place + 0.42], color=INK, linestyle="--", linewidth=1)
    lower.plot([], [], color=INK, linestyle="--", linewidth=1, label="random subspace")
    lower.set_yticks(range(len(shares)), [spaced(name) for name in shares])
    lower.set(ylim=(len(shares) - 0.4, -0.6), xlabel="variance inside the task's subspace (%, a point per task)")
    lower.set_xlim(left=0)
    lower.grid(axis="x", color=INK, alpha=0.15)
    handles, labels = lower.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=7, handlelength=1.4, loc="outside lower center", ncols=3)
    return finished(figure)


def _draw_spectra(axis: Axes, spectra: Mapping[str, ArrayLike], styles: Mapping[str, tuple[str, str]]) -> None:
    """The share of the variance that the largest eigenvalues hold, by how many they are."""
    for name, spectrum in spectra.items():
        colour, marker = styles[name]
        values = np.sort(as_array(spectrum))[::-1]
        cumulative = 100 * values.cumsum() / (values.sum() or 1)
        number = np.arange(1, len(values) + 1)
        marked = np.unique(np.geomspace(1, len(values), 9).astype(int) - 1).tolist()
        axis.plot(number, cumulative, color=colour, marker=marker, markevery=marked, markersize=4, label=spaced(name))
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set(xlabel="directions (number, log scale)", ylabel="variance held (%)", ylim=(0, 104))
    axis.grid(color=INK, alpha=0.15)
    add_legend(axis, loc="lower right")


BINS = 10  # of neurons by informativeness
COUPLED = 12  # encoder neurons shown of one image


def informativeness_figure(
    encoder: Mapping[str, tuple[ArrayLike, ArrayLike]],
    decoder: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> Figure:
    """Coupling and gain against how informative a neuron is: median and quartiles in ten bins of equally many neurons.

    Args:
        encoder, decoder: name -> (d', coupling or gain), of equal shapes, such as ``(K, E)`` and ``(K, D)``. Neurons
            whose d' is not finite are left out.
    """
    figure = new_figure(4.8)
    panels = figure.subplots(2)
    styles = styles_of([*encoder, *decoder])
    labels = ("coupling of encoder neuron", "gain of decoder neuron")
    for axis, lines, label in zip(panels, (encoder, decoder), labels, strict=True):
        for name, (dprime, gain) in lines.items():
            x, y = as_array(dprime).ravel(), as_array(gain).ravel()
            order = np.argsort(np.where(np.isfinite(x), x, np.inf), kind="stable")[: int(np.isfinite(x).sum())]
            parts = [part for part in np.array_split(order, BINS) if len(part)]
            centre = [np.median(x[part]) for part in parts]
            quartiles = np.array([np.quantile(y[part], (0.25, 0.5, 0.75)) for part in parts]).reshape(-1, 3).T
            colour, marker = styles[name]
            axis.fill_between(centre, quartiles[0], quartiles[2], color=colour, alpha=0.2, linewidth=0)
            axis.plot(centre, quartiles[1], color=colour, marker=marker, markersize=4.5, label=spaced(name))
        axis.set_ylabel(label)
        axis.grid(color=INK, alpha=0.15)
        add_legend(axis, loc="best")
    panels[1].set_xlabel("informativeness of the neuron, d′ (sd)\nmedian and quartiles")
    return finished(figure)


def gain_histogram_figure(gains: Mapping[str, ArrayLike]) -> Figure:
    """Distribution of gains on a log2 scale, with the thresholds of sparsity; the legend counts gains below 0.1.

    Args:
        gains: name (base, residual) -> ``(K, D)``; the first and last bin hold everything beyond (zeros too).
    """
    figure = new_figure(3.2)
    axis = figure.subplots()
    styles = styles_of(gains)
    for threshold in THRESHOLDS:
        axis.axvline(np.log2(threshold), color=INK, linewidth=0.8, linestyle=":")
        axis.text(
            np.log2(threshold), 1.01, f"{threshold:g}", ha="center", fontsize=7, transform=axis.get_xaxis_transform()
        )
    for name, values in gains.items():
        table = as_array(values)
        edges, counts = (part.numpy() for part in log2_histogram(torch.as_tensor(table)))
        share = 100 * counts.sum(0) / counts.sum()
        colour, marker = styles[name]
        axis.stairs(share, edges, color=colour, fill=True, alpha=0.18)
        axis.stairs(share, edges, color=colour, linewidth=1.4)
        label = f"{spaced(name)}: {100 * (table < 0.1).mean():.1f}% below 0.1"
        axis.plot([], [], marker, color=colour, linestyle="-", markersize=4, label=label)
        axis.plot((edges[:-1] + edges[1:]) / 2, share, marker, color=colour, markersize=3, linestyle="")
    ticks = range(-8, 5, 2)
    names = ["0 … 1/256", "1/64", "1/16", "1/4", "1", "4", "≥ 16"]
    axis.set_xticks(ticks, names)
    axis.set(xlabel="decoder gain (log scale)", ylabel="neurons × tasks (%)")
    axis.set_title("threshold", fontsize=7, pad=11, loc="left")
    figure.legend(frameon=False, fontsize=7.5, loc="outside lower center")  # outside: the thresholds cross the panel
    return finished(figure)


def one_image_figure(
    given: ArrayLike | str,
    couplings: Mapping[str, ArrayLike],
    modulator: ArrayLike,
    decoder: ArrayLike,
    gains: ArrayLike,
    before: Mapping[str, float],
    after: Mapping[str, float],
    target: str,
) -> Figure:
    """One image or text followed through: couplings, the modulator and the neurons that covary with it, gains, predictions.

    Args:
        given: an image, ``(H, W, 3)`` or ``(H, W)``, in [0, 1] or bytes; or a text.
        couplings: of two tasks, its own first: name -> ``(E,)``. Shown are the neurons where they differ most.
        modulator: ``(T,)``, in order of the samples. decoder: pooled activity under it, ``(T, D)``.
        gains: of the decoder neurons, ``(D,)``.
        before, after: class -> probability, without and with the task; shown in the order of ``after``.
        target: its class.
    """
    figure = new_figure(8.6)
    grid = figure.add_gridspec(5, 2, height_ratios=[2.2, 1.7, 0.9, 1.7, 1.5], width_ratios=[1, 1.5])
    picture, predicted = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    coupled, gained = figure.add_subplot(grid[1, :]), figure.add_subplot(grid[4, :])
    driving = figure.add_subplot(grid[2, :])
    driven = figure.add_subplot(grid[3, :], sharex=driving)
    _draw_given(picture, given, target)
    _draw_predictions(predicted, before, after, target)
    _draw_couplings(coupled, couplings)
    driving.plot(as_array(modulator), color="#009E73", linewidth=1.4)
    driving.set_ylabel("modulator")
    driving.tick_params(labelbottom=False)
    extremes = _draw_driven(driven, as_array(decoder), as_array(gains))
    _draw_gains(gained, as_array(gains), extremes)
    finished(figure)
    for spine in picture.spines.values():
        spine.set_visible(False)
    return figure


def _draw_given(axis: Axes, given: ArrayLike | str, target: str) -> None:
    if isinstance(given, str):
        axis.text(0.5, 0.5, textwrap.fill(given, 28, max_lines=8), fontsize=8, ha="center", va="center")
    else:
        axis.imshow(np.asarray(given), cmap="gray" if np.ndim(given) == 2 else None)
    axis.set(xticks=[], yticks=[])
    axis.set_title(spaced(target), fontsize=9.5)


def _draw_predictions(axis: Axes, before: Mapping[str, float], after: Mapping[str, float], target: str) -> None:
    place, orange = np.arange(len(after)), STYLES["comodulation"][0]
    for lift, found, colour, label in ((-0.2, before, SUBDUED, "without task"), (0.2, after, orange, "with task")):
        axis.barh(place + lift, [100 * found.get(name, 0) for name in after], 0.38, color=colour, label=label)
    axis.set_yticks(place, [spaced(name) + (" ✓" if name == target else "") for name in after])
    axis.set(ylim=(len(after) - 0.45, -0.55), xlabel="probability (%)")
    axis.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)


def _draw_couplings(axis: Axes, couplings: Mapping[str, ArrayLike]) -> None:
    """Of two tasks, of the neurons where they differ most."""
    (own, own_coupling), (other, other_coupling) = ((name, as_array(c)) for name, c in couplings.items())
    contrast = own_coupling - other_coupling
    top = np.argsort(-np.abs(contrast), kind="stable")[:COUPLED]
    top = top[np.argsort(-contrast[top], kind="stable")]
    place = np.arange(len(top))
    axis.axhline(0, color=INK, linewidth=0.8)
    for lift, name, values, colour in ((-0.2, own, own_coupling, "#D55E00"), (0.2, other, other_coupling, "#56B4E9")):
        axis.bar(place + lift, values[top], 0.38, color=colour, label=f"task {spaced(name)}")
    axis.set_xticks(place, [str(neuron) for neuron in top])
    axis.set(xlabel="encoder neuron (where the tasks differ most)", ylabel="coupling")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


Extremes = tuple[tuple[NDArray[np.intp], str, str], ...]  # neurons, with their colour and name


def _draw_driven(axis: Axes, activity: NDArray[np.float64], gain: NDArray[np.float64]) -> Extremes:
    """Activity ``(T, D)`` of a few neurons of the lowest and of the highest gains ``(D,)``, which are returned."""
    mean = activity.mean(0)
    relative = 100 * np.divide(activity - mean, mean, out=np.zeros_like(activity), where=mean > 0)
    active = np.flatnonzero(mean >= np.median(mean))  # relative to a nearly silent mean, any change is large
    order = active[np.argsort(-gain[active], kind="stable")]
    # A task's gain is a mean over its images: in one of them some of its neurons hardly move. Of both ends alike, those that do.
    end = max(3, len(order) // 10)
    moved = np.ptp(relative, axis=0)
    high, low = (part[np.argsort(-moved[part], kind="stable")[:3]] for part in (order[:end], order[end:][-end:]))
    extremes = ((low, SUBDUED, "3 of the lowest gains"), (high, "#D55E00", "3 of the highest gains"))
    for neurons, colour, label in extremes:
        for neuron in neurons:
            axis.plot(relative[:, neuron], color=colour, linewidth=1.1, alpha=0.85)
        axis.plot([], [], color=colour, label=label)
    axis.set(ylabel="decoder activity\n(% from its mean)", xlabel="modulator sample")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2)
    return extremes


def _draw_gains(axis: Axes, gain: NDArray[np.float64], extremes: Extremes) -> None:
    """All gains, sorted, and where in them the extremes are."""
    ranked = np.argsort(-gain, kind="stable")
    axis.bar(np.arange(len(gain)), gain[ranked] - 1, 1.0, bottom=1, color="#888888")
    for neurons, colour, _ in extremes:
        where = np.flatnonzero(np.isin(ranked, neurons))
        axis.plot(where, gain[ranked][where], "o", color=colour, markersize=4)
    axis.axhline(1, color=INK, linewidth=0.8)
    axis.set(xlabel="decoder neuron, sorted by gain", ylabel="gain")
