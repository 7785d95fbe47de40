"""Do informative neurons get high gains? d' of each neuron against its coupling or gain (docs/mechanism.md, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from .separability import ROUNDING, check_labelled, check_tasks, groups_of

INFORMATIVE = 0.25  # the share of neurons with the highest d' that count as informative


@dataclass(frozen=True)
class Informativeness:
    """Informativeness of neurons, and how far their gain follows it; nan for a task with too little data.

    Attributes:
        dprime: of each neuron between the task's classes, ``(K, D)``.
        spearman: rank correlation of d' and gain over neurons, ``(K,)``.
        auc: how well the gain tells informative neurons from the others, ``(K,)``.
    """

    dprime: Tensor
    spearman: Tensor
    auc: Tensor


def neuron_dprime(activity: Tensor, labels: Tensor) -> Tensor:
    """d' of each neuron: root mean square over pairs of classes of (difference of means) / (pooled sd).

    The pooled sd of a pair is the root of the mean of its two variances (with n - 1). For two classes this is the usual
    d', without sign. Finite samples add about 1 / n_a + 1 / n_b to each squared d', for all neurons alike.

    Args:
        activity: pooled activity of encoder or decoder neurons, ``(N, D)``.
        labels: integers ``(N,)``; negative ones are missing.

    Returns:
        ``(D,)``, float64. 0 for a silent or constant neuron, infinite for one that differs without any spread, nan for
        all with fewer than two classes of two samples (smaller classes are left out).

    Raises:
        ValueError: shapes that do not fit, labels that are not integers.

    >>> neuron_dprime(torch.tensor([[0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
    tensor([1.4142, 0.0000], dtype=torch.float64)
    """
    activity, labels = check_labelled(activity, labels)
    groups = groups_of(activity, labels)
    if len(groups) < 2:
        return activity.new_full((activity.shape[1],), math.nan)
    negligible = (ROUNDING * activity.abs().amax(0)).square()
    means, variances = torch.stack([g.mean(0) for g in groups]), torch.stack([g.var(0) for g in groups])
    squares = torch.zeros_like(negligible)
    for a in range(len(groups) - 1):
        distance = (means[a] - means[a + 1 :]).square()
        variance = (variances[a] + variances[a + 1 :]) / 2
        distance = torch.where(distance > negligible, distance, 0)
        spread = variance > negligible
        ratio = torch.where(spread, distance / torch.where(spread, variance, 1), distance * math.inf)
        squares += torch.where(distance > 0, ratio, 0).sum(0)
    return (squares / (len(groups) * (len(groups) - 1) / 2)).sqrt()


def spearman(x: Tensor, y: Tensor) -> float:
    """Rank correlation of two ``(D,)``, in [-1, 1], ties at their mean rank; 0 where either is constant, nan with a nan.

    >>> spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 8.0, 27.0]))
    1.0
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"both must be (D,), got {tuple(x.shape)} and {tuple(y.shape)}")
    if bool((x.isnan() | y.isnan()).any()):
        return math.nan
    a, b = (_ranks(values) - (len(values) + 1) / 2 for values in (x, y))
    norm = float(a.square().sum() * b.square().sum()) ** 0.5
    return float(a @ b) / norm if norm else 0.0


def informative_auc(dprime: Tensor, gain: Tensor) -> float:
    """Probability that an informative neuron has a higher gain than another one, ties counting half (Mann-Whitney).

    Informative are the quarter of neurons with the highest d', with those that tie with the last of them, and never one
    with the lowest d'.

    Args:
        dprime, gain: ``(D,)``.

    Returns:
        In [0, 1]; 0.5 is chance, and what all-equal gains or an all-equal d' give; nan with a nan.
    """
    if dprime.shape != gain.shape or dprime.ndim != 1:
        raise ValueError(f"dprime and gain must be (D,), got {tuple(dprime.shape)} and {tuple(gain.shape)}")
    if bool((dprime.isnan() | gain.isnan()).any()):
        return math.nan
    if not len(dprime):
        return 0.5
    last = dprime.sort(descending=True).values[math.ceil(INFORMATIVE * len(dprime)) - 1]
    informative = (dprime >= last) & (dprime > dprime.min())
    positives = int(informative.sum())
    if not positives:
        return 0.5
    rank_sum = float(_ranks(gain)[informative].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * (len(dprime) - positives))


def informativeness(activity: Tensor, labels: Tensor, tasks: Tensor, gains: Tensor) -> Informativeness:
    """d' of every neuron in every task, its rank correlation with the neuron's gain, and the AUC.

    For encoder neurons, give encoder activity and couplings; for decoder neurons, decoder activity and gains. The
    activity should be the unmodulated one: whether neurons are informative must not depend on the gains it is compared to.

    Args:
        activity: pooled, ``(N, D)``. labels, tasks: integers ``(N,)``; negative labels are missing.
        gains: couplings or gains, ``(K, D)``.

    Raises:
        ValueError: shapes that do not fit, labels or tasks that are not integers.
    """
    if gains.ndim != 2 or gains.shape[1:] != activity.shape[1:]:
        raise ValueError(f"gains must be (K, D) with D of activity {tuple(activity.shape)}, got {tuple(gains.shape)}")
    tasks = check_tasks(tasks, labels, len(gains))
    dprime = torch.stack([neuron_dprime(activity[tasks == k], labels[tasks == k]) for k in range(len(gains))])
    pairs = list(zip(dprime, gains, strict=True))
    return Informativeness(
        dprime,
        torch.tensor([spearman(d, g) for d, g in pairs], dtype=torch.float64),
        torch.tensor([informative_auc(d, g) for d, g in pairs], dtype=torch.float64),
    )


def _ranks(values: Tensor) -> Tensor:
    return torch.as_tensor(rankdata(values.detach().double().cpu().numpy())).to(values.device)
