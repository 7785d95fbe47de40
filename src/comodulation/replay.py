"""Run a model with some of its layers' outputs changed, and run it again from a layer on without what came before.

What modulation inside an unknown model needs, and nothing else: ``run`` is one call of the model, in which the outputs of named
layers pass through functions, and which may end at a layer; a ``Recording`` runs up to a layer, keeps what the modules that
had finished by then returned, and runs the rest of the model as often as needed.

Hooks and replaced forwards live only inside these calls, and go with them whatever is raised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .errors import InputError
from .precision import widened

Edit = Callable[[Tensor], Tensor]


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


def with_activity(output: Any, activity: Tensor) -> Any:
    """A layer's output with its activity replaced; what else a tuple or list holds is kept."""
    if isinstance(output, Tensor):
        return activity
    if hasattr(output, "_fields"):  # a named tuple
        return type(output)(activity, *output[1:])
    return type(output)([activity, *output[1:]])


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
        InputError: an edited layer that did not run, ran twice, or whose output holds no activity.
    """
    ran: list[str] = []

    def hook(layer: Layer, edit: Edit) -> Callable[..., Any]:
        def edited(module: nn.Module, inputs: Any, output: Any) -> Any:
            if layer.name in ran:
                raise InputError(
                    f"layer {layer.name!r} runs more than once in a call of the model; name a layer that runs once, such as "
                    "the block that holds it"
                )
            ran.append(layer.name)
            activity = edit(activity_of(output, layer))
            if layer is until and not _traced():
                raise _Reached
            return with_activity(output, activity)

        return edited

    handles = []
    result = None
    try:
        for layer, edit in edits.items():
            handles.append(layer.module.register_forward_hook(hook(layer, edit)))
        result = model(*args, **kwargs)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for layer in edits:
        if layer.name not in ran:
            before = f" before {until.name!r}" if until is not None and until.name in ran else ""
            raise InputError(
                f"layer {layer.name!r} did not run{before} when the model was called; is it another branch, or later?"
            )
    return result


class Call:
    """A call of a model, run as a whole each time."""

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs

    def run(self, edits: Mapping[Layer, Edit], *, until: Layer | None = None) -> Any:
        """See ``run``."""
        return run(self.model, self.args, self.kwargs, edits, until=until)

    def widened(self) -> Self:
        """The same call with its tensors of half precision, given or recorded, in float32; nothing is shared with this one."""
        return self._with(lambda values: widened(values, copy=True))

    def _with(self, change: Callable[[Any], Any]) -> Self:
        other = copy.copy(self)
        other.args, other.kwargs = change((tuple(self.args), dict(self.kwargs)))
        return other


class Recording(Call):
    """A call of a model whose part up to a layer is run once: what the modules that had finished by then returned is kept.

    Args:
        model, args, kwargs: the call.
        until: layers; the recording ends when the first of them has run.
        changed: modules whose output is known to be changed in place by what follows, so that a copy is kept; added to. A set that
            lives as long as the model saves the next recording from finding out again.

    Raises:
        InputError: none of the layers ran.
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
        self.copies = False
        self.outputs: dict[nn.Module, Any] = {}
        self._record()

    @property
    def activity(self) -> Tensor:
        """Activity of the layer at which the recording ended."""
        layer = next(layer for layer in self.layers if layer.module in self.outputs)
        return activity_of(self.outputs[layer.module], layer)

    def repeated(self, times: int, batch_dim: int) -> Recording:
        """The same call with every input given ``times`` times: all inputs, then all again, ..."""
        rows = self.activity.shape[batch_dim]

        def repeat(value: Tensor) -> Tensor:
            for dim in (batch_dim, 0):
                if dim < value.ndim and value.shape[dim] == rows:
                    return torch.cat([value] * times, dim)
            return value

        return self._with(lambda values: tree_map_only(Tensor, repeat, values))

    def _with(self, change: Callable[[Any], Any]) -> Self:
        other = super()._with(change)
        other.outputs = change(self.outputs)
        return other

    def run(self, edits: Mapping[Layer, Edit], *, until: Layer | None = None) -> Any:
        """``run``, in which the recorded modules return what they returned in place of computing it."""
        versions = _versions(self.outputs)
        with self._replaying():
            result = super().run(edits, until=until)
        if until is not None and versions != _versions(self.outputs) and not self.copies:
            # What follows works in place on what came before: from now on it gets copies.
            self.copies = True
            self._record()
            return self.run(edits, until=until)
        return result

    def _record(self) -> None:
        outputs: dict[nn.Module, Any] = {}
        versions: dict[nn.Module, list[int]] = {}
        ran: set[nn.Module] = set()
        again: set[nn.Module] = set()
        ends = {layer.module for layer in self.layers}

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            (again if module in ran else ran).add(module)
            for inner in module.modules():  # they will not run again where this module does not: their memory is free
                outputs.pop(inner, None)
            kept = tree_map_only(Tensor, torch.clone, output) if module in self.changed else output
            outputs[module], versions[module] = kept, _versions(kept)
            if module in ends:
                if not _traced():
                    raise _Reached
                for handle in handles:
                    handle.remove()

        handles = []
        try:
            for module in self.model.modules():
                handles.append(module.register_forward_hook(keep))
            self.model(*self.args, **self.kwargs)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if not ends & outputs.keys():
            raise InputError(f"layer {self.layers[0].name!r} did not run when the model was called")
        # Not what ran twice, nor what was later changed in place: these run again, from what they were given.
        now = {module for module, output in outputs.items() if versions[module] != _versions(output)}
        self.changed |= now
        self.outputs = {
            module: output for module, output in outputs.items() if module not in again and module not in now
        }

    @contextmanager
    def _replaying(self) -> Iterator[None]:
        replaced: list[tuple[nn.Module, Any]] = []

        def returning(output: Any, own: Callable[..., Any]) -> Callable[..., Any]:
            left = [tree_map_only(Tensor, torch.clone, output) if self.copies else output]
            # The first call is the recorded one; a layer that is used again further on computes.
            return lambda *args, **kwargs: left.pop() if left else own(*args, **kwargs)

        try:
            for module, output in self.outputs.items():
                replaced.append((module, vars(module).get("forward")))
                vars(module)["forward"] = returning(output, module.forward)
            yield
        finally:
            for module, own in replaced:
                if own is None:
                    vars(module).pop("forward", None)
                else:
                    vars(module)["forward"] = own


def _traced() -> bool:
    """Whether a graph is being made. It keeps track of calls, which must end then; what is not used drops out of the graph."""
    return torch.compiler.is_compiling()


def _versions(outputs: Any) -> list[int]:
    """How often the tensors in something have been changed in place."""
    return [
        0 if value.is_inference() else value._version for value in tree_leaves(outputs) if isinstance(value, Tensor)
    ]
