"""How a decoder layer responds to the couplings, per task: exact task gains from one pass over the data.

With the derivative estimator, the slope of decoder neuron j for one input is linear in the coupling w,

    b_j = sum_e w_e * mean_p [d_j(p) > 0] * (sum_delta K[j, e, delta] h_e(p + delta) + skip_je h_e(p)),

because the mask [d_j > 0] is taken at m = 0, at the encoder activity before its task gain: it does not depend on w. So
is its average over a task's inputs: b_k = J_k w_k with one fixed matrix J_k (D, E) per task. Once J_k and the mean
activities are known, the gains of level `task` follow for any coupling from one matrix-vector product, over all inputs
rather than those of a batch, with exact gradients. For a convolution J_k is the kernel times the gradient that the
convolution's weight would get from [d > 0] as output gradient, summed over the kernel's positions: one backward pass. On a
small map (convolution.py) it is one matrix product of activities and masks, without the padding.

For any other decoder, of several layers or of no known kind, the slope is linear in the coupling as well: it is the decoder's
Jacobian at the unmodulated activity, which does not depend on w, times h w. Column e of J_k is then the slope for the coupling of
encoder neuron e alone: E derivatives an input, once, of a few inputs (``some_of_each``, ``ResponseByColumns``).

Derivation: docs/mathematics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ..processes import ALONE, Processes
from .convolution import dense_matrix, is_small
from .estimators import DecoderStatistics


class TaskResponse(NamedTuple):
    """Mean response of the decoder over each task's inputs."""

    jacobian: Tensor  # (K, D, E): slope of decoder neuron j per unit of coupling of encoder neuron e
    mean: Tensor  # (K, D): mean activity of decoder neuron j

    def expand(self, num_tasks: int) -> TaskResponse:
        """The first task's response as that of ``num_tasks`` tasks, without copies."""
        return TaskResponse(self.jacobian[:1].expand(num_tasks, -1, -1), self.mean[:1].expand(num_tasks, -1))

    def of(self, tasks: Tensor) -> TaskResponse:
        """The response of some tasks, numbers ``(n,)``; without copies where all tasks share one."""
        if not self.jacobian.stride(0):
            return self._replace(jacobian=self.jacobian[: len(tasks)], mean=self.mean[: len(tasks)])
        return TaskResponse(self.jacobian.index_select(0, tasks), self.mean.index_select(0, tasks))

    def on(self, device: torch.device) -> TaskResponse:
        """The response on a device; one that all tasks share stays one there."""
        shared = not self.jacobian.stride(0)
        moved = TaskResponse(*((part[:1] if shared else part).to(device) for part in self))
        return moved.expand(len(self.jacobian)) if shared else moved

    def statistics(self, coupling: Tensor) -> DecoderStatistics:
        """Decoder statistics ``(K, D)`` for couplings ``(K, E)``, in the small-noise limit."""
        # As rows times matrices: a batch of matrices times columns, which is the same, takes eight times as long on a CPU.
        with torch.autocast(self.jacobian.device.type, enabled=False):
            slope = (coupling.to(self.jacobian.dtype)[:, None] @ self.jacobian.mT)[:, 0]
        return DecoderStatistics(slope, self.mean, slope.abs())


@torch.no_grad()
def task_response(
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    num_tasks: int,
    kernel: Tensor,
    skip: Tensor | None,
    processes: Processes = ALONE,
) -> TaskResponse:
    """Average response over batches of (encoder activity, decoder activity, task ids).

    Args:
        batches: encoder activity ``(B, E, H, W)`` before any task gain, decoder activity ``(B, D, H, W)`` after its
            ReLU, task ids ``(B,)``. Fastest where a batch holds few tasks.
        num_tasks: number K of tasks.
        kernel: of the decoder's convolution, ``(D, E, k, k)``, k odd, padded to keep the map's size.
        skip: the skip connection as a matrix ``(D, E)``, or None.
        processes: have the batches between them.

    Returns:
        TaskResponse in the kernel's type; zero for a task without inputs.

    Raises:
        ValueError: no task has any: gains would be 1 whatever is learned.
    """
    decoder_channels, encoder_channels = kernel.shape[:2]
    jacobian = kernel.new_zeros(num_tasks, decoder_channels, encoder_channels)
    mean = kernel.new_zeros(num_tasks, decoder_channels)
    counts = kernel.new_zeros(num_tasks)
    for activity, decoded, task_ids in batches:
        for task in task_ids.unique().tolist():
            rows = task_ids == task
            h, d = activity[rows], decoded[rows]
            active = (d > 0).to(h.dtype)
            jacobian[task] += _summed_response(h, active, kernel, skip) / (h.shape[2] * h.shape[3])
            mean[task] += d.mean((2, 3)).sum(0)
            counts[task] += len(h)
    jacobian, mean, counts = (processes.sum(total) for total in (jacobian, mean, counts))
    _check_seen(counts)
    counts = counts.clamp(min=1)
    return TaskResponse(jacobian / counts[:, None, None], mean / counts[:, None])


