"""Is confidence right: reliability, the ECE that chance alone gives, and temperature scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .scores import ECE_BINS, Predictions
from .wilson import wilson_interval

TEMPERATURES = (0.05, 20.0)
PRIOR_ANSWERS = 10.0  # what the network's own confidence is worth beside the answers it is fitted to


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, per bin of confidence, ``(bins,)`` each; nan where a bin is empty.

    Attributes:
        count: predictions, int64.
        confidence: their mean.
        accuracy: share of hits.
        low, high: Wilson interval of the accuracy.
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class PerfectECE:
    """ECE of a predictor that is calibrated by construction, over simulated targets.

    Attributes:
        mean: expected ECE; what it exceeds 0 by is bias.
        high: 95% quantile; an ECE below it is no sign of miscalibration.
    """

    mean: float
    high: float


def reliability(
    log_probabilities: Tensor, targets: Tensor, bins: int = ECE_BINS, confidence: float = 0.95
) -> Reliability:
    """Confidence and accuracy in the bins of `evaluation.expected_calibration_error`.

    That ECE is the mean of ``|accuracy - confidence|`` over bins, weighted by ``count``.

    Args:
        log_probabilities: normalised, ``(M, C)``.
        targets: ``(M,)``.
        bins: number of bins.
        confidence: of the interval, see ``wilson_interval``.

    Raises:
        ValueError: no predictions, or log-probabilities that are nan.

    >>> reliability(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log(), torch.tensor([0, 1]), bins=2).accuracy
    array([nan, 0.5])
    """
    top, predicted = _top(log_probabilities)
    return answer_reliability(torch.from_numpy(top), torch.from_numpy(predicted) == targets.cpu(), bins, confidence)


def answer_reliability(given: Tensor, hit: Tensor, bins: int = ECE_BINS, confidence: float = 0.95) -> Reliability:
    """Confidence and accuracy of answers that need not be the most probable ones, in bins of confidence.

    Args:
        given: probability of each answer, ``(M,)``. hit: whether it is right, bool ``(M,)``.
        bins: number of bins. confidence: of the interval, see ``wilson_interval``.
    """
    top = given.double().clamp(max=1).numpy()
    place = _place(top, bins)
    count = np.bincount(place, minlength=bins)
    hits = np.bincount(place, hit.double().numpy(), minlength=bins)
    n = np.where(count, count, np.nan)  # empty bins: nan without a division by zero
    accuracy = hits / n
    low, high = wilson_interval(accuracy, n, confidence)
    return Reliability(count, np.bincount(place, top, minlength=bins) / n, accuracy, low, high)


def perfect_ece(
    log_probabilities: Tensor, task: Tensor | None = None, draws: int = 1000, seed: int = 0, bins: int = ECE_BINS
) -> PerfectECE:
    """ECE that these very confidences would show if each were exactly the probability of a hit.

    ECE is a sum of absolute values, hence above 0 with finitely many predictions however good they are, the more so the
    fewer. The targets are simulated: a hit with probability equal to the confidence. Source: Bröcker, Smith,
    "Increasing the reliability of reliability diagrams" (Weather and Forecasting 22, 2007), consistency resampling,
    here with the confidences kept.

    Args:
        log_probabilities: normalised, ``(M, C)``.
        task: task number per prediction, ``(M,)``; where given, the ECE is the mean of the tasks' own, as ``macro`` in
            `evaluation.evaluate_predictions`.
        draws: simulated sets of targets.
        seed: of the simulation.
        bins: number of bins.

    Raises:
        ValueError: no predictions, or log-probabilities that are nan.

    >>> perfect_ece(torch.zeros(50, 1)).mean  # always sure, always right
    0.0
    """
    top, _ = _top(log_probabilities)
    number = np.zeros(len(top), int) if task is None else np.unique(task.cpu().numpy(), return_inverse=True)[1]
    cell = number * bins + _place(top, bins)
    order = np.argsort(cell, kind="stable")
    top, cell = top[order], cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    tasks = number.max() + 1
    weights = 1 / (np.bincount(number) * tasks)  # of one prediction in the mean over tasks
    expected, weight = np.add.reduceat(top, starts), weights[cell[starts] // bins]
    rng, errors = np.random.default_rng(seed), np.empty(draws)
    for draw in range(draws):
        hits = np.add.reduceat((rng.random(len(top)) < top).astype(float), starts)
        errors[draw] = np.abs(hits - expected) @ weight
    return PerfectECE(float(errors.mean()), float(np.quantile(errors, 0.95)))


def fit_temperature(log_probabilities: Tensor, targets: Tensor) -> float:
    """Temperature T for ``apply_temperature(log_probabilities, T)``, fitted to answers, as far as these can tell.

    It has the lowest sum of the NLL of the M answers and that of ``PRIOR_ANSWERS`` further ones which the network's own
    probabilities foretell exactly, and for which T = 1 is best:

        sum_i -log p_T(y_i | x_i)  -  PRIOR_ANSWERS mean_i sum_c p_1(c | x_i) log p_T(c | x_i)

    Few answers hence change little, however right or wrong they are; thousands decide alone. Both sums are convex in 1 / T;
    the derivative is 0 where the expected log-probability, a mean over the M inputs, equals the weighted mean of the targets'
    log-probability (weight M) and of what the network itself expects (weight ``PRIOR_ANSWERS``). Accuracy stays as it is:
    every order of classes does. Log-probabilities serve as logits, from which they differ by a constant per row. Where
    nothing can be told (all classes alike), T is 1. docs/statistics.md says why 10. Source: Guo, Pleiss, Sun, Weinberger,
    "On calibration of modern neural networks" (ICML 2017), section 4.2, without the further answers.

    Args:
        log_probabilities: ``(M, C)``, of validation data; -inf marks classes that cannot be.
        targets: ``(M,)``.

    Raises:
        ValueError: no predictions, log-probabilities that are nan, targets that have log-probability -inf, whose NLL no
            temperature changes, or a minimum that does not lie inside ``TEMPERATURES``.
    """
    from scipy import optimize

    _check(log_probabilities)
    logs = log_probabilities.detach().double()
    logs = logs - logs.amax(1, keepdim=True)
    own = logs.gather(1, targets[:, None])
    if impossible := int((~own.isfinite()).sum()):
        raise ValueError(f"no temperature fits targets of probability 0, got {impossible} of {len(targets)}")
    values = logs.masked_fill(logs == -math.inf, 0)

    def expected(log_temperature: float) -> float:
        return float(((logs * math.exp(-log_temperature)).softmax(1) * values).sum(1).mean())

    wanted = (float(own.sum()) + PRIOR_ANSWERS * expected(0)) / (len(own) + PRIOR_ANSWERS)
    if expected(0) == wanted:
        return 1.0
    low, high = (math.log(end) for end in TEMPERATURES)
    if not expected(high) < wanted < expected(low):
        raise ValueError(f"no temperature in {TEMPERATURES} fits {len(own)} answers")
    return math.exp(optimize.brentq(lambda value: expected(value) - wanted, low, high, xtol=1e-9))


def temperature_of(predictions: Predictions) -> float | None:
    """The temperature fitted to validation predictions; None where there is none: ``fit_temperature`` says when."""
    try:
        return fit_temperature(predictions.log_probabilities, predictions.target)
    except ValueError:
        return None


def apply_temperature(log_probabilities: Tensor, temperature: float) -> Tensor:
    """Log-softmax of log-probabilities (or logits) over a temperature; -inf stays -inf.

    Args:
        log_probabilities: ``(..., C)``.
        temperature: above 0; 1 changes nothing, more is less sure.

    Returns:
        ``(..., C)``, normalised, in the dtype given.

    Raises:
        ValueError: a temperature that is not above 0.

    >>> apply_temperature(torch.tensor([0.8, 0.2]).log(), 0.5).exp()  # proportional to squares
    tensor([0.9412, 0.0588])
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature must be above 0 and finite, got {temperature}")
    return torch.log_softmax(log_probabilities / temperature, -1)


