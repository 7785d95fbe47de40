"""Add tasks to a finished run: they are learned from a table, as by `fit`, and written to a new run folder.

The layers of the run keep their bits, and so do the rows of its tasks; see networks/methods/added_tasks.py. New tasks are learned
with the run's own settings. The pretrained layers may have seen the images given, so that validation metrics may be too good; those
of the test split, where there is one, are not.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data import Split, class_column, partition
from ..data.features import Features, extract
from ..errors import InputError
from ..evaluation import scaled
from ..files import json_bytes, read_json, writable, write_bytes
from ..mathematics import derived_seed
from ..networks.methods import Added, Method, ReadoutMethod, add_tasks, begin_tasks
from ..tasks import NO_YES, Examples, TaskFamily, first_rows
from ..training import Alone, Inputs, Progress, Silent, Venue, predict, tune
from ..training.readouts import fit_method
from .answered import Answered
from .claiming import ADDED, CHECKPOINT, Claim, claimed, finished, sources
from .config import RunConfig, write_config
from .dataset import Labelled, family_of_columns, open_splits, read_labels, without_labels
from .decisions import judged
from .finishing import finish_run
from .fitting import FitResult
from .folder import CONFIG, HEAD, METRICS, network_hash
from .run import Run


def grow_run(
    run: Run,
    added: Added,
    data: str,
    out: Path,
    cache: Path,
    *,
    columns: Sequence[str] = (),
    labels: str | None = None,
    skip_bad: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Learn new tasks on a run's layers, and write a run with all of them. The run itself is not changed.

    Args:
        run: finished.
        added: as for ``begin_tasks``: names of binary columns, or, for a run of groups, the classes of each new group by its name.
        data: folder or data set id with the images and labels of the new tasks, in the run's splits.
        out: run folder to write, new or empty, or with ``resume`` what an earlier call has left there.
        cache: folder of features.
        columns: names of further columns that are new tasks, each binary or with classes of its own, as they are.
        labels: table of labels, if the run was made from one.
        skip_bad: go on when an image cannot be read.
        resume: continue what an earlier call with the same arguments has left in ``out``.
        progress: told what happens.

    Returns:
        The new run's folder and metrics: the run's own, and under ``added`` those of the new tasks.

    Raises:
        InputError: names that are taken or not there, a method whose tasks share what is learned; ``out`` is in use, or holds
            something else.
        RunError: something failed on the way; what is there can be resumed.
    """
    tell, config = progress or Silent(), run.config
    changed = config.of_data(data, labels, skip_bad=skip_bad)
    fresh, splits = _begun(run, added, columns, changed)
    labelled = _labelled(fresh.family, changed, splits)
    _check_all_there(fresh.family, labelled[config.train_split].examples, data)
    made_from = sources(fresh.family, labelled, run.encoder.fingerprint())
    claim = _claim(run, fresh.family, changed)
    with writable(cache), claimed(out, claim, resume=resume, made_from=made_from, tell=tell):
        if finished(out):
            return FitResult(out, read_json(out / METRICS))
        if config.test_split in labelled:
            for warning in without_labels(fresh.family, labelled[config.test_split]):
                tell.message(f"warning: {warning}")
        fabric = Alone()
        features = {
            name: extract(
                run.encoder, splits[name], cache, device=fabric.device, precision=config.precision, engine="auto",
                skip_bad=skip_bad, report=partial(tell.extraction, name), say=tell.message,
            )
            for name in labelled
        }  # fmt: skip
        began = time.perf_counter()
        fresh = fresh.to(fabric.device)
        usable = {name: features[name].readable(own.examples) for name, own in labelled.items()}
        identity = hashlib.sha256(claim.content + json_bytes(made_from)).hexdigest()
        venue = Venue(fabric, tell, out / CHECKPOINT, identity)
        entry, predictions = _learn(fresh, config, features, usable, venue, run.temperature, run.encoder.pooled_width)
        entry |= {"made_from": made_from, "seconds": round(time.perf_counter() - began, 2)}
        grown = add_tasks(run.method, fresh.cpu())
        metrics = {
            **run.metrics,
            "learnable_parameters": grown.num_learnable(),
            "finished": datetime.date.today().isoformat(),
        }
        metrics["added"] = [*metrics.get("added", []), entry]
        split = splits[config.test_split if "test" in entry else config.train_split]
        answered = Answered(predictions, fresh.family, split.names(data), split.read, split.what)
        own = _config_of(config, grown.family)
        write_bytes(out / CONFIG, write_config(own).encode())
        write_bytes(out / HEAD, (run.folder / HEAD).read_bytes())
        finish_run(out, own, grown, run.encoder.fingerprint(), metrics, answered)
    return FitResult(out, metrics)


