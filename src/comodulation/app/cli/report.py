"""`comodulate report`: a study's report, made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import JsonFlag

EXAMPLE = "comodulate report runs/cifar100 --also runs/cifar100-192"


def report(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a study.")],
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder of the same study, to say over what verdicts hold; repeat."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make tables, figures and report of a study again, from the cells that are finished."""
    from ...studies.paper import write_report

    result = write_report(folder, also or [])
    print(json.dumps(result) if as_json else result["text"])
