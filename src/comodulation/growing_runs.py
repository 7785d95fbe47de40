"""A finished run with tasks added: learned from a table as `fit` learns, written to a run folder of its own.

The layers are the run's and keep their bits, and so do the rows of the tasks that are there; see growing.py. New tasks are
learned with the run's own settings. The pretrained layers may have seen the images given, so that validation looks better than
new images would; the test split, where there is one, does not.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .analysis.calibration import scaled
from .config import RunConfig, write_config
from .data import Split, binary_column, class_column
from .errors import InputError, brief
from .evaluation import evaluate_predictions
from .features import Features, extract
from .fitting import FitResult
from .growing import Added, add_tasks, begin_tasks
from .labelled import open_splits
from .methods import Method
from .prediction import Run
from .progress import Progress, Silent
from .splits import partition
from .store import (
    ADAPTER,
    CONFIG,
    HEAD,
    METRICS,
    PREDICTIONS,
    REPORT,
    save_adapter,
    writable,
    write_bytes,
    write_json,
    write_predictions,
)
from .tasks import Examples, TaskFamily, first_rows
from .training import derived_seed
from .tuning import Inputs, predict, tune


def grow_run(
    run: Run,
    added: Added,
    data: str,
    out: Path,
    cache: Path,
    *,
    labels: str | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Learn new tasks on a run's layers, and write a run with all of them. The run itself is not changed.

    Args:
        run: finished.
        added: as for ``begin_tasks``: names of binary columns, or the classes of each new group by its name.
        data: folder or data set id with the images and labels of the new tasks, in the run's splits.
        out: run folder to write, new or empty.
        cache: folder of features.
        labels: table of labels, if the run was made from one.
        skip_bad: go on when an image cannot be read.
        progress: told what happens.

    Returns:
        The new run's folder and metrics: the run's own, and under ``added`` those of the new tasks.

    Raises:
        InputError: names that are taken or not there, a method whose tasks share what is learned, ``out`` not empty.
    """
    from lightning_fabric import Fabric

    tell, config = progress or Silent(), run.config
    fresh = begin_tasks(run.method, added)
    changed = config.model_copy(update={"data": data, **({} if labels is None else {"labels": labels})})
    wanted = fresh.family.tasks if fresh.family.kind == "binary" else ()
    splits = open_splits(changed, [config.train_split], [config.test_split], tasks=wanted)
    examples = {name: _examples(fresh.family, config, split) for name, split in splits.items()}
    _check_all_there(fresh.family, examples[config.train_split], data)
    with writable(cache), writable(out):
        if found := sorted(path.name for path in out.iterdir()):
            raise InputError(f"{out} is not empty (it holds {brief(found[0])}); choose another --out")
        fabric = Fabric(accelerator="auto", devices=1)
        features = {
            name: extract(
                run.backbone, split, cache, device=fabric.device, precision=config.precision, skip_bad=skip_bad,
                report=partial(tell.extraction, name),
            )
            for name, split in splits.items()
        }  # fmt: skip
        began = time.perf_counter()
        fresh = fresh.to(fabric.device)
        usable = {name: _readable(examples[name], features[name]) for name in splits}
        entry, predictions = _learn(fresh, config, features, usable, fabric, tell, run.temperature)
        entry["seconds"] = round(time.perf_counter() - began, 2)
        grown = add_tasks(run.method, fresh.cpu())
        metrics = {
            **run.metrics,
            "learnable_parameters": grown.num_learnable(),
            "finished": datetime.date.today().isoformat(),
        }
        metrics["added"] = [*metrics.get("added", []), entry]
        tested = "test" in entry
        files = splits[config.test_split if tested else config.train_split].names(data)
        _write(run, grown, _config_of(config, grown.family), metrics, predictions, fresh.family, files, out)
    return FitResult(out, metrics)


def _learn(
    fresh: Method,
    config: RunConfig,
    features: Mapping[str, Features],
    examples: dict[str, Examples],
    fabric: Any,
    tell: Progress,
    temperature: float | None,
) -> tuple[dict[str, Any], Any]:
    """Fine-tune the new tasks; what metrics.json says of them, and predictions of the test split, or else validation.

    Both at the run's temperature, at which it answers all of its tasks.
    """
    train = examples[config.train_split]
    first, images = first_rows(train.image)
    parts = partition(
        images, train.target[first], seed=derived_seed(config.seed, "added tasks", *fresh.family.tasks),
        validation_fraction=config.validation_fraction, disjoint=False,
    )  # fmt: skip
    tuning, validation = train.of_images(parts.tuning), train.of_images(parts.tuning_validation)
    inputs = Inputs(fresh, features[config.train_split], images)
    history = tune(fresh, inputs, tuning, validation, config, fabric, None, "", tell)
    predictions = scaled(predict(fresh, inputs, validation), temperature)
    entry: dict[str, Any] = {
        "tasks": list(fresh.family.tasks),
        "validation": evaluate_predictions(predictions, fresh.family.tasks),
    }
    test = examples.get(config.test_split)
    if test is not None and len(test):
        found = predict(fresh, Inputs(fresh, features[config.test_split], test.image.unique()), test)
        predictions = scaled(found, temperature)
        entry["test"] = evaluate_predictions(predictions, fresh.family.tasks)
    return {**entry, "history": history}, predictions


def _examples(family: TaskFamily, config: RunConfig, split: Split) -> Examples:
    """Labelled pairs of the new tasks: cells of their columns, or images whose class belongs to a new group."""
    if family.kind == "binary":
        return family.examples([binary_column(split, name) for name in family.tasks])
    assert config.label is not None
    labels = torch.from_numpy(class_column(split, config.label, family.outputs))
    image, task = (family.member_mask().T[labels] & (labels >= 0)[:, None]).nonzero(as_tuple=True)
    return Examples(image, task, labels[image])


def _check_all_there(family: TaskFamily, examples: Examples, data: str) -> None:
    for task, name in enumerate(family.tasks):
        number = len(examples.target[examples.task == task].unique())
        if number < 2:
            raise InputError(
                f"new task {name!r} has labels of {number} kinds in {data!r}; at least 2 are needed to learn it"
            )


def _readable(examples: Examples, features: Features) -> Examples:
    bad = torch.tensor(features.bad_rows, dtype=torch.int64)
    return examples.take((~torch.isin(examples.image, bad)).nonzero()[:, 0])


def _config_of(config: RunConfig, family: TaskFamily) -> RunConfig:
    """The run's configuration with the new tasks' columns; groups of classes have none."""
    if family.kind != "binary":
        return config
    return config.model_copy(update={"tasks" if config.columns else "attributes": family.tasks})


def _write(
    run: Run,
    grown: Method,
    config: RunConfig,
    metrics: dict[str, Any],
    predictions: Any,
    added: TaskFamily,
    files: list[str | None],
    out: Path,
) -> None:
    """The new run folder; metrics.json last."""
    from .report import run_report

    split = "test" if "test" in metrics else "validation"
    new = metrics["added"][-1].get(split, metrics["added"][-1]["validation"])
    shown = {**metrics, split: {**metrics[split], "tasks": {**metrics[split]["tasks"], **new["tasks"]}}}
    write_bytes(out / CONFIG, write_config(config).encode())
    write_bytes(out / HEAD, (run.folder / HEAD).read_bytes())
    save_adapter(grown, out / ADAPTER, backbone=run.backbone.fingerprint())
    write_predictions(out / PREDICTIONS, predictions, added, files)
    write_bytes(out / REPORT, run_report(config, grown.family, grown, shown, out.resolve().name).encode())
    write_json(out / METRICS, metrics)
