from .answer import Condition, Measured
from .network import LocationNetwork, arranged, augmented, frames_of, frozen, modulated
from .study import LOCATION, label_quality, stages

__all__ = [
    "LOCATION",
    "Condition",
    "LocationNetwork",
    "Measured",
    "arranged",
    "augmented",
    "frames_of",
    "frozen",
    "label_quality",
    "modulated",
    "stages",
]