class ResponseByColumns:
    """Average response of any decoder, one column an encoder neuron, collected batch by batch.

    Args:
        num_tasks: number K of tasks. num_channels: number E of encoder neurons.
    """

    def __init__(self, num_tasks: int, num_channels: int) -> None:
        self.num_tasks, self.num_channels = num_tasks, num_channels
        self._totals: tuple[Tensor, Tensor, Tensor] | None = (
            None  # (E, K, D), (K, D), (K,): sums over inputs, and how many
        )

    @torch.no_grad()
    def add(self, slopes: Callable[[Tensor], Tensor], activity: Tensor, task_ids: Tensor) -> ResponseByColumns:
        """Count a batch.

        Args:
            slopes: maps couplings ``(B, E)`` to slopes ``(B, D)``, and is linear, as that of the derivative estimator is.
            activity: of the decoder, averaged over positions, ``(B, D)``. task_ids: ``(B,)``.
        """
        columns, means = self.num_channels, activity.new_zeros(self.num_tasks, activity.shape[1])
        if self._totals is None:
            self._totals = means.expand(columns, -1, -1).clone(), means.clone(), means.new_zeros(self.num_tasks)
        jacobian, mean, counts = self._totals
        for channel, column in enumerate(jacobian):
            coupling = activity.new_zeros(len(task_ids), columns)
            coupling[:, channel] = 1
            column.index_add_(0, task_ids, slopes(coupling))
        mean.index_add_(0, task_ids, activity)
        counts += torch.bincount(task_ids, minlength=self.num_tasks)
        return self

    def result(self, processes: Processes = ALONE) -> TaskResponse:
        """The response over all inputs; zero for a task without any.

        Args:
            processes: have the batches between them; each of them has added at least one, which may be empty.

        Raises:
            ValueError: no batch has been added, or none with inputs.
        """
        if self._totals is None:
            raise ValueError("no batches to compute a response from")
        jacobian, mean, counts = (processes.sum(total) for total in self._totals)
        _check_seen(counts)
        counts = counts.clamp(min=1)
        return TaskResponse((jacobian / counts[:, None]).movedim(0, 2).contiguous(), mean / counts[:, None])


def some_of_each(
    batches: Iterable[tuple[Tensor, Tensor]], num_tasks: int, most: int, seed: int
) -> tuple[Tensor, Tensor]:
    """At most so many inputs of each task, drawn without replacement, each equally likely.

    Args:
        batches: of (inputs ``(B, ...)``, task ids ``(B,)``), at least one. num_tasks: number K of tasks. most: of each.
        seed: of the draw.

    Returns:
        Inputs ``(N, ...)``, N at most K ``most``, and their task ids ``(N,)``, in the order of the tasks.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs: Tensor | None = None
    for given, own in batches:
        drawn = torch.rand(len(own), dtype=torch.float64, generator=generator).to(own.device)
        if inputs is None:
            inputs, tasks, order = given, own, drawn
        else:
            inputs, tasks, order = torch.cat([inputs, given]), torch.cat([tasks, own]), torch.cat([order, drawn])
        # By task, and within a task by number drawn; of each task the first ones stay.
        rows = order.argsort()
        rows = rows[tasks[rows].argsort(stable=True)]
        counts = torch.bincount(tasks, minlength=num_tasks)
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[tasks[rows]]
        rows = rows[place < most]
        inputs, tasks, order = inputs[rows], tasks[rows], order[rows]
    if inputs is None:
        raise ValueError("no batches to draw inputs from")
    return inputs, tasks


def _summed_response(activity: Tensor, active: Tensor, kernel: Tensor, skip: Tensor | None) -> Tensor:
    """Responses of the inputs ``(B, E, H, W)`` of one task, by where the decoder is active ``(B, D, H, W)``, summed over inputs and
    positions: ``(D, E)``."""
    height, width = activity.shape[2:]
    size = kernel.shape[-1]
    if size > 1 and is_small(height, width, size):
        positions = height * width
        # (E P, D P): how often what input position p holds meets an active output position q, weighted by the tap between them.
        meetings = activity.flatten(1).T @ active.flatten(1)
        shape = (kernel.shape[1], positions, kernel.shape[0], positions)
        response = (meetings * dense_matrix(kernel, height, width)).view(shape).sum((1, 3)).T
        if skip is not None:
            response = response + skip * meetings.view(shape).diagonal(dim1=1, dim2=3).sum(-1).T
        return response
    correlation = conv2d_weight(activity, kernel.shape, active, padding=size // 2)
    response = (kernel * correlation).sum((2, 3))
    return response if skip is None else response + skip * torch.einsum("bdhw,behw->de", active, activity)


def _check_seen(counts: Tensor) -> None:
    if not bool(counts.any()):
        raise ValueError("no inputs to compute a response from")
