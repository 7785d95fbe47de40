"""`comodulate fit`: data to run folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import InputError
from .exits import say
from .fit_options import (
    HIDDEN,
    configurations,
    data_option,
    encoder_option,
    method_option,
    output_option,
    training_option,
)
from .shared import CACHE_HELP, CLUSTER_HELP, ENGINE_HELP, JSON_HELP, RESUMED, at_work, check_cluster, table

if TYPE_CHECKING:
    from ...runs import FitResult

EXAMPLE = "comodulate fit --data photos --labels labels.csv --out runs/photos --seed 0 --json"


def fit(
    ctx: typer.Context,
    out: Annotated[
        Path,
        output_option(help="Run folder to write; with several methods, OUT/METHOD for each."),
    ],
    data: Annotated[
        str | None,
        data_option(
            help="Folder of parquet files, of images that --labels names, or of images sorted in folders; or Hugging Face "
            "dataset id. With --text or --embeddings also a table."
        ),
    ] = None,
    text: Annotated[
        str | None,
        data_option(
            metavar="COLUMN", help="Texts instead of images: their column in the table (csv, tsv, parquet) or data set."
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        data_option(
            metavar="FILE_OR_COLUMN",
            help="Embeddings instead of images: a column of lists of the table or data set, or a file (parquet, arrow; .npy, "
            ".safetensors or a folder of `extract` with --labels, rows in the same order).",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        data_option(
            help="Table (csv, tsv, parquet, xlsx) of image paths in the folder and a label column for each task."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        data_option(metavar="COLUMN", help="Label column that is a task; repeat for more [all columns of --labels]."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        data_option(metavar="COLUMN", help="Label column of --labels that is no task; repeat for more."),
    ] = None,
    group: Annotated[str | None, data_option(help="Column of groups: each group is a task.")] = None,
    label: Annotated[str | None, data_option(help="Column of classes within the groups.")] = None,
    attribute: Annotated[
        list[str] | None, data_option(metavar="COLUMN", help="Binary column that is a task; repeat for more.")
    ] = None,
    skip_bad: Annotated[
        bool | None, data_option("--skip-bad", help="Count unreadable inputs, leave them out and continue.")
    ] = None,
    backbone: Annotated[
        str | None,
        encoder_option(
            help="timm model name, or efficientnet-lite0; with --text a model of transformers or sentence-transformers (folder "
            "or hub id) [efficientnet-lite0; all-minilm-l6-v2]."
        ),
    ] = None,
    weights: Annotated[
        str | None, encoder_option(help="pretrained, random, or a safetensors file [pretrained].")
    ] = None,
    image_size: Annotated[
        int | None,
        encoder_option(
            help="Side of the backbone's input, pixels [the backbone's own, but 128 for images less "
            "than half as large]."
        ),
    ] = None,
    engine: Annotated[str, encoder_option("--engine", help=ENGINE_HELP)] = "auto",
    method: Annotated[
        list[str] | None,
        method_option(
            metavar="NAME",
            help="auto (probes and committees, weighted), linear, committee, nearest-class-mean, base, class-mask, local-mask, "
            "task-bias, attention, decoder-gains, ia3, film, comodulation, paper, positions; or, training the layers, "
            "hard-sharing, task-routing, maximum-roaming, fine-tuning, gradient-aggregation; repeat [auto].",
        ),
    ] = None,
    quality: Annotated[str | None, method_option(help="fast, default or best: how much auto tries [default].")] = None,
    balance: Annotated[
        str | None,
        method_option(
            help="none, or classes: rare classes weigh as much as frequent ones in fine-tuning, of methods with layers [none]."
        ),
    ] = None,
    calibrate: Annotated[
        bool | None, method_option("--calibrate/--no-calibrate", help="Fit a temperature, and answer at it [yes].")
    ] = None,
    metric: Annotated[
        str | None,
        method_option(
            help="What answers are chosen for: accuracy (the most probable), balanced_accuracy or f1, where classes are rare; "
            "probabilities stay as they are [accuracy]."
        ),
    ] = None,
    epochs: Annotated[int | None, training_option(help="Epochs of fine-tuning, for methods with layers [10].")] = None,
    seed: Annotated[int | None, training_option(help="Draws halves, initialisation, order and noise [0].")] = None,
    devices: Annotated[
        int | None, training_option(help="Processes that train together, one a device [1; under torchrun, as it says].")
    ] = None,
    where: Annotated[str | None, training_option("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)] = None,
    resume: Annotated[bool, training_option("--resume", help="Continue an interrupted run in OUT.")] = False,
    cache: Annotated[Path | None, output_option("--cache", help=CACHE_HELP)] = None,
    log: Annotated[
        list[str] | None,
        output_option(
            metavar="TRACKER", help="Send each finished run to tensorboard, mlflow or wandb, offline; repeat for more."
        ),
    ] = None,
    as_json: Annotated[bool, output_option("--json", help=JSON_HELP)] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings, such as the config.yaml of a run; the other options win."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any key of the file, such as head.dropout=0.1; wins over the file, flags win over it; repeat.",
        ),
    ] = None,
    image_column: Annotated[str | None, HIDDEN] = None,
    train_split: Annotated[str | None, HIDDEN] = None,
    test_split: Annotated[str | None, HIDDEN] = None,
    readout: Annotated[str | None, HIDDEN] = None,
    protocol: Annotated[str | None, HIDDEN] = None,
    task_bias: Annotated[bool | None, typer.Option("--task-bias", hidden=True)] = None,
    option: Annotated[list[str] | None, HIDDEN] = None,
    layer: Annotated[int | None, HIDDEN] = None,
    feature_size: Annotated[int | None, HIDDEN] = None,
    precision: Annotated[str | None, HIDDEN] = None,
    residual: Annotated[bool | None, HIDDEN] = None,
    batch_norm: Annotated[bool | None, typer.Option("--batch-norm", hidden=True)] = None,
    channels: Annotated[int | None, HIDDEN] = None,
    kernel_size: Annotated[int | None, HIDDEN] = None,
    sigma: Annotated[float | None, HIDDEN] = None,
    link: Annotated[str | None, HIDDEN] = None,
    beta: Annotated[float | None, HIDDEN] = None,
    normalizer: Annotated[str | None, HIDDEN] = None,
    level: Annotated[str | None, HIDDEN] = None,
    estimator: Annotated[str | None, HIDDEN] = None,
    encoder: Annotated[str | None, HIDDEN] = None,
    training_encoder: Annotated[str | None, HIDDEN] = None,
    controller_hidden: Annotated[list[int] | None, HIDDEN] = None,
    learning_rate: Annotated[float | None, HIDDEN] = None,
    patience: Annotated[int | None, HIDDEN] = None,
    pretraining_epochs: Annotated[int | None, HIDDEN] = None,
    pretraining_learning_rate: Annotated[float | None, HIDDEN] = None,
) -> None:
    """Learn every task on a frozen encoder, evaluate, and write run folders."""
    from ...training import follow_launcher, launched, leave_lost

    check_cluster(where, devices)
    if devices is not None:
        _start_processes(devices)
    follow_launcher()
    from ...data.features import cache_folder
    from ...processes import LostProcess
    from ...runs import check_trackers, track
    from ...runs import fit as fit_runs

    check_trackers(log or [])
    configs = configurations(config, settings or [], ctx.params, method or [], option or [])
    try:
        with at_work(where, 1 if where is None else None, RESUMED) as (resources, progress):
            results = fit_runs(
                configs, out, cache_folder(cache), resume=resume, engine=engine, progress=progress, resources=resources
            )
    except LostProcess:
        if not launched():
            raise
        leave_lost()  # what happened is said by the process it happened to
    for result in results:
        for name in dict.fromkeys(log or []):
            say(f"logged {result.folder} to {track(result.folder, name)}")
    if results:  # else this is not the first of several processes
        _show(results, as_json)


def _start_processes(devices: int) -> None:
    """End with the status of processes that train together, one a device, if they are to be started by this one.

    Raises:
        InputError: another number than were started already.
    """
    from ...training import Place, launch

    place = Place.of_environment()
    if devices < 1 or (place.number > 1 and devices != place.local_number):
        expected = "at least 1" if devices < 1 else f"{place.local_number}, as many as were started on this machine"
        raise InputError(f"--devices {devices} is out of range, expected {expected}")
    if devices > 1 and place.number == 1:
        raise typer.Exit(launch(devices, [sys.executable, "-m", "comodulation", *sys.argv[1:]]))


def _show(results: list[FitResult], as_json: bool) -> None:
    """Metrics of finished runs, and where they are."""
    from ...runs import decision_note

    if as_json:
        print(json.dumps({"runs": [{"folder": str(result.folder), **result.metrics} for result in results]}))
        return
    split = "test" if "test" in results[0].metrics else "validation"
    if len(results) > 1:
        table(f"{split} split, all tasks", [(r.metrics["method"], r.metrics[split]) for r in results])
    for result in results:
        measured = result.metrics[split]
        linear = result.metrics.get("linear", {}).get(split)
        beside = [("linear", linear)] if linear else []
        table(f"{split} split, {result.metrics['method']}", [("all", measured), *beside, *measured["tasks"].items()])
    for result in results:
        if note := decision_note(result.metrics, split):
            print(note)
        print(f"run folder: {result.folder}")
