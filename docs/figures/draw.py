"""Figures of docs/mathematics.md, of a small network that is trained on real digits.

    python docs/figures/draw.py

The network is a classifier of scikit-learn's 8x8 digits with two rectified layers of 32: the first is the encoder, the second
the decoder. The task is to tell 3 from 8. A coupling here is not learned but set to how well its neuron tells the two apart, so
that the figures show the mechanism and not the training.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from comodulation import average_over_tasks, decoder_statistics, gains_from_statistics, modulate
from comodulation.mathematics import gauss_hermite

BLUE, ORANGE, BLACK, SKY = "#0072B2", "#D55E00", "#000000", "#56B4E9"  # Okabe and Ito
STD, TASK, WIDTH = 0.3, (3, 8), 32


class Network:
    """Two rectified layers of a trained classifier, and the coupling of the task."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = MLPClassifier((WIDTH, WIDTH), max_iter=60, random_state=0).fit(images / 16, labels)
        self.weights = [torch.from_numpy(w.T) for w in fitted.coefs_]
        self.biases = [torch.from_numpy(b) for b in fitted.intercepts_]
        chosen = np.isin(labels, TASK)
        self.labels = torch.from_numpy(labels[chosen])
        self.activity = (torch.from_numpy(images[chosen] / 16) @ self.weights[0].T + self.biases[0]).relu()
        a, b = (self.activity[self.labels == digit] for digit in TASK)
        spread = ((a.var(0) + b.var(0)) / 2).sqrt().clamp(min=1e-6)
        self.coupling = (a.mean(0) - b.mean(0)).abs() / spread
        self.coupling = self.coupling / self.coupling.max() * 2

    def decode(self, activity: Tensor) -> Tensor:
        return (activity @ self.weights[1].T + self.biases[1]).relu()

    def statistics(self, std: float = STD, **options: object):
        rows = self.coupling.expand(len(self.activity), -1)
        found = decoder_statistics(self.decode, self.activity, rows, std, **options)  # type: ignore[arg-type]
        return found, average_over_tasks(found, torch.zeros(len(self.activity), dtype=torch.int64), 1)


