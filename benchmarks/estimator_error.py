"""Error of each estimator's decoder gains as a function of sigma, on a residual 3x3 convolutional decoder with ReLU.

    python benchmarks/estimator_error.py

Prints a table and writes docs/figures/estimator_error.svg. The reference is none of the estimators: a trapezoidal rule
with 401 points over +-8 standard deviations of the modulator, in float64, whose own error at a kink is of the order of
a tenth of the squared spacing, 2e-4. docs/mathematics.md compares the result with the errors that the theory predicts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn import functional as F

from comodulation.mathematics import (
    Decode,
    DecoderStatistics,
    decoder_statistics,
    gains_from_statistics,
    modulate,
    spatial_mean,
)

SIGMAS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
NORMALIZERS = ("covariance", "relative")
ESTIMATORS: dict[str, dict[str, object]] = {
    "derivative": {"estimator": "derivative"},
    "quadrature, 3 nodes": {"estimator": "quadrature", "num_nodes": 3},
    "quadrature, 5 nodes": {"estimator": "quadrature", "num_nodes": 5},
    "monte_carlo, 128 samples": {"estimator": "monte_carlo", "num_samples": 128},
}
STYLES = {  # Okabe and Ito's colours, and a marker each
    "derivative": ("#D55E00", "o"),
    "quadrature, 3 nodes": ("#56B4E9", "s"),
    "quadrature, 5 nodes": ("#0072B2", "D"),
    "monte_carlo, 128 samples": ("#000000", "^"),
}
INPUTS, CHANNELS, SIDE = 16, 32, 4


def population(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder activity, coupling exp(u) with u ~ N(0, 0.5^2), kernel and bias of the decoder, all random."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    activity = randn(INPUTS, CHANNELS, SIDE, SIDE).relu()
    kernel = randn(CHANNELS, CHANNELS, 3, 3) * (2 / (9 * CHANNELS)) ** 0.5
    return activity, (0.5 * randn(INPUTS, CHANNELS)).exp(), kernel, 0.1 * randn(CHANNELS)


def reference(decode: Decode, activity: Tensor, coupling: Tensor, std: float, points: int = 401) -> DecoderStatistics:
    """Slope, mean and deviation by a trapezoidal rule over the modulator, ``(B, D)`` each."""
    nodes = torch.linspace(-8, 8, points, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2)
    weights = weights / weights.sum()
    decoded = torch.stack(
        [
            spatial_mean(decode(modulate(activity, coupling, (std * x).expand(len(activity)), std))[None])[0]
            for x in nodes
        ]
    )
    mean = torch.einsum("q,qbd->bd", weights, decoded)
    deviation = decoded - mean
    slope = torch.einsum("q,qbd->bd", weights * nodes, deviation) / std
    return DecoderStatistics(slope, mean, torch.einsum("q,qbd->bd", weights, deviation.square()).sqrt() / std)


@torch.no_grad()
def measure(seed: int) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(largest, median) absolute error of a gain for each sigma, by normaliser and estimator."""
    activity, coupling, kernel, bias = population(seed)

    def decode(h: Tensor) -> Tensor:
        return torch.relu(F.conv2d(h, kernel, bias, padding=1) + h)

    errors: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for std in SIGMAS:
        exact = reference(decode, activity, coupling, std)
        for name, options in ESTIMATORS.items():
            generator = torch.Generator().manual_seed(seed + 1)
            estimate = decoder_statistics(decode, activity, coupling, std, generator=generator, **options)  # type: ignore[arg-type]
            for normalizer in NORMALIZERS:
                error = gains_from_statistics(estimate, normalizer=normalizer)
                error = (error - gains_from_statistics(exact, normalizer=normalizer)).abs()
                errors.setdefault((normalizer, name), []).append((error.max().item(), error.median().item()))
    return errors


def draw(errors: dict[tuple[str, str], list[tuple[float, float]]]) -> Figure:
    """One panel per normaliser: error against sigma, both logarithmic."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, normalizer in zip(axes, NORMALIZERS, strict=True):
        for name, (colour, marker) in STYLES.items():
            largest, median = zip(*errors[normalizer, name], strict=True)
            axis.loglog(SIGMAS, largest, color=colour, marker=marker, markersize=4, label=name)
            axis.loglog(SIGMAS, median, color=colour, marker=marker, markersize=4, mfc="white", linestyle=":")
        axis.set_title(f"normaliser {normalizer}", fontsize=11)
        axis.set_xlabel("sigma (in units of 1 / median coupling)")
        axis.set_xticks([0.03, 0.1, 0.3, 1.0], ["0.03", "0.1", "0.3", "1"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("absolute error of a gain (gains have mean 1)")
    handles, _ = axes[0].get_legend_handles_labels()
    kinds = [Line2D([], [], color="grey", linestyle=style, label=label, marker="o", markersize=4, mfc=fill)
             for style, label, fill in (("-", "largest", "grey"), (":", "median", "white"))]  # fmt: skip
    figure.legend(handles=[*handles, *kinds], loc="outside lower center", ncols=3, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/figures/estimator_error.svg")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    errors = measure(options.seed)
    for normalizer in NORMALIZERS:
        print(f"\nnormaliser {normalizer}: largest (median) absolute error of a gain")
        print(f"{'sigma':>6}" + "".join(f"{name:>28}" for name in ESTIMATORS))
        for index, std in enumerate(SIGMAS):
            cells = (errors[normalizer, name][index] for name in ESTIMATORS)
            print(f"{std:6.2f}" + "".join(f"{f'{largest:.1e} ({median:.1e})':>28}" for largest, median in cells))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # The same bytes from the same numbers: a fixed salt for the identifiers, no date, text as text.
    mpl.rcParams.update({"svg.hashsalt": "estimator_error", "svg.fonttype": "none", "font.family": "sans-serif"})
    draw(errors).savefig(options.out, metadata={"Date": None})
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
