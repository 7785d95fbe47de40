"""Scenes of two real digits whose answers share the same outputs; a cue names the one to report. No download.

Two digits of scikit-learn stand side by side, each in a colour of its own, and the task names a colour: report the digit that has
it. Every digit may be the answer of every task. So a class mask forbids nothing, an output bias prefers no answer that is right
more often, and reading each place by itself finds two digits and does not say which: at most half of the accuracy on single digits,
plus chance. Only what follows the colour to its place, or multiplies by it, can know.
"""

from __future__ import annotations

import numpy as np
import torch

from ...tasks import Examples, TaskFamily
from .digits import SIDE, Digits, Scenes

COLOURS = ("red", "green", "blue")
CUED = TaskFamily(
    "classes",
    tuple(f"the {colour} digit" for colour in COLOURS),
    tuple(str(digit) for digit in range(10)),
    (tuple(range(10)),) * len(COLOURS),
)


def cued_scenes(digits: Digits, count: int, seed: int, *, distractor: bool) -> Scenes:
    """Scenes with a digit in the colour that the task names, and, if ``distractor``, another digit in another colour.

    Args:
        digits: to draw from, uniformly over the ten classes.
        count: number N of scenes.
        seed: of all choices.
        distractor: False leaves the other place empty: single digits, which pretrain a network and show what a task asks for.

    Returns:
        Images ``(N, 3, 8, 16)``, red, green and blue, and a question about each.
    """
    rng = np.random.default_rng(seed)
    labels = digits.labels.numpy()
    members = [np.flatnonzero(labels == digit) for digit in range(10)]
    asked = rng.integers(10, size=count)
    other = (asked + rng.integers(1, 10, size=count)) % 10
    tasks = rng.integers(len(COLOURS), size=count)
    colours = (tasks + rng.integers(1, len(COLOURS), size=count)) % len(COLOURS)
    place = rng.integers(2, size=count)
    canvas, rows = torch.zeros(count, len(COLOURS), SIDE, 2 * SIDE), torch.arange(count)
    halves = canvas.unflatten(3, (2, SIDE))  # (N, 3, 8, 2, 8), the same memory
    for classes, colour, where, shown in ((asked, tasks, place, True), (other, colours, 1 - place, distractor)):
        drawn = torch.from_numpy(np.array([rng.choice(members[digit]) for digit in classes], dtype=np.int64))
        if shown:
            halves[rows, torch.from_numpy(colour), :, torch.from_numpy(where)] = digits.images[drawn]
    return Scenes(canvas, Examples(rows, torch.from_numpy(tasks), torch.from_numpy(asked)))
