"""Where a command's inputs and labels are: what `--data`, `--labels`, `--embeddings`, `--text` and `--backbone` say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .shared import flag


def given_inputs(flags: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Flags in the place of those that were given: of embeddings and texts, sections of a configuration; else none.

    Args:
        flags: by name; None: not given. stored: values of a file of settings.

    Raises:
        InputError: flags that do not go together, or none that says where the inputs are.
    """
    text, embeddings, encoder = flags["text"], flags["embeddings"], flags["backbone"]
    if text is not None and embeddings is not None:
        raise InputError("give either --text or --embeddings: a run has inputs of one kind")
    if text is not None:
        _refuse_of_images(flags, ("weights", "image_size"), "the model of texts is --backbone")
        return {**_texts(text, flags, stored), "backbone": None}
    if embeddings is not None:
        _refuse_of_images(flags, ("backbone", "weights", "image_size"), "embeddings have no encoder: leave it out")
        return _embeddings(embeddings, flags, stored)
    if encoder is not None and isinstance(stored.get("text"), dict):  # of the texts that the file names
        return {"text": {**stored["text"], "name": encoder}, "backbone": None}
    return {}


def _refuse_of_images(flags: Mapping[str, Any], names: tuple[str, ...], advice: str) -> None:
    """Raises InputError where one of these options, which are of images, was given; ``advice`` ends its message."""
    for name in names:
        if flags[name] is not None:
            raise InputError(f"{flag(name)} {flags[name]} is of images; {advice}")


def _texts(column: str, flags: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    from ...data import is_table

    data, labels = flags["data"], flags["labels"]
    if data is None and labels is None and "data" not in stored:
        raise InputError(f"--text {column!r} names a column; give its table with --data")
    if labels is not None and (data is None or is_table(labels)):  # the table of labels holds the texts
        data, labels = labels, None
    section = {"column": column, **({} if flags["backbone"] is None else {"name": flags["backbone"]})}
    return {"data": data, "labels": labels, "text": section}


def _embeddings(embeddings: str, flags: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    from ...data import is_folder_of_vectors, is_table
    from ...files import input_path

    data, labels = flags["data"], flags["labels"]
    path = input_path(embeddings)
    if path.is_file() or (data is None and is_folder_of_vectors(path)):
        if data is not None:
            raise InputError(
                f"--embeddings names the file {embeddings!r}; leave --data out, --labels names the table of labels"
            )
        return {"data": embeddings, "labels": labels, "embeddings": {}}
    if data is None and labels is None and "data" not in stored:
        if path.suffix or "/" in embeddings:
            raise InputError(f"no such file of embeddings: {embeddings!r}")
        raise InputError(f"--embeddings {embeddings!r} names a column; give its table with --data")
    if labels is not None and (data is None or is_table(data)):  # the table of labels holds the embeddings
        data, labels = labels, None
    return {"data": data, "labels": labels, "embeddings": {"column": embeddings}}
