"""Run folders and adapters on disk: safetensors, JSON and YAML only, nothing unpickled, nothing half-written.

Every file is written beside its final name and moved there once it is whole, so a reader finds the old file, the new
one, or none. A run folder holds config.yaml, head.safetensors (the pretrained layers), adapter.safetensors (what the
method learned, and its stored gains; tied to the fingerprints of backbone and head), predictions.parquet, classes.csv,
confusions.csv, report.html, and metrics.json, written last: a folder with metrics.json is a finished run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..evaluation import Predictions
from ..files import PARTIAL as PARTIAL
from ..files import safetensors_header, write_bytes
from ..networks import ComodulatedHead
from ..tasks import TaskFamily
from ..tensors import _read_header, copy_checked, read_tensors

CONFIG, HEAD, ADAPTER = "config.yaml", "head.safetensors", "adapter.safetensors"
PREDICTIONS, REPORT, METRICS = "predictions.parquet", "report.html", "metrics.json"
CLASSES, CONFUSIONS = "classes.csv", "confusions.csv"


def load_head(head: ComodulatedHead, path: Path) -> None:
    """Fill a head's pretrained layers from a file. Raises InputError if they do not fit."""
    copy_checked(head.pretrained_tensors(), read_tensors(path)[0], f"{path.name} of this configuration")


def feature_channels(path: Path) -> int | None:
    """Channels of the features that the stored layers of a head take, by the file's header alone; None where it does not say."""
    _read_header(path)
    shape = json.loads(safetensors_header(path)).get("feature_mean", {}).get("shape")
    return shape[0] if shape else None


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

    predicted = predictions.answers
    confidence, target = (
        predictions.log_probabilities.gather(1, places[:, None])[:, 0].exp()
        for places in (predicted, predictions.target)
    )
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
