"""A row of the tables (a method with options) and a cell (a row trained under one variant, readout and seed)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

from ..config import ControllerSettings, RunConfig
from ..errors import choose
from ..mechanism import Modulation
from ..methods import METHODS
from ..training import TrainingSettings

VARIANTS = ("residual", "base")
DATA_OPTIONS = ("images", "distractors")  # what a row is trained and tested on, rather than what it is
_MODULATION = tuple(field.name for field in fields(Modulation))
_TRAINING = tuple(field.name for field in fields(TrainingSettings))


@dataclass(frozen=True)
class Row:
    """A method and how it differs from its defaults.

    Attributes:
        method: name in ``METHODS``.
        options: (name, value) pairs: fields of ``Modulation``, options of the method, ``task_bias``, ``hidden`` (of an MLP
            controller), or what the data are: ``images`` (a task, in fine-tuning) and ``distractors`` (in each scene).
    """

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        kind = METHODS[choose(self.method, METHODS, "method")]
        known = ("task_bias", "hidden", *DATA_OPTIONS, *_MODULATION, *kind.options)
        for name, _ in self.options:
            choose(name, known, f"option of {self.method!r};")

    @classmethod
    def parse(cls, label: str) -> Row:
        """The inverse of ``label``. Raises InputError for an unknown method or option.

        >>> Row.parse("comodulation beta=0.7 link=rectified").options
        (('beta', 0.7), ('link', 'rectified'))
        """
        method, *pairs = label.split() or [""]
        return cls(method, tuple((name, _value(text)) for name, _, text in (pair.partition("=") for pair in pairs)))

    @property
    def label(self) -> str:
        return f"{self.method} {self.described}".strip()

    @property
    def described(self) -> str:
        """The options as text: what stands in the column ``options`` of cells.csv."""
        return " ".join(f"{name}={value}" for name, value in self.options)

    def get(self, name: str, default: Any = None) -> Any:
        return dict(self.options).get(name, default)

    def without(self, *names: str) -> Row:
        return replace(self, options=tuple(item for item in self.options if item[0] not in names))

    def adding(self, **options: Any) -> Row:
        return replace(self, options=(*self.options, *options.items()))

    def configure(self, config: RunConfig, settings: dict[str, Any]) -> RunConfig:
        """A configuration with this row's method and options, and tuned settings.

        Args:
            config: what all rows of a seed share.
            settings: by name, fields of ``TrainingSettings`` or ``Modulation``, or options of the method. The row's own
                options win.
        """
        kind = METHODS[self.method]
        given = {**settings, **dict(self.options)}
        own = {"learning_rate": kind.default_learning_rate, **given}
        hidden = given.get("hidden", ())
        return config.model_copy(
            update={
                "method": self.method,
                "task_bias": bool(given.get("task_bias", False)),
                "options": {name: given[name] for name in kind.options if name in given},
                "modulation": replace(config.modulation, **{n: given[n] for n in _MODULATION if n in given}),
                "tuning": replace(config.tuning, **{n: own[n] for n in _TRAINING if n in own}),
                "controller": ControllerSettings(hidden=(hidden,) if isinstance(hidden, int) else hidden),
            }
        )


@dataclass(frozen=True)
class Cell:
    """One network to train and evaluate."""

    variant: str
    readout: str
    row: Row
    seed: int

    @property
    def key(self) -> str:
        """Name of its files."""
        text = f"{self.variant} {self.readout} {self.row.label} {self.seed}"
        return f"{self.row.method}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)
