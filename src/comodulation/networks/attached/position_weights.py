"""Weights of a decoder's positions by their labels: what goes together, how strongly labels weigh, and the gains that they give.

The two kinds of weights are those of the method ``positions`` (methods/positions.py; docs/mathematics.md, section 8). ``one``: one
position shows what is asked for, and positions compete, (11). ``each``: several do, and each weighs as much as it is likely to,
whatever the others say, (12a). Strengths and middles are found from the labels of inputs whose tasks are known: of whole inputs for
``one``, of their positions for ``each``. Padding is no part of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError, choose
from ...mathematics import (
    CLOSED_FORMS,
    DecoderStatistics,
    calibrated_middle,
    calibrated_strength,
    log_posteriors,
    position_gains,
    position_labels,
)
from .neurons import Neurons
from .padding import Masks
from .replay import Edit

Labels = Literal["channels", "positions", "both"]  # what the computed gains multiply
Weights = Literal["one", "each"]  # how many positions are expected to show what a task asks for
LEARNED = "learned"


def check_options(labels: str, couplings: str, weights: str, unrectified: str) -> None:
    """Raises InputError for unknown words, and for labels, couplings and weights that do not go together."""
    choose(labels, get_args(Labels), "labels")
    choose(couplings, (LEARNED, *CLOSED_FORMS), "couplings")
    choose(weights, get_args(Weights), "weights")
    if labels != "channels" and unrectified == "layer_norm":
        raise InputError(
            "labels of positions are not defined with unrectified='layer_norm', by which every position has the same power; "
            "take 'magnitude', or labels='channels'"
        )
    if weights == "each" and labels == "channels":
        raise InputError(
            "weights='each' are of positions, and labels='channels' give none to weigh; take labels='positions' or 'both', or "
            "weights='one'"
        )
    if weights == "each" and couplings == LEARNED:
        raise InputError(
            "weights='each' need couplings in closed form, whose inputs tell how likely a position is; take couplings="
            f"{next(iter(CLOSED_FORMS))!r}, or weights='one'"
        )


class Calibration:
    """Collects labels of inputs whose tasks are known, and finds how strongly each task's labels weigh.

    Args:
        num_tasks: number K of tasks. weights: ``one`` or ``each``.
    """

    def __init__(self, num_tasks: int, weights: Weights) -> None:
        self.num_tasks, self.weights = num_tasks, weights
        self._labels: list[Tensor] = []
        self._tasks: list[Tensor] = []

    def add(self, statistics: Sequence[DecoderStatistics], tasks: Tensor, counts: Tensor | None) -> None:
        """More inputs.

        Args:
            statistics: of the positions of B inputs, under each of the K tasks, fields ``(B, P)``.
            tasks: to which the inputs belong, ``(B,)``.
            counts: which positions count, boolean ``(B, P)``; None: all.
        """
        if self.weights == "one":
            self._labels.append(torch.stack([_label_of_input(each, counts) for each in statistics], 1))
            self._tasks.append(tasks)
            return
        labels = torch.stack([position_labels(each) for each in statistics], 2)
        if counts is None:
            counts = torch.ones_like(labels[..., 0], dtype=torch.bool)
        self._labels.append(labels[counts])
        self._tasks.append(tasks[:, None].expand_as(counts)[counts])

    def result(self) -> tuple[Tensor, Tensor | None]:
        """Strengths ``(K,)``, and middles ``(K,)`` for weights of kind ``each``."""
        labels, own = torch.cat(self._labels), F.one_hot(torch.cat(self._tasks), self.num_tasks).bool()
        middles = calibrated_middle(labels, own) if self.weights == "each" else None
        return calibrated_strength(labels, own), middles


def _label_of_input(statistics: DecoderStatistics, counts: Tensor | None) -> Tensor:
    """The label of all positions taken together, ``(B,)``."""
    fields = statistics.slope, statistics.mean
    slope, mean = (each if counts is None else torch.where(counts, each, 0) for each in fields)
    whole = statistics._replace(slope=slope.sum(1, keepdim=True), mean=mean.sum(1, keepdim=True))
    return position_labels(whole)[:, 0]


def weighing(site: Neurons, labels: Tensor, strengths: Tensor, middles: Tensor | None, masks: Masks) -> Edit:
    """Multiplies activity's positions by the gains that their labels give.

    Args:
        site: the decoder's neurons. labels: of its positions, ``(B, P)``.
        strengths, middles: of each input's task, ``(B,)``; without middles weights are of kind ``one``, with them ``each``.
        masks: of the call.
    """
    exponents, scale = (labels, strengths) if middles is None else (log_posteriors(labels, strengths, middles), 1.0)

    def weigh(activity: Tensor) -> Tensor:
        return site.weighed(activity, position_gains(exponents, scale, masks(site, activity)))

    return weigh
