"""`comodulate export`: a run as one graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import JsonFlag, NoiseSeed, RunFolder, opened

EXAMPLE = "comodulate export runs/c100 --out trees.onnx --task trees"


def export(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="File to write: *.onnx, or *.pt2 for torch.export.load.")],
    task: Annotated[str | None, typer.Option(help="The one task it answers [the task is an input].")] = None,
    seed: NoiseSeed = None,
    as_json: JsonFlag = False,
) -> None:
    """The network with its tasks as one graph, for ONNX or torch.export: a batch of inputs (and task ids) in, probabilities out."""
    from ...runs import export_run

    about = export_run(opened(folder, seed), out, task)
    if as_json:
        print(json.dumps({"run": str(folder), "file": str(out), **about}))
        return
    print(f"{out}: {', '.join(about['inputs'])} -> probabilities (B, {len(about['answers'])})")
