"""Whether a label column is what it seems: a task, rather than an identifier, a person's number, a measurement or free text.

Asked of columns that nobody has named; a column that is named is taken as meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ..tasks import NO_YES
from .folder_files import SPLITS

MANY = 20  # classes; what has more is looked at more closely
RARE = 3  # images of a class; with fewer it has none for training, fine-tuning and validation each

_IDENTIFIERS = {
    "id",
    "ids",
    "uid",
    "uuid",
    "guid",
    "identifier",
    "hash",
    "md5",
    "sha1",
    "sha256",
    "checksum",
    "barcode",
    "url",
}
_OF_CLASSES = {
    "class",
    "label",
    "category",
    "species",
    "breed",
    "type",
    "kind",
    "group",
    "genus",
    "family",
    "order",
    "synset",
}
_PERSONS = {
    "annotator", "author", "client", "contributor", "customer", "donor", "employee", "labeler", "labeller", "member", "observer",
    "owner", "participant", "patient", "person", "photographer", "rater", "reader", "sender", "staff", "student", "subject",
    "mrn", "submitter", "uploader", "user", "volunteer", "worker",
}  # fmt: skip
_SEPARATORS = (";", "|", ",", " ")


def unlearnable(column: str, counts: Mapping[str, int]) -> str | None:
    """Why a column is no task; None for one that may be.

    Args:
        column: its name.
        counts: training images of each of its classes.
    """
    present = [name for name, count in counts.items() if count]
    if len(present) < 2:
        return f"every training label is {present[0][:60]!r}" if present else "no training image has a label"
    if all(name.lower() in SPLITS for name in present) and len({SPLITS[name.lower()] for name in present}) > 1:
        return f"it holds splits ({', '.join(present[:5])}); called 'split', it says which rows are trained on and which are not"
    if tuple(counts) == NO_YES:
        return None
    if len(present) == (labelled := sum(counts.values())):
        return f"it has a class of its own for every image ({labelled}), as an identifier or free text has"
    return _identifies(column, present) or (_no_classes(present, counts) if len(present) > MANY else None)


def _identifies(column: str, present: Sequence[str]) -> str | None:
    """Whom or what a column identifies by its name."""
    words = set(_words(column))
    if words & _PERSONS and all(any(sign.isdigit() for sign in name) for name in present):
        return f"it seems to number people ({len(present)} of them)"
    if words & _IDENTIFIERS and not words & _OF_CLASSES:
        return f"by its name it identifies something ({len(present)} values)"
    return None


def _no_classes(present: Sequence[str], counts: Mapping[str, int]) -> str | None:
    """What many values are, if they are no classes."""
    rare = sum(counts[name] < RARE for name in present)
    if 2 * rare >= len(present):
        return f"{rare} of its {len(present)} classes have fewer than {RARE} training images, as in free text"
    if all(name.isdecimal() for name in present):
        numbers = sorted(int(name) for name in present)
        if numbers[0] > 1 or numbers[-1] > 1.5 * len(numbers):  # classes are numbered one after the other
            return f"it seems to measure or to count: {len(numbers)} numbers from {numbers[0]} to {numbers[-1]}"
    return None


def several_labels(
    classes: Collection[str], separators: Sequence[str] = _SEPARATORS
) -> tuple[str, str, list[str]] | None:
    """Whether cells seem to hold several labels each ("clear;water"): what separates them, a cell, the labels. None if not.

    They do where the parts of a class are classes by themselves, or where the same parts come again in several classes. Words
    between blanks must be fewer than the classes besides, and one that comes again must be a class by itself: "oak tree" and
    "pine tree" are two classes.

    >>> several_labels(["clear", "haze", "haze water", "clear water", "clear haze"])
    (' ', 'haze water', ['clear', 'haze', 'water'])
    >>> several_labels(["oak tree", "pine tree", "elm tree", "oak chair", "pine chair", "elm chair"])
    """
    for separator in separators:
        parts = {
            name: {part for piece in name.split(separator) if (part := piece.strip(" []{}()'\""))} for name in classes
        }
        several = {name: own for name, own in parts.items() if len(own) > 1}
        if not several:
            continue
        labels = sorted(set().union(*parts.values()))
        alone = {next(iter(own)) for own in parts.values() if len(own) == 1}
        shared = [
            label for label, count in Counter(label for own in several.values() for label in own).items() if count > 1
        ]
        again = bool(shared) and (separator != " " or (len(labels) < len(parts) and not alone.isdisjoint(shared)))
        if again or any(own <= alone for own in several.values()):
            return separator, next(iter(several)), labels
    return None


def _words(name: str) -> list[str]:
    """The words of a column's name: "senderID", "sender_id" and "Sender id" are two."""
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower().replace("_", " ").replace("-", " ").split()
