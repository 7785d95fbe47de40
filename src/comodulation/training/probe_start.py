"""The start of a network that begins at the probe: logistic regression on the pooled features of the pretraining half."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Partition
from ..data.features import FeatureRows
from ..networks import ComodulatedHead
from ..networks.readouts import Questions
from .inputs import filled
from .readouts import Basis, choose_strength, logistic_regression, moments_of

READ_ROWS = 4096
MOST_NUMBERS = 2**28  # of pooled features; of more images, some are drawn


def begin_at_probe(
    head: ComodulatedHead, features: FeatureRows, answers: Tensor, questions: Questions, parts: Partition, seed: int
) -> float:
    """Set a head's layers to the probe of the images that pretraining learns from, its L2 chosen on those that it validates on.

    Args:
        head: with ``start="probe"`` and standardised features.
        features: maps of all images. answers: of all images, int64 ``(N, Q)``, -1 where missing. questions: Q of them.
        parts: which images are for what. seed: of which are taken, where they are too many to hold.

    Returns:
        Mean NLL of the validation images' answers, nan where none has any.
    """
    generator = torch.Generator().manual_seed(seed)
    most = max(2, MOST_NUMBERS // head.in_channels)
    learned = parts.pretraining
    if len(learned) > most:
        learned = learned[torch.randperm(len(learned), generator=generator)[:most]]
    judged = parts.pretraining_validation

    def pooled(rows: Tensor) -> Tensor:
        blocks = (features.rows(part).mean((2, 3)) for part in rows.split(READ_ROWS))
        return (filled(blocks, len(rows)) - head.feature_mean.cpu()) / head.feature_std.cpu()

    own = pooled(learned)
    moments = moments_of(own)
    basis = Basis.of(own, moments)
    rows = torch.cat([basis.turned(own), basis.turned(pooled(judged))])
    known = torch.cat([answers[learned], answers[judged]])
    fitted, held = torch.arange(len(rows)).split([len(learned), len(judged)])
    strength, _ = choose_strength(rows, known, questions, basis.variance, [(fitted, held)])
    turned, bias = logistic_regression(rows[fitted], known[fitted], questions, strength, basis.variance)
    mean, deviation = moments
    weight = basis.weights(turned) / deviation
    head.set_probe(weight, bias - weight @ mean)
    losses = questions.losses(rows[held] @ turned + bias, known[held])
    return float(losses.sum() / (known[held] >= 0).sum())
