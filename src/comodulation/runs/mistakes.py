"""The inputs with the most confident mistakes of a run: their images or texts."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from ..errors import InputError, RunError
from ..report import Picture, Pictures, Section, Table
from .answered import Answered

MOST = 12
SIDE = 96  # pixels
LONGEST = 300  # characters of a text


def mistakes_section(answered: Answered, split: str) -> Section | None:
    """Up to ``MOST`` wrong answers, the surest first, with their pictures or texts where these can be read; None where all
    are right.

    Args:
        answered: predictions of the split. split: its name.
    """
    predictions, family = answered.predictions, answered.family
    answer, confidence = predictions.answers, predictions.confidence
    wrong = (answer != predictions.target).nonzero()[:, 0]
    if not len(wrong):
        return None
    found = []
    for row in wrong[confidence[wrong].argsort(descending=True, stable=True)[:MOST]].tolist():
        place, task = int(predictions.image[row]), family.tasks[int(predictions.task[row])]
        words = family.targets[int(predictions.target[row])], family.targets[int(answer[row])]
        found.append(_Mistake(place, task, *words, float(confidence[row])))
    block = (_pictures if answered.what == "image" else _table)(answered, found, f"{len(wrong):,}", split)
    return Section("Most confidently wrong", [block])


@dataclass(frozen=True)
class _Mistake:
    """An input by its number, its task, the truth, the answer and its probability."""

    place: int
    task: str
    truth: str
    answer: str
    confidence: float


def _pictures(answered: Answered, mistakes: list[_Mistake], number: str, split: str) -> Pictures:
    pictures = []
    for one in mistakes:
        lines = (f"{one.task}: truth {one.truth}", f"answered {one.answer} ({100 * one.confidence:.0f}%)")
        pictures.append(Picture(_thumbnail(answered, one.place), answered.name(one.place), lines))
    gone = sum(picture.jpeg is None for picture in pictures)
    caption = (
        f"**{len(pictures)} of {number} wrong answers** on the {split} split, the most confident first. If a label is wrong, "
        "correct it. This page contains small copies of these images: share it only with people who may see them."
        + (f" {gone} of the images cannot be read any more." if gone else "")
    )
    return Pictures(pictures, caption)


def _table(answered: Answered, mistakes: list[_Mistake], number: str, split: str) -> Table:
    what = answered.what
    rows = [[_text(answered, one.place), one.task, one.truth, one.answer, one.confidence] for one in mistakes]
    held = f" This page contains these {what}s: share it only with people who may see them." if what == "text" else ""
    return Table(
        (what, "task", "truth", "answered", "confidence"),
        rows,
        f"**{len(rows)} of {number} wrong answers** on the {split} split, the most confident first. If a label is wrong, "
        f"correct it.{held}",
        formats={"confidence": ".3f"},
    )


def _text(answered: Answered, place: int) -> str:
    """A text, cut where it is long; of what is no text its name."""
    if answered.read is None or answered.what != "text":
        return answered.name(place)
    text = " ".join(answered.read(place).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def thumbnail(image: Image.Image) -> bytes:
    """An RGB image as a JPEG of at most ``SIDE`` pixels each way."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=85)
    return sink.getvalue()


def _thumbnail(answered: Answered, image: int) -> bytes | None:
    if answered.read is None:
        return None
    try:
        return thumbnail(answered.read(image))
    except (InputError, RunError, OSError):
        return None
