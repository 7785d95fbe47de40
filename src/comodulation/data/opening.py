"""Data by name: a folder of parquet files, of sorted images or of images with metadata, or a Hugging Face data set -> splits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError, choose
from ..files import input_path
from .folder_files import folder_files
from .folders import sorted_images
from .given_tables import InputReader, given_splits, inputs_of_dataset
from .hub import hub_or_offline
from .label_files import is_table
from .metadata_folders import metadata_splits
from .source import Split
from .table_files import FORMATS, first_line, load_tables, split_files
from .vectors import ARRAY_FILES

_TABLES = (
    "; of a table of texts or embeddings, --text or --embeddings names their column; one of images is given with --labels, and "
    "their folder with --data"
)
_TEXT = (".csv", ".tsv", ".json", ".jsonl")  # beside images they may be anything

Opener = Callable[[], Split]
Maker = Callable[[str, str, Any, Path | None], Split]  # source, name, table, folder


def find_splits(
    source: str | Path, *, image_column: str | None = None, reader: InputReader | None = None
) -> dict[str, Opener]:
    """What opens each split of a data set, by the split's name.

    Args:
        source: a folder, or the id of a Hugging Face data set. A folder holds tables (parquet, arrow, csv, JSON) with a column of
            images, folders of images, or images with metadata.csv, .jsonl or .parquet.
        image_column: of a table; None finds the one image column.
        reader: of inputs that are no images; the data are tables then. Where they have one split, ``train``, it is dealt out as
            ``given_splits`` says.

    Raises:
        InputError: no such folder or data set, or one that holds none of these.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    source = str(source)
    path = input_path(source)
    make: Maker = partial(_of_images, image_column) if reader is None else partial(_of_given, reader)
    if path.is_dir() and reader is not None:
        return _dealt(_of_tables(source, path.resolve(), make))
    if path.is_dir():
        return _of_folder(source, path.resolve(), image_column, make)
    if path.exists():
        if Path(source).suffix.lower() in ARRAY_FILES:
            raise InputError(
                f"{source} holds no labels; give them with --labels: a table with a row for each of its rows"
            )
        given = "" if reader is not None or not is_table(source) else _TABLES
        raise InputError(
            f"data {source!r} is a file; give the folder that holds it, or a Hugging Face dataset id{given}"
        )
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"no such data folder: {source!r}")
    found = _of_hub(source, make)
    return found if reader is None else _dealt(found)


def available_splits(source: str | Path) -> list[str]:
    """Names of the splits of a data set, without reading its images. Raises InputError as ``find_splits``."""
    return list(find_splits(source))


def open_split(source: str | Path, split: str, *, image_column: str | None = None) -> Split:
    """Open one split.

    Args:
        source: as for ``find_splits``.
        split: train, test, ...
        image_column: None finds the one image column.

    Raises:
        InputError: no such folder, data set, split or column, a split without rows, no or several image columns, a column of
            numbers.
    """
    found = find_splits(source, image_column=image_column)
    return found[choose(split, found, f"split of {source}")]()


def _of_folder(source: str, base: Path, image_column: str | None, make: Maker) -> dict[str, Opener]:
    files = folder_files(base)
    found = metadata_splits(source, base, files)
    # A table deeper in a folder of images is something that lies there, not the data.
    tables = None if found else split_files(base, [file for file in files if _may_be_data(file)])
    if not found and (tables is None or tables[0] in _TEXT):
        found = sorted_images(source, base, files)
        tables = None if found else split_files(base, files)
    if found:
        return {name: partial(_with_column, split, image_column) for name, split in found.items()}
    if tables is None:
        raise InputError(
            f"cannot read data {source!r}: it holds no parquet files, no images in folders of classes, and no images with a "
            "metadata.csv"
        )
    return _of_table_files(source, base, tables, make)


def _of_tables(source: str, base: Path, make: Maker) -> dict[str, Opener]:
    """Splits of the tables of a folder, whatever else lies there."""
    files = folder_files(base)
    tables = split_files(base, [file for file in files if _may_be_data(file)]) or split_files(base, files)
    if tables is None:
        raise InputError(f"cannot read data {source!r}: it holds no table ({', '.join(FORMATS)})")
    return _of_table_files(source, base, tables, make)


