"""`comodulate recording`: a shared modulator in recorded spikes, and a trained network recorded the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .shared import CacheOption, JsonFlag, checked_seed

EXAMPLE = (
    "comodulate recording session.nwb --condition stimulus --target choice --stop 0.5 --bin-width 0.05 "
    "--upstream V1 --downstream V4 --out runs/session"
)
MAX_IMAGES = 40


def recording(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings: .nwb, or .npz of arrays.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier recording's is replaced.")],
    condition: Annotated[
        list[str] | None, typer.Option(help="NWB: column of the trials table that says what was shown; repeat.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="NWB: column of what the task tells apart.")] = None,
    context: Annotated[str | None, typer.Option(help="NWB: column of the task that was done.")] = None,
    area: Annotated[str | None, typer.Option(help="NWB: column of the units table with a neuron's area.")] = None,
    align: Annotated[str | None, typer.Option(help="NWB: column with the event's time, seconds [start_time].")] = None,
    start: Annotated[float | None, typer.Option(help="NWB: of the window, seconds from the event [0].")] = None,
    stop: Annotated[float | None, typer.Option(help="NWB: end of the window, seconds from the event.")] = None,
    bin_width: Annotated[float | None, typer.Option(help="NWB: seconds.")] = None,
    upstream: Annotated[str | None, typer.Option(help="Area whose modulator is estimated.")] = None,
    downstream: Annotated[str | None, typer.Option(help="Area that may follow it.")] = None,
    task: Annotated[str | None, typer.Option(help="Context of the task.")] = None,
    control: Annotated[str | None, typer.Option(help="Context of the control task.")] = None,
    drop_silent: Annotated[bool, typer.Option("--drop-silent", help="Leave out neurons with too few spikes.")] = False,
    errors: Annotated[
        str, typer.Option(help="Of couplings: model, or trials (a modulator that outlasts a bin).")
    ] = "model",
    network: Annotated[Path | None, typer.Option(help="Run folder: a trained network, recorded beside.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder or dataset id of the network's images.")] = None,
    network_task: Annotated[str | None, typer.Option(help="Task of the network.")] = None,
    network_control: Annotated[str | None, typer.Option(help="Its control: another task, same images.")] = None,
    seed: Annotated[int, typer.Option(help="Of bootstraps, permutations and the network's spikes.")] = 0,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Shared modulator, couplings and their informativeness in spike counts, in one area or two, in a task and its control."""
    from ..errors import InputError
    from ..features import cache_folder
    from ..neuro.cortex import analyse_recording
    from ..neuro.network import DECODER, ENCODER
    from ..neuro.recordings import ARRAYS, read_recording
    from ..neuro.report import RECORDING, claimed, write_recordings

    checked_seed(seed)
    if network is not None and (data is None or network_task is None):
        raise InputError("--network needs --data, its images, and --network-task")
    window = {"condition": condition, "target": target, "context": context, "area": area, "stop": stop}
    window |= {"bin_width": bin_width, "start": start, "align": align}
    given: dict[str, Any] = {name: value for name, value in window.items() if value is not None and value != []}
    kinds = {path.suffix for path in files}
    if ".nwb" in kinds and (missing := [name for name in ("condition", "stop", "bin_width") if name not in given]):
        raise InputError(f"an NWB file needs --{missing[0].replace('_', '-')}")
    if given and ".npz" in kinds and ".nwb" not in kinds:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{named}: for NWB files; an .npz file says it in its arrays ({', '.join(ARRAYS)})")
    names = unique_names([*files, *([] if network is None else [network])])
    found = []
    with claimed(out, RECORDING):
        for path, name in zip(files, names, strict=False):  # the network's name is the last
            recorded = replace(read_recording(path, **(given if path.suffix == ".nwb" else {})), name=name)
            found.append(
                analyse_recording(
                    recorded.active() if drop_silent else recorded, upstream=upstream, downstream=downstream, task=task,
                    control=control, errors=errors, seed=seed,
                )
            )  # fmt: skip
        if network is not None:
            recorded = _network(network, str(data), str(network_task), network_control, cache_folder(cache), seed)
            against: dict[str, Any] = {"task": "task", "control": "control"} if network_control else {}
            found.append(
                analyse_recording(
                    replace(recorded.active(), name=names[-1]), upstream=ENCODER, downstream=DECODER,
                    rates_by_bin=False, seed=seed, **against,
                )
            )  # fmt: skip
        words = " ".join(path.name for path in files)
        result = write_recordings(found, out, f"comodulate recording {words} --out {out.name}")
    if as_json:
        print(json.dumps(result))
        return
    for name, said in result["verdict"].items():
        print("\n".join([f"{name}:", *(f"  {sentence}" for sentence in said)]))
    print(f"report: {result['report']}")


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each recording or run folder: that of the file, with its folder's where two are alike, else with a number.

    >>> unique_names([Path("s1/day.nwb"), Path("s2/day.nwb"), Path("s2/day.npz"), Path("night.npz")])
    ['s1/day', 's2/day', 's2/day (2)', 'night']
    """
    paths = [path.absolute() for path in paths]
    short = [path.stem if path.suffix in (".nwb", ".npz") else path.name for path in paths]
    names: list[str] = []
    for path, name in zip(paths, short, strict=True):
        folder = path.parent.name
        whole = f"{folder}/{name}" if short.count(name) > 1 and folder else name
        numbered = (whole if number == 1 else f"{whole} ({number})" for number in range(1, len(paths) + 1))
        names.append(next(name for name in numbered if name not in names))
    return names


def _network(folder: Path, data: str, task: str, control: str | None, cache: Path, seed: int) -> Any:
    """A run's network under a task, recorded on some of the task's images."""
    import torch

    from ..neuro.network import record_network
    from ..prediction import Run

    run = Run.open(folder)
    number = run.task_ids([task])[0]
    other = None if control is None else run.task_ids([control])[0]
    features, examples = run.examples(data, None, cache)
    own = examples.take((examples.task == number).nonzero()[:, 0])
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES]
    own = own.take(order.sort().values)
    labels = [run.family.targets[place] for place in own.target.tolist()]
    return record_network(run.method, features.rows(own.image), labels, number, control=other, seed=seed)
