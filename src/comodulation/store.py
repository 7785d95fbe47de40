"""Run folders and adapters on disk: safetensors, JSON and YAML only, nothing unpickled, nothing half-written.

Every file is written beside its final name and moved there once it is whole, so a reader finds the old file, the new
one, or none. A run folder holds config.yaml, head.safetensors (the pretrained layers), adapter.safetensors (what the
method learned, and its stored gains; tied to the fingerprints of backbone and head), predictions.parquet, report.html,
and metrics.json, written last: a folder with metrics.json is a finished run.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .backbone import hash_tensors
from .errors import InputError, RunError, brief, first_difference
from .evaluation import Predictions
from .head import ComodulatedHead
from .methods.base import Method, copy_checked
from .tasks import TaskFamily

SCHEMA = 1
CONFIG, HEAD, ADAPTER = "config.yaml", "head.safetensors", "adapter.safetensors"
PREDICTIONS, REPORT, METRICS = "predictions.parquet", "report.html", "metrics.json"
PARTIAL = ".partial"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises RunError (disk full, folder gone), leaving no partial file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder to write to. Where bad input turns up later, what was made here and is still empty goes again.

    Raises:
        InputError: it cannot be made or written to (a read-only disk, a file in its place).
    """
    made: list[Path] = []
    try:
        try:
            for path in reversed((folder, *folder.parents)):
                if not path.exists():
                    path.mkdir(exist_ok=True)
                    made.append(path)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield
    except InputError:
        with contextlib.suppress(OSError):
            for path in reversed(made):
                path.rmdir()
        raise


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed while writing left in a folder. The caller holds the folder's lock."""
    for partial in folder.glob(f".*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError for anything else."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object] | None = None) -> None:
    """Write tensors as safetensors; metadata values are stored as JSON in its header. Equal contents make equal files."""
    from safetensors.torch import save

    fields = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fields or None)
    # The library writes the fields in an order of its own, another one each time.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if fields:
        header["__metadata__"] = fields
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    write_bytes(path, len(text).to_bytes(8, "little") + text + content[8 + size :])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file. Raises InputError for anything else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
            header = handle.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {str(error).splitlines()[0]}") from error
    try:
        return tensors, {key: json.loads(value) for key, value in header.items()}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} was not written by comodulation: its header holds {brief(header)}") from error


def head_tensors(head: ComodulatedHead) -> dict[str, Tensor]:
    """The pretrained part of a head by name: layers and feature scaling, without controller and gains."""
    skipped = ("controller.", "task_gains")
    return {name: tensor for name, tensor in head.state_dict().items() if not name.startswith(skipped)}


def head_fingerprint(head: ComodulatedHead) -> str:
    """Identity of the pretrained layers an adapter belongs to."""
    return hash_tensors(head_tensors(head))


def load_head(head: ComodulatedHead, path: Path) -> None:
    """Fill a head's pretrained layers from a file. Raises InputError if they do not fit."""
    copy_checked(head_tensors(head), read_tensors(path)[0], f"{path.name} of this configuration")


def save_adapter(
    adapted: Method | ComodulatedHead, path: str | Path, *, family: TaskFamily | None = None, backbone: str = ""
) -> None:
    """Save what a method learned: kilobytes a task.

    Args:
        adapted: a fine-tuned method, or a head (its controller and stored task gains).
        path: file to write, *.safetensors.
        family: names of the tasks; a method brings its own.
        backbone: fingerprint of the backbone (``Backbone.fingerprint()``); "" leaves the adapter tied to its head alone.

    Raises:
        RunError: the file cannot be written.
    """
    head = adapted.head if isinstance(adapted, Method) else adapted
    names = adapted.family if isinstance(adapted, Method) else family
    trains_layers = isinstance(adapted, Method) and adapted.trains_layers
    metadata = {
        "schema": SCHEMA,
        "method": adapted.name if isinstance(adapted, Method) else "head",
        "family": None if names is None else names.to_json(),
        "num_tasks": head.num_tasks,
        "residual": head.residual,
        "backbone": backbone,
        # A method that trains the layers replaces them, so its adapter belongs to their shape, not to their values.
        "head": "" if trains_layers else head_fingerprint(head),
        "modulation": vars(head.modulation),
        "seed": head.seed,
        "versions": {name: version(name) for name in ("comodulation", "torch", "safetensors")},
    }
    write_tensors(Path(path), _adapter_tensors(adapted), metadata)


