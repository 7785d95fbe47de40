from .convolution import convolve, dense_matrix, is_small
from .couplings import CLOSED_FORMS, closed_form_couplings, informativeness
from .estimators import (
    ESTIMATORS,
    Decode,
    DecoderStatistics,
    MonteCarlo,
    average_over_tasks,
    decoder_statistics,
    gauss_hermite,
    only_coupled,
    spatial_mean,
    statistics_at_nodes,
    statistics_by,
    statistics_of_samples,
    zero_where,
)
from .forward_mode import NoForwardMode, directional_derivative
from .gains import LINKS, NORMALIZERS, decoder_gains, gains_from_statistics
from .modulator import modulate, modulation_factor
from .options import Modulation
from .positions import (
    calibrated_middle,
    calibrated_strength,
    log_posteriors,
    population,
    position_gains,
    position_labels,
)
from .precision import autocasts, outside_autocast, widened
from .randomness import derived_seed, drawing_from, modulator_noise
from .response import ResponseByColumns, TaskResponse, some_of_each, task_response

__all__ = [
    "CLOSED_FORMS",
    "ESTIMATORS",
    "LINKS",
    "NORMALIZERS",
    "Decode",
    "DecoderStatistics",
    "Modulation",
    "MonteCarlo",
    "NoForwardMode",
    "ResponseByColumns",
    "TaskResponse",
    "autocasts",
    "average_over_tasks",
    "calibrated_middle",
    "calibrated_strength",
    "closed_form_couplings",
    "convolve",
    "decoder_gains",
    "decoder_statistics",
    "dense_matrix",
    "derived_seed",
    "directional_derivative",
    "drawing_from",
    "gains_from_statistics",
    "gauss_hermite",
    "informativeness",
    "is_small",
    "log_posteriors",
    "modulate",
    "modulation_factor",
    "modulator_noise",
    "only_coupled",
    "outside_autocast",
    "population",
    "position_gains",
    "position_labels",
    "some_of_each",
    "spatial_mean",
    "statistics_at_nodes",
    "statistics_by",
    "statistics_of_samples",
    "task_response",
    "widened",
    "zero_where",
]
