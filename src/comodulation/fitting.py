"""From a configuration to finished runs: data, features, pretraining, fine-tuning, evaluation.

The pretrained layers depend on data, backbone, head, pretraining settings and seed, not on the method. They are kept in
the cache under that key, so that all methods of a seed share them, whether fitted together or one by one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .backbone import Backbone, hash_tensors
from .config import RunConfig, read_config, write_config
from .data import Split, available_splits, binary_column, class_column, label_names, open_split
from .errors import InputError, RunError, brief, choose, first_difference
from .evaluation import Predictions, evaluate_predictions
from .features import Features, extract, locked
from .head import ComodulatedHead
from .methods import Method, make_method
from .pretraining import pretrain, pretraining_targets
from .progress import Progress, Silent
from .splits import Partition, partition
from .store import (
    ADAPTER,
    CONFIG,
    HEAD,
    METRICS,
    PARTIAL,
    PREDICTIONS,
    REPORT,
    head_fingerprint,
    head_tensors,
    load_head,
    read_json,
    read_tensors,
    remove_partials,
    save_adapter,
    writable,
    write_bytes,
    write_json,
    write_predictions,
    write_tensors,
)
from .tasks import Examples, TaskFamily, first_rows
from .training import derived_seed
from .tuning import FeatureRows, Inputs, predict, tune

KEPT_INPUTS = 8  # what methods read of a split, kept for the next method; at most 1 GiB each
CHECKPOINT, HISTORY, LOCK = "checkpoint.safetensors", "history.json", ".lock"
_DEFAULT_TEST_SPLIT = RunConfig.model_fields["test_split"].default


@dataclass(frozen=True)
class Labelled:
    """One split's labels as a family reads them."""

    split: Split
    examples: Examples
    columns: list[np.ndarray]


@dataclass(frozen=True)
class Adapted:
    """A fine-tuned method: its validation predictions, the layers it started from (and their key), and how it came about."""

    method: Method
    layers: str
    validation: Predictions
    pretrained: dict[str, Tensor]
    pretraining: list[dict[str, float]]
    history: list[dict[str, float]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class TuningData:
    """What a method is fine-tuned on: features, and the (image, task) pairs to train and to validate on."""

    features: FeatureRows
    tuning: Examples
    validation: Examples


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
    from lightning_fabric import Fabric

    tell = progress or Silent()
    folders = [out / config.method if len(configs) > 1 else out for config in configs]
    if len(configs) > 1 and (out / CONFIG).exists():
        raise InputError(f"{out} is the run folder of one method; choose another --out for several")
    shared = configs[0]
    splits = available_splits(shared.data)
    if shared.test_split != _DEFAULT_TEST_SPLIT:  # the usual one may be absent, one that was asked for may not
        choose(shared.test_split, splits, f"split of {shared.data}")
    train_split = open_split(shared.data, shared.train_split, image_column=shared.image_column)
    family = read_family(shared, train_split)
    labelled = {shared.train_split: read_labels(shared, train_split, family)}
    if shared.test_split in splits:
        test = open_split(shared.data, shared.test_split, image_column=shared.image_column)
        labelled[shared.test_split] = read_labels(shared, test, family)
    deal_images(shared, family, labelled[shared.train_split].examples)
    backbone = Backbone(shared.backbone)
    with ExitStack() as stack:
        stack.enter_context(writable(cache))
        for config, folder in zip(configs, folders, strict=True):
            stack.enter_context(_claimed(folder, config, resume))
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
                    skip_bad=shared.skip_bad, report=partial(tell.extraction, name),
                )  # fmt: skip
                seconds[f"features_{name}"] = round(time.perf_counter() - began, 2)
                if features[name].bad_rows:
                    tell.message(f"skipped {len(features[name].bad_rows)} unreadable images of split {name!r}")
            session = Session(shared, family, labelled, features, backbone.fingerprint(), cache, fabric, tell)
            for config, folder in unfinished:
                session.run(config, folder, dict(seconds))
        return [FitResult(folder, read_json(folder / METRICS)) for folder in folders]


