"""Run folders and adapters on disk: safetensors, JSON and YAML only, nothing unpickled, nothing half-written.

Every file is written beside its final name and moved there once it is whole, so a reader finds the old file, the new
one, or none. A run folder holds config.yaml, head.safetensors (the pretrained layers), adapter.safetensors (what the
method learned, and its stored gains; tied to the fingerprints of backbone and head), predictions.parquet, report.html,
and metrics.json, written last: a folder with metrics.json is a finished run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .errors import InputError, RunError, brief, first_difference
from .evaluation import Predictions
from .files import PARTIAL as PARTIAL
from .files import read_bounded, safetensors_header
from .head import ComodulatedHead
from .named_tensors import copy_checked
from .tasks import TaskFamily

SCHEMA = 1
CONFIG, HEAD, ADAPTER = "config.yaml", "head.safetensors", "adapter.safetensors"
PREDICTIONS, REPORT, METRICS = "predictions.parquet", "report.html", "metrics.json"
CHECKSUM = "checksum"  # field of a safetensors header: a disk that loses a page leaves zeros, which are tensors like any others
WHOLE = "sha256:"  # begins a checksum of the whole file; those of the first release are of the tensors alone
MAX_JSON, MAX_DEPTH = 2**26, 32  # bytes, levels


class Adapted(Protocol):
    """Something an adapter is saved from and loaded into: a method, a head, a model with modulated layers."""

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the network it is loaded into must agree in, as JSON."""

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What distinguishes the adapted network from its frozen one, by name."""

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse. Raises InputError for tensors that do not fit, and changes nothing then."""


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


def json_bytes(value: object) -> bytes:
    """The content that ``write_json`` writes."""
    return (json.dumps(value, indent=2, sort_keys=False) + "\n").encode()


def write_json(path: Path, value: object) -> None:
    write_bytes(path, json_bytes(value))


def torn(path: Path, whole: bytes) -> bool:
    """Whether a file is what a power cut may leave of some content: a part of its beginning, then zeros or nothing."""
    with open(path, "rb") as file:
        found = file.read(len(whole) + 1)
    return len(found) <= len(whole) and found != whole and whole.startswith(found.rstrip(b"\0"))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError for anything else, and for one of more than 64 MiB or 32 levels."""
    try:
        return parse_json(read_bounded(path, MAX_JSON).decode())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, and for one nested deeper than 32 levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    # What parses may still be too deep to compare or to show.
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level = [child for children in inside for child in children]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return value


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object] | None = None) -> None:
    """Write tensors as safetensors; metadata values are stored as JSON in its header. Equal contents make equal files.

    The header also has the checksum of the file (that field's own digits taken as zeros), which ``read_tensors`` looks at and
    keeps to itself.
    """
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    # The library writes the fields in an order of its own, another one each time.
    size = int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8 : 8 + size]), content[8 + size :]
    blank = WHOLE + 64 * "0"
    fields = {**(metadata or {}), CHECKSUM: blank}
    header["__metadata__"] = {key: json.dumps(value) for key, value in fields.items()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    text = text.replace(blank.encode(), f"{WHOLE}{hashlib.sha256(text + values).hexdigest()}".encode())
    write_bytes(path, len(text).to_bytes(8, "little") + text + values)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file. Raises InputError for anything else, and for one of more than 4 GiB.

    The file must have the checksum it was written with. In files of the first release it is that of the tensors alone, or there is
    none, as in files of other programs.
    """
    from safetensors import SafetensorError, safe_open

    metadata = _read_header(path)
    checksum = metadata.pop(CHECKSUM, None)
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
        intact = _intact(path, checksum)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not intact:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return tensors, metadata


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same as arrays. Raises InputError also for types that NumPy does not have."""
    tensors, metadata = read_tensors(path)
    try:
        return {name: tensor.numpy() for name, tensor in tensors.items()}, metadata
    except TypeError as error:
        raise InputError(f"{path} holds tensors of a type that is not read here: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a safetensors file, without its tensors. Raises as ``read_tensors``, but for the checksum."""
    metadata = _read_header(path)
    metadata.pop(CHECKSUM, None)
    return metadata


def _intact(path: Path, checksum: object) -> bool:
    """Whether a safetensors file has the checksum that its header says, of the kind that it says."""
    header = safetensors_header(path)
    # A damaged header may have lost the field's name, or what tells the kinds apart: either is enough to ask for the checksum.
    whole = isinstance(checksum, str) and checksum.startswith(WHOLE)
    if not whole and not re.search(WHOLE.encode() + b"[0-9a-f]{64}", header):
        return checksum is None or checksum == _digest(path, b"")
    if not whole or header.count(str(checksum).encode()) != 1:
        return False
    blank = header.replace(str(checksum).encode(), (WHOLE + 64 * "0").encode())
    return checksum == WHOLE + _digest(path, blank)


def _digest(path: Path, before: bytes) -> str:
    """sha256 of some bytes and of what follows the header of a safetensors file."""
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        digest = hashlib.sha256(before)
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _read_header(path: Path) -> dict[str, Any]:
    """What the header of a safetensors file says, all of it."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        safetensors_header(path)
        with safe_open(path, "pt") as handle:
            header = handle.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        return {key: parse_json(value) for key, value in header.items()}
    except ValueError as error:
        raise InputError(f"{path} was not written by comodulation: its header holds {brief(header)}") from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable safetensors file: {(str(error).splitlines() or [''])[0]}")


def head_tensors(head: ComodulatedHead) -> dict[str, Tensor]:
    """The pretrained part of a head by name: layers and feature scaling, without controller and gains."""
    return head.pretrained_tensors()


def head_fingerprint(head: ComodulatedHead) -> str:
    """Identity of the pretrained layers an adapter belongs to."""
    return head.fingerprint()


def load_head(head: ComodulatedHead, path: Path) -> None:
    """Fill a head's pretrained layers from a file. Raises InputError if they do not fit."""
    copy_checked(head.pretrained_tensors(), read_tensors(path)[0], f"{path.name} of this configuration")


def feature_channels(path: Path) -> int | None:
    """Channels of the features that the stored layers of a head take, by the file's header alone; None where it does not say."""
    _read_header(path)
    shape = json.loads(safetensors_header(path)).get("feature_mean", {}).get("shape")
    return shape[0] if shape else None


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


def write_predictions(
    path: Path, predictions: Predictions, family: TaskFamily, files: Sequence[str | None] | None = None
) -> None:
    """One row per (image, task) pair as parquet: image, file, task, target, prediction, confidence, target_probability.

    Args:
        path: of the file. predictions: of M pairs. family: of their tasks.
        files: what the data call each image, by its number, ``Split.names``; None leaves the column empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    confidence, predicted = predictions.log_probabilities.exp().max(1)
    target = predictions.log_probabilities.gather(1, predictions.target[:, None])[:, 0].exp()
    names = family.targets
    rows = predictions.image.tolist()
    table = pa.table(
        {
            "image": predictions.image.numpy(),
            "file": pa.array([None if files is None else files[row] for row in rows], pa.string()),
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
