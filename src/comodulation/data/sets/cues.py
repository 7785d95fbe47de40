"""Scenes of two objects whose answers share the same outputs; a cue names the one to report.

Two digits of scikit-learn, or two pictures, stand side by side, each in a colour of its own, or turned in a way of its own. The
task names a colour, or a turn: report what has it. Every answer may be that of every task. So a class mask forbids nothing, an
output bias prefers no answer that is right more often, and reading each place by itself finds two objects and does not say which:
at most half of the accuracy on single ones, plus chance. Only what follows the cue to its place, or multiplies by it, can know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...tasks import Examples, TaskFamily
from .digits import SIDE, Digits, Scenes, rows_of_classes

COLOURS = ("red", "green", "blue")
TURNS = ("upright", "sideways", "inverted")
OTHERS_LEFT = 0.35  # of a tinted picture's brightness in the two colours that it does not have


def cued_family(what: str, answers: Sequence[str], cues: Sequence[str] = COLOURS) -> TaskFamily:
    """A task for each cue, all with the same answers."""
    tasks = tuple(f"the {cue} {what}" for cue in cues)
    return TaskFamily("classes", tasks, tuple(answers), (tuple(range(len(answers))),) * len(cues))


CUED = cued_family("digit", [str(digit) for digit in range(10)])


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
    asked = rng.integers(10, size=count)
    other = (asked + rng.integers(1, 10, size=count)) % 10
    tasks = rng.integers(len(COLOURS), size=count)
    colours = (tasks + rng.integers(1, len(COLOURS), size=count)) % len(COLOURS)
    place = rng.integers(2, size=count)
    canvas, rows = torch.zeros(count, len(COLOURS), SIDE, 2 * SIDE), torch.arange(count)
    halves = canvas.unflatten(3, (2, SIDE))  # (N, 3, 8, 2, 8), the same memory
    for classes, colour, where, shown in ((asked, tasks, place, True), (other, colours, 1 - place, distractor)):
        drawn = torch.from_numpy(rows_of_classes(labels, classes, rng))
        if shown:
            halves[rows, torch.from_numpy(colour), :, torch.from_numpy(where)] = digits.images[drawn]
    return Scenes(canvas, Examples(rows, torch.from_numpy(tasks), torch.from_numpy(asked)))


def tinted(picture: Image.Image, colour: int) -> Image.Image:
    """A picture in shades of one of ``COLOURS``: its brightness in that colour, and ``OTHERS_LEFT`` of it in the other two."""
    grey = picture.convert("L")
    pale = grey.point(lambda value: round(OTHERS_LEFT * value))
    return Image.merge("RGB", [grey if place == colour else pale for place in range(len(COLOURS))])


def turned(picture: Image.Image, turn: int) -> Image.Image:
    """A picture turned to the left by a right angle as often as ``turn`` says, which counts in ``TURNS``."""
    return picture.rotate(90 * turn, expand=True)


def cued_pairs(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Examples]:
    """Pairs of objects with two of three cues, pictures in two colours say, of which the task names one.

    Args:
        labels: class of each object, ``(N,)``; objects are drawn uniformly over the classes.
        count: number S of pairs.
        seed: of all choices.

    Returns:
        Rows of the two objects in the order in which they stand, ``(S, 2)``, where object i with cue c is row 3 i + c; and a
        question about each pair.
    """
    rng = np.random.default_rng(seed)
    known = np.unique(labels.numpy())
    asked = rng.integers(len(known), size=count)
    other = (asked + rng.integers(1, len(known), size=count)) % len(known)
    tasks = rng.integers(len(COLOURS), size=count)
    colours = (tasks + rng.integers(1, len(COLOURS), size=count)) % len(COLOURS)
    first = rng.integers(2, size=count).astype(bool)
    rows = [
        len(COLOURS) * rows_of_classes(labels.numpy(), known[classes], rng) + colour
        for classes, colour in ((asked, tasks), (other, colours))
    ]
    pairs = np.where(first[:, None], np.stack(rows, 1), np.stack(rows[::-1], 1))
    target = torch.from_numpy(known[asked])
    return torch.from_numpy(pairs), Examples(torch.arange(count), torch.from_numpy(tasks), target)
