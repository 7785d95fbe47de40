"""The data of a configuration: splits, the family of tasks, labels, and the partition of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import (
    Partition,
    Split,
    answer_column,
    class_column,
    find_splits,
    given_table_splits,
    is_binary,
    label_names,
    label_table_splits,
    partition,
    unlearnable,
    with_binary_columns,
    yes_no_column,
)
from ..data.features import Encoder, cut_note
from ..errors import InputError, brief, choose
from ..mathematics import derived_seed
from ..tasks import NO_YES, Examples, TaskFamily, first_rows
from .config import WHICH_TASKS, RunConfig


@dataclass(frozen=True)
class Labelled:
    """One split's labels as a family reads them."""

    split: Split
    examples: Examples
    columns: list[np.ndarray]


@dataclass(frozen=True)
class TaskData:
    """A family of tasks, and labels by the name of their split."""

    family: TaskFamily
    labelled: dict[str, Labelled]


def open_splits(
    config: RunConfig,
    needed: Sequence[str],
    wanted: Sequence[str] = (),
    *,
    tasks: Sequence[str] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Split]:
    """Splits of the data that a configuration names.

    Args:
        config: data, labels, image column, whether rows of a label table may be without their images.
        needed: names of splits that must be there.
        wanted: names of splits that are opened where they are there.
        tasks: columns of a label table that are read; none reads the configuration's.
        answers: answers of a run's tasks: a label table is read by them, and need not have all of its columns.

    Raises:
        InputError: no such data, or not the splits that are needed.
    """
    tables: dict[str, Split] = {}
    openers: dict[str, Callable[[], Split]] = {}
    reader = config.encoder.reader
    if config.table and reader is not None:
        tables = given_table_splits(
            config.data, reader, config.labels, tasks or config.label_columns, ignore=config.ignore, answers=answers
        )
    elif config.labels:
        tables = label_table_splits(
            config.labels,
            config.data,
            config.image_column,
            tasks or config.tasks,
            ignore=config.ignore,
            answers=answers,
            skip_missing=config.skip_bad,
        )
    else:
        openers = find_splits(config.data, image_column=config.image_column, reader=reader)
    there = list(tables or openers)
    for name in needed:
        choose(name, there, f"split of {config.data}")
    names = [name for name in dict.fromkeys([*needed, *wanted]) if name in there]
    if tables:
        return {name: tables[name] for name in names}
    opened = {name: openers[name]() for name in names}
    asked = tuple(answers or tasks or config.tasks or config.attributes)
    if not asked and config.columns and len(only := _names_of_columns(config, opened[names[0]])) == 1:
        asked = only
    return with_binary_columns(opened, asked, answered=bool(answers))


def learnable_columns(config: RunConfig, split: Split) -> tuple[tuple[str, ...], dict[str, str]]:
    """Label columns of a table that can be tasks where none is named, and why the others cannot.

    Args:
        config: with a ``table``, and without ``tasks``.
        split: to train on.

    Returns:
        Names of columns; and by the names of the others, a reason.

    Raises:
        InputError: no column can be a task.
    """
    left_out, names = dict(split.left_out), []
    for name in split.label_columns:
        answers = _column_answers(split, name)
        places = answer_column(split, name, answers)
        counts = np.bincount(places[places >= 0], minlength=len(answers)).tolist()
        if reason := unlearnable(name, dict(zip(answers, counts, strict=True))):
            left_out[name] = reason
        else:
            names.append(name)
    if not names:
        first, reason = next(iter(left_out.items()))
        raise InputError(
            f"{split.source} has no label column that can be learned; first {first!r}: {reason} (--task names a column that is "
            "to be learned nevertheless)"
        )
    return tuple(names), left_out


def read_family(config: RunConfig, split: Split, tasks: Sequence[str] = ()) -> TaskFamily:
    """The family of tasks a configuration describes, read off the training split.

    Args:
        config: names the columns.
        split: to train on.
        tasks: columns that are tasks; none takes the configuration's.

    Raises:
        InputError: columns that are not there, or hold something else.
    """
    if config.columns:
        return _family_of_columns(config, split, tasks or config.tasks)
    if config.attributes:
        from datasets import ClassLabel

        for name in config.attributes:
            # The classes of a table are in the order of the alphabet, which does not say that the second means yes.
            if config.table and isinstance(split.feature(name), ClassLabel):
                classes = brief(", ".join(label_names(split, name)))
                raise InputError(
                    f"column {name!r} of {split.source} is not binary: it holds {classes}, expected no and yes (or 0 and 1, "
                    f"-1 and 1, false and true); --task {name} takes it as it is"
                )
            split.feature(name)
        return TaskFamily.from_attributes(config.attributes)
    assert config.group is not None
    assert config.label is not None
    group_names, class_names = label_names(split, config.group), label_names(split, config.label)
    groups = class_column(split, config.group, group_names)
    return TaskFamily.from_groups(groups, class_column(split, config.label, class_names), group_names, class_names)


