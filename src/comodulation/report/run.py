"""The page of one run: what was run, how good it is, per task, and its gains. One file, no network."""

from __future__ import annotations

import html
from typing import Any

import torch

from ..config import RunConfig, write_config
from ..evaluation import METRICS
from ..methods import Method
from ..tasks import TaskFamily
from .figures import gains_figure, svg

_STYLE = """
:root { color-scheme: light dark; --line: #8885; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; background: #fff; border-radius: 6px; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #333; padding: .5rem 1rem; font-size: .9rem; }
pre { overflow-x: auto; padding: 1rem; border: 1px solid var(--line); border-radius: 6px; font-size: .85rem; }
.wide { overflow-x: auto; }
"""


def run_report(config: RunConfig, family: TaskFamily, method: Method, result: dict[str, Any]) -> str:
    """HTML of a finished run.

    Args:
        config: what was run. family: names. method: fitted. result: the content of metrics.json.
    """
    split = "test" if "test" in result else "validation"
    numbers = result[split]
    title = f"{config.method}, seed {config.seed}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{family.num_tasks} tasks of {html.escape(config.data)}, backbone {html.escape(config.backbone.name)}, "
        f"{'residual' if config.head.residual else 'base'} variant, {config.readout} readout. "
        f"{result['learnable_parameters']:,} learnable parameters. Numbers below: {split} split, "
        f"{numbers['count']:,} predictions.</p>",
        _table(numbers),
    ]
    if method.name in ("attention", "comodulation"):
        sections.append(f"<figure>{_gains(method, family)}<figcaption>{_CAPTION}</figcaption></figure>")
    sections.append(f"<h2>Configuration</h2><pre>{html.escape(write_config(config))}</pre>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


_CAPTION = (
    "How to read it: a row is a task, a column a neuron. White: gain 1, the network as it was pretrained. Purple: turned "
    "up; orange: turned down. Blocks along the diagonal are neurons that one task claims."
)


def _table(numbers: dict[str, Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("task", *METRICS, "count"))
    rows = [("all", numbers), *sorted(numbers["tasks"].items(), key=lambda item: item[1]["accuracy"])]
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{values[metric]:.3f}</td>" for metric in METRICS)
        + f"<td>{values['count']:,}</td></tr>"
        for name, values in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


@torch.no_grad()
def _gains(method: Method, family: TaskFamily) -> str:
    head = method.head
    tasks = torch.arange(family.num_tasks, device=head.decoder.weight.device)
    encoder = head.controller(tasks).exp().cpu()
    stored = head.task_gains if method.name == "comodulation" else None
    decoder = torch.ones(family.num_tasks, head.decoder_channels) if stored is None else stored.cpu()
    return svg(gains_figure(encoder.numpy(), decoder.numpy(), family.tasks))
