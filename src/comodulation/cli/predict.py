"""`comodulate predict`: answers for image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import JsonFlag, with_seed

EXAMPLE = "comodulate predict runs/c100 photo.png --task trees --json"


def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    task: Annotated[list[str] | None, typer.Option(help="Task to answer; repeat for more [all].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Calibrated answers to named tasks for image files."""
    from ..errors import printable
    from ..prediction import Run

    results = with_seed(Run.open(folder), seed).predict(images, task or [])
    if as_json:
        print(json.dumps({"run": str(folder), "images": results}))
        return
    for result in results:
        print(printable(result["image"]))
        for name, answer in result["tasks"].items():
            shown, prediction = printable(name), printable(answer["prediction"])
            print(f"  {shown:32s} {prediction:24s} {100 * answer['confidence']:5.1f}%")
