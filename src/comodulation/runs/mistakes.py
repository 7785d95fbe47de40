"""The pictures that a run got most confidently wrong."""

from __future__ import annotations

import io

from PIL import Image

from ..errors import InputError, RunError
from ..report import Picture, Pictures, Section
from .answered import Answered

MOST = 12
SIDE = 96  # pixels


def mistakes_section(answered: Answered, split: str) -> Section | None:
    """Up to ``MOST`` wrong answers, the surest first, with their pictures where these can be read; None where all are right.

    Args:
        answered: predictions of the split. split: its name.
    """
    predictions, family = answered.predictions, answered.family
    answer = predictions.answers
    confidence = predictions.log_probabilities.gather(1, answer[:, None])[:, 0]
    wrong = (answer != predictions.target).nonzero()[:, 0]
    if not len(wrong):
        return None
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MOST]].tolist()
    pictures = []
    for row in surest:
        image, task = int(predictions.image[row]), family.tasks[int(predictions.task[row])]
        lines = (
            f"{task}: truth {family.targets[int(predictions.target[row])]}",
            f"answered {family.targets[int(answer[row])]} ({100 * float(confidence[row].exp()):.0f}%)",
        )
        pictures.append(Picture(_thumbnail(answered, image), answered.name(image), lines))
    gone = sum(picture.jpeg is None for picture in pictures)
    caption = (
        f"**{len(pictures)} of {len(wrong):,} wrong answers** on the {split} split, the surest first. Where the label is wrong, "
        "mend the label. This page holds small copies of these pictures: hand it on only to those who may see them."
        + (f" Of {gone} the picture cannot be read any more." if gone else "")
    )
    return Section("Most confidently wrong", [Pictures(pictures, caption)])


def thumbnail(image: Image.Image) -> bytes:
    """An RGB image as a JPEG of at most ``SIDE`` pixels each way."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=85)
    return sink.getvalue()


def _thumbnail(answered: Answered, image: int) -> bytes | None:
    if answered.picture is None:
        return None
    try:
        return thumbnail(answered.picture(image))
    except (InputError, RunError, OSError):
        return None
