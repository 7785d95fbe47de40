from .adapters import load_adapter, save_adapter
from .controller import ACTIVATIONS, Controller, coupling
from .encoder_decoder import STARTS
from .head import ComodulatedHead
from .layers import ChannelDropout, Dropout, taking
from .task_averages import TaskAverages

__all__ = [
    "ACTIVATIONS",
    "STARTS",
    "ChannelDropout",
    "ComodulatedHead",
    "Controller",
    "Dropout",
    "TaskAverages",
    "coupling",
    "load_adapter",
    "save_adapter",
    "taking",
]
