"""From configurations to finished run folders: claim them, extract features, fit and evaluate what is not finished."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .backbone import WEIGHTS, Backbone
from .company import Company, company
from .config import RunConfig, read_config, write_config
from .data.summary import refuse_unlearnable, summarize, summary_table, warnings_of
from .errors import InputError, brief, first_difference
from .features import extract, locked
from .labelled import deal_images, open_splits, read_family, read_labels
from .launching import Place
from .memory import TRAINED_COPIES, check_fits
from .methods import METHODS as ALL_METHODS
from .processes import Processes
from .progress import Progress, Silent
from .session import CHECKPOINT, Session, build_head
from .store import (
    CONFIG,
    METRICS,
    PARTIAL,
    read_json,
    remove_partials,
    torn,
    writable,
    write_bytes,
)
from .written_metrics import read_metrics

LOCK = ".lock"
_DEFAULT_TEST_SPLIT = RunConfig.model_fields["test_split"].default


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder, and the content of its metrics.json."""

    folder: Path
    metrics: dict[str, Any]


def fit(
    configs: list[RunConfig], out: Path, cache: Path, *, resume: bool = False, progress: Progress | None = None
) -> list[FitResult]:
    """Fit one or several methods that share everything else, and write a run folder for each.

    In processes that were started together (``launch``, torchrun) all of them call this; the first writes, reports and returns.

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

    Returns:
        The runs; none in a process that is not the first.
    """
    if Place.of_environment().number > 1:
        _check_several(configs)
    with company([_settings(config) for config in configs]) as others:
        return _fit(configs, out, cache, others, resume=resume, progress=progress)


def _fit(
    configs: list[RunConfig], out: Path, cache: Path, others: Company | None, *, resume: bool, progress: Progress | None
) -> list[FitResult]:
    first = Place.of_environment().rank == 0
    tell = progress if progress and first else Silent()
    folders = [out / config.method if len(configs) > 1 else out for config in configs]
    if len(configs) > 1 and (out / CONFIG).exists():
        raise InputError(f"{out} is the run folder of one method; choose another --out for several")
    shared = configs[0]
    asked = shared.test_split != _DEFAULT_TEST_SPLIT  # the usual one may be absent, one that was asked for may not
    needed, wanted = [shared.train_split], [shared.test_split]
    splits = open_splits(shared, needed + wanted if asked else needed, wanted)
    family = read_family(shared, splits[shared.train_split])
    labelled = {name: read_labels(shared, split, family) for name, split in splits.items()}
    train = labelled[shared.train_split]
    found = summarize(family, train.examples, len(train.split))
    if shared.columns:
        refuse_unlearnable(found, named=bool(shared.tasks))
    deal_images(shared, family, train.examples)
    backbone = Backbone(shared.backbone)
    with torch.device("meta"):
        head = build_head(shared, family, backbone.feature_shape[0])
    check_fits(head, "the head (--channels, --kernel-size)", TRAINED_COPIES)
    if others is not None:
        others.same("data", _contents(labelled, family, backbone))
    with ExitStack() as stack:
        if first:
            stack.enter_context(writable(cache))
            for config, folder in zip(configs, folders, strict=True):
                stack.enter_context(_claimed(folder, config, resume))
        from .joining import joined

        fabric = stack.enter_context(joined(others))
        processes = Processes.of(fabric)
        finished = processes.agree([(folder / METRICS).exists() for folder in folders])
        unfinished = [run for run, done in zip(zip(configs, folders, strict=True), finished, strict=True) if not done]
        if unfinished:
            tell.message(summary_table(found, {name: len(split) for name, split in splits.items()}))
            for warning in warnings_of(found):
                tell.message(f"warning: {warning}")
            features, seconds = {}, {}
            for name, data in labelled.items():
                began = time.perf_counter()
                features[name] = extract(
                    backbone, data.split, cache, device=fabric.device, precision=shared.precision,
                    skip_bad=shared.skip_bad, report=partial(tell.extraction, name), rank=processes.rank,
                    world=processes.number,
                )  # fmt: skip
                seconds[f"features_{name}"] = round(time.perf_counter() - began, 2)
                if features[name].bad_rows:
                    tell.message(f"skipped {len(features[name].bad_rows)} unreadable images of split {name!r}")
            session = Session(shared, family, labelled, features, backbone.fingerprint(), cache, fabric, tell)
            for config, folder in unfinished:
                session.run(config, folder, dict(seconds))
        return [FitResult(folder, read_metrics(folder / METRICS)) for folder in folders] if first else []


def _settings(config: RunConfig) -> dict[str, Any]:
    """A configuration without places, which may be others on other machines: what is there is compared instead."""
    values = config.model_dump(mode="json", exclude={"data", "labels"})
    if config.backbone.weights not in WEIGHTS:
        del values["backbone"]["weights"]
    return values


def _contents(labelled: dict[str, Any], family: Any, backbone: Backbone) -> dict[str, Any]:
    """What must be the same in all processes of the data that they have read, and of their backbones."""
    digests = {}
    for name, data in labelled.items():
        digest = hashlib.sha256()
        for part in (data.examples.image, data.examples.task, data.examples.target):
            digest.update(part.numpy().tobytes())
        digests[name] = {"number of images": len(data.split), "labels": digest.hexdigest()[:16]}
    return {"splits": digests, "tasks": family.to_json(), "weights of the backbone": backbone.fingerprint()[:16]}


def _check_several(configs: list[RunConfig]) -> None:
    """Raise InputError for what several processes cannot train."""
    for config in configs:
        if reason := ALL_METHODS[config.method].one_process:
            raise InputError(f"method {config.method!r} trains in one process: {reason}; leave --devices out")
        if config.head.batch_norm:
            raise InputError(
                "batch normalisation trains in one process: its statistics would be those of a share of the batch; leave "
                "--devices or --batch-norm out"
            )


@contextmanager
def _claimed(folder: Path, config: RunConfig, resume: bool) -> Iterator[None]:
    """Hold a run folder, new or to be continued. Where bad input turns up before the run has begun, nothing is left."""
    _check_claim(folder, config, resume)
    with writable(folder), locked(folder / LOCK, wait=False):
        _check_claim(folder, config, resume)  # again: another process may have begun a run before the lock was ours
        remove_partials(folder)
        if not _finished(folder):  # metrics that a power cut has torn are none
            (folder / METRICS).unlink(missing_ok=True)
        else:  # killed between its last file and this
            (folder / CHECKPOINT).unlink(missing_ok=True)
        content = write_config(config).encode()
        fresh = not (folder / CONFIG).exists() or torn(folder / CONFIG, content)
        try:
            if fresh:
                write_bytes(folder / CONFIG, content)
            yield
        except InputError:
            if fresh and {path.name for path in folder.iterdir()} <= {CONFIG, LOCK}:
                (folder / CONFIG).unlink(missing_ok=True)
                (folder / LOCK).unlink(missing_ok=True)
            raise


def _finished(folder: Path) -> bool:
    """Whether a run's last file is there, whole."""
    if not (folder / METRICS).exists():
        return False
    try:
        return isinstance(read_json(folder / METRICS), dict)
    except InputError:
        return False


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
    if entries == [CONFIG] and torn(folder / CONFIG, write_config(config).encode()):
        return  # a power cut when nothing else had been written
    if differing := first_difference(read_config(folder / CONFIG).model_dump(), config.model_dump()):
        key, before, now = differing
        raise InputError(
            f"{folder} holds a run with another {key} ({brief(before)}, now {brief(now)}); choose another --out"
        )
