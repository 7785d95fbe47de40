"""How names and numbers of a study are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluation import PairedDifference
from ...report import Cell as Shown
from ..cells import Result, Row, shown_difference
from .reproduction import Study

NAMES = {
    "base": "no task",
    "class-mask": "class mask",
    "local-mask": "mask at each column",
    "positions": "labels of positions",
    "task-bias": "task bias",
    "paper": "as in the paper",
    "decoder-gains": "decoder gains, learned",
    "ia3": "IA3 style",
    "film": "FiLM",
}

YARDSTICK_NOTE = (
    "Linear: logistic regression on the same frozen features, fitted to the inputs that the other rows learn their tasks from and "
    "are validated on; like the class mask it answers among the task's own classes. The layers of the other rows have learned "
    "from the other half of the training inputs besides."
)


def constant_note(results: Sequence[Result]) -> str:
    """What a caption adds where a yardstick is held constant; "" where none is."""
    seeds = {result.cell.seed for result in results if result.constant}
    if not seeds:
        return ""
    return (
        f" The halves are the same for all seeds, so that linear and nearest class mean of one (seed {min(seeds)}) stand for all: "
        "intervals of differences from them hold them constant."
    )


def title_of(study: Study) -> str:
    return {
        "cifar100": "Comodulation on CIFAR-100",
        "clinc": "Comodulation on CLINC150",
        "attributes": "Comodulation on attributes of CIFAR-100",
        "celeba": "Comodulation on CelebA",
    }[study.name]


def subtitle_of(study: Study, networks: int) -> str:
    return (
        f"The claims of arXiv 2311.15053, tested with {len(study.seeds)} seeds on a frozen {encoder_of(study)}; "
        f"{networks} networks trained."
    )


def encoder_of(study: Study) -> str:
    """The frozen encoder as a report calls it."""
    config = study.config
    return config.backbone.name + f" at {config.backbone.image_size} px" if config.text is None else config.text.name


def shown_name(label: str) -> str:
    """A row as readers see it: spaces for hyphens, options in brackets."""
    row = Row.parse(label)
    method = NAMES.get(row.method, row.method.replace("-", " "))
    words = {"task_bias=True": "with task bias", "link=rectified": "rectified link"}
    options = [words.get(pair, pair.replace("_", " ").replace("=", " ")) for pair in row.described.split()]
    return f"{method} ({', '.join(options)})" if options else method


# By metric: the scale in which it is shown, and the digits behind the point.
SCALES = {"nll": (1, 3), "brier": (1, 3), "seconds": (1, 0)}


def scale_of(metric: str) -> tuple[int, int]:
    """Scale and digits of a metric, of a section of the numbers too; a share, in per cent, where nothing else is said."""
    return SCALES.get(metric.rpartition(".")[2], (100, 2))


def spread(by_seed: Mapping[int, float], metric: str, *, with_sd: bool = False) -> Shown:
    """The mean of a metric over seeds, with its standard deviation if asked for."""
    scale, digits = scale_of(metric)
    numbers = [scale * value for value in by_seed.values()]
    if not numbers:
        return Shown("", None)
    middle = mean(numbers)
    sd = f" ± {np.std(numbers, ddof=1):.{digits}f}" if with_sd and len(numbers) > 1 else ""
    return Shown(f"{middle:.{digits}f}{sd}", middle)


def interval(d: PairedDifference | None, metric: str) -> Shown:
    """A difference in a metric with its interval; nothing for a row and itself."""
    if d is None or (d.mean == 0 and d.low == d.high):
        return Shown("", None)
    scale, digits = scale_of(metric)
    return Shown(shown_difference(d, scale, digits), scale * d.mean)


def mean(numbers: Any) -> float:
    listed = list(numbers)
    return sum(listed) / len(listed) if listed else math.nan
