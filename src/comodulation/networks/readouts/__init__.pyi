from .bag import Bag
from .members import Probe, Readouts
from .questions import Questions
from .saved import AnsweredColumn, NamedEncoder, SavedClassifier, is_fetched

__all__ = [
    "AnsweredColumn",
    "Bag",
    "NamedEncoder",
    "Probe",
    "Questions",
    "Readouts",
    "SavedClassifier",
    "is_fetched",
]
