"""The inputs for predictions: image files, texts or vectors, given from Python or found in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, brief
from ..places import in_bucket, local_copy, reached
from .folder_files import SUFFIXES
from .given_tables import InputReader, id_column
from .label_files import is_table, read_label_table
from .pictures import decode_image
from .tables import pictures_of_table
from .texts import Texts
from .vectors import Vectors


@dataclass(frozen=True)
class Asked:
    """One input.

    Attributes:
        name: answers call it by this.
        read: gives it as ``Split.read`` does. Raises InputError for one that cannot be used.
    """

    name: str
    read: Callable[[], Any]


# ---- from Python ----


def asked_pictures(paths: Iterable[str | Path]) -> Iterator[Asked]:
    """Image files. Raises InputError for a single one that is no list of files, or for something else."""
    if isinstance(paths, (str, os.PathLike)):
        raise InputError(f"give a list of image files, not one: [{str(paths)!r}]")
    for row, given in enumerate(paths):
        if not isinstance(given, (str, os.PathLike)):
            raise InputError(f"image {row} is {brief(given)}, expected the path of a file")
        path = Path(given)
        yield Asked(str(path), partial(_picture, path))


def asked_texts(texts: Iterable[str]) -> Iterator[Asked]:
    """Texts. Raises InputError for a single one that is no list of texts, or for something else."""
    if isinstance(texts, str):
        raise InputError("give a list of texts, not one text")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {brief(text)}, expected a text")
        yield from asked_inputs(Texts((text,)), f"text {row}")


def asked_vectors(vectors: Any) -> Iterator[Asked]:
    """Embeddings ``(N, V)`` or ``(N, C, H, W)``: an array, a tensor, a list of them, or a frame ``(N, V)``.

    Raises:
        InputError: other shapes, or something else.
    """
    if hasattr(vectors, "columns"):  # which a frame would be iterated over
        vectors = vectors.to_numpy()
    if hasattr(vectors, "detach"):  # a tensor, of a precision that numpy may not have
        vectors = vectors.detach().cpu().float().numpy()
    for row, one in enumerate(vectors):
        try:
            values = np.asarray(one, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"embedding {row} is {brief(one)}, expected a vector of numbers") from error
        if values.ndim not in (1, 3):
            raise InputError(
                f"embedding {row} has the shape {values.shape}, expected a vector (V,) or a map (C, H, W); give rows of them"
            )
        yield from asked_inputs(Vectors(values[None]), f"embedding {row}")


def asked_inputs(inputs: Texts | Vectors, where: str, number: Callable[[int], str] = str) -> Iterator[Asked]:
    """Some inputs.

    Args:
        inputs: N of them; one alone is called ``where``.
        where: they are, for messages and in the place of names. number: of a row, as it is called there.
    """
    for row in range(len(inputs)):
        place = where if len(inputs) == 1 else f"{where}, {number(row)}"
        own = inputs.ids[row] if inputs.ids else None
        if isinstance(inputs, Texts):
            own = inputs.values[row]
        yield Asked(own or place, partial(inputs.read, row, place))


# ---- in files ----


def images_in(given: Sequence[Path]) -> list[Path]:
    """Files as they are given, for a folder all images in it and in its folders, in order of their names, and for a table those
    that it names, in its order.

    Hidden files, what macOS packs beside the files of an archive, and files that are no images by their name are left out.

    Raises:
        InputError: a file that is not there, a folder without images.
    """
    found: list[Path] = []
    for path in given:
        refuse_bucket(path)
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"no such image: {path}")
            found += pictures_of_table(path) if is_table(path.name) else [path]
            continue
        inside = [file for file in sorted(path.rglob("*")) if _is_image(file, path)]
        if not inside:
            raise InputError(f"{path} holds no images; expected files that end with {', '.join(SUFFIXES)}")
        found += inside
    return found


def inputs_in(given: Sequence[Path], reader: InputReader) -> list[Asked]:
    """The inputs of files: of tables, of files of arrays, or of a text a line.

    Args:
        given: the files. reader: finds the inputs in those that hold them in a column, as the run's data do.

    Raises:
        InputError: a file that is not there, holds no such inputs, or is of another kind.
    """
    found: list[Asked] = []
    for path in given:
        with reached(path):
            if not path.is_file():
                raise InputError(f"no such file: {path}")
        here = local_copy(path)
        table = read_label_table(here, reader.column, least=0) if is_table(path.name) else None
        inputs, column = reader.of_file(here, table)
        if table is not None and (own := id_column(table, column)) is not None:
            inputs = replace(inputs, ids=tuple(table.columns[own]))
        lines = [f"row {row + 1}" for row in range(len(inputs))] if table is None else table.lines
        found += asked_inputs(inputs, str(path), lines.__getitem__)
    return found


def refuse_bucket(path: Path) -> None:
    """Raise InputError for pictures in a bucket: a request for each of them costs more than its answer."""
    if in_bucket(path):
        raise InputError(
            f"{path}: images are read from this machine or a mounted folder; copy them, or extract their embeddings to parquet"
        )


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


def _picture(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no such image: {path}")
    return decode_image(path, str(path))
