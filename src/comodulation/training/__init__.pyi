from .fabric import Alone, joined
from .inputs import EVALUATION_BATCH, Inputs
from .launching import LOST, PLACE, Place, follow_launcher, launch, launched, leave_lost
from .loop import Objective, TrainingSettings, Venue, one_cycle, train
from .meeting import Company, company
from .pretraining import pretrain, pretraining_targets
from .progress import Epoch, Progress, Silent
from .tuning import predict, tune

__all__ = [
    "EVALUATION_BATCH",
    "LOST",
    "PLACE",
    "Alone",
    "Company",
    "Epoch",
    "Inputs",
    "Objective",
    "Place",
    "Progress",
    "Silent",
    "TrainingSettings",
    "Venue",
    "company",
    "follow_launcher",
    "joined",
    "launch",
    "launched",
    "leave_lost",
    "one_cycle",
    "predict",
    "pretrain",
    "pretraining_targets",
    "train",
    "tune",
]
