"""Values of a configuration before they are checked: nested, under dotted keys, from a file, from flags and from `--set`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, choose, reason_of
from ..mathematics import Modulation
from ..networks.methods import METHODS
from .config import RunConfig, options_of, output_of, parse_yaml, read_values

_WHAT = "key of the configuration"
OPTIONS = "options"  # the section whose keys each method has of its own


def known_keys(owner: Any = RunConfig) -> list[str]:
    """All keys of a configuration, such as ``seed`` and ``head.dropout``, in the order in which they are written."""
    keys = []
    for name, kind in options_of(owner).items():
        keys += [f"{name}.{key}" for key in known_keys(kind)] or [name]
    return keys


def read_settings(path: Path) -> dict[str, Any]:
    """The values of a configuration file, which may leave some out.

    Raises:
        InputError: a file that cannot be read, or a key that is not known: one line that names the file.
    """
    values, known = read_values(path), known_keys()
    first = list(dict.fromkeys(key.partition(".")[0] for key in known))
    for name, value in values.items():
        inside = [key for key in known if key.startswith(f"{name}.")]
        try:
            choose(str(name), first, _WHAT)
            for each in value if inside and isinstance(value, dict) else ():
                choose(f"{name}.{each}", inside, _WHAT)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return values


def parse_setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE: a known key, and its value as YAML reads it. Raises InputError: one line with the nearest known key.

    >>> parse_setting("head.dropout=0.1"), parse_setting("tasks=[age, size]")
    (('head.dropout', 0.1), ('tasks', ['age', 'size']))
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"--set {brief(text)} is not KEY=VALUE")
    if not key.startswith(f"{OPTIONS}."):
        choose(key, known_keys(), _WHAT)
    try:
        return key, parse_yaml(value)
    except Exception as error:  # as of a file: PyYAML lets through what its constructors raise
        raise InputError(f"--set {key}: {brief(value)} cannot be read as YAML: {reason_of(error)}") from error


def with_settings(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others in their place.

    Args:
        values: as a file holds them; not changed. settings: by dotted key.

    Raises:
        InputError: the values hold something else where a section is expected.
    """
    found = copy.deepcopy(dict(values))
    for key, value in settings.items():
        section, owner = found, ""
        *above, name = key.split(".", 1)
        for owner in above:
            section = section.setdefault(owner, {})
        if not isinstance(section, dict):
            raise InputError(f"{owner}: expected a section of keys, got {brief(section)}")
        section[name] = value
    return found


def of_method(values: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The values of a run for another method: what its own method decided is left to be decided anew.

    >>> of_method({"method": "comodulation", "tuning": {"epochs": 3, "learning_rate": 0.12}}, "attention")
    {'method': 'attention', 'tuning': {'epochs': 3}}
    """
    found = copy.deepcopy(dict(values))
    before, found["method"] = found.get("method"), method
    if before == method or not isinstance(before, str) or before not in METHODS:
        return found
    # Of the mechanism: what the one or the other has otherwise than others do.
    usual = {**dataclasses.asdict(Modulation()), **METHODS[before].modulation}
    mechanism = {name: usual[name] for name in (*METHODS[before].modulation, *METHODS[method].modulation)}
    decided: dict[str, dict[str, Any]] = {
        "backbone": {"output": output_of(before)},
        "tuning": {"learning_rate": METHODS[before].default_learning_rate},
        "modulation": mechanism,
    }
    for section, keys in decided.items():
        for name, value in keys.items():
            if isinstance(found.get(section), dict) and found[section].get(name) == value:
                del found[section][name]
    return found
