"""`comodulate fit`: data to run folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .exits import say
from .fit_options import DATA, ENCODER, HIDDEN, METHOD, OUTPUT, TRAINING, configurations
from .shared import CACHE_HELP, CLUSTER_HELP, ENGINE_HELP, JSON_HELP, check_cluster, table

EXAMPLE = "comodulate fit --data photos --labels labels.csv --out runs/photos --seed 0 --json"


def fit(
    ctx: typer.Context,
    out: Annotated[
        Path,
        typer.Option(help="Run folder to write; with several methods, OUT/METHOD for each.", rich_help_panel=OUTPUT),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of parquet files, of images that --labels names, or of images sorted in folders; or Hugging Face "
            "dataset id. With --text or --embeddings also a table.",
            rich_help_panel=DATA,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Texts instead of images: their column in the table (csv, tsv, parquet) or data set.",
            rich_help_panel=DATA,
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_COLUMN",
            help="Embeddings instead of images: a column of lists of the table or data set, or a file (parquet, arrow; .npy, "
            ".safetensors or a folder of `extract` with --labels, rows in the same order).",
            rich_help_panel=DATA,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Table (csv, tsv, parquet, xlsx) of image paths in the folder and a label column for each task.",
            rich_help_panel=DATA,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Label column that is a task; repeat for more [all columns of --labels].",
            rich_help_panel=DATA,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Label column of --labels that is no task; repeat for more.", rich_help_panel=DATA
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of groups: each group is a task.", rich_help_panel=DATA)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of classes within the groups.", rich_help_panel=DATA)
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Binary column that is a task; repeat for more.", rich_help_panel=DATA),
    ] = None,
    skip_bad: Annotated[
        bool | None,
        typer.Option("--skip-bad", help="Count unreadable inputs, leave them out and continue.", rich_help_panel=DATA),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="timm model name, or efficientnet-lite0; with --text a model of transformers or sentence-transformers (folder "
            "or hub id) [efficientnet-lite0; all-minilm-l6-v2].",
            rich_help_panel=ENCODER,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="pretrained, random, or a safetensors file [pretrained].", rich_help_panel=ENCODER),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the backbone's input, pixels [the backbone's own, but 128 for images less "
            "than half as large].",
            rich_help_panel=ENCODER,
        ),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help=ENGINE_HELP, rich_help_panel=ENCODER)] = "auto",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="auto (probes and committees, weighted), linear, committee, nearest-class-mean, base, class-mask, local-mask, "
            "task-bias, attention, decoder-gains, ia3, film, comodulation, paper, positions; or, training the layers, "
            "hard-sharing, task-routing, maximum-roaming, fine-tuning, gradient-aggregation; repeat [auto].",
            rich_help_panel=METHOD,
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(help="fast, default or best: how much auto tries [default].", rich_help_panel=METHOD),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            help="none, or classes: rare classes weigh as much as frequent ones in fine-tuning, of methods with layers [none].",
            rich_help_panel=METHOD,
        ),
    ] = None,
    calibrate: Annotated[
        bool | None,
        typer.Option(
            "--calibrate/--no-calibrate", help="Fit a temperature, and answer at it [yes].", rich_help_panel=METHOD
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What answers are chosen for: accuracy (the most probable), balanced_accuracy or f1, where classes are rare; "
            "probabilities stay as they are [accuracy].",
            rich_help_panel=METHOD,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of fine-tuning, for methods with layers [10].", rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Draws halves, initialisation, order and noise [0].", rich_help_panel=TRAINING),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            help="Processes that train together, one a device [1; under torchrun, as it says].",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--cluster", metavar="ADDRESS", help=CLUSTER_HELP, rich_help_panel=TRAINING)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run in OUT.", rich_help_panel=TRAINING)
    ] = False,
    cache: Annotated[Path | None, typer.Option("--cache", help=CACHE_HELP, rich_help_panel=OUTPUT)] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Send each finished run to tensorboard, mlflow or wandb, offline; repeat for more.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP, rich_help_panel=OUTPUT)] = False,
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
    from ...training import Place, follow_launcher, launch, launched, leave_lost

    check_cluster(where, devices)
    if devices is not None:
        place = Place.of_environment()
        if devices < 1 or (place.number > 1 and devices != place.local_number):
            from ...errors import InputError

            expected = "at least 1" if devices < 1 else f"{place.local_number}, as many as were started on this machine"
            raise InputError(f"--devices {devices} is out of range, expected {expected}")
        if devices > 1 and place.number == 1:
            raise typer.Exit(launch(devices, [sys.executable, "-m", "comodulation", *sys.argv[1:]]))
    follow_launcher()
    from ...data.features import cache_folder
    from ...errors import RunError
    from ...processes import LostProcess, cluster
    from ...runs import check_trackers, decision_note, track
    from ...runs import fit as fit_runs
    from .console import ConsoleProgress

    check_trackers(log or [])
    configs = configurations(config, settings or [], ctx.params, method or [], option or [])
    try:
        with cluster(where, 1 if where is None else None) as resources, ConsoleProgress() as progress:
            results = fit_runs(
                configs, out, cache_folder(cache), resume=resume, engine=engine, progress=progress, resources=resources
            )
    except LostProcess:
        if not launched():
            raise
        leave_lost()  # what happened is said by the process it happened to
    except KeyboardInterrupt:
        raise RunError("interrupted; what is finished is kept, the same command with --resume continues") from None
    if not results:
        return
    for result in results:
        for name in dict.fromkeys(log or []):
            say(f"logged {result.folder} to {track(result.folder, name)}")
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
