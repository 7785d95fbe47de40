"""Step 1 of the protocol: train the added layers on the primary task, which knows no family of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import RunConfig
from .evaluation import METRICS, metrics
from .features import Features
from .head import ComodulatedHead
from .progress import Progress
from .splits import Partition
from .tasks import TaskFamily
from .training import derived_seed, train

EVALUATION_BATCH = 1024


class Pretraining(nn.Module):
    """The head on its primary task: all classes, or all attributes jointly. Missing targets (-1) are masked."""

    def __init__(self, head: ComodulatedHead) -> None:
        super().__init__()
        self.head = head

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean NLL; features ``(B, C, s, s)``, targets classes ``(B,)`` or attributes ``(B, K)``."""
        logits = self.head(features, mode="base")
        if targets.ndim == 1:
            return F.cross_entropy(logits, targets)
        known = targets >= 0
        losses = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).to(logits.dtype), reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)


def pretraining_targets(family: TaskFamily, columns: list[np.ndarray]) -> Tensor:
    """Targets of the primary task for every row: classes ``(N,)`` or attributes ``(N, K)``."""
    if family.kind == "classes":
        return torch.from_numpy(columns[1])
    return torch.from_numpy(np.stack(columns, 1))


def pretrain(
    head: ComodulatedHead,
    features: Features,
    targets: Tensor,
    parts: Partition,
    config: RunConfig,
    fabric: Any,
    checkpoint: Path | None,
    identity: str,
    tell: Progress,
) -> list[dict[str, float]]:
    """Train all layers of the head on the primary task, on the pretraining half."""
    settings, device = config.pretraining, fabric.device
    head.standardize(*channel_moments(features, parts.pretraining))
    head.to(device)
    module = Pretraining(head)

    def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = parts.pretraining[torch.randperm(len(parts.pretraining), generator=generator)]
        for rows in order.split(settings.batch_size):
            yield features.rows(rows).to(device), targets[rows].to(device)

    def validate() -> dict[str, float]:
        rows = parts.pretraining_validation
        logits = torch.cat([head(features.rows(part).to(device), mode="base") for part in rows.split(EVALUATION_BATCH)])
        known = targets[rows].to(device)
        if known.ndim == 2:
            logits, known = torch.stack([torch.zeros_like(logits), logits], -1)[known >= 0], known[known >= 0]
        return {name: metrics(logits.log_softmax(-1), known)[name] for name in METRICS}

    return train(
        module,
        [(parameter, 1.0) for layer in head.layers for parameter in layer.parameters()],
        batches,
        -(-len(parts.pretraining) // settings.batch_size),
        validate,
        settings,
        seed=derived_seed(config.seed, "pretraining"),
        fabric=fabric,
        checkpoint=checkpoint,
        identity=identity,
        report=lambda epoch: tell.epoch("pretraining", epoch),
    )


def channel_moments(features: Features, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature channel over some rows, each ``(C,)``, read in blocks."""
    channels = features.shape[0]
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for part in rows.split(4096):
        block = features.rows(part).double()
        total += block.sum((0, 2, 3))
        squares += block.square().sum((0, 2, 3))
        count += block.numel() // channels
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()
