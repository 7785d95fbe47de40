"""Couplings in closed form: what a task should couple, from the mean activity of a few of its inputs. No gradient, no training.

    informativeness   log(E_k h / E h): the log likelihood ratio of a count of activity, by encoder neuron
    discriminability  d': difference of means to other tasks' inputs, in standard deviations within a task, by encoder neuron
    discriminant      Fisher's linear discriminant between a task's inputs and other tasks', all neurons together

Activity is that of single inputs, averaged over positions. Derivation: docs/mathematics.md, section 9.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import choose
from .estimators import ROUNDING


def closed_form_couplings(kind: str, activity: Tensor, task_ids: Tensor, num_tasks: int) -> Tensor:
    """Couplings ``(K, E)`` of a kind, from the activity of some inputs of every task.

    Args:
        kind: one of ``CLOSED_FORMS``.
        activity: rectified encoder activity, averaged over positions, ``(N, E)``. task_ids: ``(N,)``. num_tasks: K.

    Returns:
        ``(K, E)``; 0 for a task without inputs, and for a neuron that is silent in all of them; of the two kinds that measure in
        standard deviations, also for one that is constant within every task.

    Raises:
        InputError: an unknown kind.
    """
    return CLOSED_FORMS[choose(kind, CLOSED_FORMS, "kind of couplings")](activity, task_ids, num_tasks)


def informativeness(means: Tensor, counts: Tensor, everything: Tensor) -> Tensor:
    """log(E_k h / E h), with one input more than there are in the task, the average one: finite, and 0 without any.

    Args:
        means: mean activity over the inputs of each task, ``(K, E)``. counts: how many there are, ``(K,)``.
        everything: mean activity over all inputs, ``(E,)``.

    Returns:
        ``(K, E)``.

    >>> import torch
    >>> informativeness(torch.tensor([[3.0, 0.0]]), torch.tensor([9]), torch.tensor([1.0, 1.0]))
    tensor([[ 1.0296, -2.3026]])
    """
    counts = counts[:, None]
    active = everything > 0
    shrunk = (counts * means / torch.where(active, everything, 1) + 1) / (counts + 1)
    return torch.where(active, shrunk.log(), 0)


def _informativeness(activity: Tensor, task_ids: Tensor, num_tasks: int) -> Tensor:
    means, counts = _means(activity, task_ids, num_tasks)
    return informativeness(means, counts, activity.mean(0))


def _discriminability(activity: Tensor, task_ids: Tensor, num_tasks: int) -> Tensor:
    difference, within = _difference_and_within(activity, task_ids, num_tasks)
    deviation = _deviation(within, activity)
    return torch.where(deviation > 0, difference / torch.where(deviation > 0, deviation, 1), 0)


def _discriminant(activity: Tensor, task_ids: Tensor, num_tasks: int) -> Tensor:
    from sklearn.covariance import ledoit_wolf

    difference, within = _difference_and_within(activity, task_ids, num_tasks)
    deviation = _deviation(within, activity)
    active = deviation > 0
    result = torch.zeros_like(difference)
    if not bool(active.any()):
        return result
    scale = deviation[active]
    # In units of each neuron's standard deviation, the identity that Ledoit and Wolf shrink to is the diagonal.
    unit = (within[:, active] / scale).double().cpu().numpy()
    covariance, shrinkage = ledoit_wolf(unit, assume_centered=True)
    # Of inputs that differ in one direction alone (two of a task, or copies), the estimate is certain and singular: the identity
    # counts as at least one more input.
    if shrinkage < (least := 1 / (len(unit) + 1)):
        more = 1 - (1 - least) / (1 - shrinkage)
        covariance = (1 - more) * covariance + more * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    solved = np.linalg.solve(covariance, (difference[:, active] / scale).double().cpu().numpy().T).T
    result[:, active] = torch.from_numpy(solved).to(result) / scale
    return result


def _means(activity: Tensor, task_ids: Tensor, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Mean activity of each task's inputs ``(K, E)``, 0 without any, and how many there are ``(K,)``."""
    counts = torch.bincount(task_ids, minlength=num_tasks)
    sums = activity.new_zeros(num_tasks, activity.shape[1]).index_add(0, task_ids, activity)
    return sums / counts.clamp(min=1)[:, None], counts


def _difference_and_within(activity: Tensor, task_ids: Tensor, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Mean of a task's inputs minus that of all others ``(K, E)``, and each input minus its task's mean ``(N, E)``."""
    means, counts = _means(activity, task_ids, num_tasks)
    counts = counts[:, None].to(activity)
    others = (activity.sum(0) - counts * means) / (len(activity) - counts).clamp(min=1)
    known = (counts > 0) & (counts < len(activity))
    return torch.where(known, means - others, 0), activity - means.index_select(0, task_ids)


def _deviation(within: Tensor, activity: Tensor) -> Tensor:
    """Standard deviation within a task ``(E,)``, and 0 for a neuron that is constant there but for the rounding of its means."""
    deviation, size = _root_mean_square(within), _root_mean_square(activity)
    return torch.where(deviation > ROUNDING * torch.finfo(size.dtype).eps * size, deviation, 0)


def _root_mean_square(values: Tensor) -> Tensor:
    """Over inputs: ``(N, E) -> (E,)``. Relative to a power of two near the largest, whose square leaves the type's range."""
    largest = values.abs().amax(0) if len(values) else values.sum(0)
    scale = torch.where(largest > 0, largest / torch.frexp(largest).mantissa, 1)
    return (values / scale).square().mean(0).sqrt() * scale


CLOSED_FORMS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "informativeness": _informativeness,
    "discriminability": _discriminability,
    "discriminant": _discriminant,
}