def scaled(predictions: Predictions, temperature: float | None) -> Predictions:
    """Predictions at a temperature; None, of a run that has none, leaves them as they are."""
    if temperature is None:
        return predictions
    return replace(predictions, log_probabilities=apply_temperature(predictions.log_probabilities, temperature))


def stored_temperature(metrics: Mapping[str, Any]) -> float | None:
    """The temperature that a run's answers are given at, from its metrics.json; None where it has none.

    None for a value at the end of the range, too: the first release stored it where the answers could not tell.
    """
    low, high = TEMPERATURES
    value = metrics.get("temperature")
    return float(value) if isinstance(value, (int, float)) and 1.001 * low < value < high / 1.001 else None


def temperature_note(metrics: Mapping[str, Any], split: str) -> str:
    """What readers of a run's metrics.json must know of its confidence, as a sentence."""
    temperature = stored_temperature(metrics)
    if temperature is None:
        return "Confidence is as the network gives it: this run has no temperature."
    before = metrics.get("unscaled", {}).get(split)
    if before is None:  # of the first release
        return (
            f"Answers are given at the temperature {temperature:.2f}; these metrics were measured without it. "
            "`comodulate evaluate` measures with it."
        )
    return (
        f"Confidence is at the temperature {temperature:.2f}, fitted to {metrics['validation']['count']:,} validation answers; "
        f"without it NLL is {before['nll']:.3f} and ECE {100 * before['ece']:.1f}%."
    )


def _top(log_probabilities: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Confidence and predicted class, ``(M,)`` each, as `evaluation.metrics` takes them."""
    _check(log_probabilities)
    top, predicted = log_probabilities.detach().double().clamp(max=0).exp().max(1)
    return top.cpu().numpy(), predicted.cpu().numpy()


def _place(top: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Bin of each confidence, as in `evaluation.expected_calibration_error`."""
    return np.minimum((top * bins).astype(np.int64), bins - 1)


def _check(log_probabilities: Tensor) -> None:
    if not len(log_probabilities):
        raise ValueError("no predictions to calibrate")
    if wrong := int(log_probabilities.isnan().sum()):
        raise ValueError(f"log-probabilities must not be nan, got {wrong} of {log_probabilities.numel()}")
