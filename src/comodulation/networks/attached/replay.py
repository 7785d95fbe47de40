"""Run a model with some of its layers' outputs changed, and run it again from a layer on without what came before.

What modulation inside an unknown model needs, and nothing else: ``run`` is one call of the model, in which the outputs of named
layers pass through functions, and which may end at a layer; a ``Recording`` runs up to a layer, keeps what the modules that
had finished by then returned, and runs the rest of the model as often as needed.

Hooks and replaced forwards live only inside these calls, act in the calling thread alone, and go with them whatever is raised.
Hooks that others have put on a model run as often as the layers they are on: what is kept is what a layer computed, before them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ...errors import InputError
from ...mathematics import widened
from .call_state import copied, objects_in, state_of, versions
from .interception import Substitute, inside_checkpoint, substituted, without_fast_path

Edit = Callable[[Tensor], Tensor]

# Edits that act in this thread (or asynchronous task), and in no other.
_EDITS: ContextVar[frozenset[object]] = ContextVar("edits", default=frozenset())


class _Reached(BaseException):
    """Raised by the hook of the layer at which a run ends. No Exception, so that no ``except`` of the model swallows it."""


@dataclass(frozen=True)
class Layer:
    """A layer of a model by its name. Its activity is its output, or the first tensor of a tuple or list."""

    name: str
    module: nn.Module


def activity_of(output: Any, layer: Layer) -> Tensor:
    """The activity in a layer's output. Raises InputError for an output that holds none in the first place."""
    value = output[0] if isinstance(output, (tuple, list)) and output else output
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    kind = type(value).__name__ if not isinstance(value, Tensor) else f"a tensor of {value.dtype}"
    raise InputError(
        f"layer {layer.name!r} returns {kind}, expected a floating-point tensor, or a tuple or list that begins with one; "
        "name a layer inside it"
    )


def with_activity(output: Any, activity: Tensor, layer: Layer | None = None) -> Any:
    """A layer's output with its activity replaced; what else a tuple or list holds is kept, but for the state of a recurrent layer
    (``nn.RNN``, ``nn.GRU``, ``nn.LSTM``), which is its activity at the last step."""
    if isinstance(output, Tensor):
        return activity
    if layer is not None and isinstance(layer.module, nn.RNNBase) and activity is not output[0]:
        return activity, _last_state(layer.module, activity, output[1])
    if hasattr(output, "_fields"):  # a named tuple
        return type(output)(activity, *output[1:])
    return type(output)([activity, *output[1:]])


def _last_state(layer: nn.RNNBase, activity: Tensor, state: Any) -> Any:
    """The state ``(layers, B, H)``, or (state, cell) of an LSTM, with the entries of the last layer taken from its activity."""
    hidden = state[0] if isinstance(state, tuple) else state
    time = 1 if layer.batch_first and activity.ndim == 3 else 0
    if layer.bidirectional:
        ahead, back = activity.chunk(2, -1)
        last = torch.stack([ahead.select(time, -1), back.select(time, 0)])
    else:
        last = activity.select(time, -1)[None]
    hidden = torch.cat([hidden[: -len(last)], last])
    return (hidden, *state[1:]) if isinstance(state, tuple) else hidden


@contextmanager
def edited(edits: Mapping[Layer, Edit]) -> Iterator[None]:
    """While it lasts, each run of a layer in this thread has the activity that its edit makes of the layer's own."""
    here = object()
    token = _EDITS.set(_EDITS.get() | {here})

    def hook(layer: Layer, edit: Edit) -> Callable[..., Any]:
        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            return with_activity(output, edit(activity_of(output, layer)), layer) if here in _EDITS.get() else None

        return replace

    handles = []
    try:
        for layer, edit in edits.items():
            handles.append(layer.module.register_forward_hook(hook(layer, edit)))
        with without_fast_path():
            yield
    finally:
        for handle in handles:
            handle.remove()
        _EDITS.reset(token)


