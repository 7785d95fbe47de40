"""Maximum roaming: binary masks of neurons that wander until every task has used every neuron. All layers train.

Source: Pascal, Michiardi, Bost, Huet, Zuluaga, "Maximum roaming multi-task learning" (AAAI 2021). As in task routing, a task starts
with a random share of the neurons of a layer. At each update it gives up one of them, drawn at random, for one that it has never
used, until none is left; the masks then stay. The number of active neurons is constant, and each was active for at least one
interval. Here the first masks are drawn independently for every task; the authors also see to it that each neuron starts with
some task. Learnable: the layers. Stored besides: K (E + D) bits.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...errors import InputError
from .task_routing import TaskRouting, visiting_order

ROAMING_ENDS = 0.5  # with interval 0, the share of training after which the masks stay


class MaximumRoaming(TaskRouting):
    """Task routing whose masks change in training, by a schedule that the head's seed fixes in advance.

    Args:
        head, family, readout, task_bias: as in ``Method``.
        share: of a layer's neurons that are active for a task at any time, in (0, 1].
        interval: optimisation steps between updates; 0 spreads them evenly over the first half of training, several at once where
            its steps are fewer than the updates.

    Raises:
        InputError: an option out of range.
    """

    name = "maximum-roaming"
    paper = "Pascal et al. (2021)"
    options: ClassVar[dict[str, object]] = {"share": 0.8, "interval": 0}

    share_option = "share"
    interval: int

    def build(self) -> None:
        if not isinstance(self.interval, int) or self.interval < 0:
            raise InputError(
                f"interval {self.interval!r} is out of range, expected a whole number of steps of at least 0"
            )
        super().build()
        generator = torch.Generator().manual_seed(self.head.seed)
        self.plans = [
            roaming_plan(len(mask), mask.shape[1], int(mask[0].sum()), generator)
            for mask in (self.encoder_mask, self.decoder_mask)
        ]
        self.after_step(0, 1)

    def masks_at(self, steps: int, total: int) -> list[Tensor]:
        """Masks ``(K, E)`` and ``(K, D)`` after some steps of a training of ``total`` steps."""
        masks = []
        for mask, (arrival, departure) in zip((self.encoder_mask, self.decoder_mask), self.plans, strict=True):
            wanted = int(arrival.max())
            due = steps // self.interval if self.interval else int(wanted * steps / (ROAMING_ENDS * total))
            done = min(due, wanted)
            masks.append(((arrival <= done) & (done < departure)).to(mask.device))
        return masks

    def after_step(self, steps: int, total: int) -> None:
        for mask, new in zip((self.encoder_mask, self.decoder_mask), self.masks_at(steps, total), strict=True):
            mask.copy_(new)


def roaming_plan(num_tasks: int, units: int, active: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Between which updates each unit is active for each task.

    Args:
        num_tasks, units: K and U.
        active: number of units active for a task at any time.
        generator: decides the order of visits and who leaves.

    Returns:
        Number of updates after which a unit arrives, and after which it leaves, each ``(K, U)``: it is active while
        arrival <= updates done < departure. Units - active updates let every task have visited every unit; those that are
        still active then never leave.
    """
    order = visiting_order(num_tasks, units, generator)
    arrival = (order - active + 1).clamp(min=0)
    departure = torch.full_like(arrival, torch.iinfo(arrival.dtype).max)
    present, tasks = order.argsort(1)[:, :active].clone(), torch.arange(num_tasks)
    arriving = order.argsort(1)[:, active:]
    for update in range(1, units - active + 1):
        leaver = torch.randint(active, (num_tasks,), generator=generator)
        departure[tasks, present[tasks, leaver]] = update
        present[tasks, leaver] = arriving[:, update - 1]
    return arrival, departure
