"""`comodulate study`: the paper's open questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError, choose
from .shared import CONTINUED, CacheOption, ClusterOption, JsonFlag, at_work, check_study, only_given

EXAMPLE = "comodulate study controller --data FOLDER --hours 0.4 --out runs/controller   (again: continues)"


def study(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="controller, training, residual or location.")],
    data: Annotated[str, typer.Option(help="Folder of CIFAR-100, or Hugging Face dataset id; location: also digits.")],
    out: Annotated[Path, typer.Option(help="Folder to write; one of the same study is continued.")],
    hours: Annotated[
        float | None,
        typer.Option(help="Time for the cells of this call; 0 only makes the report again [no limit]."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds; comparisons are paired by seed.")] = 3,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of each row's search for its learning rate (0: no search) [the question's]."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="timm model name, or efficientnet-lite0.")] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a safetensors file.")] = "pretrained",
    image_size: Annotated[int, typer.Option(help="Side of the backbone's input, pixels.")] = 128,
    channels: Annotated[int, typer.Option(help="Encoder and decoder neurons.")] = 256,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning on all images [6].")] = None,
    pretraining_epochs: Annotated[int | None, typer.Option(help="Epochs of pretraining [10].")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes [GPUs, or CPU cores].")] = None,
    where: ClusterOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer one of the paper's open questions on real data: verdicts with intervals, figures and tables."""
    from ...data.features import BackboneSettings, cache_folder
    from ...studies.cells import Asked, Inquiry, run_stages, study_config, write_answer
    from ...studies.questions import QUESTIONS

    asked = QUESTIONS[choose(question, QUESTIONS, "question")]
    trials = asked.trials if trials is None else trials
    check_study(seed, seeds, trials, 100, where, devices)
    if hours is not None and not 0 <= hours <= 10_000:
        raise InputError(f"--hours must be 0 to 10000, got {hours}")
    changes: dict[str, Any] = {
        "backbone": BackboneSettings(backbone, weights, image_size),
        "head": {"encoder_channels": channels, "decoder_channels": channels},
        "pretraining": only_given(epochs=pretraining_epochs),
        "tuning": only_given(epochs=epochs),
    }
    config = study_config("cifar100", data, **changes)
    inquiry = Inquiry(asked.name, config, tuple(range(seed, seed + seeds)), trials)
    with at_work(where, devices, CONTINUED) as (resources, progress):
        run_stages(
            Asked(asked, inquiry), out, cache_folder(cache), hours=hours, resources=resources, progress=progress,
            say=progress.message,
        )  # fmt: skip
    result = write_answer(asked, inquiry, out)
    print(json.dumps(result) if as_json else result["text"])
