"""Gradient aggregation: hard sharing whose step is an aggregate of the tasks' gradients instead of their mean.

Each task in a batch has a gradient of its own, that of the mean loss over its inputs; an aggregator of the library torchjd makes
one of them. Sources: Quinton and Rey, "Jacobian descent for multi-objective optimization" (2024; UPGrad and the library);
Désidéri (2012; MGDA); Liu et al. (NeurIPS 2021; CAGrad); Yu et al. (NeurIPS 2020; PCGrad); Liu et al. (ICLR 2021; IMTL-G);
Senushkin et al. (CVPR 2023; Aligned-MTL). Learnable: the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import InputError, choose
from .hard_sharing import HardSharing

# Only aggregators without a memory of earlier steps, which a resumed training would not have.
AGGREGATORS: dict[str, tuple[str, dict[str, float]]] = {
    "upgrad": ("UPGrad", {}),
    "mgda": ("MGDA", {}),
    "cagrad": ("CAGrad", {"c": 0.5}),
    "pcgrad": ("PCGrad", {}),
    "imtl-g": ("IMTLG", {}),
    "aligned-mtl": ("AlignedMTL", {}),
    "mean": ("Mean", {}),  # every task weighs the same, whatever its number of inputs
}


class GradientAggregation(HardSharing):
    """Hard sharing, trained by an aggregate of the tasks' gradients.

    A task bias, which no two tasks share, is not part of the aggregate and gets the gradient of the mean loss. Gradients are
    not exchanged between processes and not rescaled: for training in one process, in full or bfloat16 precision.

    Args:
        head, family, readout, task_bias: as in ``Method``.
        aggregator: name in ``AGGREGATORS``.

    Raises:
        InputError: an unknown aggregator; torchjd is not installed.
    """

    name = "gradient-aggregation"
    paper = "Quinton and Rey (2024), torchjd"
    options: ClassVar[dict[str, object]] = {"aggregator": "upgrad"}
    one_process = (
        "the aggregate of the tasks' gradients is not the sum of what processes find for their shares of a batch"
    )

    aggregator: str

    def build(self) -> None:
        self.aggregate = load_aggregator(self.aggregator)

    def gradients(self, module: Any, fabric: Any, batch: tuple[Any, ...]) -> Tensor:
        """Leave the aggregate on the layers; return the mean loss over the batch.

        The tasks' inputs are disjoint, so each loss gets a graph of its own: together they cost about one backward pass.
        """
        shared, tasks = self.own_parameters(), batch[1].unique()
        sizes = [parameter.numel() for parameter in shared]
        jacobian = shared[0].new_empty(len(tasks), sum(sizes))
        mean_loss = torch.zeros((), device=batch[1].device)
        bias_gradient = None if self.bias is None else torch.zeros_like(self.bias)
        for place, task in enumerate(tasks):
            rows = batch[1] == task
            share = rows.float().mean()
            loss = module.loss(*(value[rows] if isinstance(value, Tensor) else value for value in batch))
            gradients = torch.autograd.grad(loss, self.learnable())
            torch.cat([gradient.flatten() for gradient in gradients[: len(shared)]], out=jacobian[place])
            mean_loss += share * loss.detach()
            if bias_gradient is not None:
                bias_gradient += share * gradients[-1]
        for parameter, part in zip(shared, self.aggregate(jacobian).split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        if self.bias is not None:
            self.bias.grad = bias_gradient
        return mean_loss


def load_aggregator(name: str) -> Callable[[Tensor], Tensor]:
    """The aggregator ``(K, P) -> (P,)`` of a name. Raises InputError if it is unknown or torchjd is missing."""
    kind, options = AGGREGATORS[choose(name, AGGREGATORS, "aggregator")]
    try:
        from torchjd import aggregation

        made = getattr(aggregation, kind)(**options)
    except ImportError as error:  # torchjd itself, or the solver that an aggregator needs
        raise InputError(
            f"aggregator {name!r} needs torchjd and its solvers: pip install 'comodulation[aggregation]'"
        ) from error
    return made