def run(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    edits: Mapping[Layer, Edit],
    *,
    until: Layer | None = None,
) -> Any:
    """Call the model once, with the activity of each edited layer replaced by what its edit makes of it.

    Args:
        model: called with ``args`` and ``kwargs``.
        edits: layer -> function of its activity. An edit is called once, in the order in which the layers run.
        until: end the call as soon as this layer, one of the edited ones, has run.

    Returns:
        What the model returns; None if it ended at ``until``.

    Raises:
        InputError: an edited layer that did not run, ran twice, or whose output holds no activity; one that runs without gradients
            where there are to be some.
    """
    ran: list[str] = []
    learning = torch.is_grad_enabled()

    def once(layer: Layer, edit: Edit) -> Edit:
        def edit_once(activity: Tensor) -> Tensor:
            if layer.name in ran:
                raise InputError(
                    f"layer {layer.name!r} runs more than once in a call of the model; name a layer that runs once, such as "
                    "the block that holds it"
                )
            if layer is until and not _traced():
                _check_ran([other for other in edits if other is not until], ran, until)
            ran.append(layer.name)
            if learning and not _traced():
                _check_gradients(layer)
            activity = edit(activity)
            if layer is until and not _traced():
                raise _Reached
            return activity

        return edit_once

    result = None
    try:
        with edited({layer: once(layer, edit) for layer, edit in edits.items()}):
            result = model(*args, **kwargs)
    except _Reached:
        pass
    _check_ran(edits, ran)
    return result


def _check_ran(layers: Iterable[Layer], ran: Sequence[str], until: Layer | None = None) -> None:
    for layer in layers:
        if layer.name not in ran:
            before = "" if until is None else f" before {until.name!r}"
            raise InputError(
                f"layer {layer.name!r} did not run{before} when the model was called; is it another branch, or later?"
            )


def _check_gradients(layer: Layer) -> None:
    if inside_checkpoint():
        raise InputError(
            f"layer {layer.name!r} runs inside torch.utils.checkpoint, which runs it again in the backward pass, when its "
            f"gains are gone; switch gradient checkpointing off (model.set_grad_checkpointing(False), "
            "model.gradient_checkpointing_disable())"
        )
    if not torch.is_grad_enabled():
        raise InputError(
            f"layer {layer.name!r} runs without gradients (torch.no_grad() in the model, or a checkpoint of its own), so that "
            "nothing can be learned through it; let gradients through, or name layers outside that part"
        )


class Call:
    """A call of a model, run as a whole each time."""

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs

    def run(self, edits: Mapping[Layer, Edit], *, until: Layer | None = None) -> Any:
        """See ``run``."""
        return run(self.model, self.args, self.kwargs, edits, until=until)

    def reached(self, layer: Layer, edits: Mapping[Layer, Edit] | None = None) -> Tensor:
        """A copy of a layer's activity, of a call that ends there."""
        found: list[Tensor] = []

        def keep(activity: Tensor) -> Tensor:
            found.append(activity.clone())
            return activity

        self.run({**(edits or {}), layer: keep}, until=layer)
        return found[0]

    def widened(self) -> Self:
        """The same call with its tensors of half precision, given or recorded, in float32; nothing is shared with this one."""
        return self._with(lambda values: widened(values, copy=True))

    def _with(self, change: Callable[[Any], Any]) -> Self:
        other = copy.copy(self)
        other.args, other.kwargs = change((tuple(self.args), dict(self.kwargs)))
        return other


