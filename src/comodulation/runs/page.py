"""The page of one run: how good it is, what was chosen, each task, what it got wrong, its gains, and what was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..evaluation import BALANCED, MAJORITY, temperature_note
from ..networks.methods import Attention, Comodulation, Method, gains_of
from ..report import Code, Details, Figure, Section, Table, gains_figure, render, svg
from ..tasks import TaskFamily
from .answered import Answered
from .chosen import chosen_sections
from .config import RunConfig, write_config
from .decisions import decision_note
from .mistakes import mistakes_section
from .records import metrics_by_task
from .task_tables import sure_section, task_sections


def run_report(
    config: RunConfig,
    family: TaskFamily,
    method: Method,
    result: dict[str, Any],
    name: str = "",
    answered: Answered | None = None,
) -> str:
    """HTML of a finished run.

    Args:
        config: what was run. family: names. method: fitted. result: the content of metrics.json, whose added tasks stand among the
            others. name: of the run, for the title.
        answered: to the test split, or else validation, for what is said of each task; None leaves that out.
    """
    split = "test" if "test" in result else "validation"
    result = {**result, split: {**result[split], "tasks": metrics_by_task(result, split)}}
    date = result.get("finished", "")
    told = {"run": name, "date": date, "data": config.data, "labels": config.labels}
    facts = {
        **{what: value for what, value in told.items() if value},
        **config.encoder.facts(),
        "method": config.method,
        "variant": "residual" if config.head.residual else "base",
        "readout": config.readout,
        "seed": str(config.seed),
    }
    sections = [Section("Accuracy and calibration per task", [_table(result, split)])]
    sections += [*chosen_sections(method, result), sure_section(result, split)]
    if answered is not None:
        sections += task_sections(answered, result, split)
        if mistakes := mistakes_section(answered, split):
            sections.append(mistakes)
    if isinstance(method, (Attention, Comodulation)):
        sections.append(
            Section("Gains", [Figure(_gains(method, family), _CAPTION, "Gain of each neuron under each task")])
        )
    sections.append(Section("Configuration", [Details("config.yaml", [Code(write_config(config))])]))
    subtitle = (
        f"{family.num_tasks} tasks, {result['learnable_parameters']:,} learnable parameters, "
        f"{result[split]['count']:,} predictions of the {split} split"
    )
    data = Path(config.labels or config.data).name or config.data
    title = ", ".join(
        [f"{name or config.method}: {config.method} on {data}", f"seed {config.seed}", *([date] if date else [])]
    )
    return render(title, subtitle, facts, [], sections)


COLUMNS = ("accuracy", MAJORITY, "nll", "brier", "ece", "count")
_CAPTION = (
    "How to read it: a row is a task, a column a neuron. White: gain 1, as in the pretrained network. Purple: higher "
    "gain; orange: lower gain. Blocks along the diagonal are neurons whose gain is high for one task."
)


def _table(result: dict[str, Any], split: str) -> Table:
    numbers = result[split]
    linear = result.get("linear", {}).get(split)

    def row(name: str, values: dict[str, Any], beside: dict[str, Any] | None) -> list[object]:
        return [name, _balanced(values), *([_balanced(beside)] if linear else []), *map(values.get, COLUMNS)]

    own = {} if linear is None else linear["tasks"]
    tasks = sorted(numbers["tasks"].items(), key=lambda item: item[1].get(BALANCED, item[1]["accuracy"]))
    fixed = [row("all", numbers, linear)]
    columns: tuple[str, ...] = ("balanced accuracy",)
    note = ""
    if linear:
        fixed.append(row("all, linear alone", linear, linear))
        columns = ("balanced accuracy", "linear")
        note = (
            " **linear**: the balanced accuracy of logistic regression alone, the one with the lower out-of-fold NLL."
        )
    return Table(
        ("task", *columns, *COLUMNS),
        [row(name, values, own.get(name)) for name, values in tasks],
        f"**Each task on the {split} split**, the lowest balanced accuracy first. How to read it: balanced accuracy is "
        "the mean over a task's classes of the share that is right; accuracy (1 is best) is beside that of always answering "
        "the most frequent class (majority); negative log-likelihood in nats, Brier score and expected calibration error (0 is "
        "best for all three), number of predictions. The first row is over all predictions together (balanced accuracy: the mean "
        f"over tasks).{note} {_confidence_note(result, split)} {decision_note(result, split)}",
        formats=dict.fromkeys((*columns, *COLUMNS[:-1]), ".3f"),
        fixed=fixed,
    )


def _confidence_note(result: dict[str, Any], split: str) -> str:
    """What readers must know of the confidence of a run's answers."""
    if result.get("readouts") and "temperature" not in result:
        return "Confidence is at temperatures of each task, fitted to out-of-fold predictions, unless `--no-calibrate` was given."
    return temperature_note(result, split)


def _balanced(values: dict[str, Any] | None) -> float | None:
    """Balanced accuracy of a task, or the mean over tasks of all of them."""
    return None if values is None else values.get(BALANCED, values.get("macro", {}).get(BALANCED))


def _gains(method: Method, family: TaskFamily) -> str:
    gains, head = gains_of(method), method.head
    encoder = gains.get("encoder", torch.ones(head.num_tasks, head.encoder_channels))
    decoder = gains.get("decoder", torch.ones(head.num_tasks, head.decoder_channels))
    return svg(gains_figure(encoder.numpy(), decoder.numpy(), family.tasks))
