"""The nearest class mean: the simplest readout of frozen features, in closed form.

Features are taken to be Gaussian around the mean m_c of their class with one variance s in every direction, so that

    log p(c | x) = log pi_c - |x - m_c|^2 / (2 s) + constant,

which is linear in x. pi_c are the frequencies; s is the one with the lowest mean NLL out of fold, for each question. Source:
Mensink et al., "Distance-based image classification" (PAMI 2013); with few images a class, Snell et al., "Prototypical networks"
(NeurIPS 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...networks.readouts import Probe, Questions
from .frequencies import log_frequencies

SPREADS = tuple(10.0 ** (power / 8) for power in range(-8, 41))  # of s that are tried, for standardised features


def fit_class_means(rows: Tensor, answers: Tensor, questions: Questions, fold: Tensor) -> tuple[Probe, Tensor]:
    """The nearest class means of all rows, and of those outside each fold.

    Args:
        rows: standardised features ``(N, V)``.
        answers: int64 ``(N, Q)``, -1 where missing.
        questions: Q of them, with C outputs.
        fold: of each row, ``(N,)``.

    Returns:
        A probe that answers so; the logits of each row by the means of the other folds, ``(N, C)``.
    """
    nearness = rows.new_empty(len(rows), questions.num_outputs)
    prior = rows.new_empty(len(rows), questions.num_outputs)
    for one in range(int(fold.max()) + 1):
        held = fold == one
        weights, bias = _nearness(rows[~held], answers[~held], questions)
        nearness[held] = rows[held] @ weights.T + bias
        prior[held] = log_frequencies(answers[~held], questions).to(rows.dtype)
    known = answers >= 0
    losses = [
        (questions.losses(nearness / spread + prior, answers) * known).double().sum(0) / known.sum(0).clamp(min=1)
        for spread in SPREADS
    ]
    spread = torch.tensor(SPREADS, dtype=rows.dtype)[torch.stack(losses).argmin(0)][questions.question]
    weights, bias = _nearness(rows, answers, questions)
    probe = Probe(rows.shape[1], questions.num_outputs)
    with torch.no_grad():
        probe.weight.copy_(weights / spread[:, None])
        probe.bias.copy_(bias / spread + log_frequencies(answers, questions).to(rows.dtype))
    return probe.requires_grad_(False), nearness / spread + prior


def _nearness(rows: Tensor, answers: Tensor, questions: Questions) -> tuple[Tensor, Tensor]:
    """Weights ``(C, V)`` and biases ``(C,)`` of x m_c - |m_c|^2 / 2; for binary questions of that of yes minus that of no.

    A class without a row has the mean of all rows, which is 0 where these are standardised.
    """
    outputs = 2 * len(questions.sizes) if questions.binary else questions.num_outputs
    first = 2 * torch.arange(len(questions.sizes)) if questions.binary else questions.first
    known = answers >= 0
    row, _ = known.nonzero().T
    place = (answers + first)[known]
    means = rows.new_zeros(outputs, rows.shape[1]).index_add_(0, place, rows[row])
    means /= torch.bincount(place, minlength=outputs).clamp(min=1)[:, None]
    bias = -means.square().sum(1) / 2
    if questions.binary:
        return means[1::2] - means[::2], bias[1::2] - bias[::2]
    return means, bias
