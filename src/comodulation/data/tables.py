"""A table of labels beside a folder of images: csv, tsv, parquet or xlsx, a path column, a column per task -> splits.

Read as text or as plain values, never unpickled. Rows go to train and test by the column ``split``, where there is
one; else by a hash of the image's path, so that an image is a test image for every seed and every method, and stays one
when rows are added.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, choose
from ..files import input_path
from ..tasks import NO_YES
from .folder_files import SPLITS, composed
from .image_columns import find_image_column, image_files
from .label_files import LabelTable, read_label_table
from .label_lists import Labels, certain_lists, column_and_label, has_label, labels_of, task_name
from .labels import distinct_words, means_no_and_yes, places_of
from .source import Split
from .texts import Texts
from .vectors import Vectors

TEST_SHARE = 0.2  # of the images, where nothing else says which are for testing
SPLIT_COLUMN = "split"

# Names of its classes (None: no and yes), and each row's place among them.
Column = tuple[list[str] | None, list[int | None]]


def label_table_splits(
    labels: str | Path,
    folder: str | Path,
    image_column: str | None = None,
    tasks: Sequence[str] = (),
    *,
    ignore: Sequence[str] = (),
    answers: Mapping[str, Sequence[str]] | None = None,
    skip_missing: bool = False,
) -> dict[str, Split]:
    """The splits of a folder of images and its table of labels.

    Args:
        labels: the table; where there is no such file, one of this name in ``folder``.
        folder: of the images; the table's paths are relative to it. A column of names without suffix or without folder is read
            where each belongs to one image only.
        image_column: the column of paths; None finds it.
        tasks: the label columns; none takes all columns but paths and splits, and leaves out those that hold no labels.
        ignore: columns that are not read, where ``tasks`` names none.
        answers: the answers of tasks that are known, as of a run, by column. Of these columns, those that the table has are
            read, with these answers as their classes.
        skip_missing: keep rows whose image is not there, as rows whose image cannot be read, where other images are there.

    Returns:
        By name ``train`` and, where there are such rows, ``test`` and ``validation``. Label columns are integers 0 and 1 for
        no and yes (0/1, -1/1, false/true, no/yes), else ClassLabels whose classes are those of the whole table. A column with
        several labels in a cell is a column of no and yes for each label, COLUMN=LABEL. What was left out, and why, is each
        split's ``left_out``.

    Raises:
        InputError: a file, column or cell that is not what it should be; it names the first.
    """
    base = input_path(folder)
    if not base.is_dir():
        raise InputError(f"no such data folder: {folder!r}; with --labels, --data is the folder of the images")
    base = Path(os.path.abspath(base))
    path = input_path(labels)
    table = read_label_table(path if path.exists() or not (base / labels).exists() else base / labels)
    images = find_image_column(table, base, image_column)
    files, notes = image_files(table, images, skip_missing)
    found = label_columns(table, {images.name}, tasks, ignore, answers or {})
    dealt_by = [file or line for file, line in zip(files, table.lines, strict=True)]
    names = found.splits or [held_out(name) for name in dealt_by]
    cells = [{"bytes": None, "path": None if file is None else str(base / file)} for file in files]
    return table_splits(str(table.path), images.name, cells, found.columns, names, **found.about(notes))


def table_splits(
    source: str,
    image_column: str,
    cells: Sequence[dict[str, Any]],
    columns: Mapping[str, Column],
    names: Sequence[str],
    *,
    inputs: Texts | Vectors | None = None,
    lines: Sequence[str] = (),
    **about: Any,
) -> dict[str, Split]:
    """Splits made of rows in memory.

    Args:
        source: what messages call it.
        image_column: its name.
        cells: image cells as Hugging Face has them, N of them.
        columns: for each label column the names of its classes (None: no and yes) and N places among them, None where missing.
        names: split of each row.
        inputs: N of them, in the place of image cells.
        lines: where the rows are in their file, for messages, N of them; or none.
        about: ``left_out``, ``notes`` and ``lists`` of each split.
    """
    import datasets
    import pyarrow as pa

    check_text(source, [image_column, *columns, *(cell["path"] or "" for cell in cells)])
    features: dict[str, Any] = {} if inputs is not None else {image_column: datasets.Image(decode=False)}
    for name, (classes, _) in columns.items():
        check_text(source, classes or ())
        features[name] = datasets.Value("int64") if classes is None else datasets.ClassLabel(names=classes)
    info = datasets.DatasetInfo(features=datasets.Features(features))
    images = [] if inputs is not None else [pa.array(cells, features[image_column].pa_type)]
    whole = pa.table([*images, *(pa.array(values, pa.int64()) for _, values in columns.values())], names=list(features))
    splits = {}
    for name in dict.fromkeys(SPLITS.values()):
        if own := [row for row, split in enumerate(names) if split == name]:
            # Made of the table as it is: `from_dict` looks at all features again for each of them.
            made = datasets.Dataset(whole.take(own), info=info, fingerprint=secrets.token_hex(8))
            taken = None if inputs is None else inputs.take(own)
            places = tuple(lines[row] for row in own) if lines else ()
            splits[name] = Split(source, name, made, image_column, inputs=taken, lines=places, **about)
    return splits


def check_text(source: str, names: Iterable[str]) -> None:
    """Raise InputError for a name that is no text: file systems take any bytes, tables only UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{source}: {brief(name)} is not text in UTF-8; rename it") from error


