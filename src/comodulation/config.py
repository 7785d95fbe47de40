"""Everything a run needs to be run again, checked before anything heavy starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .backbone import BackboneSettings
from .controller import ACTIVATIONS
from .errors import InputError, brief, choose
from .features import PRECISIONS
from .head import Modulation
from .methods import METHODS
from .tasks import READOUTS
from .training import TrainingSettings

MAX_SEED = 2**32 - 1


class HeadSettings(BaseModel):
    """Sizes of the added layers; see ``ComodulatedHead``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder_channels: int = Field(256, ge=1, le=65536)
    decoder_channels: int = Field(256, ge=1, le=65536)
    residual: bool = True
    kernel_size: int = Field(3, ge=1, le=31)
    hidden: int = Field(256, ge=1, le=65536)
    dropout: float = Field(0.2, ge=0, lt=1)
    feature_dropout: float = Field(0.3, ge=0, lt=1)

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise InputError(f"must be odd, got {value}")
        return value


class ControllerSettings(BaseModel):
    """Task -> coupling; see ``Controller``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = ()
    embedding_size: int = Field(32, ge=1, le=65536)
    activation: str = "relu"

    @field_validator("activation")
    @classmethod
    def _known(cls, value: str) -> str:
        return choose(value, ACTIVATIONS, "activation")


class RunConfig(BaseModel):
    """One method on one family of tasks, one seed.

    Attributes:
        data: folder of parquet files, or Hugging Face dataset id.
        group, label: columns of a family of kind `classes`.
        attributes: columns of a family of kind `binary`, instead of group and label.
        task_bias: learn a bias per task and output besides what the method learns.
        options: of the method itself; see ``Method.options``.
        split_seed: draws the halves; None takes the seed. A backbone that was itself trained on a primary half needs it.
        validation_fraction: share of each half that is kept for validation.
        disjoint_halves: pretraining and fine-tuning use disjoint halves of the training split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    train_split: str = "train"
    test_split: str = "test"
    image_column: str | None = None
    group: str | None = None
    label: str | None = None
    attributes: tuple[str, ...] = ()
    readout: str = "open"
    method: str = "comodulation"
    task_bias: bool = False
    options: dict[str, int | float | str] = {}
    seed: int = Field(0, ge=0, le=MAX_SEED)
    split_seed: int | None = Field(None, ge=0, le=MAX_SEED)
    precision: str = "float32"
    skip_bad: bool = False
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    disjoint_halves: bool = True
    backbone: BackboneSettings = BackboneSettings()
    head: HeadSettings = HeadSettings()
    controller: ControllerSettings = ControllerSettings()
    modulation: Modulation = Modulation()
    pretraining: TrainingSettings = TrainingSettings(learning_rate=1.5e-3, weight_decay=0.1)
    tuning: TrainingSettings = TrainingSettings(learning_rate=0.06)

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        choose(self.readout, READOUTS, "readout")
        known = METHODS[choose(self.method, METHODS, "method")].options
        for name in self.options:
            choose(name, known, f"option of method {self.method!r};")
        choose(self.precision, PRECISIONS, "precision")
        if bool(self.attributes) == bool(self.group or self.label):
            raise InputError("give either --group and --label (classes within groups) or --attribute (binary tasks)")
        if not self.attributes and not (self.group and self.label):
            raise InputError("classes within groups need both --group and --label")
        if len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"an attribute is given twice: {', '.join(self.attributes)}")
        if self.train_split == self.test_split:
            raise InputError(f"the test split must be another than the training split {self.train_split!r}")
        kind = "binary" if self.attributes else "classes"
        if kind not in METHODS[self.method].kinds:
            raise InputError(f"method {self.method!r} is for tasks of kind {', '.join(METHODS[self.method].kinds)}")
        return self


def make_config(values: dict[str, Any]) -> RunConfig:
    """A checked configuration. Raises InputError: one line, naming field, value and what was expected."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            *section, name = (str(part) for part in first["loc"])
            choose(name, _fields(section), " ".join(["option of", *section]) if section else "option")
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        given = "" if not where or first["type"] == "value_error" else f" (given: {brief(first['input'])})"
        raise InputError(f"{where}: {message}{given}" if where else message) from error


def _fields(section: list[str]) -> list[str]:
    """Names of the options of a section of the configuration."""
    owner: Any = RunConfig
    for name in section:
        owner = owner.model_fields[name].annotation
    return list(owner.model_fields if issubclass(owner, BaseModel) else owner.__dataclass_fields__)


def write_config(config: RunConfig) -> str:
    """The configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def read_config(path: Path) -> RunConfig:
    """The inverse of ``write_config``. Raises InputError for a file that is missing or is not one."""
    try:
        values = yaml.safe_load(path.read_text())
    except Exception as error:  # PyYAML lets through what its constructors raise: ValueError, KeyError, RecursionError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a configuration: it holds {brief(values)}")
    try:
        return make_config(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
