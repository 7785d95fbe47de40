"""The gains that a fitted method gives to each task's neurons: what it multiplies their activity by.

Masks count as gains of 0 and 1. FiLM's scale is given; it multiplies before the rectification, and its shift is no gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..controller import coupling
from .attention import Attention
from .base import Method
from .comodulation import Comodulation
from .decoder_gains import DecoderGains
from .film import FiLM
from .fine_tuning import FineTuning
from .ia3 import IA3
from .task_routing import TaskRouting


@torch.no_grad()
def gains_of(method: Method) -> dict[str, Tensor]:
    """Gains of every task, by place: ``encoder (K, E)``, ``decoder (K, D)``, and comodulation's ``coupling (K, E)``.

    What a method leaves as it is has no entry: the encoder under comodulation with encoder `none` or `stochastic`, for one, nor
    have decoder gains of level `input`.
    """
    head = method.head
    tasks = torch.arange(head.num_tasks, device=head.decoder.weight.device)
    gains = {"encoder": encoder_gains_of(method, tasks), "decoder": decoder_gains_of(method, tasks)}
    if isinstance(method, Comodulation):
        gains["coupling"] = coupling(head.controller(tasks), head.modulation.link)
    return {name: value.detach().cpu() for name, value in gains.items() if value is not None}


def encoder_gains_of(method: Method, tasks: Tensor) -> Tensor | None:
    """What some tasks ``(N,)`` multiply encoder activity by in evaluation, ``(N, E)``; None where a method does not."""
    if isinstance(method, TaskRouting):
        return method.encoder_mask[tasks].float()
    modulated = isinstance(method, Comodulation) and method.head.modulation.encoder_in(training=False) == "gain"
    if modulated or isinstance(method, (Attention, IA3, FineTuning)):
        return method.head.controller(tasks).exp()
    return None


def decoder_gains_of(method: Method, tasks: Tensor) -> Tensor | None:
    """The same of decoder activity, ``(N, D)``; None also where every input has gains of its own."""
    if isinstance(method, TaskRouting):
        return method.decoder_mask[tasks].float()
    if isinstance(method, FiLM):
        return 1 + method.scale[tasks]
    if isinstance(method, (DecoderGains, FineTuning)):
        return method.decoder_controller(tasks).exp()
    stored = method.head.task_gains
    if isinstance(method, Comodulation) and method.head.modulation.level == "task" and stored is not None:
        return stored[tasks]
    return None
