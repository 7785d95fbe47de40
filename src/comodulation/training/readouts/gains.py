"""Task gains on a probe, learned across folds: is there something in the features that the task's own classes do not say?

The neurons are the positive and the negative part of each standardised feature x, so that the probe's logits are
W_c relu(x) - W_c relu(-x) + b_c. Task k multiplies neuron j by exp(u_kj), and its classes share these gains: as many parameters as
attention has, and comodulation. The two are the same here. A decoder that passes on its neurons has the relative slope w_j by
equation (3) of docs/mathematics.md, so the computed gain is exp(beta w_j): any that attention may learn, from another coupling.

A controller must learn from inputs that the network has not fitted. So the gains are learned over the rows of all folds, each row
by the probe that has not seen its fold; and the gains that judge a fold are learned from the other folds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...networks.readouts import Probe
from ..optimizers import LBFGS
from .probe import FittedProbe

# Of the penalty strength / 2 sum_j u_j^2 on a task's gains, beside the sum of its rows' losses.
STRENGTHS = (10.0, 100.0)
STEPS = 30  # of L-BFGS, at most


def fit_gains(
    rows: Tensor, answers: Tensor, allowed: Tensor, fold: Tensor, fitted: FittedProbe
) -> tuple[Probe, Tensor]:
    """Gains of every task on a probe.

    Args:
        rows: standardised features ``(N, V)``.
        answers: int64 ``(N, 1)``, -1 where missing: which of the C outputs.
        allowed: outputs of each row's task, bool ``(N, C)``; an output belongs to one task.
        fold: of each row, from 0, ``(N,)``.
        fitted: the probe, also of each fold.

    Returns:
        A probe of both parts of each feature, with the gains in its weights; and logits ``(N, C)`` of each row by probe and gains
        that have not seen it.
    """
    tasks, task = allowed.unique(dim=0, return_inverse=True)
    known = answers[:, 0] >= 0
    found = []
    for strength in STRENGTHS:
        unseen, total = fitted.unseen.clone(), 0.0
        for one, members in enumerate(tasks):
            outputs, own = members.nonzero()[:, 0], (task == one).nonzero()[:, 0]
            for held in range(len(fitted.by_fold)):
                learned = own[known[own] & (fold[own] != held)]
                judged = own[fold[own] == held]
                gains = _log_gains(rows[learned], answers[learned, 0], fold[learned], outputs, fitted, strength)
                logits = _logits(rows[judged], fold[judged], outputs, fitted, gains)
                unseen[judged[:, None], outputs] = logits
                total += float(_losses(logits, answers[judged, 0], outputs))
        found.append((total, strength, unseen))
    _, strength, unseen = min(found, key=lambda one: one[0])
    probe = Probe(rows.shape[1], allowed.shape[1], rectified=True)
    with torch.no_grad():
        probe.bias.copy_(fitted.probe.bias)
        probe.weight.copy_(torch.cat([fitted.probe.weight, -fitted.probe.weight], 1))
        for one, members in enumerate(tasks):
            outputs, own = members.nonzero()[:, 0], ((task == one) & known).nonzero()[:, 0]
            gains = _log_gains(rows[own], answers[own, 0], fold[own], outputs, fitted, strength)
            probe.weight[outputs] *= gains.exp().flatten()
    return probe, unseen


def _log_gains(
    rows: Tensor, answers: Tensor, fold: Tensor, outputs: Tensor, fitted: FittedProbe, strength: float
) -> Tensor:
    """Logs of one task's gains, of the positive and the negative part of each feature ``(2, V)``."""
    gains = rows.new_zeros(2, rows.shape[1], requires_grad=True)
    if not len(rows):
        return gains.detach()
    solver = LBFGS([gains], max_iter=STEPS, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        logits = _logits(rows, fold, outputs, fitted, gains)
        value = _losses(logits, answers, outputs) + strength / 2 * gains.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(objective)
    return gains.detach()


def _logits(rows: Tensor, fold: Tensor, outputs: Tensor, fitted: FittedProbe, gains: Tensor) -> Tensor:
    """Logits ``(n, c)`` of some outputs, of each row by the probe that has not seen its fold."""
    gained = rows.relu() * gains[0].exp() - (-rows).relu() * gains[1].exp()
    logits = rows.new_empty(len(rows), len(outputs))
    for one, probe in enumerate(fitted.by_fold):
        part = fold == one
        logits[part] = gained[part] @ probe.weight[outputs].T.to(rows.dtype) + probe.bias[outputs].to(rows.dtype)
    return logits


def _losses(logits: Tensor, answers: Tensor, outputs: Tensor) -> Tensor:
    """Sum of the NLL of the rows with an answer."""
    known = answers >= 0
    return F.cross_entropy(logits[known], torch.searchsorted(outputs, answers[known]), reduction="sum")
