"""What can be known of a network from a few inputs of each task, before training or in its place: exact gains, or couplings in
closed form, with the weights of positions that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ...errors import InputError
from ...mathematics import ResponseByColumns, TaskResponse, closed_form_couplings
from ..position_weights import Calibration
from ..stored_gains import MAX_RESPONSE, all_couplings
from .between import Between
from .replay import Recording

# Batches, each as what records its call, and the task of each input ``(B,)``.
Seen = Sequence[tuple[Callable[[], AbstractContextManager[Recording]], Tensor]]


def exact_response(net: Between, seen: Seen) -> TaskResponse:
    """How decoder neurons answer to couplings, one column an encoder neuron, averaged over the inputs of each task.

    Raises:
        InputError: gains that are not linear in the couplings, or of too many neurons.
    """
    tasks, neurons = net.controller.num_tasks, net.controller.num_channels
    found = ResponseByColumns(tasks, neurons)
    for recorded, own in seen:
        with recorded() as call:
            activity = net.statistics(call, net.controller(own)).mean
            if net.modulation.estimator != "derivative":
                raise InputError(
                    "exact task gains need estimator 'derivative', whose slopes are linear in the couplings; with "
                    f"{net.modulation.estimator!r} they are estimated from batches: leave observe() out"
                )
            if (size := tasks * activity.shape[1] * neurons) > MAX_RESPONSE:
                raise InputError(
                    f"exact gains of {tasks} tasks, {activity.shape[1]} decoder and {neurons} encoder neurons take {size:,} "
                    f"numbers, expected at most {MAX_RESPONSE:,}; leave observe() out: gains are then estimated from batches"
                )
            found.add(lambda w, call=call: net.slopes(call, w), activity, own)  # type: ignore[misc]
    with torch.inference_mode(False), torch.no_grad():  # in whose tensors no later training could go through
        return found.result()


def couplings_by(kind: str, net: Between, seen: Seen) -> Tensor:
    """Couplings ``(K, E)`` in closed form."""
    rows = []
    for recorded, _ in seen:
        with recorded() as call:
            rows.append(net.encoder_means(call))
    tasks = torch.cat([own for _, own in seen])
    return closed_form_couplings(kind, torch.cat(rows), tasks, net.controller.num_tasks)


def calibrated(weights: str, net: Between, seen: Seen) -> tuple[Tensor, Tensor | None]:
    """Strengths and middles ``(K,)`` of positions' labels, at the network's present couplings; see ``Calibration``."""
    found = Calibration(net.controller.num_tasks, weights)
    for recorded, own in seen:
        with recorded() as call:
            each = [net.statistics(call, u.expand(len(own), -1), positions=True) for u in all_couplings(net.controller)]
            found.add(each, own, net.decoder_mask(call))
    return found.result()
