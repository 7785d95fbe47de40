"""Several real images at once, of which the task names the one to report: on a canvas by category or place, or in a sequence.

Four images of different superclasses are drawn, and one of them is asked for. What differs between kinds of task is how the images
are put together and how the one asked for is named:

    category   side by side, two by two; the task names a superclass: report the class of its image
    spatial    the same canvas; the task names a place
    temporal   one after another; the task names a moment

The same four images serve all kinds, in the same order, so that kinds differ in nothing else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, choose
from ...tasks import Examples
from ..source import Split
from .digits import load_digits

KINDS = ("category", "spatial", "temporal")
MEMBERS = 4  # images of a canvas or a sequence
PLACES = ("upper left", "upper right", "lower left", "lower right")
DIGITS = "digits"  # instead of a data set: the digits of scikit-learn
_DIGIT_SIDE, _DIGIT_TEST = 16, 500


@dataclass(frozen=True)
class Canvases:
    """M canvases, or sequences, and the image of each that is asked for.

    Attributes:
        members: rows of the images, in the order in which they stand or appear, int64 ``(M, 4)``.
        asked: place of the image to report, ``(M,)``, in [0, 4).
    """

    members: Tensor
    asked: Tensor

    def __len__(self) -> int:
        return len(self.members)

    @property
    def reported(self) -> Tensor:
        """Row of the image to report, ``(M,)``."""
        return self.members.gather(1, self.asked[:, None])[:, 0]

    def examples(self, kind: str, labels: Tensor, groups: Tensor) -> Examples:
        """Task and target of each canvas; ``image`` is its number.

        Args:
            kind: ``category`` (the task is the superclass of the image asked for), ``spatial`` or ``temporal`` (its place).
            labels, groups: class and superclass of every row, ``(N,)``.
        """
        by_group = choose(kind, KINDS, "kind of task") == "category"
        return Examples(
            torch.arange(len(self)), groups[self.reported] if by_group else self.asked, labels[self.reported]
        )


def draw_canvases(rows: Tensor, groups: Tensor, count: int, seed: int) -> Canvases:
    """Canvases of four images of different superclasses; the one asked for is equally often at each place.

    Args:
        rows: rows of the images to draw from, ``(n,)``.
        groups: superclass of every row of the data set, ``(N,)``.
        count: number M of canvases. seed: of all choices.

    Raises:
        InputError: images of fewer than four superclasses.
    """
    own = groups[rows].numpy()
    number = len(np.unique(own))
    if number < MEMBERS:
        raise InputError(
            f"a canvas holds {MEMBERS} images of different superclasses, but the images are of {number} only"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(own), size=(count, MEMBERS))
    for place in range(1, MEMBERS):
        while (same := (own[drawn[:, :place]] == own[drawn[:, place, None]]).any(1)).any():
            drawn[same, place] = rng.integers(len(own), size=int(same.sum()))
    # What was drawn later is drawn from fewer superclasses: shuffled, no place knows which.
    drawn = rng.permuted(drawn, axis=1)
    return Canvases(rows[torch.from_numpy(drawn)], torch.from_numpy(rng.permutation(np.arange(count) % MEMBERS)))


def side_by_side(images: Tensor) -> Tensor:
    """Four images two by two: ``(B, 4, C, s, s) -> (B, C, 2 s, 2 s)``, in the order of ``PLACES``."""
    upper, lower = (torch.cat([images[:, a], images[:, a + 1]], -1) for a in (0, 2))
    return torch.cat([upper, lower], -2)


def digit_splits() -> dict[str, Split]:
    """The digits of scikit-learn as a data set: 16 x 16 pixels, class the digit, superclass the pair of digits it is one of."""
    import datasets
    from PIL import Image

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.labels))
    found = {}
    for name, rows in (("train", order[_DIGIT_TEST:]), ("test", order[:_DIGIT_TEST])):
        cells, labels = [], digits.labels.numpy()[rows]
        for pixels in digits.images.numpy()[rows]:
            sink = io.BytesIO()
            grey = Image.fromarray((255 * pixels).astype(np.uint8))
            grey.resize((_DIGIT_SIDE, _DIGIT_SIDE), Image.Resampling.BILINEAR).convert("RGB").save(sink, "PNG")
            cells.append({"bytes": sink.getvalue(), "path": None})
        features: dict[str, Any] = {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
            "coarse_label": datasets.ClassLabel(names=[f"{a} or {a + 1}" for a in range(0, 10, 2)]),
        }
        columns = {"img": cells, "fine_label": labels.tolist(), "coarse_label": (labels // 2).tolist()}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        found[name] = Split(DIGITS, name, table.cast_column("img", datasets.Image(decode=False)), "img")
    return found
