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
from typing import NamedTuple

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


class Couplings(NamedTuple):
    """Of N neurons in one context.

    Attributes:
        coupling: ``(N,)``. error: its standard error, ``(N,)``.
        without: couplings without each block of trials, ``(K, N)``, see ``couplings_without``.
    """

    coupling: Floats
    error: Floats
    without: Floats


def modulation_fall(task: Couplings, control: Couplings) -> Fall:
    """Mean of w^2 - error^2 in task and control, for the same neurons in the same order.

    Raises:
        InputError: other numbers of neurons, too few, couplings that the data do not determine.
    """
    neurons = {values.shape[-1] for values in (*task, *control)}
    if len(neurons) > 1:
        raise InputError(f"task and control must be of the same neurons, got {', '.join(map(str, sorted(neurons)))}")
    for name, context in (("task", task), ("control", control)):
        if undetermined := int(np.isnan(context.error).sum()):
            raise InputError(
                f"the data do not determine {undetermined} of {len(context.error)} couplings of the {name}; record more trials"
            )
    (number,) = neurons
    if number < MIN_CORRELATED:
        raise InputError(f"a comparison over neurons needs at least {MIN_CORRELATED} neurons, got {number}")
    before, after = (float((context.coupling**2 - context.error**2).mean()) for context in (task, control))
    parts = [_variance(context.without) for context in (task, control)]
    variance, difference = math.fsum(parts), before - after
    if variance == 0:
        return Fall(before, after, difference, 0.0, difference, difference, float(difference == 0), number)
    freedom = variance**2 / math.fsum(part**2 / (len(task.without) - 1) for part in parts)
    error, width = math.sqrt(variance), float(t.ppf(0.975, freedom))
    return Fall(
        before, after, difference, error, difference - width * error, difference + width * error,
        float(2 * t.sf(abs(difference) / error, freedom)), number,
    )  # fmt: skip


def couplings_without(upstream: Groups, *downstream: Groups) -> list[Floats]:
    """Couplings fitted without each block of trials: upstream ``(K, N)``, and to that modulator downstream ``(K, D)``.

    Args:
        upstream: of the neurons whose modulator is estimated. downstream: of others in the same trials.
    """
    found: list[list[Floats]] = []
    for kept in kept_trials(upstream):
        fit = fit_groups(upstream.with_trials(kept))
        followed = (follow_groups(fit, others.with_trials(kept)) for others in downstream)
        found.append([fit.coupling, *(one.coupling for one in followed)])
    return [np.array(of_area) for of_area in zip(*found, strict=True)]


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
