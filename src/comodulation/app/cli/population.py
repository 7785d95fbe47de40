"""`comodulate population`: the population model of the 2019 paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError
from .shared import JsonFlag, checked_seed

EXAMPLE = "comodulate population --seeds 10 --out runs/population"


def population(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier population's is replaced.")],
    seeds: Annotated[int, typer.Option(help="Populations, at least 2.")] = 10,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    neurons: Annotated[int, typer.Option(help="Of a population.")] = 200,
    informative: Annotated[int, typer.Option(help="Of them, how many tell the stimuli apart.")] = 20,
    sigma: Annotated[float, typer.Option(help="Strength of the modulator in the learning curves.")] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Decoders of Poisson neurons with a shared modulator: accuracy against training trials and the modulator's strength."""
    from ...neuro import POPULATION, PopulationSettings, claimed, population_study, write_population
    from .console import ConsoleProgress

    checked_seed(seed)
    if not 2 <= seeds <= 10_000:
        raise InputError(f"--seeds must be 2 to 10000, got {seeds}: an interval needs at least 2")
    settings = PopulationSettings(
        neurons=neurons, informative=informative, std=sigma, seeds=tuple(range(seed, seed + seeds))
    )
    command = f"comodulate population --seeds {seeds} --seed {seed} --neurons {neurons} --informative {informative}"
    with claimed(out, POPULATION):
        with ConsoleProgress() as progress:
            study = population_study(settings, lambda done, total: progress.message(f"population {done} of {total}"))
        result = write_population(study, out, f"{command} --sigma {sigma:g} --out {out.name}")
    print(json.dumps(result) if as_json else "\n".join([*result["verdict"], f"report: {result['report']}"]))
