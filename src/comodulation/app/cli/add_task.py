"""`comodulate add-task`: more tasks for a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError
from .shared import RESUMED, CacheOption, JsonFlag, LabelsOption, SkipBadFlag, at_work, table

EXAMPLE = "comodulate add-task runs/faces --data FOLDER --task hat --out runs/faces-hat"


def add_task(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder; not changed.")],
    data: Annotated[str, typer.Option(help="Folder, table or dataset id with inputs and labels of the new tasks.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Label column that is a new task, binary or of classes; repeat.")
    ] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="Binary column that is a new task; repeat.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="NAME=CLASS: a class of a new group of known classes; repeat for each.")
    ] = None,
    labels: LabelsOption = None,
    skip_bad: SkipBadFlag = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what was interrupted in OUT.")] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add tasks to a finished run; its answers to the other tasks keep every bit."""
    from ...data.features import cache_folder
    from ...runs import Run, grow_run

    if bool(task or attribute) == bool(group):
        raise InputError(
            "give either --task or --attribute (label columns) or --group NAME=CLASS (a run of groups of classes)"
        )
    groups: dict[str, list[str]] = {}
    for pair in group or []:
        name, equals, member = pair.partition("=")
        if not (name and equals and member):
            raise InputError(f"--group {pair!r} is not NAME=CLASS, such as pets=hamster")
        groups.setdefault(name, []).append(member)
    with at_work(None, 1, RESUMED) as (_, progress):
        result = grow_run(
            Run.open(folder), groups or attribute or [], data, out, cache_folder(cache), columns=task or [],
            labels=labels, skip_bad=skip_bad, resume=resume, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps({"run": str(result.folder), **result.metrics}))
        return
    entry = result.metrics["added"][-1]
    split = "test" if "test" in entry else "validation"
    table(f"{split} split, added", list(entry[split]["tasks"].items()))
    print(f"run folder: {result.folder}")
