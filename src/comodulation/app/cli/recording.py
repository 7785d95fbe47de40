"""`comodulate recording`: a shared modulator in recorded spikes, and a trained network recorded the same way."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InputError
from .shared import CacheOption, JsonFlag, checked_seed, flag, only_given

if TYPE_CHECKING:
    from ...neuro import RecordingStatistics
    from ...runs import Run

EXAMPLE = (
    "comodulate recording session.nwb --condition stimulus --condition choice --target choice --stop 0.5 --bin-width 0.05 "
    "--upstream V1 --downstream V4 --out runs/session"
)
MAX_IMAGES = 40


def recording(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings: .nwb, or .npz of arrays.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier recording's is replaced.")],
    condition: Annotated[
        list[str] | None, typer.Option(help="NWB: column of the trials table that says what was shown; repeat.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="NWB: column of the classes that the task distinguishes.")] = None,
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
    from ...data.features import cache_folder
    from ...neuro import RECORDING, analyse_recording, claimed, coupled_head, read_recording, write_recordings
    from ...runs import Run

    checked_seed(seed)
    beside = {"data": data, "network_task": network_task, "network_control": network_control}
    _check_network(network, data, network_task, network_control)
    window = {"condition": condition, "target": target, "context": context, "area": area, "stop": stop}
    window |= {"bin_width": bin_width, "start": start, "align": align}
    given = only_given(**window)
    _check_window(files, given)
    names = unique_names([*files, *([] if network is None else [network])])
    found = []
    with claimed(out, RECORDING):
        run = None
        if network is not None:  # opened first: a mistyped folder or task is told before recordings are analysed
            run = Run.open(network)
            run.task_ids([name for name in (network_task, network_control) if name is not None])
            coupled_head(run.method)
        for path, name in zip(files, names, strict=False):  # the network's name is the last
            recorded = replace(read_recording(path, **(given if path.suffix == ".nwb" else {})), name=name)
            found.append(
                analyse_recording(
                    recorded.active() if drop_silent else recorded, upstream=upstream, downstream=downstream, task=task,
                    control=control, errors=errors, seed=seed,
                )
            )  # fmt: skip
        if run is not None:
            found.append(
                _of_network(run, names[-1], str(data), str(network_task), network_control, cache_folder(cache), seed)
            )
        options: dict[str, Any] = window | {
            "upstream": upstream, "downstream": downstream, "task": task, "control": control, "drop_silent": drop_silent,
            "errors": None if errors == "model" else errors, "network": network, **beside, "seed": seed or None,
        }  # fmt: skip
        result = write_recordings(found, out, command_of(files, options, out))
    if as_json:
        print(json.dumps(result))
        return
    for name, said in result["verdict"].items():
        print("\n".join([f"{name}:", *(f"  {sentence}" for sentence in said)]))
    print(f"report: {result['report']}")


def _check_network(network: Path | None, data: str | None, task: str | None, control: str | None) -> None:
    """Raise InputError where the options of a network do not go together."""
    if network is None:
        if useless := only_given(data=data, network_task=task, network_control=control):
            raise InputError(f"{', '.join(map(flag, useless))}: only for a network; name its run folder with --network")
        return
    if data is None or task is None:
        raise InputError("--network needs --data, its images, and --network-task")
    if task == control:
        raise InputError(f"--network-control must be another task than --network-task, got {task!r} for both")


def _check_window(files: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Raise InputError where options that say what is read of NWB files are missing, or there is no such file."""
    from ...neuro import ARRAYS

    kinds = {path.suffix for path in files}
    if ".nwb" in kinds and (missing := [name for name in ("condition", "stop", "bin_width") if name not in given]):
        raise InputError(f"an NWB file needs the option {flag(missing[0])}")
    if given and ".npz" in kinds and ".nwb" not in kinds:
        named = ", ".join(map(flag, given))
        raise InputError(f"{named}: only for NWB files; an .npz file gives this in its arrays ({', '.join(ARRAYS)})")


def command_of(files: Sequence[Path], options: Mapping[str, Any], out: Path) -> str:
    """The command with the options that differ from their defaults; of files and folders, their names alone.

    >>> command_of([Path("day 1/a b.npz")], {"upstream": "V1", "control": None, "drop_silent": True}, Path("runs/x"))
    "comodulate recording 'a b.npz' --upstream V1 --drop-silent --out x"
    """
    words = ["comodulate", "recording", *(path.name for path in files)]
    for name, value in {**options, "out": out}.items():
        if value is True:
            words.append(flag(name))
            continue
        for one in value if isinstance(value, list) else [] if value is None or value is False else [value]:
            folder = isinstance(one, Path) or (name == "data" and Path(one).exists())
            words += [flag(name), Path(one).name if folder else str(one)]
    return shlex.join(words)


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


def _of_network(
    run: Run, name: str, data: str, task: str, control: str | None, cache: Path, seed: int
) -> RecordingStatistics:
    """What is found in a run's network, recorded under a task and its control on some of the task's images."""
    import torch

    from ...neuro import DECODER, ENCODER, analyse_recording, record_network

    number = run.task_ids([task])[0]
    other = None if control is None else run.task_ids([control])[0]
    features, examples = run.examples(data, None, cache)
    own = examples.take((examples.task == number).nonzero()[:, 0])
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES]
    own = own.take(order.sort().values)
    labels = [run.family.targets[place] for place in own.target.tolist()]
    recorded = record_network(run.method, features.rows(own.image), labels, number, control=other, seed=seed)
    own_context, other_context = (None, None) if control is None else ("task", "control")
    return analyse_recording(
        replace(recorded.active(), name=name), upstream=ENCODER, downstream=DECODER, task=own_context, control=other_context,
        rates_by_bin=False, seed=seed,
    )  # fmt: skip
