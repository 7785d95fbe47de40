"""The gains that a fitted method gives to each task's neurons."""

from __future__ import annotations

import torch
from torch import Tensor

from ..controller import coupling
from .attention import Attention
from .base import Method
from .comodulation import Comodulation
from .decoder_gains import DecoderGains
from .ia3 import IA3


@torch.no_grad()
def gains_of(method: Method) -> dict[str, Tensor]:
    """Gains of every task, by place: ``encoder (K, E)``, ``decoder (K, D)``, and comodulation's ``coupling (K, E)``."""
    head = method.head
    tasks = torch.arange(head.num_tasks, device=head.decoder.weight.device)
    gains: dict[str, Tensor] = {}
    if isinstance(method, (Attention, Comodulation, IA3)):
        gains["encoder"] = head.controller(tasks).exp()
    if isinstance(method, Comodulation):
        gains["coupling"] = coupling(head.controller(tasks), head.modulation.link)
        if head.task_gains is not None:
            gains["decoder"] = head.task_gains
    if isinstance(method, DecoderGains):
        gains["decoder"] = method.decoder_controller(tasks).exp()
    return {name: value.detach().cpu() for name, value in gains.items()}
