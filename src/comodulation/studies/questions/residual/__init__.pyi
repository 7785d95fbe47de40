from .flow import influence, skip_shares
from .prediction import Predictor, leave_one_out, mean_error, permutation_p, predictors, spearman
from .predictor_tables import drawn_predictors, predictor_table
from .study import RESIDUAL

__all__ = [
    "RESIDUAL",
    "Predictor",
    "drawn_predictors",
    "influence",
    "leave_one_out",
    "mean_error",
    "permutation_p",
    "predictor_table",
    "predictors",
    "skip_shares",
    "spearman",
]
