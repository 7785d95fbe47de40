"""The fall of modulation in a control context, with its error over trials.

All couplings of a fit share one sample of the modulator: where it happened to vary a little more than it does on average, every
coupling is a little too small. An interval over neurons does not see that, and finds a change in most recordings in which there
is none. The error is therefore a jackknife over trials: modulator and couplings, of both areas, are fitted again without a tenth
of the trials of each condition, ten times for each context. Tenths are consecutive trials, so that a modulator that
outlasts a bin, or a trial, is in it.

Source: Efron and Stein, "The jackknife estimate of variance" (Annals of Statistics 9, 1981). docs/neuro.md, section 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from ..errors import InputError
from .associations import BLOCKS, MIN_CORRELATED
from .checks import Floats
from .counts import Groups
from .downstream import follow_groups
from .latent import fit_groups


@dataclass(frozen=True)
class Fall:
    """Modulation of the same neurons in a task and in its control.

    Attributes:
        task, control: mean variance of the log gain over neurons, the part that is due to the couplings' errors taken out.
        difference: task - control. error: its standard error over trials, for these neurons.
        low, high: 95% interval, and p: two-sided, both from Student's t of difference / error (degrees of freedom by Welch).
        neurons: how many.
    """

    task: float
    control: float
    difference: float
    error: float
    low: float
    high: float
    p: float
    neurons: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def modulation_fall(
    task: Floats,
    task_error: Floats,
    task_without: Floats,
    control: Floats,
    control_error: Floats,
    control_without: Floats,
) -> Fall:
    """Mean of w^2 - error^2 in task and control, for the same neurons in the same order.

    Args:
        task, control: couplings, ``(N,)``. task_error, control_error: their standard errors, ``(N,)``.
        task_without, control_without: couplings without each block of trials, ``(K, N)``, see ``couplings_without``.

    Raises:
        InputError: other numbers of neurons, too few, couplings that the data do not determine.
    """
    neurons = {values.shape[-1] for values in (task, task_error, task_without, control, control_error, control_without)}
    if len(neurons) > 1:
        raise InputError(f"task and control must be of the same neurons, got {', '.join(map(str, sorted(neurons)))}")
    for context, given in (("task", task_error), ("control", control_error)):
        if undetermined := int(np.isnan(given).sum()):
            raise InputError(
                f"the data do not determine {undetermined} of {len(given)} couplings of the {context}; record more trials"
            )
    if len(task) < MIN_CORRELATED:
        raise InputError(f"a comparison over neurons needs at least {MIN_CORRELATED} neurons, got {len(task)}")
    before, after = float((task**2 - task_error**2).mean()), float((control**2 - control_error**2).mean())
    parts = [_variance(without) for without in (task_without, control_without)]
    variance, difference = math.fsum(parts), before - after
    if variance == 0:
        return Fall(before, after, difference, 0.0, difference, difference, float(difference == 0), len(task))
    freedom = variance**2 / math.fsum(part**2 / (len(task_without) - 1) for part in parts)
    error, width = math.sqrt(variance), float(t.ppf(0.975, freedom))
    return Fall(
        before, after, difference, error, difference - width * error, difference + width * error,
        float(2 * t.sf(abs(difference) / error, freedom)), len(task),
    )  # fmt: skip


def couplings_without(upstream: Groups, downstream: Groups | None = None) -> tuple[Floats, Floats | None]:
    """Couplings fitted without each block of trials: upstream ``(K, N)``, and to that modulator downstream ``(K, D)``.

    Args:
        upstream: of the neurons whose modulator is estimated. downstream: of others in the same trials.
    """
    above, below = [], []
    for kept in kept_trials(upstream):
        fit = fit_groups(upstream.with_trials(kept))
        above.append(fit.coupling)
        if downstream is not None:
            below.append(follow_groups(fit, downstream.with_trials(kept)).coupling)
    return np.array(above), np.array(below) if downstream is not None else None


def kept_trials(groups: Groups) -> list[np.ndarray]:
    """Masks of the trials that stay when each of K blocks is left out, ``(R,)`` each: a tenth of every condition's, in a row."""
    block = np.empty(groups.trials, int)
    for condition in np.unique(groups.condition):
        rows = np.flatnonzero(groups.condition == condition)
        block[rows] = np.arange(len(rows)) * BLOCKS // len(rows)
    return [block != left for left in range(BLOCKS)]


def _variance(without: Floats) -> float:
    """The jackknife's, of the mean of w^2, from couplings without each block, ``(K, N)``."""
    return float((len(without) - 1) * np.var((without**2).mean(1)))
