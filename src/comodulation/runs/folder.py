"""Run folders and adapters on disk: safetensors, JSON and YAML only, nothing unpickled, nothing half-written.

Every file is written beside its final name and moved there once it is whole, so a reader finds the old file, the new
one, or none. A run folder holds config.yaml, head.safetensors (the pretrained layers), adapter.safetensors (what the
method learned, and its stored gains; tied to the fingerprints of backbone and head), predictions.parquet, classes.csv,
confusions.csv, report.html, and metrics.json, written last: a folder with metrics.json is a finished run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..evaluation import Predictions
from ..files import safetensors_header
from ..networks import ComodulatedHead
from ..tasks import TaskFamily
from ..tensors import copy_checked, read_metadata, read_tensors
from .answered import Answered, StoredAnswers
from .plain_tables import write_parquet

CONFIG, HEAD, ADAPTER = "config.yaml", "head.safetensors", "adapter.safetensors"
PREDICTIONS, REPORT, METRICS = "predictions.parquet", "report.html", "metrics.json"
CLASSES, CONFUSIONS = "classes.csv", "confusions.csv"


def network_hash(folder: Path) -> str:
    """sha256 of what a run's network is, its layers and its adapter."""
    digest = hashlib.sha256()
    for name in (HEAD, ADAPTER):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def load_head(head: ComodulatedHead, path: Path) -> None:
    """Fill a head's pretrained layers from a file. Raises InputError if they do not fit."""
    copy_checked(head.pretrained_tensors(), read_tensors(path)[0], f"{path.name} of this configuration")


def feature_channels(path: Path) -> int | None:
    """Channels of the features that the stored layers of a head take, by the file's header alone; None where it does not say."""
    read_metadata(path)  # which refuses what is no such file
    shape = json.loads(safetensors_header(path)).get("feature_mean", {}).get("shape")
    return shape[0] if shape else None


def run_folders(folder: Path) -> list[Path]:
    """The folder itself, if it is a run's, or the runs of several methods in it; none of another folder."""
    if (folder / CONFIG).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []


def write_predictions(path: Path, answered: Answered) -> None:
    """One row per (image, task) pair as parquet: image, file, task, target, prediction, confidence, target_probability, and what
    logistic regression alone answers, linear_prediction and linear_confidence, empty where that is not known.

    Args:
        path: of the file. answered: predictions of M pairs; of files and of the probe, if they are known.
    """
    import pyarrow as pa

    predictions, family, files, linear = answered.predictions, answered.family, answered.files, answered.linear
    assert isinstance(predictions, Predictions)
    target = predictions.log_probabilities.gather(1, predictions.target[:, None])[:, 0].exp()
    names = family.targets
    rows = predictions.image.tolist()
    unknown = [None] * len(rows)
    columns = {
        "image": predictions.image.numpy(),
        "file": pa.array(unknown if files is None else [files[row] for row in rows], pa.string()),
        "task": [family.tasks[task] for task in predictions.task.tolist()],
        "target": [names[place] for place in predictions.target.tolist()],
        "prediction": [names[place] for place in predictions.answers.tolist()],
        "confidence": predictions.confidence.numpy(),
        "target_probability": target.numpy(),
        "linear_prediction": pa.array(
            unknown if linear is None else [names[place] for place in linear.answers.tolist()], pa.string()
        ),
        "linear_confidence": pa.array(unknown if linear is None else linear.confidence.tolist(), pa.float64()),
    }
    write_parquet(path, pa.table(columns))


def read_predictions(path: Path, family: TaskFamily) -> Answered:
    """The inverse of ``write_predictions``, as far as the file goes: pictures stay with the data.

    Raises:
        InputError: the file cannot be read, or names other tasks or classes than the family has.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path).to_pydict()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    wanted = ("image", "task", "target", "prediction", "confidence")
    if missing := [name for name in wanted if name not in table]:
        raise InputError(f"{path} is damaged: it has no column {missing[0]!r}")
    places = [_places(family, task) for task in range(family.num_tasks)]
    tasks = [family.task_id(name) for name in table["task"]]

    def answers(column: str) -> Tensor:
        try:
            found = [places[task][name] for task, name in zip(tasks, table[column], strict=True)]
        except KeyError as error:
            raise InputError(f"{path} is damaged: {column} {error} is none of its task's classes") from error
        return torch.tensor(found, dtype=torch.int64)

    image, task, target = torch.tensor(table["image"], dtype=torch.int64), torch.tensor(tasks), answers("target")
    confidence = torch.tensor(table["confidence"], dtype=torch.float64)
    given = StoredAnswers(image, task, target, answers("prediction"), confidence)
    linear = None
    if None not in table.get("linear_prediction", [None]):
        confidence = torch.tensor(table["linear_confidence"], dtype=torch.float64)
        linear = StoredAnswers(image, task, target, answers("linear_prediction"), confidence)
    files: list[str | None] = [None] * (1 + max(table["image"], default=0))
    for row, name in zip(table["image"], table.get("file", [None] * len(tasks)), strict=True):
        files[row] = name
    return Answered(given, family, files, linear=linear)


def _places(family: TaskFamily, task: int) -> dict[str, int]:
    """The targets that a task may be answered with by name, its own and, of groups of classes, those of other groups."""
    everything = {name: place for place, name in enumerate(family.targets)} if family.kind == "classes" else {}
    return everything | dict(zip(family.answers(task), family.own_targets(task), strict=True))
