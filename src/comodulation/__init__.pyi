from . import sklearn
from .errors import InputError, RunError
from .evaluation import evaluate_predictions, metrics
from .mathematics import (
    DecoderStatistics,
    Modulation,
    average_over_tasks,
    decoder_gains,
    decoder_statistics,
    gains_from_statistics,
    modulate,
)
from .networks import ComodulatedHead, Controller, load_adapter, save_adapter
from .networks.attached import Comodulated, comodulate
from .networks.methods import add_tasks, all_tasks, begin_tasks
from .runs import Run, RunConfig, fit
from .tasks import TaskFamily
from .training.attached import train

__version__: str

__all__ = [
    "Comodulated",
    "ComodulatedHead",
    "Controller",
    "DecoderStatistics",
    "InputError",
    "Modulation",
    "Run",
    "RunConfig",
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
    "fit",
    "gains_from_statistics",
    "load_adapter",
    "metrics",
    "modulate",
    "save_adapter",
    "sklearn",
    "train",
]
