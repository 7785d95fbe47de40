from .flow import influence, skip_shares
from .prediction import Predictor, leave_one_out, mean_error, permutation_p, predictors, spearman
from .study import RESIDUAL

__all__ = [
    "RESIDUAL",
    "Predictor",
    "influence",
    "leave_one_out",
    "mean_error",
    "permutation_p",
    "predictors",
    "skip_shares",
    "spearman",
]
