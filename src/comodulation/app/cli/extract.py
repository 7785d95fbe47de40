"""`comodulate extract`: features of pictures and texts as tables of embeddings, in shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError
from ...places import place
from .exits import say
from .shared import (
    FILES_RESUMED,
    ClusterOption,
    EngineOption,
    JsonFlag,
    WeightsOption,
    at_work,
    check_cluster,
    flag,
    only_given,
    show_streamed,
)

EXAMPLE = "comodulate extract photos --out embeddings --backbone resnet50 --json"


def extract(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=place,
            help="Image files, folders (all images in them), and tables of their paths. With --text, tables with its column or "
            "files of a text a line, and folders of them; they may lie in a bucket (s3://, gs://).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=place,
            metavar="FOLDER",
            help="Folder to write: parquet files with a row for each input, in order, and its features in the column embedding; "
            "it may lie in a bucket.",
        ),
    ],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Texts instead of images: their column in the tables.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="timm model name, or efficientnet-lite0; with --text a model of transformers or sentence-transformers (folder "
            "or hub id) [efficientnet-lite0; all-minilm-l6-v2]."
        ),
    ] = None,
    weights: WeightsOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the backbone's input, pixels [the backbone's own, but 128 for images less than half as large]."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the arithmetic: float32 or bfloat16.")] = "float32",
    engine: EngineOption = "auto",
    rows_per_shard: Annotated[
        int | None, typer.Option(help="Inputs of each file in the folder OUT [100,000; of images 10,000].")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out the features of unreadable inputs, say why, and continue.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the folder OUT; finished files stay.")] = False,
    where: ClusterOption = None,
    devices: Annotated[int | None, typer.Option(help="Processes of this machine that share the work [1].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Features of a frozen encoder for any number of images or texts, for `fit --embeddings` and for other programs."""
    from ...runs import stream_features

    check_cluster(where, devices)
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices} is out of range, expected at least 1")
    settings = _settings(text, backbone, weights, image_size)
    with at_work(where, devices or (1 if where is None else None), FILES_RESUMED) as (resources, progress):
        done = stream_features(
            settings, files, out, precision=precision, skip_bad=skip_bad, engine=engine, rows_per_shard=rows_per_shard,
            resume=resume, resources=resources, report=partial(progress.rows, what="extracted"), say=progress.message,
        )  # fmt: skip
    show_streamed(done, out, f"features of {done.rows - done.bad:,} {done.what}s", as_json)
    if done.bad:
        say(f"skipped {done.bad} unreadable {done.what}s; the column error says why")


def _settings(text: str | None, backbone: str | None, weights: str | None, image_size: int | None) -> Any:
    """The encoder that the options name. Raises InputError for options that do not go together."""
    from ...data.features import BackboneSettings, TextSettings

    named = only_given(name=backbone)
    if text is None:
        return BackboneSettings(**named, **only_given(weights=weights), image_size=image_size, output="vector")
    if of_images := only_given(weights=weights, image_size=image_size):
        option, value = next(iter(of_images.items()))
        raise InputError(
            f"{flag(option)} {value} is of images, and --text names a column of texts; leave one of them out"
        )
    return TextSettings(text, **named)
