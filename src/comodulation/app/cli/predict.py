"""`comodulate predict`: answers for image files and folders of them, and for tables and files of texts or embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .exits import say
from .shared import EngineOption, JsonFlag, with_seed

EXAMPLE = "comodulate predict runs/c100 photo.png --task trees --json"


def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Image files, and folders: all images in them. Of a run on texts, tables with its column or files of a text a "
            "line; of one on embeddings, tables or files of vectors.",
        ),
    ],
    task: Annotated[list[str] | None, typer.Option(help="Task to answer; repeat for more [all].")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write instead, a row an input and task: *.csv or *.parquet.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    engine: EngineOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Answers to named tasks for images, texts or embeddings in files, with the confidence that the run was evaluated with."""
    from ...errors import InputError
    from ...runs import PredictionsTable, Run

    run = with_seed(Run.open(folder), seed)
    asked = run.config.encoder.asked_in(files)
    what = run.encoder.what
    table = None if out is None else PredictionsTable(out, what)
    bad: list[dict[str, str]] = []

    def note(name: str, error: InputError) -> None:
        bad.append({what: name, "error": str(error)})

    results: list[dict[str, Any]] = []
    number = 0
    for result in run.answers(asked, task or [], note, engine=engine, say=say):
        number += 1
        if table is not None:
            table.add(result)
        elif as_json:
            results.append(result)
        else:
            _show(result, what)
    if not number:
        raise InputError(bad[0]["error"] + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))
    if table is not None:
        table.write(bad)
    if as_json:
        told = {f"{what}s": results, "bad": bad} if out is None else {"file": str(out), "answered": number, "bad": bad}
        print(json.dumps({"run": str(folder), "temperature": run.temperature, **told}))
    elif out is not None:
        print(f"{out}: {number} {what}s answered")
    for each in bad:
        say(f"error: {each['error']}")
    if bad:
        raise InputError(f"{len(bad)} of {len(asked)} {what}s cannot be read; the others are answered")


def _show(result: dict[str, Any], what: str) -> None:
    from ...errors import printable

    print(printable(result[what]))
    for name, answer in result["tasks"].items():
        shown, prediction = printable(name), printable(answer["prediction"])
        print(f"  {shown:32s} {prediction:24s} {100 * answer['confidence']:5.1f}%")
