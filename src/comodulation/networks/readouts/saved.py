"""The file of a classifier of label columns: readouts, and what each of their answers means, as safetensors without code."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import InputError, brief
from ...tensors import read_tensors, write_tensors
from .members import Readouts

_FORMAT = 1
_FIELDS = ("settings", "features", "feature_names", "shape", "seed", "form", "nll")  # that a file has as they are
_SETTINGS = ("method", "quality", "calibrate", "random_state")


@dataclass(frozen=True)
class AnsweredColumn:
    """A label column: its name, its classes in order ``(C,)``, its type in a frame, and which readouts answer it; None where it has
    one class."""

    name: Hashable
    classes: np.ndarray
    dtype: str
    part: int | None


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder that comes with a package, by its name.

    Args:
        image_size: of pictures; None for an encoder of texts.
        pooled: how many of the features, from the first, are without positions.
        fingerprint: of its weights.
    """

    name: str
    image_size: int | None
    pooled: int
    fingerprint: str


@dataclass(frozen=True)
class SavedClassifier:
    """All that a classifier needs to answer.

    Args:
        encoder: None where features are given.
        settings: method, quality, calibrate and random_state.
        features: number of features that are given, of maps of channels. feature_names: theirs, or none.
        shape: of the features of one input, ``(V,)`` or ``(C, H, W)``.
        seed: of the fit. form: in which labels were given. nll: out of fold, by member.
        columns: of labels. parts: the readouts that answer them, in double precision.
    """

    encoder: NamedEncoder | None
    settings: dict[str, Any]
    features: int
    feature_names: list[str]
    shape: tuple[int, ...]
    seed: int
    form: str
    nll: dict[str, float]
    columns: list[AnsweredColumn]
    parts: list[Readouts]

    def write(self, path: Path) -> None:
        """Write it.

        Raises:
            InputError: names of columns that are neither text nor whole numbers. RunError: it cannot be written.
        """
        for column in self.columns:
            if not isinstance(column.name, (str, int, np.integer)):
                raise InputError(f"cannot save the name {brief(column.name)}: expected a text or a whole number")
        encoder = {} if self.encoder is None else asdict(self.encoder)
        if encoder:
            encoder = {"encoder": encoder.pop("name"), **encoder}
        about = {
            **encoder,
            "comodulation.sklearn": _FORMAT,
            **{name: getattr(self, name) for name in _FIELDS},
            "columns": [
                {
                    "name": column.name if isinstance(column.name, str) else int(column.name),  # type: ignore[call-overload]
                    "classes": column.classes.tolist(),
                    "type": column.classes.dtype.str,
                    "dtype": column.dtype,
                    "part": column.part,
                }
                for column in self.columns
            ],
        }
        tensors = {
            f"{number}.{name}": value.float() if value.is_floating_point() else value
            for number, part in enumerate(self.parts)
            for name, value in part.tensors().items()
        }
        write_tensors(path, tensors, about)

    @classmethod
    def read(cls, path: Path) -> SavedClassifier:
        """What ``write`` wrote. Raises InputError for any other file."""
        tensors, about = read_tensors(path)
        if about.get("comodulation.sklearn") != _FORMAT:
            raise InputError(f"{path} holds no saved MultiTaskClassifier")
        try:
            shape = tuple(int(size) for size in about["shape"])
            columns = [
                AnsweredColumn(
                    one["name"] if isinstance(one["name"], str) else int(one["name"]),
                    _classes(one["classes"], one["type"]),
                    str(one["dtype"]),
                    one["part"],
                )
                for one in about["columns"]
            ]
            return cls(
                _named_encoder(about, shape[0]) if "encoder" in about else None,
                {name: about["settings"][name] for name in _SETTINGS},
                int(about["features"]),
                [str(name) for name in about["feature_names"]],
                shape,
                int(about["seed"]),
                about["form"],
                {str(name): float(value) for name, value in about["nll"].items()},
                columns,
                _parts(tensors, columns, shape),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def is_fetched(encoder: str) -> bool:
    """Whether the name of an encoder is a folder's or a repository's, which a file must not make anybody open."""
    return re.search(r"[/\\:]", encoder) is not None


def _named_encoder(about: dict[str, Any], features: int) -> NamedEncoder:
    size = about["image_size"]
    found = NamedEncoder(
        str(about["encoder"]), None if size is None else int(size), int(about["pooled"]), str(about["fingerprint"])
    )
    if is_fetched(found.name):
        raise InputError(f"the saved classifier names the encoder {brief(found.name)}, which is not fetched")
    if not 0 < found.pooled <= features:
        raise InputError("the saved classifier is damaged: its pooled features are not among its features")
    return found


def _parts(tensors: dict[str, Tensor], columns: Sequence[AnsweredColumn], shape: tuple[int, ...]) -> list[Readouts]:
    """Readouts from tensors named ``NUMBER.NAME``, each of as many questions as there are columns that name it."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = value
    found = []
    for number in range(len(groups)):
        sizes = [len(column.classes) for column in columns if column.part == number]
        part = Readouts.of_tensors(groups[str(number)], sizes)
        if len(part.questions.sizes) != len(sizes) or len(part.mean) != _width(shape):
            raise InputError("the saved classifier is damaged: its tensors do not fit its columns")
        found.append(part.double())
    if any((column.part is None) != (len(column.classes) == 1) for column in columns) or not {
        column.part for column in columns
    } - {None} == set(range(len(groups))):
        raise InputError("the saved classifier is damaged: its columns do not fit its tensors")
    return found


def _width(shape: tuple[int, ...]) -> int:
    """Number of features of a row that features of a shape make."""
    whole = math.prod(shape)
    return whole if whole == shape[0] else shape[0] + whole


def _classes(values: list[Any], kind: str) -> np.ndarray:
    """Classes as they were saved. Raises ValueError for a type that no labels have."""
    if kind == "|O" and all(isinstance(value, (str, bool, int, float)) for value in values):
        return np.array(values, object)
    if re.fullmatch(r"[<>]U\d+", kind) and all(isinstance(value, str) for value in values):
        return np.array(values, str)
    if not re.fullmatch(r"[<>|][biuf][1248]", kind) or not values:
        raise ValueError(f"classes of the type {brief(kind)}")
    return np.array(values, kind)
