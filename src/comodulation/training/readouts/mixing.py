"""The weights of the members of a mixture: those with the lowest NLL, on rows that the members have not seen.

The NLL of a mixture, -sum_i log sum_m w_m p_m(y_i), is convex in w, and the EM step w_m <- mean_i w_m p_m(y_i) / sum_n w_n p_n(y_i)
lowers it each time. The weights of a question with few answers are shrunk to those of all questions together.
"""

from __future__ import annotations

import torch
from torch import Tensor

EM_STEPS = 200
SHARED_ANSWERS = 50.0  # what the weights of all questions together count as in the weights of one
EVEN_ANSWERS = 1.0  # what even weights count as in the weights of all questions together


def mixture_weights(truth: Tensor, question: Tensor, number: int) -> Tensor:
    """Weights of M members for each of Q questions.

    Args:
        truth: log-probability that each member gives to the true answer, ``(M, P)``.
        question: of each answer, ``(P,)``.
        number: Q of questions.

    Returns:
        ``(Q, M)``, each row adding up to 1.

    >>> truth = torch.tensor([[0.9], [0.1]]).log().expand(2, 1000)
    >>> mixture_weights(truth, torch.zeros(1000, dtype=torch.int64), 1)[0] > 0.9
    tensor([ True, False])
    """
    members = len(truth)
    truth = truth.clamp(min=-1e4)  # so that an answer that no member thought possible says nothing
    shares = (truth - truth.amax(0)).double().exp()
    together = torch.full((members,), 1 / members, dtype=torch.float64)
    for _ in range(EM_STEPS):
        parts = together[:, None] * shares
        gained = (parts / parts.sum(0)).sum(1) + EVEN_ANSWERS / members
        together = gained / gained.sum()
    weights = together.expand(number, members).clone()
    if number > 1:
        for _ in range(EM_STEPS):
            parts = weights[question].T * shares
            gained = torch.zeros(number, members, dtype=torch.float64)
            gained.index_add_(0, question, (parts / parts.sum(0)).T)
            gained += SHARED_ANSWERS * together
            weights = gained / gained.sum(1, keepdim=True)
    return weights.float()