def held_out(file: str) -> str:
    """Split of an image by its path relative to the folder: test with probability TEST_SHARE, else train.

    >>> sum(held_out(f"{number}.png") == "test" for number in range(1000))
    203
    """
    number = int.from_bytes(hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return "test" if number < TEST_SHARE * 2**64 else "train"


# ---- columns of labels ----


@dataclass
class _LabelColumns:
    """What a table holds besides its inputs, as far as it was asked for.

    Attributes:
        table: the table. others: its columns that may hold labels.
        splits: of each row, where the table says them.
        columns: label columns. left_out: those that hold no labels, and why.
        lists: columns of no and yes by the column of lists that they are made of. notes: what to say of them.
    """

    table: LabelTable
    others: Mapping[str, None]
    splits: list[str] | None
    columns: dict[str, Column] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, new: Mapping[str, Column]) -> None:
        """Add columns. Raises InputError for a name that is taken."""
        for name, column in new.items():
            if name in self.columns:
                raise InputError(
                    f"{self.table.path}: two columns would be named {name!r}, one of them made from a column of lists; rename one"
                )
            self.columns[name] = column

    def about(self, notes: Iterable[str] = ()) -> dict[str, Any]:
        """What a split says of the columns, and of its inputs by ``notes``; see ``Split``."""
        said = (*self.table.notes, *notes, *self.notes)
        return {"left_out": self.left_out, "notes": said, "lists": self.lists}

    def read(self, name: str) -> dict[str, Column]:
        """A column; those that a column of lists stands for; or the one of such a column and a label, COLUMN=LABEL.

        Raises:
            InputError: no such column, or one without labels.
        """
        if name in self.others and name in self.table.lists:
            cells = self.table.lists[name]
            labels, notes = labels_of(name, cells, str(self.table.path))
            new: dict[str, Column] = {task_name(name, one): (None, has_label(cells, one)) for one in labels}
            self.lists[name] = tuple(new)
            self.notes += notes
            return new
        if name not in self.others and (place := self._list_and_label(name)):
            column, cells, label = place
            choose(label, {one: None for cell in cells if cell for one in cell}, f"label of {column!r}")
            return {name: (None, has_label(cells, label))}
        return {name: _labels(self.table, choose(name, self.others, f"task (column of {self.table.path.name})"))}

    def read_answered(self, name: str, answers: Sequence[str]) -> dict[str, Column]:
        """The column of a task whose answers are known, or the one of COLUMN=LABEL; none where it is not there."""
        if name in self.others:
            return {name: _labels(self.table, name, answers)}
        place = self._list_and_label(name)
        return {name: (None, has_label(place[1], place[2]))} if place else {}

    def _list_and_label(self, name: str) -> tuple[str, list[Labels], str] | None:
        """The column that COLUMN=LABEL names, its cells as lists, and the label."""
        table = self.table
        known = [one for one in self.others if one in table.lists or one in table.columns]
        if (place := column_and_label(name, known)) is None:
            return None
        column, label = place
        return column, table.lists[column] if column in table.lists else certain_lists(table.columns[column]), label


def label_columns(
    table: LabelTable,
    beside: Collection[str | None],
    tasks: Sequence[str],
    ignore: Sequence[str],
    answers: Mapping[str, Sequence[str]],
) -> _LabelColumns:
    """The columns that are asked for, read; and those left out that nobody asked for by name, with what they hold instead.

    Args:
        table: the table. beside: columns that hold something else than labels.
        tasks, ignore, answers: as of ``label_table_splits``.

    Raises:
        InputError: no label column; one that is asked for and not there, or holds no labels.
    """
    splits = split_column(table) if SPLIT_COLUMN not in (answers or tasks) else None
    beside = {*beside, *([] if splits is None else [SPLIT_COLUMN])}
    known = dict.fromkeys((*table.columns, *table.unread, *table.lists))
    others = {name: None for name in known if name not in beside}
    if not others:
        raise InputError(f"{table.path} has no label column: only {', '.join(known)}")
    found, what = _LabelColumns(table, others, splits), f"column of {table.path.name}"
    if answers:
        for name, own in answers.items():
            found.add(found.read_answered(name, own))
        if not found.columns:
            choose(next(iter(answers)), others, what)
        return found
    ignored = {choose(name, others, what) for name in ignore}
    for name in tasks or [name for name in others if name not in ignored]:
        try:
            new = found.read(name)
        except InputError as error:
            if tasks:
                raise
            found.left_out[name] = str(error)
        else:
            found.add(new)
    if not found.columns:
        only = next(iter(found.left_out.values()), f"--ignore leaves none of {', '.join(others)}")
        raise InputError(f"{table.path} has no label column that can be read: {only}")
    return found


def _labels(table: LabelTable, column: str, answers: Sequence[str] | None = None) -> Column:
    """A column's classes, or the ``answers`` that it is to be read by, and each row's place among them."""
    what = f"column {column!r} of {table.path}"
    if kind := table.unread.get(column):
        raise InputError(f"{what} holds {kind}, expected labels: one number or text for each row, or a list of them")
    if column not in table.columns:
        raise InputError(f"{what} holds lists of labels, expected one label in each row")
    words = [None if word is None else composed(word) for word in table.columns[column]]
    if answers is None:
        binary = means_no_and_yes({word for word in words if word is not None})
        answers = NO_YES if binary else distinct_words(words, what, table.lines.__getitem__)
    places = places_of(words, answers, what, table.lines.__getitem__)
    return None if tuple(answers) == NO_YES else list(answers), places


def split_column(table: LabelTable) -> list[str] | None:
    """The split of each row, as the column of this name says; None where there is none. Raises InputError for another word."""
    if SPLIT_COLUMN not in table.columns:
        return None
    names = []
    for line, cell in zip(table.lines, table.columns[SPLIT_COLUMN], strict=True):
        name = SPLITS.get((cell or "").lower())
        if name is None:
            raise InputError(
                f"{table.path}, {line}: split {brief(cell or '')} is unknown, expected train, test or validation "
                f"(a label of this name: --task {SPLIT_COLUMN})"
            )
        names.append(name)
    return names
