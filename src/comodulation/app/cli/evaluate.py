"""`comodulate evaluate`: metrics of a run on a data set."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .shared import CacheOption, EngineOption, JsonFlag, LabelsOption, NoiseSeed, RunFolder, SkipBadFlag, opened, table

EXAMPLE = "comodulate evaluate runs/c100 --data FOLDER --json"


def evaluate(
    folder: RunFolder,
    data: Annotated[
        str, typer.Option(help="Folder, table or dataset id with the run's columns; or a file of embeddings.")
    ],
    labels: LabelsOption = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate [the run's test split].")] = None,
    skip_bad: SkipBadFlag = False,
    seed: NoiseSeed = None,
    engine: EngineOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Metrics of a finished run on a data set: accuracy, NLL, Brier score, ECE; overall and per task."""
    from ...data.features import cache_folder
    from .console import ConsoleProgress

    finished = opened(folder, seed)
    with ConsoleProgress() as progress:
        result = finished.evaluate(
            data, split, cache_folder(cache), labels=labels, skip_bad=skip_bad, engine=engine, progress=progress
        )
    if as_json:
        print(json.dumps(result))
        return
    table(f"{result['split']} split, {result['method']}", [("all", result), *result["tasks"].items()])
