"""What several verbs share: options, how their values are read, how a long job is watched, and how results are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InputError, RunError, printable
from .exits import say

if TYPE_CHECKING:
    from ...processes import Resources
    from ...runs import Run, Streamed
    from .console import ConsoleProgress

JSON_HELP = "Print one JSON object on standard output and nothing else."
CACHE_HELP = "Folder of features and pretrained layers [$COMODULATION_CACHE, ~/.cache/comodulation]."
ENGINE_HELP = (
    "What computes the backbone's features: torch; onnx (ONNX Runtime) or openvino, on CPUs; or auto, the fastest one where "
    "there are many inputs."
)
CLUSTER_HELP = (
    "Where pieces of work run: local (processes of this machine), slurm (the nodes of this allocation), or HOST:PORT of the head "
    "of a Ray cluster; see docs/cluster.md."
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
ClusterOption = Annotated[str | None, typer.Option("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)]
JsonFlag = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
CacheOption = Annotated[Path | None, typer.Option("--cache", help=CACHE_HELP)]
EngineOption = Annotated[str, typer.Option("--engine", help=ENGINE_HELP)]
LabelsOption = Annotated[str | None, typer.Option(help="Table of labels, if the run has one [the run's].")]
NoiseSeed = Annotated[int | None, typer.Option(help="Seed of the modulator's noise [the run's].")]
SkipBadFlag = Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images, leave them out and continue.")]
WeightsOption = Annotated[str | None, typer.Option(help="pretrained, random, or a safetensors file [pretrained].")]

# What is said after Ctrl-C.
RESUMED = "what is finished is kept, the same command with --resume continues"
FILES_RESUMED = "finished files are kept, the same command with --resume continues"
CONTINUED = "what is finished is kept, the same command continues"


@contextmanager
def at_work(where: str | None, workers: int | None, kept: str) -> Iterator[tuple[Resources, ConsoleProgress]]:
    """What pieces of a long job run on, and its progress on the terminal; Ctrl-C ends it with a line on what is ``kept``.

    Args:
        where, workers: as ``cluster`` takes them.
    """
    from ...processes import cluster
    from .console import ConsoleProgress

    try:
        with cluster(where, workers) as resources, ConsoleProgress() as progress:
            yield resources, progress
    except KeyboardInterrupt:
        raise RunError(f"interrupted; {kept}") from None


def only_given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are neither None nor an empty list."""
    return {name: value for name, value in options.items() if value is not None and value != []}


def flag(name: str) -> str:
    """An option as it is written: ``--bin-width`` of ``bin_width``."""
    return f"--{name.replace('_', '-')}"


def check_cluster(where: str | None, devices: int | None) -> None:
    """Raise InputError where two options say where pieces of work run."""
    if where is not None and devices is not None:
        raise InputError("give either --devices, processes of this machine, or --cluster")


def opened(folder: Path, seed: int | None) -> Run:
    """A finished run; with another seed of its modulator's noise, where one is given."""
    from ...runs import Run

    run = Run.open(folder)
    if seed is not None:
        run.method.head.seed = checked_seed(seed)
    return run


def checked_seed(seed: int) -> int:
    from ...runs import MAX_SEED

    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {seed} is out of range, expected 0 to {MAX_SEED}")
    return seed


def check_study(first: int, number: int, trials: int, most_trials: int, where: str | None, devices: int | None) -> None:
    """Raise InputError for what no study takes.

    Args:
        first, number: seeds to compare on, ``first`` to ``first + number - 1``: not among them the one that learning rates are
            chosen on.
        trials, most_trials: of each search, and how many there may be. where, devices: what it runs on.
    """
    from ...studies.cells import SEARCH_SEED

    if not 2 <= number <= 1000:
        raise InputError(f"--seeds must be 2 to 1000, got {number}: a paired test needs at least 2")
    last = checked_seed(first) + number - 1
    checked_seed(last)
    if first <= SEARCH_SEED <= last:
        raise InputError(
            f"seeds {first} to {last} hold {SEARCH_SEED}, on whose validation images settings are chosen; take others with --seed"
        )
    if not 0 <= trials <= most_trials:
        raise InputError(f"--trials must be 0 to {most_trials}, got {trials}")
    check_cluster(where, devices)
    if devices is not None and not 1 <= devices <= 256:
        raise InputError(f"--devices must be 1 to 256, got {devices}")


def seed_range(seeds: str, first: int | None) -> tuple[int, int]:
    """The first seed and how many, from a number or a range: `10` from ``first`` (0 where it is not given), or `20-29`."""
    low, dash, high = seeds.partition("-")
    if not dash and (low.isascii() and low.isdecimal()):
        return first or 0, int(low)
    if not all(part.isascii() and part.isdecimal() for part in (low, high)) or int(high) < int(low):
        raise InputError(f"--seeds is a number, or a range such as 20-29, got {seeds!r}")
    if first is not None:
        raise InputError(f"--seeds {seeds} says where seeds begin; leave --seed out")
    return int(low), int(high) - int(low) + 1


def show_streamed(done: Streamed, out: Path, said: str, as_json: bool, **about: str) -> None:
    """Say what has come of shards: as JSON with what it is ``about``, or the line that is ``said``."""
    print(json.dumps({**about, "folder": str(out), **vars(done)}) if as_json else f"{out}: {said}, {done.shards} files")
    if done.cut:
        say(f"warning: {done.cut:,} {done.what}s are longer than the encoder takes; what is beyond is cut off")


def table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Metrics by task as text: balanced accuracy first, which equals accuracy where the classes are equally frequent."""
    title, rows = printable(title), [(printable(name), values) for name, values in rows]  # names are data
    width = max(len(name) for name, _ in (*rows, (title, {})))
    print(f"{title:{width}s}  balanced  accuracy  majority     NLL   Brier     ECE   count")
    for name, values in rows:
        balanced, majority = (
            values.get(key, values.get("macro", {}).get(key)) for key in ("balanced_accuracy", "majority")
        )
        shown = ["" if value is None else f"{100 * value:7.2f}%" for value in (balanced, values["accuracy"], majority)]
        print(
            f"{name:{width}s}  {'  '.join(f'{text:>8s}' for text in shown)}  {values['nll']:6.3f}"
            f"  {values['brier']:6.3f}  {100 * values['ece']:5.2f}%  {values['count']:6d}"
        )