def _begun(run: Run, added: Added, columns: Sequence[str], config: RunConfig) -> tuple[Method, dict[str, Split]]:
    """The method with the new tasks alone, before they are learned, and the splits that they are learned from.

    Args:
        run, added, columns: as for ``grow_run``. config: the run's, of the data of the new tasks.

    Raises:
        InputError: as ``grow_run``.
    """
    binary = () if isinstance(added, Mapping) else added
    names = _once([*binary, *columns])
    if bool(names) == (run.family.kind == "classes"):
        adds = "label columns: --task or --attribute adds one"
        if names:
            adds = "groups of classes: --group NAME=CLASS adds one"
        raise InputError(f"this run's tasks are {adds}")
    splits = open_splits(config, [config.train_split], [config.test_split], tasks=names)
    if not names:
        return begin_tasks(run.method, added), splits
    train = splits[config.train_split]
    # A column of lists is a task for each label.
    binary, columns = ([own for name in some for own in train.lists.get(name, (name,))] for some in (binary, columns))
    for name in (*binary, *columns):
        train.feature(name)
    _once([*binary, *columns])
    answers: dict[str, Sequence[str]] = dict.fromkeys(binary, NO_YES)
    answers |= {name: family_of_columns(train, [name]).answers(0) for name in columns}
    return begin_tasks(run.method, answers), splits


def _once(names: list[str]) -> list[str]:
    """The names themselves. Raises InputError where one is among them twice."""
    if len(set(names)) < len(names):
        raise InputError(f"a new task is given twice: {', '.join(names)}")
    return names


def _claim(run: Run, family: TaskFamily, config: RunConfig) -> Claim:
    """What the new run's folder says before anything is learned: which tasks are added to which run, from which data."""
    value = {
        "run": network_hash(run.folder),
        "tasks": json.loads(json.dumps(family.to_json())),
        "data": config.data,
        "labels": config.labels,
    }
    return Claim(ADDED, json_bytes(value), value, read_json, "a folder of add-task")


def _learn(
    fresh: Method,
    config: RunConfig,
    features: Mapping[str, Features],
    examples: dict[str, Examples],
    venue: Venue,
    temperature: float | None,
    pooled: int | None,
) -> tuple[dict[str, Any], Any]:
    """Fine-tune the new tasks; what metrics.json says of them, and predictions of the test split, or else validation.

    Both at the run's temperature, at which it answers all of its tasks.
    """
    train = examples[config.train_split]
    history: list[dict[str, float]] = []
    if isinstance(fresh, ReadoutMethod):  # it judges by out-of-fold predictions: no image is kept out
        predictions, about, _ = fit_method(
            fresh, features[config.train_split], train, config.seed, venue.tell,
            pooled=pooled, quality=config.quality, calibrate=config.calibrate,
        )  # fmt: skip
    else:
        about = {}
        first, images = first_rows(train.image)
        parts = partition(
            images, train.target[first], seed=derived_seed(config.seed, "added tasks", *fresh.family.tasks),
            validation_fraction=config.validation_fraction, disjoint=False,
        )  # fmt: skip
        tuning, validation = train.of_images(parts.tuning), train.of_images(parts.tuning_validation)
        inputs = Inputs(fresh, features[config.train_split], images)
        history = tune(
            fresh, inputs, tuning, validation, config.tuning, venue, seed=config.seed, balance=config.balance
        )
        predictions = scaled(predict(fresh, inputs, validation), temperature)
    answered = {"validation": predictions}
    test = examples.get(config.test_split)
    if test is not None and len(test):
        found = predict(fresh, Inputs(fresh, features[config.test_split], test.image.unique()), test)
        answered["test"] = scaled(found, temperature)
    given, measured = judged(answered, fresh.family, config.metric)
    entry: dict[str, Any] = {
        **({"readouts": about} if about else {}),
        "tasks": list(fresh.family.tasks),
        **measured,
        "history": history,
    }
    return entry, given.get("test", given["validation"])


def _labelled(family: TaskFamily, config: RunConfig, splits: Mapping[str, Split]) -> dict[str, Labelled]:
    """Labels of the new tasks: cells of their columns, or of images whose class belongs to a new group. The test split may have
    none; it is then left out."""
    found = {}
    for name, split in splits.items():
        if family.kind != "classes":
            found[name] = read_labels(config, split, family, needed=name == config.train_split)
        else:
            assert config.label is not None
            labels = class_column(split, config.label, family.outputs)
            known = torch.from_numpy(labels)
            image, task = (family.member_mask().T[known] & (known >= 0)[:, None]).nonzero(as_tuple=True)
            found[name] = Labelled(split, Examples(image, task, known[image]), [labels])
    return {name: own for name, own in found.items() if len(own.examples) or name == config.train_split}


def _check_all_there(family: TaskFamily, examples: Examples, data: str) -> None:
    for task, name in enumerate(family.tasks):
        number = len(examples.target[examples.task == task].unique())
        if number < 2:
            raise InputError(
                f"new task {name!r} has labels of {number} kinds in {data!r}; at least 2 are needed to learn it"
            )


def _config_of(config: RunConfig, family: TaskFamily) -> RunConfig:
    """The run's configuration with the new tasks' columns; groups of classes have none."""
    if family.kind == "classes":
        return config
    if family.kind == "binary" and config.attributes:
        return config.model_copy(update={"attributes": family.tasks})
    return config.model_copy(update={"attributes": (), "tasks": family.tasks, "ignore": (), "readout": "restricted"})