def load_adapter(adapted: Method | ComodulatedHead, path: str | Path, *, backbone: str = "") -> dict[str, Any]:
    """Load an adapter into the network it was made for, after checking everything about it.

    Args:
        adapted: a method or head of the same configuration, its layers already pretrained.
        path: file written by ``save_adapter``.
        backbone: fingerprint of the backbone in use; checked where both sides have one.

    Returns:
        The adapter's metadata (schema, method, family, backbone, head, modulation, seed, versions).

    Raises:
        InputError: not an adapter, a newer schema, another method, backbone, head, family or number of tasks, other
            modulation options, tensors that are missing, unknown, misshapen or not finite. Nothing is changed then.
    """
    tensors, metadata = read_tensors(Path(path))
    schema = metadata.get("schema")
    if type(schema) is not int or schema < 1:
        raise InputError(f"{path} is not an adapter: its header has no schema version")
    if schema > SCHEMA:
        raise InputError(f"{path} has schema {schema}, this release reads up to {SCHEMA}; upgrade comodulation")
    head = adapted.head if isinstance(adapted, Method) else adapted
    expected = {
        "method": adapted.name if isinstance(adapted, Method) else "head",
        "num_tasks": head.num_tasks,
        "residual": head.residual,
        "modulation": vars(head.modulation),
    }
    if isinstance(adapted, Method) and metadata.get("family") is not None:
        expected["family"] = json.loads(json.dumps(adapted.family.to_json()))  # tuples become lists, as in the file
    if backbone and metadata.get("backbone"):
        expected["backbone"] = backbone
    if metadata.get("head"):
        expected["head"] = head_fingerprint(head)
    if differing := first_difference({key: metadata.get(key) for key in expected}, expected):
        key, stored, here = differing
        raise InputError(f"{path} belongs to another {key}: it has {brief(stored)}, here is {brief(here)}")
    if isinstance(adapted, Method):
        adapted.load_adapter_tensors(tensors)
    else:
        _load_head_adapter(adapted, tensors)
    return metadata


def _adapter_tensors(adapted: Method | ComodulatedHead) -> dict[str, Tensor]:
    if isinstance(adapted, Method):
        return adapted.adapter_tensors()
    tensors = {f"controller.{name}": value for name, value in adapted.controller.state_dict().items()}
    return tensors if adapted.task_gains is None else {**tensors, "task_gains": adapted.task_gains}


def _load_head_adapter(head: ComodulatedHead, tensors: dict[str, Tensor]) -> None:
    own = {f"controller.{name}": value for name, value in head.controller.state_dict().items()}
    gains = None
    if "task_gains" in tensors:
        gains = torch.ones(head.num_tasks, head.decoder_channels, device=head.decoder.weight.device)
        own["task_gains"] = gains
    copy_checked(own, tensors, "this head")
    head.task_gains = gains


def write_predictions(path: Path, predictions: Predictions, family: TaskFamily) -> None:
    """One row per (image, task) pair as parquet: image, task, target, prediction, confidence, target_probability."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    confidence, predicted = predictions.log_probabilities.exp().max(1)
    target = predictions.log_probabilities.gather(1, predictions.target[:, None])[:, 0].exp()
    names = family.outputs if family.kind == "classes" else ("no", "yes")
    table = pa.table(
        {
            "image": predictions.image.numpy(),
            "task": [family.tasks[task] for task in predictions.task.tolist()],
            "target": [names[place] for place in predictions.target.tolist()],
            "prediction": [names[place] for place in predicted.tolist()],
            "confidence": confidence.numpy(),
            "target_probability": target.numpy(),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())
