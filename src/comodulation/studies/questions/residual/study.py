"""What do residual connections do for comodulation? Strength and place of the skip, normalisation, depth, width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....evaluation import THRESHOLDS, gain_sparsity
from ....networks.methods import gains_of
from ...cells import Cell, Laboratory, Question, Stage, train_and_test, usual_settings
from ...cells import stage as plain_stage
from .answer import PROPERTIES, STRENGTHS, answer, skips
from .flow import influence, skip_shares

METHODS = ("base", "attention", "comodulation")
PROBED = 512  # test images on which a network's properties are measured
PLACES = (skips(1, 0), skips(0, 1), skips(0.5, 0), skips(0, 0.5))
OTHERS = (
    f"{skips(1, 1)} batch_norm=True", f"{skips(0, 0)} batch_norm=True", f"{skips(1, 1)} depth=2", f"{skips(0, 0)} depth=2",
    f"{skips(1, 1)} channels=128", f"{skips(0, 0)} channels=128",
)  # fmt: skip


def stages(seeds: Sequence[int]) -> list[Stage]:
    """Strength of both skips together, then their place, then normalisation, depth and width."""

    def rows(options: Sequence[str]) -> list[str]:
        return [f"{method} {option}" for option in options for method in METHODS]

    strengths = [skips(strength, strength) for strength in STRENGTHS]
    return [
        plain_stage("ends", rows(strengths[:2]), seeds),
        plain_stage("place", rows(PLACES[:2]), seeds),
        plain_stage("strength", rows(strengths[2:]), seeds),
        plain_stage("normalisation", rows(OTHERS[:2]), seeds),
        plain_stage("depth", rows(OTHERS[2:4]), seeds),
        plain_stage("width", rows(OTHERS[4:]), seeds),
        plain_stage("place, halves", rows(PLACES[2:]), seeds),
    ]


def measure(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and test a cell; with comodulation, measure its network and its gains."""
    measured = train_and_test(laboratory, cell, settings)
    if cell.row.method != "comodulation":
        return measured.numbers
    head = measured.adapted.method.eval().head
    images = measured.examples.image.unique()
    generator = torch.Generator().manual_seed(cell.seed)
    images = images[torch.randperm(len(images), generator=generator)[:PROBED]].sort().values
    features = measured.features.rows(images).to(head.decoder.weight.device)
    shares = skip_shares(head, features)
    sparse = gain_sparsity(gains_of(measured.adapted.method)["decoder"]).mean_fractions.tolist()
    return {
        **measured.numbers,
        "influence": influence(head, features, seed=cell.seed),
        "encoder_skip_share": shares["encoder"],
        "decoder_skip_share": shares["decoder"],
        **{f"below_{threshold:g}": share for threshold, share in zip(THRESHOLDS, sparse, strict=True)},
    }


RESIDUAL = Question(
    place=f"{__name__}:RESIDUAL",
    name="residual",
    title="What do residual connections do for comodulation?",
    asks="Which predicts the advantage: a skip's strength, place or flow, the couplings' influence, the gains' sparsity?",
    predicts=(
        "A skip connection adds an identity to the derivative of the decoder (docs/routing.md): each neuron's own coupling has a "
        "weight of its own, the average is over fewer neurons. Influence should rise with the strength of the decoder's skip, and "
        "gains become sparser with it. The advantage over attention has not differed between full skips and none (-0.1 points "
        "[-0.4, +0.3]); it should be flat over the strengths, and no property should predict it."
    ),
    stages=stages,
    measure=measure,
    settings=usual_settings,
    answer=answer,
    columns=tuple(PROPERTIES),
    rates="Another study searched learning rates for full skips and for none; networks with any skip take those of full ones.",
)
