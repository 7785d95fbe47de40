"""Everything a run needs to be run again, checked before anything heavy starts."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..data import is_table
from ..data.features import PRECISIONS, BackboneSettings, EmbeddingSettings, EncoderSettings, TextSettings
from ..errors import InputError, brief, choose, reason_of
from ..evaluation import DecisionMetric
from ..files import read_bounded
from ..mathematics import Modulation
from ..networks import ACTIVATIONS, HeadSettings
from ..networks.methods import METHODS
from ..tasks import Readout
from ..training import TrainingSettings
from ..training.readouts import Quality

MAX_SEED = 2**32 - 1
MAX_CONFIG, MAX_DEPTH, MAX_EVENTS, MAX_SCALAR = 2**22, 32, 2**18, 2**13  # bytes, levels, parts, characters of one value
# Both make plain values only; libyaml's takes a tenth of the time.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
WHICH_TASKS = (
    "give either --group and --label (classes within groups) or --attribute (binary tasks), or label columns by --labels "
    "or --task"
)


OF_LAYERS = ("head", "controller", "modulation", "pretraining", "tuning")  # methods without layers do not read these
LAYER_SIZES = ("encoder_channels", "decoder_channels", "hidden", "kernel_size")


class ControllerSettings(BaseModel):
    """Task -> coupling; see ``Controller``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = ()
    embedding_size: int = Field(32, ge=1, le=65536)
    activation: str = "relu"
    rank: int | None = Field(None, ge=1, le=65536)
    task_vectors: tuple[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], ...] | None = None

    @field_validator("activation")
    @classmethod
    def _known(cls, value: str) -> str:
        return choose(value, ACTIVATIONS, "activation")

    @field_validator("task_vectors")
    @classmethod
    def _even(cls, value: tuple[tuple[float, ...], ...] | None) -> tuple[tuple[float, ...], ...] | None:
        if value is not None and (not value or len({len(row) for row in value}) > 1):
            raise InputError("must be one vector of numbers a task, all of one length")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> ControllerSettings:
        if self.rank is not None and (self.hidden or self.task_vectors is not None):
            raise InputError("rank is not for a controller with hidden layers or task vectors")
        return self


