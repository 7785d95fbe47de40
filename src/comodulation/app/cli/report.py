"""`comodulate report`: the report of a run or of a study, made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError
from .exits import say
from .shared import JsonFlag

EXAMPLE = "comodulate report runs/photos   (or a study: comodulate report runs/cifar100 --also runs/cifar100-192)"


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Run folder, folder of runs, or folder of a study.")],
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder of the same study, to say over what verdicts hold; repeat."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the report of a run again from its folder, or tables, figures and report of a study from its finished cells."""
    from ...runs import Run, run_folders, write_run_report

    if runs := run_folders(folder):
        if also:
            raise InputError(f"--also is for studies, and {folder} is a run")
        pages = [str(write_run_report(Run.open(run), say)) for run in runs]
        print(json.dumps({"reports": pages}) if as_json else "\n".join(pages))
        return
    from ...studies.paper import write_report

    result = write_report(folder, also or [])
    print(json.dumps(result) if as_json else result["text"])
