"""A table of labels beside a folder of images: csv, tsv, parquet or xlsx, a path column, a column per task -> splits.

Read as text or as plain values, never unpickled. Rows go to train and test by the column ``split``, where there is
one; else by a hash of the image's path, so that an image is a test image for every seed and every method, and stays one
when rows are added.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, choose
from ..files import input_path
from ..tasks import NO_YES
from .folder_files import SPLITS, NamedImages, composed
from .inputs import Inputs
from .label_files import LabelTable, read_label_table
from .label_lists import Labels, certain_lists, column_and_label, has_label, labels_of, task_name
from .labels import distinct_words, means_no_and_yes, places_of
from .source import Split

TEST_SHARE = 0.2  # of the images, where nothing else says which are for testing
SPLIT_COLUMN = "split"
PATH_NAMES = ("image", "file_name", "filename", "file", "path")  # what an image column is called when no file is there

_TRIED = 100  # different cells of a column that are looked for as files


Column = tuple[
    list[str] | None, list[int | None]
]  # names of its classes (None: no and yes), each row's place among them


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
    image_column, known = _image_column(table, base, image_column)
    files, notes = _files(table, base, image_column, known, skip_missing)
    given = split_column(table) if SPLIT_COLUMN not in (answers or tasks) else None
    skipped = {image_column, *([] if given is None else [SPLIT_COLUMN])}
    others = dict.fromkeys(name for name in (*table.columns, *table.unread, *table.lists) if name not in skipped)
    if not others:
        raise InputError(f"{table.path} has no label column: only {', '.join(table.columns)}")
    found = label_columns(table, others, tasks, ignore, answers or {})
    dealt_by = [file or line for file, line in zip(files, table.lines, strict=True)]
    names = given or [held_out(name) for name in dealt_by]
    cells = [{"bytes": None, "path": None if file is None else str(base / file)} for file in files]
    splits = table_splits(str(table.path), image_column, cells, found.columns, names, found.left_out)
    said = (*table.notes, *notes, *found.notes)
    return {name: replace(split, notes=said, lists=found.lists) for name, split in splits.items()}


def pictures_of_table(path: Path) -> Iterator[Path]:
    """The pictures that a table names, row by row, whether they are there or not.

    Args:
        path: of the table. The paths in its column of pictures are relative to its folder; names without suffix or without folder
            are read where each belongs to one picture only.

    Raises:
        InputError: a table that cannot be read, without one column of pictures, or with a cell that is none.
    """
    base, table = Path(os.path.abspath(path.parent)), read_label_table(path)
    column, known = _image_column(table, base, None, "expected one, among")
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        if cell is None or not _is_name(cell):
            raise InputError(
                f"{path}, {line}: column {column!r} holds {brief(cell or '')}, expected the path of an image"
            )
        named = [] if known is None else known.files(cell)
        if len(named) > 1:
            raise InputError(f"{path}, {line}: {brief(cell)} may be {named[0]} or {named[1]} in {base}; give paths")
        yield base / (named[0] if named else cell)


def table_splits(
    source: str,
    image_column: str,
    cells: Sequence[dict[str, Any]],
    columns: Mapping[str, Column],
    names: Sequence[str],
    left_out: Mapping[str, str] | None = None,
    inputs: Inputs | None = None,
    lines: Sequence[str] = (),
) -> dict[str, Split]:
    """Splits made of rows in memory.

    Args:
        source: what messages call it.
        image_column: its name.
        cells: image cells as Hugging Face has them, N of them.
        columns: for each label column the names of its classes (None: no and yes) and N places among them, None where missing.
        names: split of each row.
        left_out: columns that hold no labels, and why not.
        inputs: N of them, in the place of image cells.
        lines: where the rows are in their file, for messages, N of them; or none.
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
            splits[name] = Split(
                source, name, made, image_column, left_out=dict(left_out or {}), inputs=taken, lines=places
            )
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


# ---- cells -> images, labels, splits ----


def _image_column(
    table: LabelTable, base: Path, given: str | None, advice: str = "name the one with --set image_column=NAME, of"
) -> tuple[str, NamedImages | None]:
    """The column of images, and the images below the folder by name where its cells are names and not paths."""
    columns = {given: table.columns[choose(given, table.columns, "image column")]} if given else table.columns
    tried = {name: [cell for cell in dict.fromkeys(cells) if cell][:_TRIED] for name, cells in columns.items()}
    found = [name for name, cells in tried.items() if any(_is_name(cell) and (base / cell).is_file() for cell in cells)]
    if len(found) == 1:
        return found[0], None
    known = NamedImages(base)
    # Where no file is found at all, a telling name lets the message say which are missing. Elsewhere names of images stand for
    # one row each, which numbers that happen to be names of images (an age, a sender) seldom do.
    telling = [name for name in columns if name == given or name.lower() in PATH_NAMES][:1]
    single = [name for name, cells in columns.items() if len(set(cells)) == len(cells)]
    found = found or telling or [name for name in single if any(known.files(cell) for cell in tried[name])]
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns ({', '.join(found)})"
        raise InputError(
            f"{table.path} has {what} of paths to files in {base}{known.example()}; {advice} {', '.join(table.columns)}"
        )
    return found[0], known


