"""From a configuration to finished runs: data, features, pretraining, fine-tuning, evaluation.

The pretrained layers depend on data, backbone, head, pretraining settings and seed, not on the method. They are kept in
the cache under that key, so that all methods of a seed share them, whether fitted together or one by one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone
from .config import RunConfig, read_config, write_config
from .data import Split, available_splits, binary_column, class_column, label_names, open_split
from .errors import InputError, RunError
from .evaluation import METRICS as METRIC_NAMES
from .evaluation import Predictions, evaluate_predictions, metrics
from .features import Features, extract, locked
from .head import ComodulatedHead
from .methods import Method, make_method
from .splits import Partition, partition
from .store import (
    ADAPTER,
    CONFIG,
    HEAD,
    METRICS,
    PREDICTIONS,
    REPORT,
    head_tensors,
    load_head,
    save_adapter,
    write_bytes,
    write_json,
    write_tensors,
)
from .tasks import Examples, TaskFamily
from .training import Epoch, derived_seed, train

CHECKPOINT, LOCK = "checkpoint.safetensors", ".lock"
EVALUATION_BATCH = 1024
ACTIVITY_LIMIT = 2**30  # bytes of encoder activity kept in memory; beyond it, it is encoded again each epoch


class Progress(Protocol):
    """What a fit tells whoever watches it."""

    def message(self, text: str) -> None: ...
    def extraction(self, split: str, done: int, total: int) -> None: ...
    def epoch(self, phase: str, epoch: Epoch) -> None: ...


class Silent:
    """Progress for no one."""

    def message(self, text: str) -> None: ...
    def extraction(self, split: str, done: int, total: int) -> None: ...
    def epoch(self, phase: str, epoch: Epoch) -> None: ...


@dataclass(frozen=True)
class Labelled:
    """One split's labels as a family reads them."""

    split: Split
    examples: Examples
    columns: list[np.ndarray]


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder, and the content of its metrics.json."""

    folder: Path
    metrics: dict[str, Any]


def read_family(config: RunConfig, split: Split) -> TaskFamily:
    """The family of tasks a configuration describes, read off the training split. Raises InputError for bad columns."""
    if config.attributes:
        for name in config.attributes:
            split.feature(name)
        return TaskFamily.from_attributes(config.attributes)
    assert config.group is not None
    assert config.label is not None
    group_names, class_names = label_names(split, config.group), label_names(split, config.label)
    groups = class_column(split, config.group, group_names)
    return TaskFamily.from_groups(groups, class_column(split, config.label, class_names), group_names, class_names)


def read_labels(config: RunConfig, split: Split, family: TaskFamily) -> Labelled:
    """Labels of a split. Raises InputError for columns that are not there or hold something else."""
    if family.kind == "binary":
        columns = [binary_column(split, name) for name in family.tasks]
    else:
        assert config.group is not None
        assert config.label is not None
        columns = [
            class_column(split, config.group, family.tasks),
            class_column(split, config.label, family.outputs),
        ]
    examples = family.examples(columns)
    if not len(examples):
        raise InputError(f"split {split.name!r} of {split.source!r} has no row with all the labels a task needs")
    return Labelled(split, examples, columns)


def fit(
    configs: list[RunConfig], out: Path, cache: Path, *, resume: bool = False, progress: Progress | None = None
) -> list[FitResult]:
    """Fit one or several methods that share everything else, and write a run folder for each.

    Args:
        configs: configurations that differ in ``method`` and ``tuning`` only.
        out: the run folder; with several configurations, the folder of run folders, one named after each method.
        cache: folder of features and pretrained layers.
        resume: continue what an earlier call left in ``out``; finished runs are not repeated.
        progress: told what happens.

    Raises:
        InputError: bad input, found before features are extracted; ``out`` is in use, not a run folder, or of another
            configuration.
        RunError: something failed on the way; what is there can be resumed.
    """
    from lightning.fabric import Fabric

    tell = progress or Silent()
    folders = [out / config.method if len(configs) > 1 else out for config in configs]
    shared = configs[0]
    splits = available_splits(shared.data)
    train_split = open_split(shared.data, shared.train_split, image_column=shared.image_column)
    family = read_family(shared, train_split)
    labelled = {shared.train_split: read_labels(shared, train_split, family)}
    if shared.test_split in splits and shared.test_split != shared.train_split:
        test = open_split(shared.data, shared.test_split, image_column=shared.image_column)
        labelled[shared.test_split] = read_labels(shared, test, family)
    backbone = Backbone(shared.backbone)
    with ExitStack() as stack:
        for config, folder in zip(configs, folders, strict=True):
            _claim(folder, config, resume)
            stack.enter_context(locked(folder / LOCK, wait=False))
            write_bytes(folder / CONFIG, write_config(config).encode())
        unfinished = [
            (config, folder) for config, folder in zip(configs, folders, strict=True) if not (folder / METRICS).exists()
        ]
        if unfinished:
            fabric = Fabric(accelerator="auto", devices=1)
            features, seconds = {}, {}
            for name, data in labelled.items():
                began = time.perf_counter()
                features[name] = extract(
                    backbone, data.split, cache, device=fabric.device, precision=shared.precision,
                    skip_bad=shared.skip_bad, report=lambda done, total, name=name: tell.extraction(name, done, total),
                )  # fmt: skip
                seconds[f"features_{name}"] = round(time.perf_counter() - began, 2)
                if features[name].bad_rows:
                    tell.message(f"skipped {len(features[name].bad_rows)} unreadable images of split {name!r}")
            session = _Session(shared, family, labelled, features, backbone.fingerprint(), cache, fabric, tell)
            for config, folder in unfinished:
                session.run(config, folder, dict(seconds))
        return [FitResult(folder, json.loads((folder / METRICS).read_text())) for folder in folders]


def _claim(folder: Path, config: RunConfig, resume: bool) -> None:
    """Make a run folder, or accept the one that is there. Nothing is written into a folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder to write the run to")
    entries = [path.name for path in folder.iterdir() if path.name != LOCK] if folder.exists() else []
    if entries and CONFIG not in entries:
        raise InputError(f"{folder} is not empty and not a run folder; choose another --out")
    if entries:
        if not resume:
            raise InputError(f"{folder} already holds a run; --resume continues it, another --out starts a new one")
        before, now = read_config(folder / CONFIG).model_dump(), config.model_dump()
        differing = [key for key in now if before[key] != now[key]]
        if differing:
            key = differing[0]
            raise InputError(
                f"{folder} holds a run with another {key} ({before[key]!r}, now {now[key]!r}); choose another --out"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


class _Session:
    """What the runs of one seed share: features, partition, pretrained layers."""

    def __init__(
        self,
        config: RunConfig,
        family: TaskFamily,
        labelled: dict[str, Labelled],
        features: dict[str, Features],
        backbone_fingerprint: str,
        cache: Path,
        fabric: Any,
        tell: Progress,
    ) -> None:
        self.config, self.family, self.labelled, self.features = config, family, labelled, features
        self.backbone_fingerprint, self.cache, self.fabric, self.tell = backbone_fingerprint, cache, fabric, tell
        bad = {name: torch.tensor(features[name].bad_rows, dtype=torch.int64) for name in features}
        usable = {
            name: data.examples.take((~torch.isin(data.examples.image, bad[name])).nonzero()[:, 0])
            for name, data in labelled.items()
        }
        self.train_examples = usable[config.train_split]
        self.test_examples = usable.get(config.test_split)
        first_of_image, images = _first_rows(self.train_examples.image)
        strata = self.train_examples.target[first_of_image] if family.kind == "classes" else torch.zeros_like(images)
        self.parts = partition(
            images, strata, seed=derived_seed(config.seed, "halves"), validation_fraction=config.validation_fraction,
            disjoint=config.disjoint_halves,
        )  # fmt: skip

    @property
    def train_features(self) -> Features:
        return self.features[self.config.train_split]

    def run(self, config: RunConfig, folder: Path, seconds: dict[str, float]) -> None:
        """Fit and evaluate one method, and write its run folder."""
        head = build_head(config, self.family, self.train_features.array.shape[1]).to(self.fabric.device)
        began = time.perf_counter()
        base = self._pretrained(head)
        seconds["pretraining"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        write_tensors(folder / HEAD, head_tensors(head), {"base": base["key"]})
        method = make_method(config.method, head, self.family, config.readout).to(self.fabric.device)
        tuning = self.train_examples.of_images(self.parts.tuning)
        validation = self.train_examples.of_images(self.parts.tuning_validation)
        inputs = Inputs(method, self.train_features, torch.cat([tuning.image, validation.image]).unique())
        history = tune(
            method, inputs, tuning, validation, config, self.fabric, folder / CHECKPOINT, base["key"], self.tell
        )
        seconds["tuning"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        result: dict[str, Any] = {
            "schema": 1,
            "method": config.method,
            "seed": config.seed,
            "readout": config.readout,
            "residual": config.head.residual,
            "learnable_parameters": method.num_learnable(),
            "validation": evaluate_predictions(predict(method, inputs, validation), self.family.tasks),
        }
        final = predict(method, inputs, validation)
        if self.test_examples is not None:
            test = Inputs(method, self.features[config.test_split], self.test_examples.image.unique())
            final = predict(method, test, self.test_examples)
            result["test"] = evaluate_predictions(final, self.family.tasks)
        seconds["evaluation"] = round(time.perf_counter() - began, 2)
        if self.train_features.bad_rows:
            result["skipped_images"] = {name: len(features.bad_rows) for name, features in self.features.items()}
        result.update(seconds=seconds, pretraining=base["history"], history=history)
        save_adapter(method, folder / ADAPTER, backbone=self.backbone_fingerprint)
        write_predictions(folder / PREDICTIONS, final, self.family)
        from .report import run_report

        write_bytes(folder / REPORT, run_report(config, self.family, method, result).encode())
        write_json(folder / METRICS, result)
        (folder / CHECKPOINT).unlink(missing_ok=True)

    def _pretrained(self, head: ComodulatedHead) -> dict[str, Any]:
        """Fill the head with the pretrained layers of this seed, from the cache or by pretraining now."""
        config, data = self.config, self.labelled[self.config.train_split]
        described = {
            "features": self.train_features.key,
            "labels": hashlib.sha256(b"".join(column.tobytes() for column in data.columns)).hexdigest(),
            "family": self.family.to_json(),
            "head": config.head.model_dump(),
            "pretraining": vars(config.pretraining),
            "split": [config.seed, config.validation_fraction, config.disjoint_halves],
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
        folder = self.cache / "heads" / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = folder / "lock"
            lock.touch()
        except OSError as error:
            raise RunError(f"cannot write the cache {folder}: {error.strerror or error}") from error
        with locked(lock):
            done, stored = folder / "history.json", folder / HEAD
            if done.exists():
                try:
                    history = json.loads(done.read_text())
                    load_head(head, stored)
                    self.tell.message(f"pretrained layers of seed {config.seed} found in the cache")
                    return {"key": key, "history": history}
                except (InputError, ValueError):
                    done.unlink()  # damaged: pretrain again
            history = pretrain(
                head, self.train_features, pretraining_targets(self.family, data.columns), self.parts, config,
                self.fabric, folder / CHECKPOINT, key, self.tell,
            )  # fmt: skip
            write_tensors(stored, head_tensors(head))
            write_json(done, history)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return {"key": key, "history": history}


def build_head(config: RunConfig, family: TaskFamily, in_channels: int) -> ComodulatedHead:
    """The head a configuration describes, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "initialisation"))
        return ComodulatedHead(
            in_channels,
            family.num_outputs,
            family.num_tasks,
            controller=config.controller.model_dump(),
            modulation=config.modulation,
            seed=config.seed,
            **config.head.model_dump(),
        )


# ---- pretraining ------------------------------------------------------------------------------------------------------


class Pretraining(nn.Module):
    """The head on its primary task: all classes, or all attributes jointly. Missing targets (-1) are masked."""

    def __init__(self, head: ComodulatedHead) -> None:
        super().__init__()
        self.head = head

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean NLL; features ``(B, C, s, s)``, targets classes ``(B,)`` or attributes ``(B, K)``."""
        logits = self.head(features, mode="base")
        if targets.ndim == 1:
            return F.cross_entropy(logits, targets)
        known = targets >= 0
        losses = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).to(logits.dtype), reduction="none")
        return losses[known].mean() if bool(known.any()) else (logits * 0).sum()


def pretraining_targets(family: TaskFamily, columns: list[np.ndarray]) -> Tensor:
    """Targets of the primary task for every row: classes ``(N,)`` or attributes ``(N, K)``."""
    if family.kind == "classes":
        return torch.from_numpy(columns[1])
    return torch.from_numpy(np.stack(columns, 1))


def pretrain(
    head: ComodulatedHead,
    features: Features,
    targets: Tensor,
    parts: Partition,
    config: RunConfig,
    fabric: Any,
    checkpoint: Path | None,
    identity: str,
    tell: Progress,
) -> list[dict[str, float]]:
    """Train all layers of the head on the primary task, on the pretraining half."""
    settings, device = config.pretraining, fabric.device
    head.standardize(*channel_moments(features, parts.pretraining))
    head.to(device)
    module = Pretraining(head)

    def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = parts.pretraining[torch.randperm(len(parts.pretraining), generator=generator)]
        for rows in order.split(settings.batch_size):
            yield features.rows(rows).to(device), targets[rows].to(device)

    def validate() -> dict[str, float]:
        rows = parts.pretraining_validation
        logits = torch.cat([head(features.rows(part).to(device), mode="base") for part in rows.split(EVALUATION_BATCH)])
        known = targets[rows].to(device)
        if known.ndim == 2:
            logits, known = torch.stack([torch.zeros_like(logits), logits], -1)[known >= 0], known[known >= 0]
        return {name: metrics(logits.log_softmax(-1), known)[name] for name in METRIC_NAMES}

    return train(
        module,
        [parameter for layer in head.layers for parameter in layer.parameters()],
        batches,
        -(-len(parts.pretraining) // settings.batch_size),
        validate,
        settings,
        seed=derived_seed(config.seed, "pretraining"),
        fabric=fabric,
        checkpoint=checkpoint,
        identity=identity,
        report=lambda epoch: tell.epoch("pretraining", epoch),
    )


def channel_moments(features: Features, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature channel over some rows, each ``(C,)``, read in blocks."""
    channels = features.array.shape[1]
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for part in rows.split(4096):
        block = features.rows(part).double()
        total += block.sum((0, 2, 3))
        squares += block.square().sum((0, 2, 3))
        count += block.numel() // channels
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()


# ---- fine-tuning and evaluation ---------------------------------------------------------------------------------------


class Inputs:
    """What a method reads for given images: features if it trains the layers, else encoder activity, computed once.

    Args:
        method: decides which.
        features: of the split.
        images: row numbers that may be asked for, sorted, ``(n,)``.
    """

    def __init__(self, method: Method, features: Features, images: Tensor) -> None:
        self.method, self.features, self.images = method, features, images
        self.device = method.head.decoder.weight.device
        self.activity: Tensor | None = None
        side = features.array.shape[2] * features.array.shape[3]
        if not method.trains_layers and 4 * len(images) * method.head.encoder_channels * side <= ACTIVITY_LIMIT:
            with torch.no_grad():
                parts = [self._encode(part) for part in images.split(EVALUATION_BATCH)]
            self.activity = torch.cat(parts)

    def rows(self, images: Tensor) -> Tensor:
        """Inputs of some images."""
        if self.activity is not None:
            return self.activity[torch.searchsorted(self.images, images).to(self.device)]
        if self.method.trains_layers:
            return self.features.rows(images).to(self.device)
        with torch.no_grad():
            return self._encode(images)

    def _encode(self, images: Tensor) -> Tensor:
        return self.method.head.encode(self.features.rows(images).to(self.device))


def tune(
    method: Method,
    inputs: Inputs,
    examples: Examples,
    validation: Examples,
    config: RunConfig,
    fabric: Any,
    checkpoint: Path | None,
    identity: str,
    tell: Progress,
) -> list[dict[str, float]]:
    """Train what the method learns, on the family's half; [] for a method that learns nothing."""
    settings, device = config.tuning, inputs.device

    def seen() -> Iterable[tuple[Tensor, Tensor]]:
        for rows in torch.arange(len(examples)).split(EVALUATION_BATCH):
            part = examples.take(rows)
            yield inputs.rows(part.image), part.task.to(device)

    method.observe(seen())
    history: list[dict[str, float]] = []
    if method.learnable():

        def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Any, ...]]:
            for part in epoch_examples(examples, generator, settings.batch_size):
                task, target = part.task.to(device), part.target.to(device)
                yield inputs.rows(part.image), task, target, part.image.to(device), epoch + 1

        def validate() -> dict[str, float]:
            method.settle(seen())
            result = predict(method, inputs, validation)
            return {name: metrics(result.log_probabilities, result.target)[name] for name in METRIC_NAMES}

        history = train(
            method,
            method.learnable(),
            batches,
            -(-len(examples.image.unique()) // settings.batch_size),
            validate,
            settings,
            seed=derived_seed(config.seed, "tuning"),
            fabric=fabric,
            checkpoint=checkpoint,
            identity=identity,
            report=lambda epoch: tell.epoch(method.name, epoch),
        )
    method.eval()
    method.settle(seen())
    return history


def epoch_examples(examples: Examples, generator: torch.Generator, batch_size: int) -> Iterator[Examples]:
    """Batches of one epoch: every image once, each with one of its tasks drawn at random, in random order."""
    order = torch.randperm(len(examples), generator=generator)
    chosen, _ = _first_rows(examples.image[order])
    rows = order[chosen]
    for part in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
        yield examples.take(part)


def predict(method: Method, inputs: Inputs, examples: Examples) -> Predictions:
    """Predictions for all pairs of ``examples``, in their order."""
    method.eval()
    logs = []
    for rows in torch.arange(len(examples)).split(EVALUATION_BATCH):
        part = examples.take(rows)
        ids = part.image.to(inputs.device)
        logs.append(method.log_probabilities(inputs.rows(part.image), part.task.to(inputs.device), ids).cpu())
    return Predictions(examples.image, examples.task, examples.target, torch.cat(logs))


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


def _first_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first occurrence of each distinct value, and the distinct values in order."""
    distinct, first = np.unique(values.numpy(), return_index=True)
    return torch.from_numpy(first), torch.from_numpy(distinct)
