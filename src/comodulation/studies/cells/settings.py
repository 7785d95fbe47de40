"""Settings of methods where a study does not search for them."""

from __future__ import annotations

from typing import Any

from .rows import Cell
from .study import Inquiry

# What the searches of docs/results/cifar100 chose (16 trials on validation images of another seed), to three digits.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("residual", "attention"): {"learning_rate": 0.203, "weight_decay": 0.0025},
    ("residual", "comodulation"): {"learning_rate": 0.217, "weight_decay": 0.00011, "beta": 1.24},
    ("base", "attention"): {"learning_rate": 0.191, "weight_decay": 0.00011},
    ("base", "comodulation"): {"learning_rate": 0.229, "weight_decay": 0.00076, "beta": 1.07},
}
RECTIFIED = {"learning_rate": 0.2, "weight_decay": 0.00011, "beta": 1.0}  # beta is at most 1 under the rectified link


def usual_settings(cell: Cell, inquiry: Inquiry | None = None, num_tasks: int = 0) -> dict[str, Any]:
    """Settings of a row's method in its variant, as the paper's study chose them; {} for what has nothing to learn.

    A residual variant without any skip connection is the base variant.
    """
    row = cell.row
    if row.get("link") == "rectified":
        return dict(RECTIFIED)
    skipless = row.get("encoder_skip", 1) == 0 and row.get("decoder_skip", 1) == 0
    variant = "base" if skipless else cell.variant
    return dict(SETTINGS.get((variant, row.method), {}))