class RunConfig(BaseModel):
    """One method on one family of tasks, one seed.

    What is left out has the defaults of `comodulate fit`. A section given as a mapping, ``backbone={"name": "resnet18"}``, has them
    for what the mapping leaves out; one given as an object is taken as it is.

    Attributes:
        data: folder of parquet files, or Hugging Face dataset id; with `labels`, or where they are sorted in folders, the folder
            of the images. With `text` or `embeddings` also a table, or with `labels` the file that embeddings are in.
        group, label: columns of a family of kind `classes`.
        attributes: columns of a family of kind `binary`, instead of group and label.
        labels: a table (csv, tsv, parquet, xlsx) of image paths and label columns, each column a task; with `embeddings`, of
            labels in their order.
        tasks: columns that are tasks, binary or categorical; none takes all columns of `labels`, the one label column of
            other data, or the folders that images are sorted in.
        ignore: label columns that are no tasks, where `tasks` names none.
        readout: `open` or `restricted`; columns are always `restricted`.
        balance: `none`, or `classes`: fine-tuning weights examples by the inverse frequency of their class; see ``class_weights``.
        task_bias: learn a bias per task and output besides what the method learns.
        options: of the method itself; see ``Method.options``.
        split_seed: draws the halves; None takes the seed. A backbone that was itself trained on a primary half needs it.
        validation_fraction: share of each half that is kept for validation.
        disjoint_halves: pretraining and fine-tuning use disjoint halves of the training split.
        protocol: `claims`: layers and tasks are learned from disjoint halves, as the paper's claims need it; `table`: every
            image teaches everything, which methods with layers cannot. None takes `table` for methods that can, else `claims`.
        quality: `fast`, `default` or `best`: how much a method of readouts tries; see ``training.readouts``.
        calibrate: fit the temperature of the answers, and answer at it.
        metric: `accuracy` (the most probable answer), `balanced_accuracy` or `f1`: what the answers are chosen for; the
            probabilities stay as they are.
        backbone: the encoder, unless there is another one.
        embeddings: the inputs are embeddings that are there already; no `backbone` then.
        text: the inputs are texts; no `backbone` then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    train_split: str = "train"
    test_split: str = "test"
    image_column: str | None = None
    group: str | None = None
    label: str | None = None
    attributes: tuple[str, ...] = ()
    labels: str | None = None
    tasks: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    balance: Literal["none", "classes"] = "none"
    readout: Readout = "open"
    method: str = "auto"
    task_bias: bool = False
    options: dict[str, int | float | str] = {}
    seed: int = Field(0, ge=0, le=MAX_SEED)
    split_seed: int | None = Field(None, ge=0, le=MAX_SEED)
    precision: str = "float32"
    skip_bad: bool = False
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    disjoint_halves: bool = True
    protocol: Literal["claims", "table"] | None = None
    quality: Quality = "default"
    calibrate: bool = True
    metric: DecisionMetric = "accuracy"
    backbone: BackboneSettings = BackboneSettings(image_size=None)
    embeddings: EmbeddingSettings | None = None
    text: TextSettings | None = None
    head: HeadSettings = HeadSettings()
    controller: ControllerSettings = ControllerSettings()
    modulation: Modulation = Modulation()
    pretraining: TrainingSettings = TrainingSettings()
    tuning: TrainingSettings = TrainingSettings()

    @property
    def columns(self) -> bool:
        """Whether the tasks are label columns found in the data, rather than `group` and `label` or `attributes`."""
        return not (self.group or self.label or self.attributes)

    @property
    def encoder(self) -> EncoderSettings:
        """Settings of the encoder that there is."""
        return self.embeddings or self.text or self.backbone

    @property
    def places(self) -> list[Path]:
        """Files and folders of this machine that it reads."""
        named = [self.data, self.labels, self.backbone.weights, None if self.text is None else self.text.name]
        return [Path(name) for name in named if name is not None and Path(name).exists()]

    def of_data(self, data: str, labels: str | None = None, *, skip_bad: bool = False) -> RunConfig:
        """The same on other data: with a table of labels, where one is given; else its own, if that lies beside the data."""
        beside = self.labels if self.encoder.reader is None or not is_table(data) else None
        return self.model_copy(update={"data": data, "labels": labels or beside, "skip_bad": skip_bad})

    def with_encoder(self, settings: EncoderSettings) -> RunConfig:
        """The same with other settings of its encoder."""
        return self.model_copy(update={settings.section: settings})

    @property
    def table(self) -> str | None:
        """The table of labels, of which every column that can be learned is a task where none is named."""
        return self.labels or (self.data if self.encoder.reader is not None and is_table(self.data) else None)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that are named; none: all."""
        return self.tasks or self.attributes or tuple(name for name in (self.group, self.label) if name)

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        """Sections that are left out, or given as a mapping, have the defaults of a run for what they leave out."""
        if not isinstance(values, dict):
            return values
        found = dict(values)
        if not any(values.get(name) for name in ("group", "label", "attributes")):
            found.setdefault("readout", "restricted")
        method = values.get("method", cls.model_fields["method"].default)
        if isinstance(method, str) and method in METHODS:
            head = values.get("head", {})
            said = vars(head) if isinstance(head, HeadSettings) else head if isinstance(head, dict) else {}
            for name, usual in _usual_sections(method, said).items():
                if isinstance(given := values.get(name, {}), dict):
                    found[name] = {**usual, **given}
        return found

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        self._check_method()
        self._check_inputs()
        self._check_tasks()
        if self.train_split == self.test_split:
            raise InputError(f"the test split must be another than the training split {self.train_split!r}")
        kind = "binary" if self.attributes else "columns" if self.columns else "classes"
        if kind not in METHODS[self.method].kinds:
            raise InputError(
                f"method {self.method!r} is for tasks of kind {', '.join(METHODS[self.method].kinds)}, got {kind}"
            )
        return self

    def _check_method(self) -> None:
        method = METHODS[choose(self.method, METHODS, "method")]
        for name in self.options:
            choose(name, method.options, f"option of method {self.method!r};")
        method.check_modulation(self.modulation)
        choose(self.precision, PRECISIONS, "precision")
        if self.protocol == "table" and not method.without_layers:
            raise InputError(
                f"protocol 'table' is not for method {self.method!r}: its controller must learn from images that its layers "
                "have not seen; leave the protocol out, or take --method auto"
            )
        if self.task_bias and method.without_layers:
            raise InputError(f"method {self.method!r} has a bias for each output already; leave task_bias out")

    def _check_inputs(self) -> None:
        if self.embeddings is not None and self.text is not None:
            raise InputError("a run has inputs of one kind: leave --text or --embeddings out")
        if self.text is not None and self.labels is not None:
            raise InputError("texts and labels are columns of one table: give it as --data, and leave --labels out")

    def _check_tasks(self) -> None:
        beside = self.labels and self.encoder.reader is None
        if bool(self.attributes) + bool(self.group or self.label) + bool(beside or self.tasks) > 1:
            raise InputError(WHICH_TASKS)
        if (self.group or self.label) and not (self.group and self.label):
            raise InputError("classes within groups need both --group and --label")
        for what, names in (("an attribute", self.attributes), ("a task", self.tasks)):
            if len(set(names)) < len(names):
                raise InputError(f"{what} is given twice: {', '.join(names)}")
        if self.ignore and (self.tasks or not self.columns):
            raise InputError(
                "--ignore leaves label columns out where all of them are tasks; --task, --attribute and --group name the tasks"
            )
        if self.columns and self.readout == "open":
            raise InputError(
                "the open readout is not for label columns: each task has classes of its own; leave the readout out"
            )


