"""The verbs of `comodulate`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    add_task,
    demo,
    evaluate,
    export,
    extract,
    fit,
    population,
    predict,
    recording,
    report,
    reproduce,
    serve,
    study,
)
from .fit_options import FitCommand

app = typer.Typer(
    name="comodulate",
    help="Adapt one frozen network to a family of tasks by stochastic comodulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from ... import __version__

        print(f"comodulation {__version__}")
        raise typer.Exit


app.command(cls=FitCommand, epilog=f"Example: {fit.EXAMPLE}")(fit.fit)
for verb, example in (
    (evaluate.evaluate, evaluate.EXAMPLE),
    (predict.predict, predict.EXAMPLE),
    (extract.extract, extract.EXAMPLE),
    (serve.serve, serve.EXAMPLE),
    (export.export, export.EXAMPLE),
    (add_task.add_task, add_task.EXAMPLE),
    (demo.demo, demo.EXAMPLE),
    (reproduce.reproduce, reproduce.EXAMPLE),
    (report.report, report.EXAMPLE),
    (study.study, study.EXAMPLE),
    (population.population, population.EXAMPLE),
    (recording.recording, recording.EXAMPLE),
):
    app.command(epilog=f"Example: {example}")(verb)


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Adapt one frozen network to a family of tasks by stochastic comodulation."""
