"""`comodulate evaluate`: metrics of a run on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import CacheOption, EngineOption, JsonFlag, table, with_seed

EXAMPLE = "comodulate evaluate runs/c100 --data FOLDER --json"


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    data: Annotated[
        str, typer.Option(help="Folder, table or dataset id with the run's columns; or a file of embeddings.")
    ],
    labels: Annotated[str | None, typer.Option(help="Table of labels, if the run has one [the run's].")] = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate [the run's test split].")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count unreadable images, leave them out and continue.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the modulator's noise [the run's].")] = None,
    engine: EngineOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Metrics of a finished run on a data set: accuracy, NLL, Brier score, ECE; overall and per task."""
    from ...data.features import cache_folder
    from ...runs import Run
    from .console import ConsoleProgress

    finished = with_seed(Run.open(folder), seed)
    with ConsoleProgress() as progress:
        result = finished.evaluate(
            data, split, cache_folder(cache), labels=labels, skip_bad=skip_bad, engine=engine, progress=progress
        )
    if as_json:
        print(json.dumps(result))
        return
    table(f"{result['split']} split, {result['method']}", [("all", result), *result["tasks"].items()])
