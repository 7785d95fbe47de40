"""Labels of positions: where in an input the modulator's fluctuation arrives, and pooling by it.

A gain of a channel says what matters; it multiplies target and distractor alike. The same fluctuation says where: the share of
position p is the relative slope of the decoder's whole population there,

    s_p = sum_j b_jp / sum_j d_jp,

with d_jp the activity of decoder neuron j at p and b_jp its slope on the modulator. Pooling over positions with weights in
proportion to exp(beta s_p) is the same as giving each position a gain with mean 1 before a plain mean. To the estimators a position
is a neuron of another decoder, the population sum (``population``), so that all of them serve as they are.

Such weights expect one position to show what is asked for. Where many do, and one of them most strongly, each position's own
posterior is the better weight (``log_posteriors``).

Derivation, invariants, and the bound that gains of channels have and these weights have not: docs/mathematics.md, section 8. The
mechanism is that of arXiv 2311.15053 (2023); reading it at positions is this library's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .estimators import Decode, DecoderStatistics
from .gains import ratio


def population(decode: Decode) -> Decode:
    """The decoder whose neurons are the positions of another's activity, each the sum over that decoder's neurons.

    Args:
        decode: maps ``(N, E, ...)`` to rectified ``(N, D, ...)``, whose dimensions after the first two are P positions in all.

    Returns:
        A function from ``(N, E, ...)`` to ``(N, P)``, in at least float32.
    """

    def summed(activity: Tensor) -> Tensor:
        decoded = decode(activity)
        return decoded.to(torch.promote_types(decoded.dtype, torch.float32)).flatten(2).sum(1)

    return summed


def position_labels(statistics: DecoderStatistics) -> Tensor:
    """The label s_p of every position: its slope on the modulator relative to its mean, ``(B, P)``; 0 for a silent position.

    Args:
        statistics: of the positions of each input, fields ``(B, P)``.
    """
    return ratio(statistics.slope, statistics.mean)


def position_gains(labels: Tensor, strength: Tensor | float = 1.0, counts: Tensor | None = None) -> Tensor:
    """Gain of every position, P times its share of exp(beta s_p): the mean over positions is 1.

    Args:
        labels: ``(B, P)``.
        strength: beta, one for all inputs or one for each, ``(B,)``.
        counts: which positions count, boolean ``(B, P)``; None: all. The others take no part, and have gains of 1.

    Returns:
        ``(B, P)``, at least 0. Where all labels are equal, exactly 1. Differentiable in labels and strength.

    >>> import torch
    >>> position_gains(torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(3.0)), 0.0]]))
    tensor([[1.0000, 1.0000],
            [1.5000, 0.5000]])
    """
    strength = torch.as_tensor(strength, dtype=labels.dtype, device=labels.device)
    exponent = labels * (strength[:, None] if strength.ndim else strength)
    if counts is None:
        powers = (exponent - exponent.amax(1, keepdim=True).detach()).exp()
        return powers / powers.mean(1, keepdim=True)
    exponent = exponent.masked_fill(~counts, -torch.inf)
    largest = exponent.amax(1, keepdim=True).detach()
    powers = (exponent - torch.where(largest.isfinite(), largest, 0)).exp()
    mean = powers.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.where(counts, powers / torch.where(mean > 0, mean, 1), 1)


def log_posteriors(labels: Tensor, strength: Tensor, middle: Tensor) -> Tensor:
    """Log of the chance that a position shows what its task asks for, each position by itself: log sigmoid(beta (s - c)).

    The logistic function of the log likelihood ratio that ``calibrated_strength`` and ``calibrated_middle`` describe, at even odds.
    As the exponent of ``position_gains``, positions whose labels are high enough weigh alike, however high; where no position's is,
    the weights are those of labels at strength beta.

    Args:
        labels: ``(B, P)``. strength: beta, ``(B,)``. middle: c, ``(B,)``.

    Returns:
        ``(B, P)``, at most 0.

    >>> import torch
    >>> log_posteriors(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), torch.tensor([0.0])).exp()
    tensor([[0.8808, 0.5000]])
    """
    return F.logsigmoid(strength[:, None] * (labels - middle[:, None]))


def calibrated_middle(labels: Tensor, own: Tensor) -> Tensor:
    """The label at which the likelihood ratio of ``calibrated_strength`` is 1: the mean of its two means, ``(K,)``.

    Arguments as there; a task with inputs of one kind only has the middle 0.
    """
    known, asked, others = _means(labels, own)
    return torch.where(known, (asked + others) / 2, 0)


def calibrated_strength(labels: Tensor, own: Tensor) -> Tensor:
    """The strength beta at which exp(beta s) is a likelihood ratio: difference of the means of labels over their variance.

    If labels are normal, with one variance v and mean mu_1 on what a task asks for and mu_0 on all else, the log likelihood ratio
    of the two is s (mu_1 - mu_0) / v plus a constant. Dividing couplings by a number multiplies the strength by it.

    Args:
        labels: of single inputs under each task, ``(N, K)``.
        own: whether an input is what the task asks for, boolean ``(N, K)``.

    Returns:
        ``(K,)``; 0 for a task whose labels do not tell its inputs from others, or that has no inputs of one of the two kinds.

    >>> import torch
    >>> calibrated_strength(torch.tensor([[1.0], [3.0], [-1.0], [1.0]]), torch.tensor([[True], [True], [False], [False]]))
    tensor([2.])
    """
    known, asked, others = _means(labels, own)
    variance = torch.where(own, labels - asked, labels - others).square().mean(0)
    usable = known & (variance > 0) & (asked > others)
    return torch.where(usable, (asked - others) / torch.where(variance > 0, variance, 1), 0)


def _means(labels: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which tasks have inputs of both kinds, and the mean label of what they ask for and of all else, ``(K,)`` each."""
    asked, others = ((labels * kind).sum(0) / kind.sum(0).clamp(min=1) for kind in (own, ~own))
    return own.any(0) & ~own.all(0), asked, others
