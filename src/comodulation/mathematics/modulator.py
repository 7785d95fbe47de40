"""The modulator and the encoder equation.

A shared scalar m ~ N(0, sigma^2) multiplies every encoder neuron n by exp(m w_n - sigma^2 w_n^2 / 2). The second
term makes the factor's mean exactly 1 (the mean of a log-normal), so modulation adds labelled fluctuation and leaves
the average activity where it was.

Source: arXiv 2311.15053 (2023), encoder equation; the mean-preserving form follows the population model of
"Flexible information routing in neural populations through stochastic comodulation" (NeurIPS 2019).
"""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor


def modulate(activity: Tensor, coupling: Tensor, modulator: Tensor, std: float) -> Tensor:
    """Multiply each encoder neuron by its share of the modulator, keeping its mean.

    Args:
        activity: encoder activity, rectified, ``(B, E, ...)``; further dimensions are positions of a map.
        coupling: coupling of each neuron to the modulator, ``(B, E)``.
        modulator: values of the modulator, ``(B,)``, or ``(T, B)`` for T samples.
        std: standard deviation sigma of the modulator, in units of 1 / coupling.

    Returns:
        ``activity * exp(modulator * coupling - std**2 * coupling**2 / 2)``, of shape ``(B, E, ...)``, or
        ``(T, B, E, ...)`` for T samples, in ``activity.dtype``. Computed in at least float32.

    Raises:
        ValueError: for shapes that do not fit, or a std that is not positive and finite.

    >>> import torch
    >>> modulate(torch.ones(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([0.5]), 1.0)
    tensor([[1., 1.]])
    """
    check_activity_and_coupling(activity, coupling)
    std = check_std(std)
    if modulator.ndim not in (1, 2) or modulator.shape[-1] != activity.shape[0]:
        raise ValueError(
            f"modulator must have shape (B,) or (T, B) with B = {activity.shape[0]}, got {tuple(modulator.shape)}"
        )
    precise = torch.promote_types(activity.dtype, torch.float32)
    factor = modulation_factor(coupling.to(precise), modulator.to(precise), std)
    positions = (1,) * (activity.ndim - 2)
    # The product in float32 too, by promotion: in half precision a large factor alone would overflow, and silence be NaN.
    return (activity * factor.reshape(*factor.shape, *positions)).to(activity.dtype)


def modulation_factor(coupling: Tensor, modulator: Tensor, std: float) -> Tensor:
    """What each neuron's activity is multiplied by, ``exp(m w - sigma^2 w^2 / 2)``: ``(B, E)`` or ``(T, B, E)``.

    Args:
        coupling: ``(B, E)``. modulator: ``(B,)`` or ``(T, B)``.
        std: sigma; 0 leaves out the second term, which is what the derivative with respect to m at m = 0 needs.

    A factor beyond what the type can hold stays just below its largest number: infinity times a silent neuron is NaN.
    """
    exponent = modulator[..., None] * coupling - (std * coupling).square() / 2
    return torch.exp(exponent.clamp(max=largest_exponent(exponent.dtype)))


def largest_exponent(dtype: torch.dtype) -> int:
    """The largest whole number whose exponential is finite in ``dtype``: 709 in float64, 88 in float32."""
    return math.floor(math.log(torch.finfo(dtype).max))


def check_activity_and_coupling(activity: Tensor, coupling: Tensor) -> None:
    """Raise ValueError unless ``activity`` is floating ``(B, E, ...)`` and ``coupling`` floating and exactly ``(B, E)``."""
    if activity.ndim < 2:
        raise ValueError(f"activity must have shape (B, E, ...), got {tuple(activity.shape)}")
    if not activity.is_floating_point() or not coupling.is_floating_point():
        raise ValueError(f"activity and coupling must be floating point, got {activity.dtype} and {coupling.dtype}")
    if coupling.shape != activity.shape[:2]:
        raise ValueError(
            f"coupling must have shape (B, E) = {tuple(activity.shape[:2])} to fit the activity, "
            f"got {tuple(coupling.shape)}"
        )


def check_std(std: float) -> float:
    """``std`` as a Python float. Raise ValueError unless it is a positive, finite number (NumPy's scalars too)."""
    if not is_finite(std) or isinstance(std, bool) or std <= 0:
        raise ValueError(f"std must be a positive finite number, got {std!r}")
    return float(std)


def is_finite(number: object) -> bool:
    """Whether something is a number that a float can hold."""
    try:
        return isinstance(number, Real) and math.isfinite(number)
    except OverflowError:  # an integer beyond the largest float
        return False
