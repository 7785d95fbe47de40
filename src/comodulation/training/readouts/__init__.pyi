from .bagging import BagSettings, train_bag
from .gains import fit_gains
from .method import QUALITIES, FittedMethod, Quality, Yardstick, candidates_of, fit_method
from .mixing import mixture_weights
from .probe import Basis, FittedProbe, choose_strength, fit_probe, logistic_regression, moments_of
from .table import Candidate, Fitted, deal_folds, fit_readouts

__all__ = [
    "QUALITIES",
    "BagSettings",
    "Basis",
    "Candidate",
    "Fitted",
    "FittedMethod",
    "FittedProbe",
    "Quality",
    "Yardstick",
    "candidates_of",
    "choose_strength",
    "deal_folds",
    "fit_gains",
    "fit_method",
    "fit_probe",
    "fit_readouts",
    "logistic_regression",
    "mixture_weights",
    "moments_of",
    "train_bag",
]
