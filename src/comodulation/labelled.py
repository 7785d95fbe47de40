"""What a configuration reads of its data: splits, the family of tasks, labels, and the parts that images are dealt to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .config import WHICH_TASKS, RunConfig
from .data import (
    Split,
    answer_column,
    binary_column,
    class_column,
    find_splits,
    is_binary,
    label_names,
    label_table_splits,
)
from .errors import InputError, choose
from .splits import Partition, partition
from .tasks import NO_YES, Examples, TaskFamily, first_rows
from .training import derived_seed


@dataclass(frozen=True)
class Labelled:
    """One split's labels as a family reads them."""

    split: Split
    examples: Examples
    columns: list[np.ndarray]


def open_splits(
    config: RunConfig, needed: Sequence[str], wanted: Sequence[str] = (), tasks: Sequence[str] = ()
) -> dict[str, Split]:
    """Splits of the data that a configuration names.

    Args:
        config: data, labels, image column, whether rows of a label table may be without their images.
        needed: names of splits that must be there.
        wanted: names of splits that are opened where they are there.
        tasks: columns of a label table that are read; none reads the configuration's.

    Raises:
        InputError: no such data, or not the splits that are needed.
    """
    tables: dict[str, Split] = {}
    openers: dict[str, Callable[[], Split]] = {}
    if config.labels:
        tables = label_table_splits(
            config.labels, config.data, config.image_column, tasks or config.tasks, skip_missing=config.skip_bad
        )
    else:
        openers = find_splits(config.data, image_column=config.image_column)
    there = list(tables or openers)
    for name in needed:
        choose(name, there, f"split of {config.data}")
    names = [name for name in dict.fromkeys([*needed, *wanted]) if name in there]
    return {name: tables[name] if tables else openers[name]() for name in names}


def read_family(config: RunConfig, split: Split) -> TaskFamily:
    """The family of tasks a configuration describes, read off the training split. Raises InputError for bad columns."""
    if config.columns:
        return _family_of_columns(config, split)
    if config.attributes:
        for name in config.attributes:
            split.feature(name)
        return TaskFamily.from_attributes(config.attributes)
    assert config.group is not None
    assert config.label is not None
    group_names, class_names = label_names(split, config.group), label_names(split, config.label)
    groups = class_column(split, config.group, group_names)
    return TaskFamily.from_groups(groups, class_column(split, config.label, class_names), group_names, class_names)


def _family_of_columns(config: RunConfig, split: Split) -> TaskFamily:
    """One task per column: binary where all of them are 0 and 1, else each with its own classes."""
    names = config.tasks or tuple(split.label_columns)
    if not config.tasks and not config.labels and len(names) != 1:
        held = f"the columns {', '.join(names)}" if names else "no label column"
        raise InputError(f"{WHICH_TASKS}; {config.data!r} holds {held}")
    binary = [is_binary(split, name) for name in names]
    if all(binary):
        return TaskFamily.from_attributes(names)
    classes = [NO_YES if own else label_names(split, name) for name, own in zip(names, binary, strict=True)]
    return TaskFamily.from_columns(names, classes)


def read_labels(config: RunConfig, split: Split, family: TaskFamily) -> Labelled:
    """Labels of a split. Raises InputError for columns that are not there or hold something else."""
    if config.columns:
        columns = [answer_column(split, name, family.answers(task)) for task, name in enumerate(family.tasks)]
    elif family.kind == "binary":
        columns = [binary_column(split, name) for name in family.tasks]
    else:
        assert config.group is not None
        assert config.label is not None
        columns = [
            class_column(split, config.group, family.tasks),
            class_column(split, config.label, family.outputs),
        ]
    examples = family.examples(columns)
    if not len(examples):
        raise InputError(f"split {split.name!r} of {split.source!r} has no row with all the labels a task needs")
    return Labelled(split, examples, columns)


def deal_images(config: RunConfig, family: TaskFamily, examples: Examples) -> Partition:
    """Deal the training images out to pretraining, fine-tuning and their validation. Raises InputError for too few."""
    first_of_image, images = first_rows(examples.image)
    strata = torch.zeros_like(images) if family.kind == "binary" else examples.target[first_of_image]
    return partition(
        images, strata, seed=derived_seed(_split_seed(config), "halves"), validation_fraction=config.validation_fraction,
        disjoint=config.disjoint_halves,
    )  # fmt: skip


def _split_seed(config: RunConfig) -> int:
    return config.seed if config.split_seed is None else config.split_seed
