"""The loss of each input under its task: what a network returns, against labels of which some are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError, choose
from .labelled_batches import is_known

Loss = Callable[[Any, Tensor, Tensor], Tensor]  # (what the network returns, labels (B,), tasks (B,)) -> (B,)
LOSSES = ("auto", "classes", "binary")


def logits_of(outputs: Any) -> Tensor:
    """The logits in what a network returns: a tensor, or its ``logits``. Raises InputError for anything else."""
    found = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor) or not found.is_floating_point() or not found.ndim:
        raise InputError(
            f"the network returns {type(outputs).__name__}, expected logits (B, C), or an object with `logits`; another needs "
            "loss=, a function of (outputs, labels, task_ids) that returns the loss of each input (B,)"
        )
    return found


def settled_loss(loss: str, outputs: Any, labels: Tensor, num_tasks: int) -> str:
    """``classes`` or ``binary``; of ``auto`` what outputs and labels of one batch leave open to no doubt.

    Raises:
        InputError: an unknown name; as many outputs as tasks and labels of 0 and 1, which may be either.
    """
    if choose(loss, LOSSES, "loss") != "auto":
        return loss
    logits = logits_of(outputs)
    width = 1 if logits.ndim == 1 else logits.shape[1]
    if width == 1:
        return "binary"
    known = labels[is_known(labels)]
    if width == num_tasks and not bool((known > 1).any()):
        raise InputError(
            f"{num_tasks} tasks, {width} outputs and labels of 0 and 1: say loss='binary' where each task has an output of its "
            "own, or loss='classes' where the outputs are classes"
        )
    return "classes"


def classes_loss(outputs: Any, labels: Tensor, tasks: Tensor) -> Tensor:
    """Cross-entropy of each input ``(B,)``, over its labelled positions where it has several.

    Args:
        outputs: with logits ``(B, C)`` or ``(B, C, positions)``.
        labels: classes, ``(B,)`` or ``(B, positions)``; 0 is taken where -1 or NaN.
        tasks: ``(B,)``, not used.
    """
    logits, known = logits_of(outputs), is_known(labels)
    chosen = torch.where(known, labels, 0)
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != labels.shape:
        raise InputError(
            f"labels {tuple(labels.shape)} for logits {tuple(logits.shape)}, expected a class for each input, (B,) and (B, C), or "
            "for each position"
        )
    wrong = chosen[(chosen != chosen.round()) | (chosen < 0) | (chosen >= logits.shape[1])]
    if len(wrong):
        raise InputError(
            f"label {wrong[0]:g} is no class, expected 0 to {logits.shape[1] - 1}, and -1 where it is missing; to predict numbers "
            "pass a loss= of your own"
        )
    losses = F.cross_entropy(logits, chosen.long(), reduction="none") * known
    return losses if losses.ndim == 1 else losses.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)


def binary_loss(outputs: Any, labels: Tensor, tasks: Tensor) -> Tensor:
    """Binary cross-entropy of each input ``(B,)``, of the one output, or of the output that is its task's.

    Args:
        outputs: with logits ``(B,)``, ``(B, 1)`` or, an output a task, ``(B, K)``.
        labels: 0 and 1, ``(B,)``; 0 is taken where -1 or NaN.
        tasks: ``(B,)``.
    """
    own, known = own_logits(logits_of(outputs), tasks), is_known(labels)
    if labels.shape != own.shape:
        raise InputError(f"labels {tuple(labels.shape)} for tasks of no and yes, expected one for each input, (B,)")
    chosen = torch.where(known, labels, 0).to(own.dtype)
    wrong = chosen[(chosen != 0) & (chosen != 1)]
    if len(wrong):
        raise InputError(f"label {wrong[0]:g} is neither 0 nor 1; to predict numbers pass a loss= of your own")
    return F.binary_cross_entropy_with_logits(own, chosen, reduction="none") * known


def own_logits(logits: Tensor, tasks: Tensor) -> Tensor:
    """The logit of each input's task ``(B,)``, of logits ``(B,)``, ``(B, 1)`` or ``(B, K)``."""
    if logits.ndim == 1:
        return logits
    if logits.ndim != 2 or (logits.shape[1] > 1 and int(tasks.max()) >= logits.shape[1]):
        raise InputError(
            f"logits {tuple(logits.shape)} for tasks of no and yes, expected (B,), (B, 1), or an output for each task"
        )
    return logits[:, 0] if logits.shape[1] == 1 else logits.gather(1, tasks[:, None])[:, 0]


def is_right(loss: str, outputs: Any, labels: Tensor, tasks: Tensor) -> Tensor:
    """Share of each input's labelled positions that is answered rightly, ``(B,)``: 0 or 1 where there is one position."""
    logits, known = logits_of(outputs), is_known(labels)
    answers = (own_logits(logits, tasks) > 0).long() if loss == "binary" else logits.argmax(1)
    right = ((answers == labels) & known).double()
    return right if right.ndim == 1 else right.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
