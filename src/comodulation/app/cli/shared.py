"""What several verbs share: options, and how their values are read and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
ClusterOption = Annotated[str | None, typer.Option("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)]
JsonFlag = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
CacheOption = Annotated[Path | None, typer.Option("--cache", help=CACHE_HELP)]
EngineOption = Annotated[str, typer.Option("--engine", help=ENGINE_HELP)]


def method_options(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; values are numbers where they can be."""
    from ...errors import InputError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise InputError(f"--option {pair!r} is not NAME=VALUE")
        for kind in (int, float, str):
            try:
                found[name] = kind(text)
                break
            except ValueError:
                continue
    return found


def check_cluster(where: str | None, devices: int | None) -> None:
    """Raise InputError where two options say where pieces of work run."""
    from ...errors import InputError

    if where is not None and devices is not None:
        raise InputError("give either --devices, processes of this machine, or --cluster")


def with_seed(finished: Any, seed: int | None) -> Any:
    if seed is not None:
        finished.method.head.seed = checked_seed(seed)
    return finished


def checked_seed(seed: int) -> int:
    from ...errors import InputError
    from ...runs import MAX_SEED

    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {seed} is out of range, expected 0 to {MAX_SEED}")
    return seed


def checked_seeds(first: int, number: int) -> None:
    """Seeds to compare on, ``first`` to ``first + number - 1``: not among them the one that learning rates are chosen on."""
    from ...errors import InputError
    from ...studies.cells import SEARCH_SEED

    last = checked_seed(first) + number - 1
    checked_seed(last)
    if first <= SEARCH_SEED <= last:
        raise InputError(
            f"seeds {first} to {last} hold {SEARCH_SEED}, on whose validation images settings are chosen; take others with --seed"
        )


def seed_range(seeds: str, first: int | None) -> tuple[int, int]:
    """The first seed and how many, from a number or a range: `10` from ``first`` (0 where it is not given), or `20-29`."""
    from ...errors import InputError

    low, dash, high = seeds.partition("-")
    if not dash and (low.isascii() and low.isdecimal()):
        return first or 0, int(low)
    if not all(part.isascii() and part.isdecimal() for part in (low, high)) or int(high) < int(low):
        raise InputError(f"--seeds is a number, or a range such as 20-29, got {seeds!r}")
    if first is not None:
        raise InputError(f"--seeds {seeds} says where seeds begin; leave --seed out")
    return int(low), int(high) - int(low) + 1


def table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Metrics by task as text: balanced accuracy first, which equals accuracy where the classes are equally frequent."""
    from ...errors import printable

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