@contextmanager
def _claimed(folder: Path, config: RunConfig, resume: bool) -> Iterator[None]:
    """Hold a run folder, new or to be continued. Where bad input turns up before the run has begun, nothing is left."""
    _check_claim(folder, config, resume)
    with writable(folder), locked(folder / LOCK, wait=False):
        _check_claim(folder, config, resume)  # again: another process may have begun a run before the lock was ours
        remove_partials(folder)
        fresh = not (folder / CONFIG).exists()
        try:
            if fresh:
                write_bytes(folder / CONFIG, write_config(config).encode())
            yield
        except InputError:
            if fresh and {path.name for path in folder.iterdir()} <= {CONFIG, LOCK}:
                (folder / CONFIG).unlink(missing_ok=True)
                (folder / LOCK).unlink(missing_ok=True)
            raise


def _check_claim(folder: Path, config: RunConfig, resume: bool) -> None:
    """Raise InputError for a folder that is something else, or another run."""
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file, expected a folder to write the run to")
        found = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    entries = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
    if entries and CONFIG not in entries:
        raise InputError(f"{folder} is not empty and not a run folder; choose another --out")
    if not entries:
        return
    if not resume:
        raise InputError(f"{folder} already holds a run; --resume continues it, another --out starts a new one")
    if differing := first_difference(read_config(folder / CONFIG).model_dump(), config.model_dump()):
        key, before, now = differing
        raise InputError(
            f"{folder} holds a run with another {key} ({brief(before)}, now {brief(now)}); choose another --out"
        )


def deal_images(config: RunConfig, family: TaskFamily, examples: Examples) -> Partition:
    """Deal the training images out to pretraining, fine-tuning and their validation. Raises InputError for too few."""
    first_of_image, images = first_rows(examples.image)
    strata = examples.target[first_of_image] if family.kind == "classes" else torch.zeros_like(images)
    return partition(
        images, strata, seed=derived_seed(_split_seed(config), "halves"), validation_fraction=config.validation_fraction,
        disjoint=config.disjoint_halves,
    )  # fmt: skip


def _split_seed(config: RunConfig) -> int:
    return config.seed if config.split_seed is None else config.split_seed


