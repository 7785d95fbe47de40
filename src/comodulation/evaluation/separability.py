"""Do classes separate better in the task-relevant subspace of the decoder? (docs/mechanism.md, section 1)

The subspace is found on one set of inputs and used on another. Measured where it was fitted, the classes of any
high-dimensional noise are far apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-12  # a spread below this share of the largest activity is rounding, and counts as 0


@dataclass(frozen=True)
class TaskSeparability:
    """Separation of each task's classes on held-out inputs; nan for a task with too little data.

    Attributes:
        fisher: ``fisher_ratio`` in the task's own subspace, ``(K,)``.
        dprime: ``class_dprime``, ``(K,)``.
        rank: dimensions of the subspace, int64 ``(K,)``, 0 where it is nan.
    """

    fisher: Tensor
    dprime: Tensor
    rank: Tensor


def task_subspace(activity: Tensor, labels: Tensor) -> Tensor:
    """Orthonormal basis of the between-class scatter: the span of the centred class means.

    Args:
        activity: pooled decoder activity, ``(N, D)``.
        labels: class of each row, integers ``(N,)``; negative ones are missing.

    Returns:
        ``(D, r)`` in float64, leading direction first; r at most C - 1 for C classes, 0 where all means are equal.

    Raises:
        ValueError: shapes that do not fit, labels that are not integers.
    """
    activity, labels = check_labelled(activity, labels)
    classes = labels.unique()
    if len(classes) < 2:
        return activity.new_zeros(activity.shape[1], 0)
    means = torch.stack([activity[labels == c].mean(0) for c in classes])
    left, sizes, _ = torch.linalg.svd((means - means.mean(0)).T, full_matrices=False)
    return left[:, : int((sizes > ROUNDING * activity.abs().max() * math.sqrt(means.numel())).sum())]


def fisher_ratio(activity: Tensor, labels: Tensor, basis: Tensor | None = None) -> float:
    """tr(S_B) / tr(S_W), between-class over within-class variance, inside a subspace.

    S_B is the covariance of the class means, S_W the mean of the classes' covariances (with n - 1); every class weighs
    the same, so that the ratio does not depend on how common a class is. No common gain changes it.
    Source: Fisher, Annals of Eugenics 7:179 (1936), in the trace form of Fukunaga, Introduction to Statistical Pattern
    Recognition (1990), section 10.2; the equal weights are ours.

    Args:
        activity: ``(N, D)``. labels: integers ``(N,)``; negative ones are missing.
        basis: orthonormal, ``(D, r)``; the whole space by default.

    Returns:
        At least 0; infinite where classes differ without any spread, 0 where nothing varies at all, nan with fewer than
        two classes of two samples (smaller classes are left out).

    Raises:
        ValueError: shapes that do not fit, labels that are not integers.

    >>> fisher_ratio(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
    12.5
    """
    activity, labels = check_labelled(activity, labels)
    negligible = _negligible(activity)
    if basis is not None:
        activity = activity @ check_basis(basis, activity.shape[1]).to(activity)
    groups = groups_of(activity, labels)
    if len(groups) < 2:
        return math.nan
    if not activity.shape[1]:
        return 0.0
    between = float(torch.stack([rows.mean(0) for rows in groups]).var(0, correction=0).sum())
    within = float(torch.stack([rows.var(0) for rows in groups]).mean(0).sum())
    return _ratio(between if between > negligible else 0.0, within if within > negligible else 0.0)


def class_dprime(fit_activity: Tensor, fit_labels: Tensor, activity: Tensor, labels: Tensor) -> float:
    """Mean d' over pairs of classes, each along the pair's own axis: the difference of its means on the fitting inputs.

    For a pair (a, b) with unit axis v: d' = v . (mean_a - mean_b) / sqrt((v' S_a v + v' S_b v) / 2), means and
    covariances of the held-out inputs. Signed: an axis that does not carry over to new inputs gives 0 on average, where
    the absolute value would not.

    Args:
        fit_activity: ``(M, D)``. fit_labels: integers ``(M,)``.
        activity: held-out, ``(N, D)``. labels: integers ``(N,)``; negative labels are missing.

    Returns:
        In standard deviations; infinite where a pair differs without any spread, nan without a pair. Classes without a
        fitting sample or with fewer than two held-out ones are left out.

    Raises:
        ValueError: shapes that do not fit, labels that are not integers.
    """
    fit_activity, fit_labels = check_labelled(fit_activity, fit_labels)
    activity, labels = check_labelled(activity, labels)
    if fit_activity.shape[1] != activity.shape[1]:
        raise ValueError(f"both sets need the same D neurons, got {fit_activity.shape[1]} and {activity.shape[1]}")
    classes = [c for c in fit_labels.unique().tolist() if int((labels == c).sum()) > 1]
    if len(classes) < 2:
        return math.nan
    basis = task_subspace(fit_activity, fit_labels)  # holds every axis, and is small
    negligible = _negligible(activity)
    fitted = torch.stack([fit_activity[fit_labels == c].mean(0) for c in classes]) @ basis
    held_out = [activity[labels == c] @ basis for c in classes]
    means = torch.stack([rows.mean(0) for rows in held_out])
    covariances = torch.stack([rows.T.cov().reshape(basis.shape[1], basis.shape[1]) for rows in held_out])
    total, pairs = 0.0, len(classes) * (len(classes) - 1) // 2
    for a in range(len(classes) - 1):
        axes = torch.nn.functional.normalize(fitted[a] - fitted[a + 1 :], dim=1)
        distances = (axes * (means[a] - means[a + 1 :])).sum(1)
        own = ((axes @ covariances[a]) * axes).sum(1)
        other = torch.einsum("bi,bij,bj->b", axes, covariances[a + 1 :], axes)
        for distance, variance in zip(distances.tolist(), ((own + other) / 2).tolist(), strict=True):
            distance = distance if distance**2 > negligible else 0.0
            total += _ratio(distance, math.sqrt(variance) if variance > negligible else 0.0)
    return total / pairs


def task_separability(
    fit_activity: Tensor,
    fit_labels: Tensor,
    fit_tasks: Tensor,
    activity: Tensor,
    labels: Tensor,
    tasks: Tensor,
    num_tasks: int,
) -> TaskSeparability:
    """Fisher ratio in the task's subspace and d', for every task; the subspace fitted on one set, both measured on another.

    Args:
        fit_activity: pooled decoder activity under the row's task, ``(M, D)``. fit_labels, fit_tasks: integers ``(M,)``.
        activity: of other inputs, ``(N, D)``. labels, tasks: integers ``(N,)``; negative labels are missing.
        num_tasks: number K of tasks; ids in [0, K).

    Returns:
        One value per task; binary tasks are tasks with the labels 0 and 1.

    Raises:
        ValueError: shapes that do not fit, labels or tasks that are not integers.
    """
    fit_tasks, tasks = check_tasks(fit_tasks, fit_labels, num_tasks), check_tasks(tasks, labels, num_tasks)
    fisher, dprime, rank = [], [], []
    for task in range(num_tasks):
        fit_rows, rows = fit_tasks == task, tasks == task
        basis = task_subspace(fit_activity[fit_rows], fit_labels[fit_rows])
        separation = class_dprime(fit_activity[fit_rows], fit_labels[fit_rows], activity[rows], labels[rows])
        enough = not math.isnan(separation)
        fisher.append(fisher_ratio(activity[rows], labels[rows], basis) if enough else math.nan)
        dprime.append(separation)
        rank.append(basis.shape[1] if enough else 0)
    return TaskSeparability(
        torch.tensor(fisher, dtype=torch.float64), torch.tensor(dprime, dtype=torch.float64), torch.tensor(rank)
    )


def check_labelled(activity: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Activity ``(N, D)`` in float64 and labels ``(N,)``, without the rows whose label is missing. Raises ValueError."""
    if activity.ndim != 2 or activity.shape[1] < 1:
        raise ValueError(f"activity must be pooled, (N, D), got {tuple(activity.shape)}")
    if labels.is_floating_point() or labels.shape != activity.shape[:1]:
        raise ValueError(f"labels must be integers ({len(activity)},), got {labels.dtype} {tuple(labels.shape)}")
    known = labels >= 0
    activity = activity[known].double()
    if not bool(activity.isfinite().all()):
        raise ValueError("activity must be finite, got nan or infinity")
    return activity, labels[known]


def check_tasks(tasks: Tensor, labels: Tensor, num_tasks: int) -> Tensor:
    """Task ids ``(N,)`` as they are. Raises ValueError unless integers in [0, num_tasks), as many as labels."""
    if tasks.is_floating_point() or tasks.shape != labels.shape:
        raise ValueError(f"tasks must be integers {tuple(labels.shape)}, got {tasks.dtype} {tuple(tasks.shape)}")
    if len(tasks) and not 0 <= int(tasks.min()) <= int(tasks.max()) < num_tasks:
        raise ValueError(f"tasks must be in [0, {num_tasks - 1}], got {int(tasks.min())} to {int(tasks.max())}")
    return tasks


def groups_of(activity: Tensor, labels: Tensor) -> list[Tensor]:
    """The rows of each class with at least two of them, ``(n, D)`` each, by class."""
    classes, counts = labels.unique(return_counts=True)
    return [activity[labels == c] for c in classes[counts > 1]]


def check_basis(basis: Tensor, neurons: int) -> Tensor:
    """A basis ``(D, r)`` as it is. Raises ValueError for another shape."""
    if basis.ndim != 2 or basis.shape[0] != neurons:
        raise ValueError(f"basis must be (D, r) with D = {neurons}, got {tuple(basis.shape)}")
    return basis


def _negligible(activity: Tensor) -> float:
    """A variance that rounding alone explains."""
    return float(ROUNDING * activity.abs().max()) ** 2 if activity.numel() else 0.0


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.copysign(math.inf, numerator) if numerator else 0.0
