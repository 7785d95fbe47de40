"""`comodulate predict`: answers for image files and folders of them, and for tables and files of texts or embeddings; of many in
shards."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InputError, printable
from ...places import in_bucket, place
from .exits import say
from .shared import (
    FILES_RESUMED,
    ClusterOption,
    EngineOption,
    JsonFlag,
    NoiseSeed,
    RunFolder,
    at_work,
    checked_seed,
    opened,
    show_streamed,
)

if TYPE_CHECKING:
    from ...runs import Run

EXAMPLE = "comodulate predict runs/c100 photo.png --task trees --json"


def predict(
    folder: RunFolder,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=place,
            help="Image files, folders (all images in them), and tables of their paths. Of a run on texts, tables with its "
            "column or files of a text a line; of one on embeddings, tables or files of vectors. "
            "Tables and vectors may lie in a bucket (s3://, gs://).",
        ),
    ],
    task: Annotated[list[str] | None, typer.Option(help="Task to answer; repeat for more [all].")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=place,
            metavar="PATH",
            help="Table to write instead, with a row for each input and task: *.csv or *.parquet. Or a folder, "
            "for any number of inputs: parquet files with a row for each input, and columns for each task; it may lie in a bucket.",
        ),
    ] = None,
    rows_per_shard: Annotated[
        int | None, typer.Option(help="Inputs of each file in the folder OUT [100,000; of images 10,000].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the folder OUT; finished files stay.")] = False,
    where: ClusterOption = None,
    seed: NoiseSeed = None,
    engine: EngineOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Answers to named tasks for images, texts or embeddings in files, with the confidence that the run was evaluated with."""
    if not _is_folder(out, rows_per_shard is not None or resume or where is not None):
        _answer(opened(folder, seed), files, out, task or [], engine, as_json)
        return
    from ...runs import stream_answers

    assert out is not None
    seed = None if seed is None else checked_seed(seed)
    with at_work(where, 1 if where is None else None, FILES_RESUMED) as (resources, progress):
        done = stream_answers(
            folder, files, out, tasks=task or [], seed=seed, engine=engine, rows_per_shard=rows_per_shard, resume=resume,
            resources=resources, report=progress.rows, say=progress.message,
        )  # fmt: skip
    show_streamed(done, out, f"{done.rows - done.bad:,} {done.what}s answered", as_json, run=str(folder))
    if done.bad:
        raise InputError(
            f"{done.bad} of {done.rows} {done.what}s cannot be read; the others are answered, the column error says why"
        )


def _is_folder(out: Path | None, asked: bool) -> bool:
    """Whether answers go to a folder. Raises InputError for options of a folder without one."""
    if out is not None and (out.is_dir() or not out.suffix):
        return True
    if out is not None and in_bucket(out):
        raise InputError(f"a table is written to this machine; give a folder of the bucket with --out, got {out}")
    if asked:
        raise InputError(
            f"--rows-per-shard, --resume and --cluster write to a folder; expected one with --out, got {out or 'none'}"
        )
    return False


def _answer(run: Run, files: list[Path], out: Path | None, tasks: list[str], engine: str, as_json: bool) -> None:
    """Answer all inputs of some files, on standard output or in a table. Raises InputError where some cannot be used."""
    from ...runs import PredictionsTable

    asked, what = run.config.encoder.asked_in(files), run.encoder.what
    table = None if out is None else PredictionsTable(out, what)
    results: list[dict[str, Any]] = []
    bad: list[dict[str, str]] = []

    def leave_out(name: str, error: InputError) -> None:
        bad.append({what: name, "error": str(error)})

    keep = table.add if table is not None else results.append if as_json else partial(_show, what)
    number = 0
    for result in run.answers(asked, tasks, leave_out, engine=engine, say=say):
        keep(result)
        number += 1
    if not number:
        raise InputError(bad[0]["error"] + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))
    if table is not None:
        table.write(bad)
    if as_json:
        told = {f"{what}s": results, "bad": bad} if out is None else {"file": str(out), "answered": number, "bad": bad}
        print(json.dumps({"run": str(run.folder), "temperature": run.temperature, **told}))
    elif out is not None:
        print(f"{out}: {number} {what}s answered")
    for each in bad:
        say(f"error: {each['error']}")
    if bad:
        raise InputError(f"{len(bad)} of {len(asked)} {what}s cannot be read; the others are answered")


def _show(what: str, result: dict[str, Any]) -> None:
    print(printable(result[what]))
    for name, answer in result["tasks"].items():
        shown, prediction = printable(name), printable(answer["prediction"])
        print(f"  {shown:32s} {prediction:24s} {100 * answer['confidence']:5.1f}%")
