"""Train a cell and say how well it answers: what all questions measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.features import FeatureRows
from ...evaluation import METRICS, Predictions, metrics
from ...runs import Adapted, Session
from ...tasks import Examples
from .laboratory import Laboratory
from .rows import Cell


@dataclass(frozen=True)
class Measured:
    """A trained cell: its network, what it was tested on, its predictions, and numbers for its file."""

    session: Session
    adapted: Adapted
    features: FeatureRows
    examples: Examples
    tested: Predictions
    numbers: dict[str, Any]


def train_and_test(laboratory: Laboratory, cell: Cell, settings: dict[str, Any]) -> Measured:
    """A cell, trained with some settings and tested on the test split."""
    session, adapted = laboratory.adapt(cell, settings)
    features, examples = laboratory.test_data(session, cell)
    tested = session.answer(adapted, features, examples)
    whole = metrics(tested.log_probabilities, tested.target)
    numbers: dict[str, Any] = {
        "variant": cell.variant,
        "readout": cell.readout,
        "method": cell.row.method,
        "options": cell.row.described,
        "seed": cell.seed,
        **{name: whole[name] for name in METRICS},
        "learnable_parameters": adapted.method.num_learnable(),
        "seconds": adapted.seconds["tuning"],
        "settings": settings,
        "epochs": len(adapted.history),
    }
    return Measured(session, adapted, features, examples, tested, numbers)


def measure_accuracy(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of a cell of which nothing else is kept."""
    return train_and_test(laboratory, cell, settings).numbers
