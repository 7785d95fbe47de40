"""`comodulate fit`: data to run folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from .shared import CacheOption, EngineOption, JsonFlag, method_options, modulation_options, table, training_settings

EXAMPLE = (
    "comodulate fit --data FOLDER --backbone efficientnet-lite0 --group coarse_label "
    "--label fine_label --method attention --method comodulation --seed 0 --out runs/c100"
)


def fit(
    data: Annotated[
        str,
        typer.Option(
            help="Folder of parquet files, of images that --labels names, or of images sorted in folders; or Hugging Face "
            "dataset id."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write; with several methods, OUT/METHOD for each.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Table (csv, tsv, parquet) of image paths in the folder and a label column for each task."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Label column that is a task; repeat for more [all columns of --labels].")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Label column of --labels that is no task; repeat for more.")
    ] = None,
    balance: Annotated[
        str, typer.Option(help="none, or classes: rare classes weigh as much as frequent ones in fine-tuning.")
    ] = "none",
    group: Annotated[str | None, typer.Option(help="Column of groups: each group is a task.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of classes within the groups.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="Binary column that is a task; repeat for more.")] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of images or their paths, if there are several.")
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to train and validate on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split to test on once, if it is there.")] = "test",
    readout: Annotated[
        str | None,
        typer.Option(help="open (all classes) or restricted (the task's own) [open; of label columns: restricted]."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="auto (probes and committees, weighed), linear, "
            " committee, base, class-mask, local-mask, task-bias, attention, decoder-gains, ia3, film, comodulation; or, training "
            "the layers, hard-sharing, task-routing, maximum-roaming, fine-tuning, gradient-aggregation; repeat [auto]."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="table: every image teaches everything; claims: layers and tasks learn from disjoint halves [table where the "
            "method can]."
        ),
    ] = None,
    quality: Annotated[str, typer.Option(help="fast, default or best: how much auto tries.")] = "default",
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Fit a temperature, and answer at it.")
    ] = True,
    task_bias: Annotated[bool, typer.Option("--task-bias", help="Learn a bias per task and output besides.")] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the method's own options, such as sharing=0.8; repeat.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="timm model name, or efficientnet-lite0.")] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a safetensors file.")] = "pretrained",
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the backbone's input, pixels [the backbone's own, but 128 for images less "
            "than half as large]."
        ),
    ] = None,
    layer: Annotated[int, typer.Option(help="Feature stage of the backbone (-1: last).")] = -1,
    feature_size: Annotated[int, typer.Option(help="Side of the stored feature map (0: as it is).")] = 2,
    precision: Annotated[str, typer.Option(help="Backbone arithmetic: float32 or bfloat16.")] = "float32",
    residual: Annotated[bool, typer.Option("--residual/--no-residual", help="Skip connections in the head.")] = True,
    batch_norm: Annotated[
        bool, typer.Option("--batch-norm", help="Normalise the head's encoder and decoder layers (in one process).")
    ] = False,
    channels: Annotated[int, typer.Option(help="Encoder and decoder neurons.")] = 256,
    kernel_size: Annotated[int, typer.Option(help="Of the head's convolutions; 1 on pooled features.")] = 3,
    sigma: Annotated[float | None, typer.Option(help="Standard deviation of the modulator.")] = None,
    link: Annotated[str | None, typer.Option(help="rectified or exponential.")] = None,
    beta: Annotated[float | None, typer.Option(help="Strength of the decoder gains.")] = None,
    normalizer: Annotated[str | None, typer.Option(help="relative, covariance or correlation.")] = None,
    level: Annotated[str | None, typer.Option(help="task (one gain per task) or input (one per image).")] = None,
    estimator: Annotated[str | None, typer.Option(help="derivative, quadrature or monte_carlo.")] = None,
    encoder: Annotated[str | None, typer.Option(help="What the encoder does: gain, none or stochastic.")] = None,
    training_encoder: Annotated[str | None, typer.Option(help="The same while training, if different.")] = None,
    controller_hidden: Annotated[list[int] | None, typer.Option(help="Hidden widths: an MLP controller.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of fine-tuning.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of fine-tuning [the method's default].")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without gain (0: never).")] = None,
    pretraining_epochs: Annotated[int | None, typer.Option(help="Of pretraining.")] = None,
    pretraining_learning_rate: Annotated[float | None, typer.Option(help="Of pretraining.")] = None,
    seed: Annotated[int, typer.Option(help="Draws halves, initialisation, order and noise.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in OUT.")] = False,
    devices: Annotated[
        int | None, typer.Option(help="Processes that train together, one a device [1; under torchrun, as it says].")
    ] = None,
    engine: EngineOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pretrain the added layers, fine-tune each method, evaluate, and write run folders."""
    from ...training import Place, follow_launcher, launch, launched, leave_lost

    if devices is not None:
        place = Place.of_environment()
        if devices < 1 or (place.number > 1 and devices != place.local_number):
            from ...errors import InputError

            expected = "at least 1" if devices < 1 else f"{place.local_number}, as many as were started on this machine"
            raise InputError(f"--devices {devices} is out of range, expected {expected}")
        if devices > 1 and place.number == 1:
            raise typer.Exit(launch(devices, [sys.executable, "-m", "comodulation", *sys.argv[1:]]))
    follow_launcher()
    from ...data.features import BackboneSettings, cache_folder
    from ...errors import RunError, choose
    from ...mathematics import Modulation
    from ...networks.methods import METHODS
    from ...processes import LostProcess
    from ...runs import HeadSettings, RunConfig, make_config
    from ...runs import fit as fit_runs
    from .console import ConsoleProgress

    names = list(dict.fromkeys(method or ["auto"]))
    for name in names:
        choose(name, METHODS, "method")
    # Layers of ours read a map; what answers from the features themselves reads all there are.
    output: Literal["map", "vector"] = "vector" if all(METHODS[name].without_layers for name in names) else "map"
    given = dict(
        std=sigma, link=link, beta=beta, normalizer=normalizer, level=level, estimator=estimator, encoder=encoder,
        training_encoder=training_encoder,
    )  # fmt: skip
    defaults = {name: field.default for name, field in RunConfig.model_fields.items()}
    shared = dict(
        data=data, group=group, label=label, attributes=tuple(attribute or ()), image_column=image_column,
        labels=labels, tasks=tuple(task or ()), ignore=tuple(ignore or ()), balance=balance,
        train_split=train_split, test_split=test_split, seed=seed, precision=precision,
        **({} if readout is None else {"readout": readout}),
        protocol=protocol,
        quality=quality, calibrate=calibrate, task_bias=task_bias, options=method_options(option or []),
        skip_bad=skip_bad,
        backbone=BackboneSettings(backbone, weights, image_size, layer, feature_size, output),
        head=dict(
            HeadSettings(residual=residual), encoder_channels=channels, decoder_channels=channels,
            kernel_size=kernel_size, batch_norm=batch_norm,
        ),
        controller=dict(hidden=tuple(controller_hidden or ())),
        modulation=modulation_options({key: value for key, value in given.items() if value is not None}, Modulation),
        pretraining=training_settings(
            "pretraining", defaults["pretraining"], epochs=pretraining_epochs, learning_rate=pretraining_learning_rate
        ),
    )  # fmt: skip
    configs = []
    for name in names:
        rate = learning_rate if learning_rate is not None else METHODS[name].default_learning_rate
        tuning = training_settings(
            "fine-tuning", defaults["tuning"], epochs=epochs, patience=patience, learning_rate=rate
        )
        configs.append(make_config({**shared, "method": name, "tuning": tuning}))
    try:
        with ConsoleProgress() as progress:
            results = fit_runs(configs, out, cache_folder(cache), resume=resume, engine=engine, progress=progress)
    except LostProcess:
        if not launched():
            raise
        leave_lost()  # what happened is said by the process it happened to
    except KeyboardInterrupt:
        raise RunError("interrupted; what is finished is kept, the same command with --resume continues") from None
    if not results:
        return
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
        print(f"run folder: {result.folder}")
