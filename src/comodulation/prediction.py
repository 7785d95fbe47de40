"""A finished run, loaded again: evaluate it on a data set, or predict images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from .backbone import Backbone
from .config import RunConfig, read_config
from .data import available_splits, open_split
from .data.source import decode_image
from .errors import InputError
from .evaluation import evaluate_predictions
from .features import extract, features_of_images
from .methods import Method
from .progress import Progress, Silent
from .session import build_head, config_method, read_labels
from .store import ADAPTER, CONFIG, HEAD, METRICS, load_adapter, load_head, read_json, read_tensors, writable
from .tasks import TaskFamily
from .tuning import Inputs, predict


@dataclass(frozen=True)
class Run:
    """A finished run folder.

    Attributes:
        folder: where it is.
        config: how it was made.
        family: its tasks.
    """

    folder: Path
    config: RunConfig
    family: TaskFamily

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run folder. Raises InputError for a folder that is not one, or is not finished."""
        if not folder.is_dir() or not (folder / CONFIG).exists():
            inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
            hint = f"; it holds the runs {', '.join(inside)}: name one of them" if inside else ""
            raise InputError(f"{folder} is not a run folder: it has no {CONFIG}{hint}")
        if not (folder / METRICS).exists():
            raise InputError(f"the run in {folder} is not finished; continue it with fit --resume")
        _, metadata = read_tensors(folder / ADAPTER)
        if not isinstance(metadata.get("family"), dict):
            raise InputError(f"{folder / ADAPTER} is not an adapter: its header names no tasks")
        return cls(folder, read_config(folder / CONFIG), TaskFamily.from_json(metadata["family"]))

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return read_json(self.folder / METRICS)

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone(self.config.backbone)

    @cached_property
    def method(self) -> Method:
        """The adapted network. Raises InputError if head or adapter do not belong to this backbone and configuration."""
        head = build_head(self.config, self.family, self.backbone.feature_shape[0])
        load_head(head, self.folder / HEAD)
        method = config_method(self.config, head, self.family)
        load_adapter(method, self.folder / ADAPTER, backbone=self.backbone.fingerprint())
        return method.eval()

    def evaluate(
        self, data: str, split: str | None, cache: Path, *, skip_bad: bool = False, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Metrics on a split, overall and per task.

        Args:
            data: folder or data set id with the run's columns; it may hold only the split asked for.
            split: None takes the run's test split.
            cache: folder of features.

        Raises:
            InputError: as for fit.
        """
        tell = progress or Silent()
        name = split or self.config.test_split
        available_splits(data)
        opened = open_split(data, name, image_column=self.config.image_column)
        labelled = read_labels(self.config, opened, self.family)
        method = self.method
        with writable(cache):
            features = extract(
                self.backbone, opened, cache, precision=self.config.precision, skip_bad=skip_bad,
                report=partial(tell.extraction, name),
            )  # fmt: skip
        bad = torch.tensor(features.bad_rows, dtype=torch.int64)
        examples = labelled.examples.take((~torch.isin(labelled.examples.image, bad)).nonzero()[:, 0])
        if not len(examples):
            raise InputError(f"split {name!r} of {data!r} has no labelled image that can be read")
        result = evaluate_predictions(
            predict(method, Inputs(method, features, examples.image.unique()), examples), self.family.tasks
        )
        return {"run": str(self.folder), "method": self.config.method, "split": name, "skipped": len(bad), **result}

    def predict(self, images: Sequence[Path], tasks: Sequence[str]) -> list[dict[str, Any]]:
        """Predictions for image files under named tasks (none: all of them).

        Returns:
            One dict per image: ``image``, and under ``tasks`` by name ``prediction``, ``confidence`` (a probability) and
            ``probabilities`` of the task's own classes (or yes and no), in falling order.

        Raises:
            InputError: an unknown task; BadImageError: an image that cannot be read.
        """
        ids = [self.family.task_id(name) for name in tasks] or list(range(self.family.num_tasks))
        pixels = torch.stack([self.backbone.preprocess(decode_image(_file(path), str(path))) for path in images])
        method = self.method
        features = features_of_images(self.backbone, pixels, self.config.precision)
        with torch.no_grad():
            inputs = method.prepare(features)
        count = len(ids)
        task_ids = torch.tensor(ids).repeat(len(images))
        # Noise belongs to an image's content, not to its place among the images asked about.
        sample_ids = torch.tensor([_content_id(image) for image in pixels]).repeat_interleave(count)
        logs = method.log_probabilities(inputs.repeat_interleave(count, 0), task_ids, sample_ids)
        results: list[dict[str, Any]] = [{"image": str(path), "tasks": {}} for path in images]
        for row, log in enumerate(logs):
            place, task = divmod(row, count)
            results[place]["tasks"][self.family.tasks[ids[task]]] = self._describe(log.exp(), ids[task])
        return results

    def _describe(self, probabilities: torch.Tensor, task: int) -> dict[str, Any]:
        shown: tuple[int, ...]
        names: tuple[str, ...]
        if self.family.kind == "binary":
            shown, names = (0, 1), ("no", "yes")
        else:
            shown, names = self.family.members[task], self.family.outputs
        best = int(probabilities.argmax())
        listed = sorted(((float(probabilities[c]), names[c]) for c in shown), reverse=True)
        return {
            "prediction": names[best],
            "confidence": float(probabilities[best]),
            "probabilities": {name: value for value, name in listed},
        }


def _content_id(pixels: torch.Tensor) -> int:
    """A number of 56 bits that stands for an image, uint8 ``(3, S, S)``."""
    return int.from_bytes(hashlib.sha256(pixels.numpy().tobytes()).digest()[:7], "little")


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no such image: {path}")
    return path
