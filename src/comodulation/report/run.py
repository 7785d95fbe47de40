"""The page of one run: what was run, how good it is, per task, and its gains."""

from __future__ import annotations

from typing import Any

import torch

from ..config import RunConfig, write_config
from ..evaluation import BALANCED, METRICS
from ..methods import Method
from ..methods.gains import gains_of
from ..tasks import TaskFamily
from .figures import gains_figure, svg
from .page import Block, Code, Details, Figure, Section, Table, render


def run_report(config: RunConfig, family: TaskFamily, method: Method, result: dict[str, Any]) -> str:
    """HTML of a finished run.

    Args:
        config: what was run. family: names. method: fitted. result: the content of metrics.json.
    """
    split = "test" if "test" in result else "validation"
    facts = {
        "data": config.data,
        "backbone": config.backbone.name,
        "method": config.method,
        "variant": "residual" if config.head.residual else "base",
        "readout": config.readout,
        "seed": str(config.seed),
    }
    sections = [Section("Accuracy and calibration per task", [_table(result[split], split)])]
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
    return render(f"{config.method}, seed {config.seed}", subtitle, facts, [], sections)


_CAPTION = (
    "How to read it: a row is a task, a column a neuron. White: gain 1, the network as it was pretrained. Purple: turned "
    "up; orange: turned down. Blocks along the diagonal are neurons that one task claims."
)


def _table(numbers: dict[str, Any], split: str) -> Table:
    def row(name: str, values: dict[str, Any]) -> list[object]:
        balanced = values.get(BALANCED, numbers.get("macro", {}).get(BALANCED))
        return [name, *(values[metric] for metric in METRICS), balanced, values["count"]]

    tasks = sorted(numbers["tasks"].items(), key=lambda item: item[1]["accuracy"])
    return Table(
        ("task", *METRICS, "balanced accuracy", "count"),
        [row(*task) for task in tasks],
        f"**Each task on the {split} split**, least accurate first. How to read it: accuracy (1 is best), negative "
        "log-likelihood in nats, Brier score and expected calibration error (0 is best for all three), number of "
        "predictions. Balanced accuracy is the mean over a task's classes of the share that is right. The first row takes all "
        "predictions together (balanced accuracy: the mean over tasks).",
        formats=dict.fromkeys((*METRICS, "balanced accuracy"), ".3f"),
        fixed=[row("all", numbers)],
    )


def _gains(method: Method, family: TaskFamily) -> str:
    gains, head = gains_of(method), method.head
    encoder = gains.get("encoder", torch.ones(head.num_tasks, head.encoder_channels))
    decoder = gains.get("decoder", torch.ones(head.num_tasks, head.decoder_channels))
    return svg(gains_figure(encoder.numpy(), decoder.numpy(), family.tasks))
