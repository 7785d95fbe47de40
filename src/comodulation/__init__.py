"""Adapt one frozen network to a family of tasks by stochastic comodulation (arXiv 2311.15053).

The mathematics: ``modulate``, ``decoder_gains``. The network: ``ComodulatedHead``, ``TaskFamily``, ``save_adapter``,
``load_adapter``. Any other network: ``comodulate``. From the command line: ``comodulate --help``. Heavy parts load when
they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attach import comodulate
    from .comodulated import Comodulated
    from .controller import Controller
    from .errors import InputError, RunError
    from .evaluation import evaluate_predictions, metrics
    from .gains import DecoderStatistics, average_over_tasks, decoder_gains, decoder_statistics, gains_from_statistics
    from .growing import add_tasks, begin_tasks
    from .head import ComodulatedHead, Modulation
    from .modulation import modulate
    from .prediction import Run
    from .store import load_adapter, save_adapter
    from .task_pairs import all_tasks
    from .tasks import TaskFamily

__version__ = "0.1.0"

_PLACES = {
    "Comodulated": "comodulated",
    "comodulate": "attach",
    "Controller": "controller",
    "add_tasks": "growing",
    "all_tasks": "task_pairs",
    "begin_tasks": "growing",
    "InputError": "errors",
    "RunError": "errors",
    "evaluate_predictions": "evaluation",
    "metrics": "evaluation",
    "DecoderStatistics": "gains",
    "average_over_tasks": "gains",
    "decoder_gains": "gains",
    "decoder_statistics": "gains",
    "gains_from_statistics": "gains",
    "ComodulatedHead": "head",
    "Modulation": "head",
    "modulate": "modulation",
    "Run": "prediction",
    "load_adapter": "store",
    "save_adapter": "store",
    "TaskFamily": "tasks",
}

__all__ = [
    "Comodulated",
    "ComodulatedHead",
    "Controller",
    "DecoderStatistics",
    "InputError",
    "Modulation",
    "Run",
    "RunError",
    "TaskFamily",
    "add_tasks",
    "all_tasks",
    "average_over_tasks",
    "begin_tasks",
    "comodulate",
    "decoder_gains",
    "decoder_statistics",
    "evaluate_predictions",
    "gains_from_statistics",
    "load_adapter",
    "metrics",
    "modulate",
    "save_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'comodulation' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value  # also wins over a submodule of the same name once that has been imported
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
