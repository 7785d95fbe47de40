"""Scenes of real handwritten digits in which the task decides which digit matters. No download.

scikit-learn ships 1797 digits of the UCI "Optical Recognition of Handwritten Digits" data, 8x8 pixels, 16 grey levels. A
scene holds two of them, an even and an odd one, in random order and overlapping by half. One task is to name the even
digit, the other to name the odd one; in each, the other digit distracts. A class mask knows that the distractor's name is a
wrong answer, but cannot keep its strokes out of the network's pooled activity. Routing can.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...tasks import Examples, TaskFamily

SIDE, OFFSET = 8, 4  # pixels: side of a digit, and by how much the right one is shifted
PATCH, STRIDE = 4, 2
PARITY = TaskFamily(
    "classes",
    ("the even digit", "the odd digit"),
    tuple(str(digit) for digit in range(10)),
    ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)),
)


@dataclass(frozen=True)
class Digits:
    """Images ``(N, 8, 8)`` in [0, 1] and their digits ``(N,)``."""

    images: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> Digits:
        return Digits(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Scenes:
    """Images ``(N, 1, 8, 12)``, and one question about each: row, task, digit to report."""

    images: Tensor
    examples: Examples


def load_digits() -> Digits:
    """All 1797 digits that scikit-learn ships."""
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    return Digits(torch.from_numpy(images / 16).float().reshape(-1, SIDE, SIDE), torch.from_numpy(labels))


def split_digits(digits: Digits, fractions: tuple[float, ...], seed: int) -> list[Digits]:
    """Disjoint random parts with the given fractions of all digits."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(digits.labels)))
    edges = [round(sum(fractions[:place]) * len(order)) for place in range(len(fractions) + 1)]
    return [digits.take(order[a:b]) for a, b in itertools.pairwise(edges)]


def rows_of_classes(labels: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each of some classes ``(N,)`` a row that has it, drawn uniformly from those with the labels ``(n,)``, int64 ``(N,)``."""
    members = {label: np.flatnonzero(labels == label) for label in np.unique(classes).tolist()}
    return np.array([rng.choice(members[one]) for one in classes.tolist()], dtype=np.int64)


def digit_scenes(digits: Digits, count: int, seed: int, *, distractor: bool) -> Scenes:
    """Scenes with the digit that the task asks for, and, if ``distractor``, one of the other parity.

    Args:
        digits: to draw from, uniformly over the ten classes.
        count: number of scenes.
        seed: of all choices.
        distractor: False leaves the other place empty (the primary task of pretraining: name the only digit).
    """
    rng = np.random.default_rng(seed)
    labels = digits.labels.numpy()
    tasks = rng.integers(2, size=count)
    asked = 2 * rng.integers(5, size=count) + tasks
    other = 2 * rng.integers(5, size=count) + 1 - tasks
    left = rng.integers(2, size=count).astype(bool)  # whether the digit asked for stands left
    canvas = torch.zeros(count, 1, SIDE, SIDE + OFFSET)
    for classes, at_left, shown in ((asked, left, True), (other, ~left, distractor)):
        if shown:
            drawn = digits.images[torch.from_numpy(rows_of_classes(labels, classes, rng))]
            for place, here in ((0, at_left), (OFFSET, ~at_left)):
                on = torch.from_numpy(here)
                window = canvas[on, 0, :, place : place + SIDE]
                canvas[on, 0, :, place : place + SIDE] = torch.maximum(window, drawn[on])
    return Scenes(canvas, Examples(torch.arange(count), torch.from_numpy(tasks), torch.from_numpy(asked)))


def patches(images: Tensor) -> Tensor:
    """Overlapping 4x4 patches, stride 2, as channels: ``(N, 1, 8, 12) -> (N, 16, 4, 6)``. The demo's "backbone"."""
    height, width = images.shape[-2:]
    unfolded = F.unfold(F.pad(images, (1, 1, 1, 1)), PATCH, stride=STRIDE)
    return unfolded.unflatten(-1, (height // STRIDE, width // STRIDE))
