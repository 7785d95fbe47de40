"""The model card of a run: its tasks, its metrics, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ..data.features import WEIGHTS
from ..evaluation import temperature_note
from ..tasks import TaskFamily
from .config import RunConfig
from .decisions import decision_note
from .folder import METRICS
from .shared_folder import BACKBONE, portable

MAX_TASKS_SHOWN = 50


def model_card(config: RunConfig, family: TaskFamily, metrics: Mapping[str, Any]) -> str:
    """A model card (README.md) of a run: what it answers, how well (the content of metrics.json), how to use it.

    The licence is left to the user: the card says that none has been chosen.
    """
    split = "test" if "test" in metrics else "validation"
    header = yaml.safe_dump(
        {"library_name": "comodulation", "tags": ["comodulation", "multi-task", config.method]}, sort_keys=False
    )
    m = config.modulation
    answers = {
        "classes": f"{family.num_tasks} groups of {family.num_outputs} classes; a task chooses among its own",
        "binary": f"{family.num_tasks} binary attributes; a task answers yes or no",
        "columns": f"{family.num_tasks} tasks, each with classes of its own",
    }[family.kind]
    lines = [
        "---", header.strip(), "---", "",
        f"# {family.num_tasks} tasks on {'' if config.embeddings else 'a frozen '}{_cell(config.encoder.name)}", "",
        "One frozen, pretrained network, adapted to a family of tasks by [comodulation](https://arxiv.org/abs/2311.15053).", "",
        f"- Tasks: {answers}.",
        f"- Method: `{config.method}`, readout `{config.readout}`, seed {config.seed}.",
        _encoder_line(config),
        f"- Modulator: standard deviation {m.std}, estimator `{m.estimator}`, link `{m.link}`, level `{m.level}`.",
        f"- Data: {_cell(portable(config).data)}.", "",
        "## Use", "", "```python", "from pathlib import Path", "", "from comodulation import Run", "",
        'run = Run.from_pretrained("OWNER/NAME")  # or a folder',
        f"run.predict({config.encoder.asked_as}, [{_python(family.tasks[0])}])", "```", "",
        f"## Metrics ({split} split)", "", *_table(metrics[split]),
        *(note for note in (temperature_note(metrics, split), decision_note(metrics, split)) if note), "",
        "## Licence", "", "Not chosen yet: add `license:` to the header of this file.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _encoder_line(config: RunConfig) -> str:
    """What computes the features, and whether it is here."""
    backbone = config.backbone
    if config.encoder is backbone:
        return (
            f"- Backbone: `{backbone.name}`, weights `{backbone.weights if backbone.weights in WEIGHTS else BACKBONE}`, "
            f"{backbone.image_size} px; not part of this repository unless `{BACKBONE}` is."
        )
    said = ", ".join(f"{name} `{value}`" for name, value in config.encoder.facts().items())
    return f"- Inputs: {said}; what computes their features is not part of this repository."


# Balanced accuracy first: it equals accuracy where classes are equally frequent. Majority: what the most frequent class has.
METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy, %", "accuracy": "accuracy, %", "majority": "majority class, %", "nll": "NLL",
    "brier": "Brier", "ece": "ECE, %", "count": "images",
}  # fmt: skip
SHARES = ("balanced_accuracy", "accuracy", "majority", "ece")


def _table(result: Mapping[str, Any]) -> list[str]:
    """Metrics overall and per task, as Markdown; ``result`` as ``evaluate_predictions`` gives it."""
    rows = {"all": {**result.get("macro", {}), **result}, **result["tasks"]}
    shown = list(rows.items())[: MAX_TASKS_SHOWN + 1]
    head = " | ".join(["task", *METRIC_NAMES.values()])
    lines = [f"| {head} |", "| --- |" + " --- |" * len(METRIC_NAMES)]
    for name, values in shown:
        lines.append(f"| {_cell(name)} | {' | '.join(_number(key, values) for key in METRIC_NAMES)} |")
    left = len(rows) - len(shown)
    return [*lines, "", *([f"... and {left} more tasks, in {METRICS}.", ""] if left else [])]


def _number(key: str, values: Mapping[str, Any]) -> str:
    value = values.get(key)
    if not isinstance(value, (int, float)):
        return ""
    if key == "count":
        return str(int(value))
    return f"{100 * value:.1f}" if key in SHARES else f"{value:.3f}"


def _cell(text: str) -> str:
    """A user's text as it can stand in a line or cell of Markdown: one line, without signs that would end or start markup."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in "\\|`*_[]<>#" else sign for sign in plain)


def _python(text: str) -> str:
    """A name as a Python string in a fenced block."""
    return repr(text).replace("`", "\\x60")
