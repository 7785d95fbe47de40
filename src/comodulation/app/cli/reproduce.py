"""`comodulate reproduce`: the paper's claims, tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError
from .shared import (
    CONTINUED,
    CacheOption,
    ClusterOption,
    EngineOption,
    JsonFlag,
    WeightsOption,
    at_work,
    check_study,
    only_given,
    seed_range,
)

EXAMPLE = "comodulate reproduce cifar100 --data FOLDER --seeds 10 --out runs/cifar100   (again: continues)"


def reproduce(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="cifar100, clinc, celeba or attributes.")],
    data: Annotated[
        str,
        typer.Option(
            help="Folder, or Hugging Face dataset id; of clinc, a table of texts with their domain and intent."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; one of the same study is continued.")],
    seeds: Annotated[
        str,
        typer.Option(
            metavar="NUMBER_OR_RANGE",
            help="Seeds of the core: a number, or a range such as 20-29; the other parts use the first three.",
        ),
    ] = "10",
    seed: Annotated[int | None, typer.Option(help="First seed [0].")] = None,
    trials: Annotated[int, typer.Option(help="Trials of each search (0: the methods' defaults).")] = 16,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only these methods, or rows with their options: 'paper level=task'; repeat [all]."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these parts: core, others, restricted, regimes, options, layers, aggregation; repeat [all but the last]."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Variant of the layers: residual, base; repeat [both].")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm model name, or efficientnet-lite0 [efficientnet-lite0].")
    ] = None,
    weights: WeightsOption = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the backbone's input, pixels [128].")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Draws the halves [the seed].")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="probe: layers begin at logistic regression; random: the paper's [probe, or random with --channels]."
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Encoder and decoder neurons [256; of the probe: two a feature].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning [6].")] = None,
    pretraining_epochs: Annotated[int | None, typer.Option(help="Epochs of pretraining [10].")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes [GPUs, or CPU cores].")] = None,
    engine: EngineOption = "auto",
    where: ClusterOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Test the paper's claims on real data: every method, seeds, searches, statistics, mechanism, one report."""
    from ...data.features import BackboneSettings, cache_folder
    from ...studies.cells import study_config
    from ...studies.paper import Study, write_report
    from ...studies.paper import reproduce as run_study

    first, number = seed_range(seeds, seed)
    check_study(first, number, trials, 1000, where, devices)
    of_images = only_given(name=backbone, weights=weights, image_size=image_size)
    if study == "clinc" and of_images:
        raise InputError("study 'clinc' reads texts; leave --backbone, --weights and --image-size out")
    changes: dict[str, Any] = {
        "backbone": BackboneSettings(**of_images),
        "head": only_given(start=start, encoder_channels=channels, decoder_channels=channels),
        "split_seed": split_seed,
        "pretraining": only_given(epochs=pretraining_epochs),
        "tuning": only_given(epochs=epochs),
    }
    config = study_config(study, data, **changes)
    compared = tuple(range(first, first + number))
    planned = Study(study, config, compared, trials, tuple(method or ()), tuple(part or ()), tuple(variant or ()))
    with at_work(where, devices, CONTINUED) as (resources, progress):
        run_study(
            planned,
            out,
            cache_folder(cache),
            resources=resources,
            engine=engine,
            progress=progress,
            say=progress.message,
        )
    result = write_report(out)
    print(json.dumps(result) if as_json else result["text"])
