"""The page of one run: what was run, how good it is, per task, and its gains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..evaluation import BALANCED, MAJORITY, temperature_note
from ..networks.methods import Method, gains_of
from ..report import Block, Code, Details, Figure, Section, Table, gains_figure, render, svg
from ..tasks import TaskFamily
from .config import RunConfig, write_config


def run_report(config: RunConfig, family: TaskFamily, method: Method, result: dict[str, Any], name: str = "") -> str:
    """HTML of a finished run.

    Args:
        config: what was run. family: names. method: fitted. result: the content of metrics.json. name: of the run, for the title.
    """
    split = "test" if "test" in result else "validation"
    date = result.get("finished", "")
    facts = {
        **({"run": name} if name else {}),
        **({"date": date} if date else {}),
        "data": config.data,
        **({"labels": config.labels} if config.labels else {}),
        "backbone": config.backbone.name,
        "method": config.method,
        "variant": "residual" if config.head.residual else "base",
        "readout": config.readout,
        "seed": str(config.seed),
    }
    sections = [Section("Accuracy and calibration per task", [_table(result, split)])]
    if method.name in ("attention", "comodulation"):
        sections.append(
            Section("Gains", [Figure(_gains(method, family), _CAPTION, "Gain of each neuron under each task")])
        )
    configuration: list[Block] = [Details("config.yaml", [Code(write_config(config))])]
    sections.append(Section("Configuration", configuration))
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
    "How to read it: a row is a task, a column a neuron. White: gain 1, the network as it was pretrained. Purple: turned "
    "up; orange: turned down. Blocks along the diagonal are neurons that one task claims."
)


def _table(result: dict[str, Any], split: str) -> Table:
    numbers = result[split]

    def row(name: str, values: dict[str, Any]) -> list[object]:
        over_tasks = numbers.get("macro", {}) if values is numbers else {}
        first = values.get(BALANCED, over_tasks.get(BALANCED))
        return [name, first, *(values.get(key) for key in COLUMNS)]

    tasks = sorted(numbers["tasks"].items(), key=lambda item: item[1].get(BALANCED, item[1]["accuracy"]))
    return Table(
        ("task", "balanced accuracy", *COLUMNS),
        [row(*task) for task in tasks],
        f"**Each task on the {split} split**, the lowest balanced accuracy first. How to read it: balanced accuracy is "
        "the mean over a task's classes of the share that is right; accuracy (1 is best) stands beside what saying the most "
        "frequent class would have (majority); negative log-likelihood in nats, Brier score and expected calibration error (0 is "
        "best for all three), number of predictions. The first row takes all predictions together (balanced accuracy: the mean "
        f"over tasks). {temperature_note(result, split)}",
        formats=dict.fromkeys(("balanced accuracy", *COLUMNS[:-1]), ".3f"),
        fixed=[row("all", numbers)],
    )


def _gains(method: Method, family: TaskFamily) -> str:
    gains, head = gains_of(method), method.head
    encoder = gains.get("encoder", torch.ones(head.num_tasks, head.encoder_channels))
    decoder = gains.get("decoder", torch.ones(head.num_tasks, head.decoder_channels))
    return svg(gains_figure(encoder.numpy(), decoder.numpy(), family.tasks))
