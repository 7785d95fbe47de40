"""The frequencies of the classes as a prediction. Their weight in a mixture estimates how often all other members are wrong.

A mixture that gives it the weight e gives every answer at least e times its frequency. So where labels are wrong, or the features
say little, it keeps the mixture from being overconfident.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...networks.readouts import Probe, Questions


def fit_frequencies(answers: Tensor, questions: Questions, fold: Tensor, width: int) -> tuple[Probe, Tensor]:
    """Frequencies of all rows, and of those outside each fold.

    One further answer, shared evenly, keeps every frequency above 0.

    Args:
        answers: int64 ``(N, Q)``, -1 where missing. questions: Q of them, with C outputs. fold: of each row, ``(N,)``.
        width: of the features that the probe is given, and does not use.

    Returns:
        A probe without weights; the logits of each row by the frequencies of the other folds, ``(N, C)``.
    """
    probe = Probe(width, questions.num_outputs)
    with torch.no_grad():
        probe.bias.copy_(log_frequencies(answers, questions))
    parts = torch.stack([log_frequencies(answers[fold != one], questions) for one in range(int(fold.max()) + 1)])
    return probe, parts[fold]


def log_frequencies(answers: Tensor, questions: Questions) -> Tensor:
    """Logits of every output ``(C,)``, from the answers ``(N, Q)``; one further answer is shared evenly."""
    known = answers >= 0
    if questions.binary:
        yes = (answers == 1).sum(0) + 0.5
        return (yes / ((answers == 0).sum(0) + 0.5)).log()
    counts = torch.bincount((answers + questions.first)[known], minlength=questions.num_outputs)
    return (counts + 1 / torch.tensor(questions.sizes)[questions.question]).log()