def _family_of_columns(config: RunConfig, split: Split, named: Sequence[str]) -> TaskFamily:
    """One task per column: binary where all of them are 0 and 1, else each with its own classes."""
    names = tuple(named) or _names_of_columns(config, split)
    if not named and not config.table and len(names) != 1:
        held = f"the columns {', '.join(names)}" if names else "no label column"
        raise InputError(f"{WHICH_TASKS}; {config.data!r} holds {held}")
    return family_of_columns(split, [own for name in names for own in split.lists.get(name, (name,))])


def _names_of_columns(config: RunConfig, split: Split) -> tuple[str, ...]:
    """Names of the label columns where none is named."""
    ignored = set() if config.table else {choose(name, split.label_columns, "column") for name in config.ignore}
    of_lists = {own for name, names in split.lists.items() if name in split.label_columns for own in names}
    return tuple(name for name in split.label_columns if name not in ignored | of_lists)


def family_of_columns(split: Split, names: Sequence[str]) -> TaskFamily:
    """The family of some label columns: binary where all of them mean no and yes, else one of ``columns``."""
    answers = [_column_answers(split, name) for name in names]
    if all(own == NO_YES for own in answers):
        return TaskFamily.from_attributes(names)
    return TaskFamily.from_columns(names, answers)


def _column_answers(split: Split, name: str) -> tuple[str, ...]:
    return NO_YES if is_binary(split, name) else tuple(label_names(split, name))


def read_labels(config: RunConfig, split: Split, family: TaskFamily, *, needed: bool = True) -> Labelled:
    """Labels of a split. A task may have none in it, and its column may be missing.

    Args:
        config: names the columns of groups and classes.
        split: with the labels.
        family: the tasks.
        needed: there must be a label of some task.

    Raises:
        InputError: columns that hold something else; no label at all, where one is needed.
    """
    if family.kind == "classes":
        assert config.group is not None
        assert config.label is not None
        columns = [class_column(split, config.group, family.tasks), class_column(split, config.label, family.outputs)]
    else:
        columns, there = [], set(split.label_columns)
        for task, name in enumerate(family.tasks):
            if name not in there:
                columns.append(np.full(len(split), -1, np.int64))
            elif family.kind == "binary":
                columns.append(yes_no_column(split, name))
            else:
                columns.append(answer_column(split, name, family.answers(task)))
    examples = family.examples(columns)
    if needed and not len(examples):
        what = f"split {split.name!r} of {split.source!r}"
        if family.kind == "classes":
            raise InputError(f"{what} has no row with labels in both {config.group!r} and {config.label!r}")
        if not there.isdisjoint(family.tasks):
            raise InputError(f"{what} has no labels of {brief(', '.join(family.tasks))}: every cell is missing")
        raise InputError(f"{what} has no column {brief(', '.join(family.tasks))}; it has {brief(', '.join(there))}")
    return Labelled(split, examples, columns)


def without_labels(family: TaskFamily, labelled: Labelled) -> list[str]:
    """A sentence that names the tasks which have no label in a split, and so no metrics; none where all have some."""
    there = set(labelled.examples.task.unique().tolist())
    absent = [name for task, name in enumerate(family.tasks) if task not in there]
    if not absent or family.kind == "classes":
        return []
    shown = ", ".join(repr(name) for name in absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return [f"no label in split {labelled.split.name!r} for {shown}: not among its metrics"]


def cut_in(split: Split, encoder: Encoder) -> list[str]:
    """A sentence on inputs of a split that are longer than its encoder takes; none where there are none."""
    usable = [] if split.inputs is None else split.inputs.usable()
    return cut_note(encoder, encoder.cut(usable), len(split), f" of split {split.name!r}")


def deal_images(config: RunConfig, family: TaskFamily, examples: Examples) -> Partition:
    """Deal the training images out to pretraining, fine-tuning and their validation. Raises InputError for too few."""
    first_of_image, images = first_rows(examples.image)
    strata = torch.zeros_like(images) if family.kind == "binary" else examples.target[first_of_image]
    seed = config.seed if config.split_seed is None else config.split_seed
    return partition(
        images, strata, seed=derived_seed(seed, "halves"), validation_fraction=config.validation_fraction,
        disjoint=config.disjoint_halves,
    )  # fmt: skip
