"""A row of the tables (a method with options) and a cell (a row trained under one variant, readout and seed)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from ...errors import InputError, choose
from ...mathematics import Modulation
from ...networks.methods import METHODS
from ...runs import ControllerSettings, HeadSettings, RunConfig
from ...training import TrainingSettings

VARIANTS = ("residual", "base")
YARDSTICK = "linear"  # what a user would do instead: a method without layers, the same in every variant and readout
YARDSTICKS = (YARDSTICK, "nearest-class-mean")  # likewise; the differences of all tables are from the first
# What a row is trained and tested on, rather than what it is.
DATA_OPTIONS = ("images", "distractors", "classes", "draw")
CONTROLLER_OPTIONS = ("hidden", "embedding_size", "activation", "rank", "task_vectors")
# Of the layers, which are then pretrained for it.
HEAD_OPTIONS = ("encoder_skip", "decoder_skip", "batch_norm", "depth", "channels", "start")
# Where a network is modulated, and what a neuron is there; of the study of location alone.
PLACE_OPTIONS = ("location", "neurons")
_MODULATION = tuple(field.name for field in fields(Modulation))
_TRAINING = tuple(field.name for field in fields(TrainingSettings))


@dataclass(frozen=True)
class Row:
    """A method and how it differs from its defaults.

    Attributes:
        method: name in ``METHODS``.
        options: (name, value) pairs: fields of ``Modulation``, options of the method, ``task_bias``, of the controller (fields of
            ``ControllerSettings``; ``hidden`` a width or several, ``64x64``; ``task_vectors`` the name of what describes the
            tasks), of the layers (fields of ``HeadSettings``; ``channels`` of encoder and decoder), or what the data are:
            ``images`` (a task, in fine-tuning), ``distractors`` (in each scene), ``classes`` (a task is left with), and ``draw``
            (a number: of the images, of which as many validate, and of their order).
    """

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        kind = METHODS[choose(self.method, METHODS, "method")]
        known = (
            "task_bias",
            *CONTROLLER_OPTIONS,
            *HEAD_OPTIONS,
            *DATA_OPTIONS,
            *PLACE_OPTIONS,
            *_MODULATION,
            *kind.options,
        )
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

    @cached_property  # tables ask for it a hundred thousand times
    def label(self) -> str:
        return f"{self.method} {self.described}".strip()

    @cached_property
    def described(self) -> str:
        """The options as text: what stands in the column ``options`` of cells.csv."""
        return " ".join(f"{name}={value}" for name, value in self.options)

    def get(self, name: str, default: Any = None) -> Any:
        return dict(self.options).get(name, default)

    def without(self, *names: str) -> Row:
        return replace(self, options=tuple(item for item in self.options if item[0] not in names))

    def adding(self, **options: Any) -> Row:
        return replace(self, options=(*self.options, *options.items()))

    @property
    def yardstick(self) -> Row:
        """The linear readout that sees the same data; where it sees all of them, no draw makes a difference."""
        seen = self.without(*(() if self.get("images") else ("draw",)))
        return Row(YARDSTICK, tuple(item for item in seen.options if item[0] in DATA_OPTIONS))

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
        controller = {name: given[name] for name in ("embedding_size", "activation", "rank") if name in given}
        return config.model_copy(
            update={
                "method": self.method,
                "task_bias": bool(given.get("task_bias", False)),
                "options": {name: given[name] for name in kind.options if name in given},
                "modulation": replace(
                    config.modulation, **{**kind.modulation, **{n: given[n] for n in _MODULATION if n in given}}
                ),
                "tuning": replace(config.tuning, **{n: own[n] for n in _TRAINING if n in own}),
                "controller": ControllerSettings(hidden=_widths(given.get("hidden", ())), **controller),
            }
        )

    def layers(self, shared: HeadSettings) -> HeadSettings:
        """Settings of the layers with this row's options."""
        given = {name: value for name, value in self.options if name in HEAD_OPTIONS}
        if channels := given.pop("channels", None):
            given |= {"encoder_channels": channels, "decoder_channels": channels}
        return replace(shared, **given)


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


def _widths(hidden: Any) -> tuple[int, ...]:
    """Widths of hidden layers from an option: 64, "64x64", or a sequence of numbers."""
    if not isinstance(hidden, str):
        return (hidden,) if isinstance(hidden, int) else tuple(hidden)
    widths = hidden.split("x")
    if not all(width.isdecimal() for width in widths):
        raise InputError(f"hidden={hidden!r} is not a width or several, such as 64 or 64x64")
    return tuple(int(width) for width in widths)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)
