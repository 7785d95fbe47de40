"""The subject of a study and its labelled data: read once, shared by all its cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data import binary_column, class_column, label_names
from ...data.features import BackboneSettings, TextSettings
from ...data.sets import (
    CELEBA_ATTRIBUTES,
    CELEBA_GROUPS,
    CIFAR100_ATTRIBUTES,
    attribute_columns,
    attribute_family,
    attribute_groups,
    open_celeba,
)
from ...errors import choose
from ...runs import (
    Labelled,
    RunConfig,
    TaskData,
    make_config,
    open_splits,
    read_family,
    read_labels,
)
from ...tasks import TaskFamily


@dataclass(frozen=True)
class Material(TaskData):
    """What a study works on, read once a process.

    Attributes:
        config: what all cells share.
        cache: folder of features and pretrained layers.
        groups: names of binary tasks by group, for metrics.
    """

    config: RunConfig
    cache: Path
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


STUDIES = ("cifar100", "clinc", "celeba", "attributes")
CLASSES = {
    "cifar100": ("coarse_label", "fine_label"),
    "clinc": ("domain", "intent"),
}  # columns of groups and of classes
TEXT = "text"  # column of the utterances


EPOCHS = 6  # of fine-tuning; ten reach the same validation NLL (attention 0.6484 after five, 0.6475 after ten)


def study_config(name: str, data: str, **changes: Any) -> RunConfig:
    """The configuration that a study's cells share.

    Args:
        name: of the study. data: folder or data set id. **changes: fields of ``RunConfig``, sections as mappings.
    """
    values: dict[str, Any] = {
        "data": data, "method": "comodulation", "backbone": BackboneSettings(), **changes,
        "tuning": {"epochs": EPOCHS, "learning_rate": 0.06, **changes.get("tuning", {})},
    }  # fmt: skip
    if choose(name, STUDIES, "study") in CLASSES:
        values["group"], values["label"] = CLASSES[name]
        if name == "clinc":
            values["text"] = TextSettings(TEXT)
    elif name == "celeba":
        values |= {"attributes": CELEBA_ATTRIBUTES}
    else:
        values |= {"attributes": tuple(attribute.name for attribute in CIFAR100_ATTRIBUTES)}
    return make_config(values)


def read_material(study: str, config: RunConfig, cache: Path) -> Material:
    """Labels of a study's splits. Raises InputError for data that are not there or not what the study needs."""
    if study == "celeba":
        family = TaskFamily.from_attributes(CELEBA_ATTRIBUTES)
        splits = open_celeba(config.data)
        labelled = {}
        for name in (config.train_split, config.test_split):
            columns = [binary_column(splits[name], attribute) for attribute in family.tasks]
            labelled[name] = Labelled(splits[name], family.examples(columns), columns)
        return Material(family, labelled, config, cache, dict(CELEBA_GROUPS))
    opened = open_splits(config, [config.train_split], [config.test_split])
    if study in CLASSES:
        family = read_family(config, opened[config.train_split])
        labelled = {name: read_labels(config, split, family) for name, split in opened.items()}
        return Material(family, labelled, config, cache)
    family, labelled = attribute_family(), {}
    for name, split in opened.items():
        classes = label_names(split, "fine_label")
        table = attribute_columns(class_column(split, "fine_label", classes), classes=classes)
        columns = list(table.T)
        labelled[name] = Labelled(split, family.examples(columns), columns)
    return Material(family, labelled, config, cache, attribute_groups())
