from .bag import Bag
from .members import Probe, Readouts
from .questions import Questions

__all__ = ["Bag", "Probe", "Questions", "Readouts"]