class Recording(Call):
    """A call of a model whose part up to a layer is run once: what the modules that had finished by then returned is kept.

    Nothing is kept of a call that changes what it is given (a cache of keys and values, a list, a tensor in place): each pass is
    then one of the whole model, from a copy, and only the last one, to the end of the model, changes what was given.

    Args:
        model, args, kwargs: the call.
        until: layers; the recording ends when the first of them has run.
        changed: modules whose output is known to be changed in place by what follows, so that a copy is kept; added to. A set that
            lives as long as the model saves the next recording from finding out again.

    Raises:
        InputError: none of the layers ran.

    Attributes:
        activity: of the layer at which the recording ended.
        given: whether a pass to the end of the model gets what was given itself; else it gets a copy too.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        until: Sequence[Layer],
        changed: set[nn.Module] | None = None,
    ) -> None:
        super().__init__(model, args, kwargs)
        self.layers = until
        self.changed = set() if changed is None else changed
        self.copies = self.stateful = self.spent = False
        self.given = True
        self.outputs: dict[nn.Module, Any] = {}
        self._record()

    def _with(self, change: Callable[[Any], Any]) -> Self:
        other = super()._with(change)
        other.outputs = change(self.outputs)
        return other

    def run(self, edits: Mapping[Layer, Edit], *, until: Layer | None = None) -> Any:
        """``run``, in which the recorded modules return what they returned in place of computing it.

        Passes that end at a layer draw the same random numbers, as will the one to the end of the model: what differs between
        them is what was edited.
        """
        if until is None or _traced():
            return self._run(edits, until)
        with torch.random.fork_rng([self.activity.device] if self.activity.is_cuda else []):
            return self._run(edits, until)

    def _run(self, edits: Mapping[Layer, Edit], until: Layer | None) -> Any:
        if self.stateful and (until is not None or not self.given):
            args, kwargs = copied((tuple(self.args), dict(self.kwargs)))
            return run(self.model, args, kwargs, edits, until=until)
        if self.spent:
            self.spent = False
            self._record()
        before = versions(self.outputs.values())
        with substituted({module: self._returning(output) for module, output in self.outputs.items()}):
            result = super().run(edits, until=until)
        if before != versions(self.outputs.values()) and not self.copies:
            # What follows works in place on what came before: from now on it gets copies.
            self.copies = self.spent = True
            if until is not None:
                return self._run(edits, until)
        return result

    def _record(self) -> None:
        outputs: dict[nn.Module, Any] = {}
        kept_at: dict[nn.Module, list[int]] = {}
        ran: set[nn.Module] = set()
        again: set[nn.Module] = set()
        ends = {layer.module: layer for layer in self.layers}
        reached: list[Tensor] = []

        def keep(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if not reached and objects_in((args, kwargs)):
                self.stateful = True
            output = forward(*args, **kwargs)
            if reached:  # traced, and so running on
                return output
            (again if module in ran else ran).add(module)
            inside = [inner for inner in module.modules() if inner is not module]
            if not any(inner._forward_hooks or inner._forward_pre_hooks for inner in inside):
                for inner in inside:  # they will not run again where this module does not: their memory is free
                    outputs.pop(inner, None)
                kept = tree_map_only(Tensor, torch.clone, output) if module in self.changed else output
                outputs[module], kept_at[module] = kept, versions([kept])
            if module in ends:
                reached.append(activity_of(output, ends[module]))
                if not _traced():
                    raise _Reached
            return output

        args, kwargs = copied((tuple(self.args), dict(self.kwargs)))
        before = state_of((args, kwargs))
        try:
            with substituted({module: _first(keep, module) for module in self.model.modules()}), without_fast_path():
                self.model(*args, **kwargs)
        except _Reached:
            pass
        if not reached:
            raise InputError(f"layer {self.layers[0].name!r} did not run when the model was called")
        self.activity = reached[0]
        self.stateful = self.stateful or before != state_of((args, kwargs))
        # Not what ran twice, nor what was later changed in place: these run again, from what they were given.
        now = {module for module, output in outputs.items() if kept_at[module] != versions([output])}
        self.changed |= now
        dropped = set(outputs) if self.stateful else again | now
        self.outputs = {module: output for module, output in outputs.items() if module not in dropped}

    def _returning(self, output: Any) -> Substitute:
        left = [tree_map_only(Tensor, torch.clone, output) if self.copies else output]
        # The first call is the recorded one; a layer that is used again further on computes.
        return lambda forward, *args, **kwargs: left.pop() if left else forward(*args, **kwargs)


def _first(keep: Callable[..., Any], module: nn.Module) -> Substitute:
    return lambda forward, *args, **kwargs: keep(module, forward, *args, **kwargs)


def _traced() -> bool:
    """Whether a graph is being made. It keeps track of calls, which must end then; what is not used drops out of the graph."""
    return torch.compiler.is_compiling()
