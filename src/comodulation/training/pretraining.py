"""Step 1 of the protocol: train the added layers on the primary task, which knows no family of tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Partition
from ..data.features import FeatureRows
from ..evaluation import METRICS, metrics
from ..mathematics import derived_seed
from ..networks import ComodulatedHead, taking
from ..networks.readouts import Questions
from ..processes import ALONE, Processes, Share
from ..tasks import TaskFamily, task_logits
from .inputs import EVALUATION_BATCH
from .loop import Objective, TrainingSettings, Venue, train
from .probe_start import begin_at_probe


class Pretraining(nn.Module):
    """The head on its primary task: all classes, or all attributes or columns jointly. Missing targets (-1) are masked.

    Args:
        head: what is trained.
        family: needed for targets of columns, whose classes are its own.
    """

    def __init__(self, head: ComodulatedHead, family: TaskFamily | None = None) -> None:
        super().__init__()
        self.head, self.family = head, family

    def loss(self, features: Tensor, targets: Tensor, share: Share | None = None, labels: int | None = None) -> Tensor:
        """Mean NLL; features ``(B, C, s, s)``, targets classes ``(B,)``, or attributes or columns ``(B, K)``.

        With ``share``, these are those rows of a batch that has so many ``labels``, and the loss is their part of its mean.
        """
        with taking(share, self.head):
            logits = self.head(features, mode="base")
        if targets.ndim == 1:
            if labels is not None:
                return F.cross_entropy(logits, targets, reduction="sum") / labels
            return F.cross_entropy(logits, targets)
        known = targets >= 0
        number = known.sum() if labels is None else torch.tensor(labels)
        if self.family is not None and self.family.kind == "columns":
            sums = [
                F.cross_entropy(logits[:, group[0] : group[-1] + 1], column, ignore_index=-1, reduction="sum")
                for group, column in zip(self.family.members, _places(self.family, targets).unbind(1), strict=True)
            ]
            return torch.stack(sums).sum() / number.clamp(min=1)
        losses = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).to(logits.dtype), reduction="none")
        return (losses * known).sum() / number.clamp(min=1)


def pretraining_targets(family: TaskFamily, columns: list[np.ndarray]) -> Tensor:
    """Targets of the primary task for every row: classes ``(N,)``, or attributes or columns ``(N, K)``."""
    return torch.from_numpy(columns[1]) if family.kind == "classes" else family.target_table(columns)


def _places(family: TaskFamily, targets: Tensor) -> Tensor:
    """Targets as places among their task's own classes, -1 where missing, ``(B, K)``."""
    first = torch.tensor([group[0] for group in family.members], device=targets.device)
    return torch.where(targets < 0, -1, targets - first)


def _asked(targets: Tensor, head: ComodulatedHead, family: TaskFamily | None) -> tuple[Tensor, Questions]:
    """Answers ``(N, Q)`` of the primary task, and its questions."""
    if targets.ndim == 1:
        return targets[:, None], Questions((head.num_outputs,))
    if family is not None and family.kind == "columns":
        return _places(family, targets), Questions.of(family)
    return targets, Questions((1,) * targets.shape[1], binary=True)


def pretrain(
    head: ComodulatedHead,
    features: FeatureRows,
    targets: Tensor,
    parts: Partition,
    settings: TrainingSettings,
    venue: Venue,
    family: TaskFamily | None = None,
    *,
    seed: int,
) -> list[dict[str, float]]:
    """Train all layers of the head on the primary task, on the pretraining half; ``family`` as in ``Pretraining``.

    A head that begins at the probe is set to it first, and keeps it unless an epoch has a lower validation NLL.
    """
    device, processes = venue.fabric.device, Processes.of(venue.fabric)
    head.standardize(*channel_moments(features, parts.pretraining, processes))
    begin = math.inf
    if head.settings.start == "probe":
        begin = begin_at_probe(head, features, *_asked(targets, head, family), parts, derived_seed(seed, "probe"))
        begin = processes.agree(begin)  # it decides which epoch is kept
        venue.tell.message(f"pretraining begins at logistic regression: NLL {begin:.3f} on validation images")
    head.to(device)

    def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Any, ...]]:
        order = parts.pretraining[torch.randperm(len(parts.pretraining), generator=generator)]
        for rows in order.split(settings.batch_size):
            if not processes.several:
                yield features.rows(rows).to(device), targets[rows].to(device)
                continue
            share = processes.share(len(rows))
            own, labels = rows[share.rows], int((targets[rows] >= 0).sum())
            yield features.rows(own).to(device), targets[own].to(device), share, labels

    def validate() -> dict[str, float]:
        rows = parts.pretraining_validation
        own = rows[processes.share(len(rows)).rows]
        logits = torch.cat([head(features.rows(part).to(device), mode="base") for part in own.split(EVALUATION_BATCH)])
        logits = processes.gather(logits, len(rows))
        known = targets[rows].to(device)
        if family is not None and family.kind == "columns":
            image, task = (known >= 0).nonzero(as_tuple=True)
            logits, known = task_logits(family, logits[image], task), known[image, task]
        elif known.ndim == 2:
            logits, known = torch.stack([torch.zeros_like(logits), logits], -1)[known >= 0], known[known >= 0]
        return {name: metrics(logits.log_softmax(-1), known)[name] for name in METRICS}

    learnable = [(parameter, 1.0) for layer in head.layers for parameter in layer.parameters()]
    steps, state = -(-len(parts.pretraining) // settings.batch_size), list(head.layer_buffers().values())
    objective = Objective(
        "pretraining", Pretraining(head, family), learnable, batches, steps, validate, state=state, begin=begin
    )
    return train(objective, settings, venue, seed=derived_seed(seed, "pretraining"))


def channel_moments(features: FeatureRows, rows: Tensor, processes: Processes = ALONE) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature channel over some rows, each ``(C,)``, read in blocks, by all processes."""
    channels = features.shape[0]
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for part in rows[processes.share(len(rows)).rows].split(4096):
        block = features.rows(part).double()
        total += block.sum((0, 2, 3))
        squares += block.square().sum((0, 2, 3))
        count += block.numel() // channels
    if processes.several:
        sums = torch.cat([total, squares, torch.tensor([count]).double()])
        total, squares, number = processes.sum(sums.to(processes.device)).cpu().split([channels, channels, 1])
        count = int(number)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()