class Session:
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
        for name, examples in usable.items():
            if not len(examples):
                raise InputError(f"split {name!r} of {config.data!r} has no labelled image that can be read")
        self.train_examples = usable[config.train_split]
        self.test_examples = usable.get(config.test_split)
        self.parts = deal_images(config, family, self.train_examples)
        self._prepared: dict[tuple[str, ...], Tensor] = {}

    @property
    def train_features(self) -> Features:
        return self.features[self.config.train_split]

    def tuning_data(self) -> TuningData:
        """The family's half of the training split."""
        return TuningData(
            self.train_features,
            self.train_examples.of_images(self.parts.tuning),
            self.train_examples.of_images(self.parts.tuning_validation),
        )

    def adapt(self, config: RunConfig, checkpoint: Path | None = None, data: TuningData | None = None) -> Adapted:
        """Fine-tune one method on this seed's pretrained layers, on the family's half unless told otherwise."""
        head = build_head(config, self.family, self.train_features.shape[0]).to(self.fabric.device)
        began = time.perf_counter()
        key, pretraining = self._pretrained(head)
        trained = time.perf_counter()
        pretrained = {name: tensor.clone() for name, tensor in head_tensors(head).items()}
        method = config_method(config, head, self.family).to(self.fabric.device)
        data = data or self.tuning_data()
        images = torch.cat([data.tuning.image, data.validation.image]).unique()
        inputs = self._inputs(method, data.features, images, key)
        history = tune(method, inputs, data.tuning, data.validation, config, self.fabric, checkpoint, key, self.tell)
        seconds = {
            "pretraining": round(trained - began, 2),
            "tuning": round(time.perf_counter() - trained, 2),
        }
        return Adapted(method, key, predict(method, inputs, data.validation), pretrained, pretraining, history, seconds)

    def test(self, adapted: Adapted) -> Predictions | None:
        """Predictions on the test split, if there is one."""
        if self.test_examples is None:
            return None
        return self.answer(adapted, self.features[self.config.test_split], self.test_examples)

    def answer(self, adapted: Adapted, features: FeatureRows, examples: Examples) -> Predictions:
        """Predictions for examples of some features."""
        return predict(adapted.method, self.inputs(adapted, features, examples.image.unique()), examples)

    def inputs(self, adapted: Adapted, features: FeatureRows, images: Tensor) -> Inputs:
        """What an adapted method reads of some images (sorted row numbers)."""
        return self._inputs(adapted.method, features, images, adapted.layers)

    def _inputs(self, method: Method, features: FeatureRows, images: Tensor, layers: str) -> Inputs:
        """What a method reads of some images; kept, so that the next method on the same layers finds it."""
        place = (layers, method.reads, features.key, hash_tensors({"images": images}))
        inputs = Inputs(method, features, images, self._prepared.get(place))
        if inputs.prepared is not None:
            self._prepared[place] = inputs.prepared
            while len(self._prepared) > KEPT_INPUTS:
                self._prepared.pop(next(iter(self._prepared)))
        return inputs

    def run(self, config: RunConfig, folder: Path, seconds: dict[str, float]) -> None:
        """Fit and evaluate one method, and write its run folder."""
        adapted = self.adapt(config, folder / CHECKPOINT)
        method = adapted.method
        began = time.perf_counter()
        result: dict[str, Any] = {
            "schema": 1,
            "method": config.method,
            "seed": config.seed,
            "readout": config.readout,
            "residual": config.head.residual,
            "learnable_parameters": method.num_learnable(),
            "validation": evaluate_predictions(adapted.validation, self.family.tasks),
        }
        tested = self.test(adapted)
        if tested is not None:
            result["test"] = evaluate_predictions(tested, self.family.tasks)
        if any(features.bad_rows for features in self.features.values()):
            result["skipped_images"] = {name: len(features.bad_rows) for name, features in self.features.items()}
        evaluation = {"evaluation": round(time.perf_counter() - began, 2)}
        result["seconds"] = {**seconds, **adapted.seconds, **evaluation}
        result.update(pretraining=adapted.pretraining, history=adapted.history)
        write_tensors(folder / HEAD, adapted.pretrained)
        save_adapter(method, folder / ADAPTER, backbone=self.backbone_fingerprint)
        write_predictions(folder / PREDICTIONS, tested or adapted.validation, self.family)
        from .report import run_report

        write_bytes(folder / REPORT, run_report(config, self.family, method, result).encode())
        write_json(folder / METRICS, result)
        (folder / CHECKPOINT).unlink(missing_ok=True)

    def _pretrained(self, head: ComodulatedHead) -> tuple[str, list[dict[str, float]]]:
        """Fill the head with the pretrained layers of this seed, from the cache or by pretraining now."""
        config, data = self.config, self.labelled[self.config.train_split]
        described = {
            "features": self.train_features.key,
            "labels": hashlib.sha256(b"".join(column.tobytes() for column in data.columns)).hexdigest(),
            "family": self.family.to_json(),
            "head": config.head.model_dump(),
            "pretraining": vars(config.pretraining),
            "split": [config.seed, config.validation_fraction, config.disjoint_halves],
            **({} if config.split_seed is None else {"split_seed": config.split_seed}),
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
            remove_partials(folder)
            if (found := _stored_head(head, folder)) is not None:
                self.tell.message(f"pretrained layers of seed {config.seed} found in the cache")
                return key, found
            history = pretrain(
                head, self.train_features, pretraining_targets(self.family, data.columns), self.parts, config,
                self.fabric, folder / CHECKPOINT, key, self.tell,
            )  # fmt: skip
            write_tensors(folder / HEAD, head_tensors(head))
            write_json(folder / HISTORY, {"head": head_fingerprint(head), "history": history})
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return key, history


def _stored_head(head: ComodulatedHead, folder: Path) -> list[dict[str, float]] | None:
    """Fill the head from the cache and return its history; None, and nothing changed, where that is absent or damaged."""
    try:
        stored, (tensors, _) = read_json(folder / HISTORY), read_tensors(folder / HEAD)
        if not isinstance(stored, dict) or stored.get("head") != hash_tensors(tensors):
            return None
        load_head(head, folder / HEAD)
    except InputError:
        return None
    return stored.get("history", [])


def config_method(config: RunConfig, head: ComodulatedHead, family: TaskFamily) -> Method:
    """The method a configuration describes, on a head."""
    return make_method(config.method, head, family, config.readout, task_bias=config.task_bias, **config.options)


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
