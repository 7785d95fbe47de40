"""What stored task gains were computed from, so that gains of other couplings are never used in their place.

Gains belong to the couplings that they were computed at. Loading a controller's earlier weights, averaging them, or loading a
whole network changes couplings without the network being asked; each use of a stored gain therefore compares the couplings it is
asked for with those it was computed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from .controller import Controller

CLOSE = 1e-4  # differences of log gains below this are rounding: of another device, of batches of another size


class _Network(Protocol):
    """What has stored gains: a module with a controller."""

    task_gains: Tensor | None
    controller: Controller
    origin: Origin
    training: bool

    def renew_task_gains(self) -> None: ...


class Origin(nn.Module):
    """Couplings u ``(K, E)`` at which stored gains were computed, NaN for tasks without any, and the batches that they come from.

    Batches are referred to, not copied, and only where they can be read again (a list, a DataLoader; no generator). A part of its
    network that moves with it to other devices and types; nothing of it is saved.
    """

    couplings: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("couplings", None, persistent=False)
        self.batches: Iterable[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "batches": None}  # a copy of a network is not one of its data

    def forget(self) -> None:
        self.couplings, self.batches = None, None

    @torch.no_grad()
    def note(self, controller: Controller, batches: Iterable[Any] | None = None, tasks: Tensor | None = None) -> None:
        """Remember that gains were computed now.

        Args:
            batches: that they were computed from; None where they are not known. tasks: which tasks have them, boolean ``(K,)``;
                the others keep what is remembered of them. None: all.
        """
        u = all_couplings(controller)
        if tasks is not None:
            before = torch.full_like(u, torch.nan) if self.couplings is None else self.couplings
            u = torch.where(tasks.to(u.device)[:, None], u, before)
        self.couplings = u.clone()
        self.batches = None if isinstance(batches, Iterator) else batches

    def fits(self, u: Tensor, tasks: Tensor) -> Tensor:
        """Whether gains of tasks ``(B,)`` were computed at couplings u ``(B, E)``, or at none at all: boolean ``(B,)``."""
        assert self.couplings is not None
        known = self.couplings.index_select(0, tasks)
        return (torch.isclose(u.detach().to(known), known, rtol=CLOSE, atol=CLOSE) | known.isnan()).all(1)


def all_couplings(controller: Controller) -> Tensor:
    """u of all tasks, ``(K, E)``."""
    return controller(torch.arange(controller.num_tasks, device=next(controller.parameters()).device))


def check_origin(network: _Network, u: Tensor, tasks: Tensor) -> None:
    """Compute a network's stored gains again where they were computed at other couplings than it has for some tasks now.

    Args:
        u: couplings ``(B, E)`` of tasks ``(B,)``.

    Raises:
        InputError: the batches that they were computed from cannot be read again, or do not hold such a task.
    """
    origin = network.origin
    if torch.compiler.is_compiling() or bool(origin.fits(u, tasks).all()):
        return
    if origin.batches is not None:
        network.renew_task_gains()
    wrong = tasks[~origin.fits(u, tasks)]
    if len(wrong):
        raise InputError(
            f"the stored gains of task {int(wrong[0])} were computed at other couplings than the controller has now; call "
            "store_task_gains(...) again with inputs of that task, or set task_gains = None to go without stored gains"
        )


@torch.no_grad()
def check_all(network: _Network) -> None:
    """``check_origin`` for all tasks; in training, where couplings are about to change anyway, gains of others are dropped."""
    if network.task_gains is None:
        return
    u = all_couplings(network.controller)
    tasks = torch.arange(len(u), device=u.device)
    if network.training and not bool(network.origin.fits(u, tasks).all()):
        network.task_gains = None
    else:
        check_origin(network, u, tasks)


def follow_state_dicts(network: nn.Module, width: str) -> None:
    """Let a network save only gains of its couplings, and load states with and without gains.

    Args:
        width: name of the method that gives the number D of gains of a task, or None where it is not known yet.
    """

    network.register_state_dict_pre_hook(_before_saving)
    network.register_load_state_dict_pre_hook(_Room(width))
    network.register_load_state_dict_post_hook(_after_loading)


class _Room:
    """Makes room for the gains that a state holds."""

    def __init__(self, width: str) -> None:
        self.width = width

    def __call__(self, module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        given = state.get(f"{prefix}task_gains")
        if not isinstance(given, Tensor):
            if any(name.startswith(f"{prefix}controller.") for name in state):
                module.task_gains = None
            return
        like = next(module.controller.parameters())
        width = getattr(module, self.width)() or given.shape[-1]
        module.task_gains = like.new_ones(module.controller.num_tasks, width)


def _before_saving(module: Any, prefix: str, keep_vars: bool) -> None:
    check_all(module)


def _after_loading(module: Any, incompatible: Any) -> None:
    if module.task_gains is not None:
        module.origin.note(module.controller)
