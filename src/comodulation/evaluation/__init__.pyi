from .binary import BINARY_METRICS, evaluate_binary, relative_improvement
from .brier import BrierParts, brier_parts
from .by_class import ClassScores, Confusion, class_scores, confusions
from .calibration import (
    Reliability,
    apply_temperature,
    fit_temperature,
    perfect_ece,
    reliability,
    scaled,
    stored_temperature,
    temperature_note,
    temperature_of,
)
from .comparison import (
    ALPHA,
    CrossedDifference,
    PairedDifference,
    as_family,
    crossed_bootstrap,
    holm,
    paired_by_task,
    paired_difference,
)
from .decisions import DECISION_METRICS, decide, decision_score, find_offsets, yes_from
from .fluctuation import fluctuation_covariance, noise_geometry, subspace_share
from .informative_neurons import informative_auc, informativeness, neuron_dprime
from .pooled import against_reference, spread_ratio
from .scores import (
    BALANCED,
    MAJORITY,
    METRICS,
    Predictions,
    balanced_accuracy,
    evaluate_predictions,
    expected_calibration_error,
    metrics,
)
from .separability import task_separability, task_subspace
from .sparsity import THRESHOLDS, gain_sparsity, log2_histogram
from .wilson import labels_needed, wilson_interval

__all__ = [
    "ALPHA",
    "BALANCED",
    "BINARY_METRICS",
    "DECISION_METRICS",
    "MAJORITY",
    "METRICS",
    "THRESHOLDS",
    "BrierParts",
    "ClassScores",
    "Confusion",
    "CrossedDifference",
    "PairedDifference",
    "Predictions",
    "Reliability",
    "against_reference",
    "apply_temperature",
    "as_family",
    "balanced_accuracy",
    "brier_parts",
    "class_scores",
    "confusions",
    "crossed_bootstrap",
    "decide",
    "decision_score",
    "evaluate_binary",
    "evaluate_predictions",
    "expected_calibration_error",
    "find_offsets",
    "fit_temperature",
    "fluctuation_covariance",
    "gain_sparsity",
    "holm",
    "informative_auc",
    "informativeness",
    "labels_needed",
    "log2_histogram",
    "metrics",
    "neuron_dprime",
    "noise_geometry",
    "paired_by_task",
    "paired_difference",
    "perfect_ece",
    "relative_improvement",
    "reliability",
    "scaled",
    "spread_ratio",
    "stored_temperature",
    "subspace_share",
    "task_separability",
    "task_subspace",
    "temperature_note",
    "temperature_of",
    "wilson_interval",
    "yes_from",
]