def _is_name(cell: str) -> bool:
    """Whether the system can be asked for a file of this name."""
    return "\0" not in cell and all(len(os.fsencode(part)) < 256 for part in cell.split("/")) and len(cell) < 2048


def _files(
    table: LabelTable, base: Path, column: str, known: NamedImages | None, skip_missing: bool
) -> tuple[list[str | None], list[str]]:
    """Path of each row's image relative to the folder, None where the cell is empty; and what to say of them."""
    files: list[str | None] = []
    spelled = known
    first_line: dict[str, str] = {}
    missing: list[tuple[str, str]] = []
    by_name: list[tuple[str, str]] = []
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        where = f"{table.path}, {line}"
        if cell is None:
            if not skip_missing:
                raise InputError(f"{where}: column {column!r} is empty, expected the path of an image")
            files.append(None)
            missing.append((where, ""))
            continue
        relative = os.path.relpath(os.path.normpath(base / cell), base) if "\0" not in cell else cell
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise InputError(f"{where}: {brief(cell)} is outside the folder {base}")
        if known and len(named := known.files(cell)) > 0:
            if len(named) > 1:
                raise InputError(f"{where}: {brief(cell)} may be {named[0]} or {named[1]} in {base}; give paths")
            if relative != named[0]:
                by_name.append((cell, named[0]))
            relative = named[0]
        found = _is_name(cell) and (base / relative).is_file()
        if not found and not cell.isascii():
            spelled = spelled or NamedImages(base)
            if other := spelled.spelling(Path(relative).as_posix()):
                relative, found = other, True
        if relative in first_line:
            raise InputError(f"{where}: image {brief(cell)} is listed twice, also on {first_line[relative]}")
        first_line[relative] = line
        if not found:
            missing.append((where, cell))
        files.append(Path(relative).as_posix())
    there = len(files) - len(missing)
    if missing and not (skip_missing and there):
        where, cell = missing[0]
        more = "; --skip-bad leaves their rows out" if there else (known or NamedImages(base)).example()
        raise InputError(
            f"{len(missing)} of {len(files)} images are not in {base}; first {brief(cell)} ({where}){more}"
        )
    notes = []
    if by_name:
        cell, file = by_name[0]
        notes.append(
            f"column {column!r} names {len(by_name)} images without their folder or suffix: {brief(file)} in {base} for "
            f"{brief(cell)}"
        )
    if missing:
        where, cell = missing[0]
        notes.append(
            f"{len(missing)} of {len(files)} rows are left out: their images are not in {base}, first {brief(cell)} ({where})"
        )
    return files, notes


@dataclass
class _Found:
    """Label columns; those that hold no labels, and why; tasks by column of lists; what to say of them."""

    columns: dict[str, Column] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, column: Column, what: str) -> None:
        if name in self.columns:
            raise InputError(
                f"{what}: two columns would be named {name!r}, one of them made from a column of lists; rename one"
            )
        self.columns[name] = column


def label_columns(
    table: LabelTable,
    others: Mapping[str, None],
    tasks: Sequence[str],
    ignore: Sequence[str],
    answers: Mapping[str, Sequence[str]],
) -> _Found:
    """The columns that are asked for, read; and those left out that nobody asked for by name, with what they hold instead."""
    what, path = f"column of {table.path.name}", str(table.path)
    lists = {name: cells for name, cells in table.lists.items() if name in others}
    found = _Found()

    def labels_in(column: str) -> Sequence[Labels]:
        return lists[column] if column in lists else certain_lists(table.columns[column])

    of_lists = lists | {name: [] for name in others if name in table.columns}
    if answers:
        for name, own in answers.items():
            if name in others:
                found.add(name, _labels(table, name, own), path)
            elif place := column_and_label(name, of_lists):
                found.add(name, (None, has_label(labels_in(place[0]), place[1])), path)
        if not found.columns:
            choose(next(iter(answers)), others, what)
        return found
    ignored = set(_chosen(ignore, others, what))
    for name in tasks or [name for name in others if name not in ignored]:
        try:
            if name in lists:
                labels, notes = labels_of(name, lists[name], path)
                new: dict[str, Column] = {task_name(name, one): (None, has_label(lists[name], one)) for one in labels}
                found.lists[name] = tuple(new)
                found.notes += notes
            elif name not in others and (place := column_and_label(name, of_lists)):
                column, label = place
                choose(label, {one: None for cell in labels_in(column) if cell for one in cell}, f"label of {column!r}")
                new = {name: (None, has_label(labels_in(column), label))}
            else:
                new = {name: _labels(table, choose(name, others, f"task ({what})"))}
        except InputError as error:
            if tasks:
                raise
            found.left_out[name] = str(error)
            continue
        for own, values in new.items():
            found.add(own, values, path)
    if not found.columns:
        only = next(iter(found.left_out.values()), f"--ignore leaves none of {', '.join(others)}")
        raise InputError(f"{table.path} has no label column that can be read: {only}")
    return found


def _chosen(names: Sequence[str], known: Mapping[str, None], what: str) -> list[str]:
    return [name if name in known else choose(name, known, what) for name in names]


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
