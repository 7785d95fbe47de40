"""Adapters on disk: what a method learned, kilobytes a task, tied to the fingerprints of the layers it belongs to."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..errors import InputError, brief, first_difference
from ..tasks import TaskFamily
from ..tensors import read_tensors, write_tensors

SCHEMA = 1


class Adapted(Protocol):
    """Something an adapter is saved from and loaded into: a method, a head, a model with modulated layers."""

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the network it is loaded into must agree in, as JSON."""

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What distinguishes the adapted network from its frozen one, by name."""

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse. Raises InputError for tensors that do not fit, and changes nothing then."""


def save_adapter(adapted: Adapted, path: str | Path, *, family: TaskFamily | None = None, backbone: str = "") -> None:
    """Save what was learned: kilobytes a task.

    The header says, as JSON: schema version, what the adapter belongs to (``adapter_identity``: for a method its name, tasks with
    the names and members of their outputs, the modulator's standard deviation and the other options, the head's fingerprint), the
    seed of the modulator's noise, the backbone's fingerprint and the versions of the libraries.

    Args:
        adapted: a fine-tuned method, a head (its controller and stored task gains), or anything else with the three methods of
            ``Adapted``.
        path: file to write, *.safetensors.
        family: names of the tasks; a method brings its own.
        backbone: fingerprint of the backbone (``Backbone.fingerprint()``); "" leaves the adapter tied to its head alone.

    Raises:
        RunError: the file cannot be written.
    """
    identity = adapted.adapter_identity()
    metadata = {
        "schema": SCHEMA,
        "family": None if family is None else family.to_json(),
        **identity,
        "backbone": backbone,
        "seed": _noise_seed(adapted),
        "versions": {name: version(name) for name in ("comodulation", "torch", "safetensors")},
    }
    write_tensors(Path(path), adapted.adapter_tensors(), metadata)


def _noise_seed(adapted: Adapted) -> int | None:
    """Seed of the modulator's noise; a method's is its head's. Not part of the identity: predictions may take another."""
    return getattr(getattr(adapted, "head", adapted), "seed", None)


def load_adapter(adapted: Adapted, path: str | Path, *, backbone: str = "") -> dict[str, Any]:
    """Load an adapter into the network it was made for, after checking everything about it.

    Args:
        adapted: of the same configuration, its layers already pretrained.
        path: file written by ``save_adapter``.
        backbone: fingerprint of the backbone in use; checked where both sides have one.

    Returns:
        The adapter's metadata; see ``save_adapter``.

    Raises:
        InputError: not an adapter, a newer schema, another method, backbone, head, family or number of tasks, other
            modulation options, tensors that are missing, unknown, misshapen or not finite. Nothing is changed then.
    """
    tensors, metadata = read_tensors(Path(path))  # what is damaged is called so, not something else's
    schema = metadata.get("schema")
    if type(schema) is not int or schema < 1:
        raise InputError(f"{path} is not an adapter: its header has no schema version")
    if schema > SCHEMA:
        raise InputError(f"{path} has schema {schema}, this release reads up to {SCHEMA}; upgrade comodulation")
    expected = json.loads(json.dumps(adapted.adapter_identity()))  # tuples become lists, as in the file
    if metadata.get("family") is None:
        expected.pop("family", None)
    if backbone and metadata.get("backbone"):
        expected["backbone"] = backbone
    if differing := first_difference({key: metadata.get(key) for key in expected}, expected):
        key, stored, here = differing
        raise InputError(f"{path} belongs to another {key}: it has {brief(stored)}, here is {brief(here)}")
    adapted.load_adapter_tensors(tensors)
    return metadata