def output_of(method: str) -> Literal["map", "vector"]:
    """What a method reads of the backbone: layers of ours read a map, and what answers from the features reads all there are."""
    return "vector" if METHODS[method].without_layers else "map"


def _usual_sections(method: str, head: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of sections that are not those of their classes, given what is said of the head.

    Layers begin at the probe unless their sizes are given; they then have little left to learn, and no need of a map's neighbours.
    """
    start = head.get("start", "random" if any(name in head for name in LAYER_SIZES) else "probe")
    rates = {"learning_rate": 1e-3, "weight_decay": 0.05, "epochs": 8}
    return {
        "backbone": {"image_size": None, "output": output_of(method)},
        "head": {"start": "probe", "kernel_size": 1} if start == "probe" else {},
        "pretraining": rates if start == "probe" else {"learning_rate": 1.5e-3, "weight_decay": 0.1},
        "tuning": {"learning_rate": METHODS[method].default_learning_rate},
        **({"modulation": own} if (own := METHODS[method].modulation) else {}),
    }


def make_config(values: dict[str, Any]) -> RunConfig:
    """A checked configuration. Raises InputError: one line, naming field, value and what was expected."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            *section, name = (str(part) for part in first["loc"])
            choose(name, _known_options(section), " ".join(["option of", *section]) if section else "option")
        if first["type"] == "literal_error":
            choose(first["input"], re.findall("'([^']*)'", first["ctx"]["expected"]), str(first["loc"][-1]))
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        given = "" if not where or first["type"] == "value_error" else f" (given: {brief(first['input'])})"
        raise InputError(f"{where}: {message}{given}" if where else message) from error


def written_in_full(values: Any) -> Any:
    """A configuration read from a file, with the defaults of fields that did not exist when it was written; else as it is."""
    if isinstance(values, dict):
        with contextlib.suppress(InputError):
            return make_config(values).model_dump(mode="json")
    return values


def options_of(section: Any) -> dict[str, Any]:
    """Names of the options of a section of the configuration, or of the whole, and what each of them is; none of anything else."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if isinstance(section, type) and dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}


def _known_options(section: list[str]) -> dict[str, Any]:
    owner: Any = RunConfig
    for name in section:
        owner = options_of(owner)[name]
        owner = next(iter(get_args(owner)), owner)  # of `EmbeddingSettings | None`, what it is if it is there
    return options_of(owner)


def write_config(config: RunConfig) -> str:
    """The configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, plain values only. Raises ValueError, or what PyYAML raises, for anything else.

    Its parts are looked at before anything is made of them. A few aliases of aliases stand for more than memory holds; a deep
    value overflows libyaml's stack, which ends the process; a number to base 60, and a list of directives, take the square of
    their length.
    """
    if text.startswith("%") or "\n%" in text:
        raise ValueError("it holds a directive")
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias")
        if number > MAX_EVENTS or (isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR):
            raise ValueError(f"it holds more than {MAX_EVENTS} values, or one of more than {MAX_SCALAR} characters")
    loader = _LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_values(path: Path) -> dict[str, Any]:
    """The values of a configuration file, which may leave some out. Raises InputError: one line that names the file."""
    try:
        values = parse_yaml(read_bounded(path, MAX_CONFIG).decode())
    except Exception as error:  # PyYAML lets through what its constructors raise: ValueError, KeyError, RecursionError
        raise InputError(f"{path} cannot be read as YAML: {reason_of(error, str(path))}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a configuration: it holds {brief(values)}")
    return values


def read_config(path: Path) -> RunConfig:
    """The inverse of ``write_config``. Raises InputError for a file that is missing or is not one."""
    values = read_values(path)
    try:
        return make_config(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