def _may_be_data(file: PurePath) -> bool:
    """Whether a file is in the folder itself or in its ``data/``, where repositories of the hub have their tables."""
    return file.parts[:-1] in ((), ("data",))


def _with_column(split: Split, image_column: str | None) -> Split:
    """A split as it is; raises InputError for another image column than its own."""
    if image_column is not None:
        choose(image_column, [split.image_column], "image column")
    return split


def _of_table_files(
    source: str, base: Path, tables: tuple[str, dict[str, list[str]]], make: Maker
) -> dict[str, Opener]:
    suffix, by_split = tables

    def opened(name: str) -> Split:
        table = load_tables(f"split {name!r} of {source!r}", {name: by_split[name]}, suffix)[name]
        return _of_table(source, name, table, base, make)

    return {name: partial(opened, name) for name in by_split}


def _dealt(found: dict[str, Opener]) -> dict[str, Opener]:
    """Openers as they are; of data that say no splits, those of the splits that they are dealt to."""
    if list(found) != ["train"]:
        return found
    return {name: partial(_with_column, split, None) for name, split in given_splits(found["train"]()).items()}


def _of_hub(source: str, make: Maker) -> dict[str, Opener]:
    import datasets

    try:
        with hub_or_offline():
            names = [str(name) for name in datasets.get_dataset_split_names(source)]
    except Exception as error:  # the loader raises whatever it meets
        raise InputError(
            f"cannot read data {source!r}: no such folder; as a data set of the Hugging Face hub: {first_line(error)}"
        ) from error

    def opened(name: str) -> Split:
        try:
            with hub_or_offline():
                table = datasets.load_dataset(source, split=name)
        except Exception as error:
            raise InputError(f"cannot read split {name!r} of {source!r}: {first_line(error)}") from error
        return _of_table(source, name, table, None, make)

    return {name: partial(opened, name) for name in names}


def _of_table(source: str, name: str, table: Any, folder: Path | None, make: Maker) -> Split:
    """A split of a table that `datasets` has read."""
    if len(table) == 0:
        raise InputError(f"split {name!r} of {source!r} is empty")
    return make(source, name, table, folder)


def _of_given(reader: InputReader, source: str, name: str, table: Any, folder: Path | None) -> Split:
    inputs, column = inputs_of_dataset(table, source, reader)
    return Split(source, name, table.remove_columns(column), "", inputs=inputs)


def _of_images(image_column: str | None, source: str, name: str, table: Any, folder: Path | None) -> Split:
    """A split of a table with a column of images; None finds it."""
    import datasets

    if image_column is None:
        image_column = _only_image_column(table, source)
    feature = table.features[choose(image_column, table.column_names, "image column")]
    # `datasets` would make a picture of numbers, too: of an embedding one that is a pixel high.
    text = isinstance(feature, datasets.Value) and feature.dtype.removeprefix("large_") in ("binary", "string")
    if not text and not isinstance(feature, (datasets.Image, dict)):
        kind = feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
        raise InputError(
            f"column {image_column!r} of {source!r} does not hold images: it holds {kind}, expected encoded images or paths "
            f"of files (a column of embeddings: --embeddings {image_column}; arrays of pixels are not read)"
        )
    try:
        table = table.cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:
        raise InputError(f"column {image_column!r} of {source!r} does not hold images: {first_line(error)}") from error
    return Split(source, name, table, image_column, folder)


def _only_image_column(table: Any, source: str) -> str:
    """The column of images by its type, or else by its name. Raises InputError where there is not one."""
    import datasets

    images = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
    images = images or [column for column in ("image", "img") if column in table.column_names]
    if len(images) != 1:
        found = f"{len(images)} image columns ({', '.join(images)})" if images else "no image column"
        raise InputError(
            f"{source!r} has {found}; name one with --set image_column=NAME, of {', '.join(table.column_names)}"
        )
    return str(images[0])
