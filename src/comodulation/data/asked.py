"""The inputs for predictions: image files, texts or vectors, given from Python or found in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, brief, refusing
from ..places import in_bucket, local_copy, reached
from .folder_files import SUFFIXES
from .given_tables import InputReader, inputs_of_file
from .image_columns import pictures_of_table
from .label_files import is_table
from .pictures import decode_image
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


def pictures_in(given: Sequence[Path]) -> Iterator[Path]:
    """Files as they are given, for a folder all images in it and in its folders, in order of their names, and for a table those
    that it names, in its order; no more in memory than the names of one folder at a time.

    Hidden files, what macOS packs beside the files of an archive, and files that are no images by their name are left out.

    Raises:
        InputError: a file that is not there, a folder without images or one that cannot be read.
    """
    for path in given:
        if in_bucket(path):  # a request for each picture costs more than its answer
            raise InputError(
                f"{path}: images are read from this machine or a mounted folder; copy them, or extract their embeddings to parquet"
            )
        if path.is_dir():
            inside = _inside(path)
            if (first := next(inside, None)) is None:
                raise InputError(f"{path} holds no images; expected files that end with {', '.join(SUFFIXES)}")
            yield first
            yield from inside
        elif not path.is_file():
            raise InputError(f"no such image: {path}")
        else:
            yield from pictures_of_table(path) if is_table(path.name) else [path]


def images_in(given: Sequence[Path]) -> list[Path]:
    """All of ``pictures_in``."""
    return list(pictures_in(given))


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
        inputs, table = inputs_of_file(here, reader)
        lines = [f"row {row + 1}" for row in range(len(inputs))] if table is None else table.lines
        found += asked_inputs(inputs, str(path), lines.__getitem__)
    return found


def _inside(folder: Path) -> Iterator[Path]:
    with refusing(f"cannot list the images in {folder}", OSError), os.scandir(folder) as found:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in entries:
        if name.startswith((".", "__MACOSX")):
            continue
        path = folder / name
        if is_folder:
            yield from _inside(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _picture(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no such image: {path}")
    return decode_image(path, str(path))
