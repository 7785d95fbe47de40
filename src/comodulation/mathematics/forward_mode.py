"""One forward-mode derivative that can be trained, in which a layer that is linear in its input costs two calls and not three.

Torch's own forward mode also pushes the tangent of a layer's parameters through it, even where that is zero because they are
fixed: three convolutions (or matrix products) in place of two. Here convolutions, linear layers and normalisation by stored
statistics, where they have no tangent of their own, send value and tangent through the layer.

A derivative is trained by differentiating it once more, in reverse mode. Torch's own rules of some operations end there: those of
softmax, log_softmax and logsumexp work in place on what that needs of the value, those of glu and hardsigmoid have no derivative,
and those of normalisation by the input's own statistics (layer, instance and batch normalisation) take the statistics for
constants, so that the gradient through the value is wrong, and nothing is said. Rules of this file take their place where
gradients go through the value, those of glu and hardsigmoid always. All else is torch's.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_LEVEL = threading.RLock()  # torch has one level of forward mode for all threads, and refuses a second
_LINEAR = (torch.conv1d, torch.conv2d, torch.conv3d, F.linear)
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class NoForwardMode(RuntimeError):
    """A derivative in forward mode does not exist, or cannot be trained; the message is torch's own, or says why."""


def directional_derivative(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative of a function at a point along a direction; both differentiable in reverse mode.

    Args:
        function: of one tensor; not compiled by torch.jit, nor calling what is: from the second call on, that has a derivative of
            0, and nothing is said. at, along: of equal shape.

    Raises:
        NoForwardMode: an operation (fused attention, an LSTM, an autograd.Function without ``jvp``) has no forward mode. Callers
            decide what follows from it: a refusal, or quadrature.
    """
    if not torch.compiler.is_compiling():
        _load_forward_mode()
    # In inference mode torch's forward mode gives zeros, and says nothing.
    inference = torch.is_inference_mode_enabled()
    with torch.inference_mode(False) if inference else nullcontext(), torch.no_grad() if inference else nullcontext():
        if inference:
            at, along = at.clone(), along.clone()
        with _LEVEL, forward_ad.dual_level(), _Rules():
            try:
                result = forward_ad.unpack_dual(function(forward_ad.make_dual(at, along)))
            # Reason: this class, and none narrower, is what torch's C++ raises for an operation without forward mode; only the call
            # of ``function`` stands in the try, and the error goes on under a name of its own.
            except NotImplementedError as error:
                raise NoForwardMode(str(error)) from error
    tangent = torch.zeros_like(result.primal) if result.tangent is None else result.tangent
    return result.primal, tangent


@functools.cache
def _load_forward_mode() -> None:
    """Torch compiles rules of forward mode at their first use, and warns of its own compiler; no caller could mend that."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        for kind in (FutureWarning, DeprecationWarning):  # which of the two it is depends on the version
            warnings.simplefilter("ignore", kind)
        forward_ad.make_dual(torch.zeros(1), torch.ones(1))


class _Rules(TorchFunctionMode):
    """Layers with fixed parameters, applied to value and tangent, and operations whose own rule cannot be differentiated."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LINEAR and len(args) >= 2:
            tensor, weight, *rest = args
            bias = rest.pop(0) if rest else kwargs.pop("bias", None)
            value, tangent = _parts(tensor)
            if tangent is not None and not _moves(weight) and not _moves(bias):
                return forward_ad.make_dual(
                    func(value, weight, bias, *rest, **kwargs), func(tangent, weight, None, *rest, **kwargs)
                )
            return func(tensor, weight, bias, *rest, **kwargs)
        if func is F.batch_norm:
            return self._normalise(args, kwargs)
        if func in _OPERATIONS:
            value, tangent = _parts(args[0] if args else kwargs["input"])
            if tangent is not None and (value.requires_grad or func in _NEVER_TRAINED):
                return _OPERATIONS[func](func, *args, **kwargs)
        return func(*args, **kwargs)

    def _normalise(self, args: Any, kwargs: Any) -> Any:
        given = dict(zip(_BATCH_NORM, args, strict=False)) | kwargs
        mean, var, weight, bias = (given.get(name) for name in _BATCH_NORM[1:5])
        value, tangent = _parts(given["input"])
        by_batch = given.get("training") or var is None
        moving = any(_moves(each) for each in (mean, var, weight, bias))
        if tangent is None or moving or (by_batch and not value.requires_grad):
            return F.batch_norm(*args, **kwargs)
        shape = (1, -1) + (1,) * (tangent.ndim - 2)
        eps = given.get("eps", 1e-5)
        normalised = F.batch_norm(**given | {"input": value})
        if by_batch:
            tangent = _standardised(value, tangent, [dim for dim in range(value.ndim) if dim != 1], eps)
            scale = weight
        else:
            scale = (var + eps).rsqrt()
            scale = scale if weight is None else weight * scale
        if scale is not None:
            tangent = tangent * scale.reshape(shape).to(tangent.dtype)
        return forward_ad.make_dual(normalised, tangent)


def _standardised(value: Tensor, tangent: Tensor, dims: list[int], eps: float) -> Tensor:
    """Tangent of (value - mean) / sqrt(variance + eps), both over some dimensions."""
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    centred = value - value.mean(dims, keepdim=True)
    scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    unit = centred * scale
    moved = tangent - tangent.mean(dims, keepdim=True) - unit * (unit * tangent).mean(dims, keepdim=True)
    return (moved * scale).to(tangent.dtype)


def _layer_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    if _moves(weight) or _moves(bias):
        return func(input, normalized_shape, weight, bias, eps, *args)
    value, tangent = forward_ad.unpack_dual(input)
    moved = _standardised(value, tangent, list(range(-len(normalized_shape), 0)), eps)
    return forward_ad.make_dual(
        func(value, normalized_shape, weight, bias, eps, *args),
        moved if weight is None else moved * weight.to(moved.dtype),
    )


def _instance_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    rest = (running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    if not use_input_stats or _moves(weight) or _moves(bias):
        return func(input, *rest)
    value, tangent = forward_ad.unpack_dual(input)
    moved = _standardised(value, tangent, list(range(2, value.ndim)), eps)
    if weight is not None:
        moved = moved * weight.reshape(-1, *(1,) * (value.ndim - 2)).to(moved.dtype)
    return forward_ad.make_dual(func(value, *rest), moved)


def _softmax(func: Callable[..., Tensor], input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    if dim is None:  # F.softmax chooses one, and warns
        return func(input, dim, *args, **kwargs)
    value, tangent = forward_ad.unpack_dual(input)
    shares = func(value, dim, *args, **kwargs)
    weighted = shares * tangent.to(shares.dtype)
    return forward_ad.make_dual(shares, weighted - shares * weighted.sum(dim, keepdim=True))


def _log_softmax(func: Callable[..., Tensor], input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    if dim is None:
        return func(input, dim, *args, **kwargs)
    value, tangent = forward_ad.unpack_dual(input)
    result = func(value, dim, *args, **kwargs)
    tangent = tangent.to(result.dtype)
    return forward_ad.make_dual(result, tangent - (result.exp() * tangent).sum(dim, keepdim=True))


def _logsumexp(func: Callable[..., Tensor], input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    value, tangent = forward_ad.unpack_dual(input)
    shares = (value - value.logsumexp(dim, keepdim=True)).exp()
    return forward_ad.make_dual(func(value, dim, keepdim), (shares * tangent).sum(dim, keepdim=keepdim))


def _glu(func: Callable[..., Tensor], input: Tensor, dim: int = -1) -> Tensor:
    if input.shape[dim] % 2:
        return func(input, dim)  # which refuses it
    gated, gate = input.chunk(2, dim)
    return gated * gate.sigmoid()


def _hardsigmoid(func: Callable[..., Tensor], input: Tensor, inplace: bool = False) -> Tensor:
    result = F.relu6(input + 3) / 6
    return input.copy_(result) if inplace else result


_OPERATIONS: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax), _softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, torch.special.log_softmax, Tensor.log_softmax), _log_softmax),
    **dict.fromkeys((torch.logsumexp, torch.special.logsumexp, Tensor.logsumexp), _logsumexp),
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    F.instance_norm: _instance_norm,
    F.glu: _glu,
    F.hardsigmoid: _hardsigmoid,
}
_NEVER_TRAINED = (F.glu, F.hardsigmoid)  # by torch's own rules


def _parts(tensor: Any) -> tuple[Tensor, Tensor | None]:
    parts = forward_ad.unpack_dual(tensor)
    return parts.primal, parts.tangent


def _moves(tensor: Tensor | None) -> bool:
    """Whether a tensor has a tangent of its own."""
    return tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None
