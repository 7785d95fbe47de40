"""`comodulate predict`: answers for image files and folders of them, and for tables and files of texts or embeddings; of many in
shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...places import place
from .exits import say
from .shared import ClusterOption, EngineOption, JsonFlag, checked_seed, with_seed

EXAMPLE = "comodulate predict runs/c100 photo.png --task trees --json"


def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
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
    seed: Annotated[int | None, typer.Option(help="Seed of the modulator's noise [the run's].")] = None,
    engine: EngineOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Answers to named tasks for images, texts or embeddings in files, with the confidence that the run was evaluated with."""
    from ...errors import InputError
    from ...runs import PredictionsTable, Run

    if _is_folder(out, rows_per_shard is not None or resume or where is not None):
        assert out is not None
        _stream(folder, files, out, task or [], seed, engine, rows_per_shard, resume, where, as_json)
        return
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


def _is_folder(out: Path | None, asked: bool) -> bool:
    """Whether answers go to a folder. Raises InputError for options of a folder without one."""
    from ...errors import InputError
    from ...places import in_bucket

    if out is not None and (out.is_dir() or not out.suffix):
        return True
    if out is not None and in_bucket(out):
        raise InputError(f"a table is written to this machine; give a folder of the bucket with --out, got {out}")
    if asked:
        raise InputError(
            f"--rows-per-shard, --resume and --cluster write to a folder; expected one with --out, got {out or 'none'}"
        )
    return False


def _stream(
    folder: Path,
    files: list[Path],
    out: Path,
    tasks: list[str],
    seed: int | None,
    engine: str,
    rows_per_shard: int | None,
    resume: bool,
    where: str | None,
    as_json: bool,
) -> None:
    from ...errors import InputError, RunError
    from ...processes import cluster
    from ...runs import stream_answers
    from .console import ConsoleProgress

    if seed is not None:
        checked_seed(seed)
    try:
        with cluster(where, 1 if where is None else None) as resources, ConsoleProgress() as progress:
            done = stream_answers(
                folder, files, out, tasks=tasks, seed=seed, engine=engine, rows_per_shard=rows_per_shard, resume=resume,
                resources=resources, report=progress.rows, say=progress.message,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise RunError("interrupted; finished files are kept, the same command with --resume continues") from None
    if as_json:
        print(json.dumps({"run": str(folder), "folder": str(out), **vars(done)}))
    else:
        print(f"{out}: {done.rows - done.bad:,} {done.what}s answered, {done.shards} files")
    if done.cut:
        say(f"warning: {done.cut:,} {done.what}s are longer than the encoder takes; what is beyond is cut off")
    if done.bad:
        raise InputError(
            f"{done.bad} of {done.rows} {done.what}s cannot be read; the others are answered, the column error says why"
        )


def _show(result: dict[str, Any], what: str) -> None:
    from ...errors import printable

    print(printable(result[what]))
    for name, answer in result["tasks"].items():
        shown, prediction = printable(name), printable(answer["prediction"])
        print(f"  {shown:32s} {prediction:24s} {100 * answer['confidence']:5.1f}%")
