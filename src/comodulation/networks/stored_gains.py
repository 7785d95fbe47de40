"""Stored task gains, and what they were computed from, so that gains of other couplings are never used in their place.

Gains belong to the couplings that they were computed at. Loading a controller's earlier weights, averaging them, or loading a
whole network changes couplings without the network being asked; each use of a stored gain therefore compares the couplings it is
asked for with those it was computed at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..errors import InputError, brief
from ..mathematics import DecoderStatistics, Modulation, TaskResponse, gains_from_statistics
from ..tensors import copy_checked
from .controller import Controller, coupling

Mode = Literal["base", "attention", "comodulation"]  # no task signal, encoder gains alone, or both
MAX_RESPONSE = 2**28  # numbers in a response that is kept (1 GiB in float32)
CLOSE = 1e-4  # differences of log gains below this are rounding: of another device, of batches of another size


def pairs(batches: Iterable[Any], what: str) -> Iterator[tuple[Any, Any]]:
    """The two parts of each batch. Raises InputError for batches that are no pairs; ``what``: the two, for messages."""
    if not isinstance(batches, Iterable):
        raise InputError(f"expected batches of {what}, such as a list of pairs, got {brief(batches)}")
    for number, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            kind = type(batch).__name__
            found = f"a {kind} of {len(batch)}" if isinstance(batch, (tuple, list)) else f"a {kind}"
            raise InputError(
                f"batch {number} is {found}, expected {what}: one pair in a list, [(inputs, task_ids)]; from a loader with labels, "
                "[(inputs, task_ids) for inputs, task_ids, labels in loader]"
            )
        yield batch[0], batch[1]


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


class TaskGains(nn.Module, ABC):
    """A network that keeps its tasks' decoder gains: what a head and a model with modulated layers have in common.

    A state that it saves holds gains of its couplings alone; states with and without gains can be loaded.

    Attributes:
        task_gains: ``(K, D)``, or None. Gains that are put in place belong to the couplings of that moment.
        origin: what they were computed from.
        response: how decoder neurons answer to couplings, once inputs have been observed; moves with the network, and is not saved.
    """

    task_gains: Tensor | None
    controller: Controller
    modulation: Modulation

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("task_gains", None)
        self.origin = Origin()
        self.response: TaskResponse | None = None
        self.register_state_dict_pre_hook(_before_saving)
        self.register_load_state_dict_pre_hook(_before_loading)
        self.register_load_state_dict_post_hook(_after_loading)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "task_gains":
            self.origin.forget() if value is None else self.origin.note(self.controller)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self.response is not None:  # no buffer: it keeps its precision
            self.response = self.response.on(next(self.controller.parameters()).device)
        return self

    @abstractmethod
    def decoder_width(self) -> int | None:
        """Number D of gains of a task; None where it is not known yet."""

    @abstractmethod
    def store_task_gains(self, batches: Iterable[Any]) -> None:
        """Compute the gains of every task at the present couplings, and keep them."""

    def _link(self, statistics: DecoderStatistics) -> Tensor:
        """Gains of statistics ``(B, D)``, of the same shape."""
        m = self.modulation
        return gains_from_statistics(statistics, normalizer=m.normalizer, link=m.link, beta=m.beta)

    def _gains_by(self, response: TaskResponse) -> Tensor:
        """Gains ``(K, D)`` of all tasks at the present couplings, exactly."""
        return self._link(response.statistics(coupling(all_couplings(self.controller), self.modulation.link)))

    def stored_gains(self, u: Tensor, tasks: Tensor) -> Tensor:
        """Stored gains ``(B, D)`` of tasks ``(B,)``, which have couplings u ``(B, E)``. Raises as ``check_origin``."""
        self.check_origin(u, tasks)
        assert self.task_gains is not None
        return self.task_gains.index_select(0, tasks)

    def check_origin(self, u: Tensor, tasks: Tensor) -> None:
        """Compute the stored gains again where they were computed at other couplings than some tasks have now.

        Args:
            u: couplings ``(B, E)`` of tasks ``(B,)``.

        Raises:
            InputError: the batches that they were computed from cannot be read again, or do not hold such a task.
        """
        if torch.compiler.is_compiling() or bool(self.origin.fits(u, tasks).all()):
            return
        if self.origin.batches is not None:
            self.store_task_gains(self.origin.batches)
        wrong = tasks[~self.origin.fits(u, tasks)]
        if len(wrong):
            raise InputError(
                f"the stored gains of task {int(wrong[0])} were computed at other couplings than the controller has now; call "
                "store_task_gains(...) again with inputs of that task, or set task_gains = None to go without stored gains"
            )

    @torch.no_grad()
    def check_task_gains(self) -> None:
        """``check_origin`` of all tasks; in training, where couplings are about to change anyway, gains of others are dropped."""
        if self.task_gains is None:
            return
        u = all_couplings(self.controller)
        tasks = torch.arange(len(u), device=u.device)
        if self.training and not bool(self.origin.fits(u, tasks).all()):
            self.task_gains = None
        else:
            self.check_origin(u, tasks)

    def copy_with_gains(self, own: dict[str, Tensor], tensors: dict[str, Tensor], name: str, what: str) -> None:
        """Copy tensors into one's own of the same names, and keep the gains that stand among them, or none.

        Args:
            own: all but the gains. tensors: to copy. name: of the gains. what: the network, for messages.

        Raises:
            InputError: missing, unknown, misshapen or non-finite tensors; nothing is changed then.
        """
        gains = self._room(tensors[name]) if name in tensors else None
        copy_checked({**own, **({} if gains is None else {name: gains})}, tensors, what)
        self.task_gains = gains

    def _room(self, gains: Tensor) -> Tensor:
        """A tensor ``(K, D)`` for gains from elsewhere."""
        width = self.decoder_width()
        if width is None:
            width = gains.shape[-1] if gains.ndim == 2 else 0
        like = next(self.controller.parameters())
        # Gains have the precision that their statistics had: float32 beside a controller in half precision, float64 in a model of
        # that type whose controller is float32.
        dtype = gains.dtype if gains.dtype in (torch.float32, torch.float64) else like.dtype
        return like.new_ones(self.controller.num_tasks, width, dtype=dtype)


def _before_saving(network: TaskGains, prefix: str, keep_vars: bool) -> None:
    network.check_task_gains()


def _before_loading(network: TaskGains, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Make room for the gains that a state holds; one of a controller alone, without gains, takes those away that are there."""
    given = state.get(f"{prefix}task_gains")
    if isinstance(given, Tensor):
        network.task_gains = network._room(given)
    elif any(name.startswith(f"{prefix}controller.") for name in state):
        network.task_gains = None


def _after_loading(network: TaskGains, incompatible: Any) -> None:
    if network.task_gains is not None:
        network.origin.note(network.controller)