def modulator(network: Network) -> Figure:
    """What a fluctuating modulator does to one image: encoder neurons, decoder neurons, and what gain follows."""
    h, w = network.activity[:1], network.coupling[None]
    steps = torch.arange(120)
    noise = np.random.default_rng(1).normal(size=len(steps)) * STD
    m = torch.from_numpy(noise)[:, None]
    encoder = modulate(h, w, m, STD)[:, 0]
    decoder = network.decode(encoder)
    gains = gains_from_statistics(
        decoder_statistics(network.decode, h, w, STD, estimator="derivative"), link="exponential"
    )[0]
    active = torch.nonzero(h[0] > 0.3).flatten()
    order = active[w[0, active].argsort()]
    shown = order[[0, len(order) // 2, -1]].tolist()
    covariance = ((m - m.mean()) * (decoder - decoder.mean(0))).mean(0) / STD**2
    living = torch.nonzero(decoder.mean(0) > 0.3).flatten()
    ranked = living[covariance[living].argsort()]
    read = ranked[[0, -1]].tolist()

    figure = Figure(figsize=(9, 5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.plot(steps, m[:, 0], color=BLACK, linewidth=1)
    top.set_ylabel("modulator m")
    for neuron, colour in zip(shown, (SKY, BLUE, ORANGE), strict=True):
        middle.plot(steps, encoder[:, neuron] / h[0, neuron], color=colour, label=f"coupling {w[0, neuron]:.2f}")
    middle.set_ylabel("encoder activity,\nshare of its own")
    for neuron, colour in zip(read, (SKY, ORANGE), strict=True):
        bottom.plot(
            steps,
            decoder[:, neuron],
            color=colour,
            label=f"slope {covariance[neuron]:+.2f}, gain {gains[neuron]:.2f}",
        )
    bottom.set_ylabel("decoder activity")
    bottom.set_xlabel("draw of the modulator")
    for axis in (middle, bottom):
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for axis in (top, middle, bottom):
        axis.grid(alpha=0.3)
    return figure


def estimators(network: Network) -> Figure:
    """One neuron near its threshold, and how wrong the gains of all active neurons are, by estimator."""
    nodes, _ = gauss_hermite(5, torch.float64, torch.device("cpu"))
    grid = torch.linspace(-3, 3, 301, dtype=torch.float64) * STD
    rows = network.coupling.expand(len(grid), -1)
    curves = torch.stack(
        [network.decode(modulate(h.expand(len(grid), -1), rows, grid, STD)) for h in network.activity[:40]]
    )
    # The neuron whose activity meets its threshold nearest to m = 0, and rises from there.
    silent = (curves == 0).double().mean(1)
    image, neuron = divmod(int(((silent - 0.4).abs() + (curves[:, -1] < 0.5)).argmin()), WIDTH)
    curve = curves[image, :, neuron]

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(grid / STD, curve, color=BLACK, label="decoder activity d(m)")
    h, w = network.activity[image : image + 1], network.coupling[None]
    derivative = decoder_statistics(network.decode, h, w, STD, estimator="derivative")
    quadrature = decoder_statistics(network.decode, h, w, STD, estimator="quadrature")
    exact = decoder_statistics(network.decode, h, w, STD, estimator="quadrature", num_nodes=100)
    at = network.decode(modulate(h, w, (STD * nodes)[:, None], STD))[:, 0, neuron]
    for found, colour, name in (
        (derivative, ORANGE, "derivative"), (quadrature, BLUE, "5 nodes"), (exact, SKY, "101 nodes")
    ):  # fmt: skip
        line = found.mean[0, neuron] + found.slope[0, neuron] * grid
        left.plot(
            grid / STD, line, color=colour, linestyle="--", label=f"slope by {name}: {found.slope[0, neuron]:.2f}"
        )
    left.plot(nodes, at, "o", color=BLUE, label="the five nodes")
    left.set_xlabel("modulator, standard deviations")
    left.set_ylabel("activity of one decoder neuron")
    left.set_ylim(bottom=-0.6)
    left.legend(frameon=False, fontsize=8)

    reference = network.statistics(estimator="quadrature", num_nodes=100)[0]
    alive = reference.mean > 0
    truth = gains_from_statistics(reference, link="exponential")[alive]
    generator = torch.Generator().manual_seed(0)
    for name, colour, options in (
        ("128 samples", BLACK, {"estimator": "monte_carlo", "num_samples": 128, "generator": generator}),
        ("derivative", ORANGE, {"estimator": "derivative"}),
        ("3 nodes", SKY, {"estimator": "quadrature", "num_nodes": 3}),
        ("5 nodes", BLUE, {"estimator": "quadrature"}),
    ):
        found = gains_from_statistics(network.statistics(**options)[0], link="exponential")[alive]
        error = (found - truth).abs()
        shares = torch.linspace(0, 1, 201, dtype=error.dtype)
        right.plot(
            error.quantile(shares).clamp(min=1e-12), shares, color=colour, label=f"{name} (median {error.median():.1e})"
        )
    right.set_xscale("log")
    right.set_xlim(1e-8, 10)
    right.set_xlabel("absolute error of a gain (against 101 nodes)")
    right.set_ylabel("share of gains with at most this error")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def links(network: Network) -> Figure:
    """Gain against relative slope for both links, at the slopes that the task's neurons have."""
    found = network.statistics(estimator="derivative")[1]
    alive = found.mean[0] > 0
    relative = (found.slope / found.mean.clamp(min=1e-12))[0, alive]
    mean = relative.clamp(min=0).sum() / len(alive)  # silent neurons count, with slope 0
    grid = torch.linspace(float(relative.min()) - 0.3, float(relative.max()) + 0.3, 301)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, link in zip(axes, ("rectified", "exponential"), strict=True):
        for beta, colour in ((0.5, SKY), (1.0, BLUE)):
            gains = gains_from_statistics(found, link=link, beta=beta)[0, alive]
            curve = (grid * beta).exp() if link == "exponential" else 1 + beta * (grid.clamp(min=0) / mean - 1)
            axis.plot(grid, curve, color=colour, linewidth=1)
            axis.plot(relative, gains, "o", color=colour, markersize=4, label=f"beta {beta:g}")
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set_title(f"link {link}", fontsize=11)
        axis.set_xlabel("relative slope of a decoder neuron")
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("gain")
    return figure


FIGURES = {"modulator": modulator, "estimators": estimators, "links": links}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    network = Network()
    # The same bytes from the same numbers: a fixed salt for the identifiers, no date, text as text.
    mpl.rcParams.update({"svg.hashsalt": "draw", "svg.fonttype": "none", "font.family": "sans-serif"})
    for name, draw in FIGURES.items():
        draw(network).savefig(out / f"{name}.svg", metadata={"Date": None})
        print(f"wrote {out / f'{name}.svg'}")


if __name__ == "__main__":
    main()
