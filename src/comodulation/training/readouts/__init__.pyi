from .bagging import BagSettings, train_bag
from .method import QUALITIES, FittedMethod, Yardstick, candidates_of, fit_method
from .mixing import mixture_weights
from .probe import Basis, choose_strength, logistic_regression
from .table import Candidate, Fitted, deal_folds, fit_readouts

__all__ = [
    "QUALITIES",
    "BagSettings",
    "Basis",
    "Candidate",
    "Fitted",
    "FittedMethod",
    "Yardstick",
    "candidates_of",
    "choose_strength",
    "deal_folds",
    "fit_method",
    "fit_readouts",
    "logistic_regression",
    "mixture_weights",
    "train_bag",
]
