from .adapters import load_adapter, save_adapter
from .controller import ACTIVATIONS, Controller, coupling
from .head import ComodulatedHead
from .layers import ChannelDropout, Dropout, taking
from .settings import HeadSettings
from .task_averages import TaskAverages

__all__ = [
    "ACTIVATIONS",
    "ChannelDropout",
    "ComodulatedHead",
    "Controller",
    "Dropout",
    "HeadSettings",
    "TaskAverages",
    "coupling",
    "load_adapter",
    "save_adapter",
    "taking",
]
