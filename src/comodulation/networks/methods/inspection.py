"""One image looked at: its answer to every task, and what a modulator held at some value does on the way to an answer.

For a task with coupling w and gains g, encoder activity h, and the modulator held at m = z sigma, with the factors
f(m) = exp(m w - sigma^2 w^2 / 2):

    d(m) = decode(h f(m)), pooled: what the gains are read from (h after its task gain with the option ``after_gain``)
    p(m) = the answer that read(decode(e h f(m)) g) gives, e = exp(u) with encoder `gain` and 1 otherwise

The trained operating point is what a run predicts with: no factor with encoder `gain` or `none`, the mean of p(m) over the
modulator's samples with encoder `stochastic`. With encoder `gain`, m = 0 is close to it but not the same, because f(0) is
exp(-sigma^2 w^2 / 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ...evaluation import apply_temperature
from ...mathematics import modulate
from ..controller import coupling
from .base import Method
from .comodulation import Comodulation
from .learned_gains import decoder_gains_of, encoder_gains_of
from .task_pairs import all_tasks


@dataclass(frozen=True)
class Modulated:
    """What the modulator does at T values, for one image and task.

    Attributes:
        std: standard deviation sigma of the modulator.
        deviations: the values in standard deviations, ``(T,)``; the modulator itself is std times them.
        coupling: w of each encoder neuron, ``(E,)``.
        factors: exp(m w - sigma^2 w^2 / 2), ``(T, E)``.
        decoder_activity: d(m) of each decoder neuron, mean over positions, ``(T, D)``.
        slope: of decoder activity on the modulator, as the method's own estimator has it for this image, ``(D,)``.
        probabilities: the answer under each value, ``(T, C)``, or ``(T, 2)`` of no and yes for binary tasks.
    """

    std: float
    deviations: Tensor
    coupling: Tensor
    factors: Tensor
    decoder_activity: Tensor
    slope: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Inspection:
    """One image under one task.

    Attributes:
        answer: probabilities at the trained operating point, ``(C,)``, or ``(2,)`` of no and yes.
        encoder_gains: what the task multiplies encoder activity by, ``(E,)``; None where it does not.
        decoder_gains: the same of decoder activity, ``(D,)``.
        modulated: what the modulator does; None for a method without one.
    """

    answer: Tensor
    encoder_gains: Tensor | None
    decoder_gains: Tensor | None
    modulated: Modulated | None


def answers(method: Method, features: Tensor, tasks: Tensor, sample_id: int, temperature: float = 1.0) -> Tensor:
    """Probabilities of one image under each of several tasks, which share everything up to the encoder.

    Args:
        method: fitted, in evaluation mode.
        features: of one image, ``(1, C, H, W)``.
        tasks: task ids, int64 ``(N,)``.
        sample_id: identity of the image, for the noise of a stochastic encoder.
        temperature: of temperature scaling; 1 changes nothing.

    Returns:
        ``(N, C)``, or ``(N, 2)`` of no and yes for binary tasks.
    """
    logs = all_tasks(method, features, tasks, sample_ids=torch.tensor([sample_id]))[0]
    return apply_temperature(logs, temperature).exp()


@torch.no_grad()
def inspect(
    method: Method, features: Tensor, task: int, deviations: Tensor, sample_id: int, temperature: float = 1.0
) -> Inspection:
    """Follow one image through a task, with the modulator held at each of T values.

    Args:
        method, features, sample_id, temperature: as in ``answers``.
        task: its number.
        deviations: values of the modulator in standard deviations, ``(T,)``; not used by a method without a modulator.

    Raises:
        InputError: more than one image, or values that are not finite.
    """
    if len(features) != 1:
        raise InputError(f"expected one image, got {len(features)}")
    if deviations.ndim != 1 or not bool(deviations.isfinite().all()):
        raise InputError(f"values of the modulator must be finite and (T,), got {tuple(deviations.shape)}")
    inputs = method.prepare(features)
    answer = answers(method, features, torch.tensor([task]), sample_id, temperature)[0]
    encoder, decoder = task_gains(method, inputs, task)
    modulated = None
    if isinstance(method, Comodulation):
        modulated = _modulated(method, inputs, task, deviations, temperature)
    return Inspection(answer, encoder, decoder, modulated)


@torch.no_grad()
def task_gains(method: Method, inputs: Tensor, task: int) -> tuple[Tensor | None, Tensor | None]:
    """What a task multiplies encoder and decoder activity by, ``(E,)`` and ``(D,)``, as ``gains_of``; None where it does not.

    Args:
        method: fitted. inputs: what it reads of one image, ``(1, ...)``, for gains of level `input`. task: its number.
    """
    tasks = torch.tensor([task])
    encoder, decoder = encoder_gains_of(method, tasks), decoder_gains_of(method, tasks)
    if decoder is None and isinstance(method, Comodulation):  # of this input
        decoder = method.head.gains(inputs, method.head.controller(tasks), tasks)
    return None if encoder is None else encoder[0], None if decoder is None else decoder[0]


def _modulated(method: Comodulation, activity: Tensor, task: int, deviations: Tensor, temperature: float) -> Modulated:
    """What the modulator does at T values ``(T,)`` to encoder activity ``(1, E, H, W)``."""
    head, m = method.head, method.head.modulation
    tasks = torch.tensor([task])
    u = head.controller(tasks)
    w, after = coupling(u, m.link), activity * u.exp()[:, :, None, None]
    labelling = after if m.after_gain else activity
    answering = after if m.encoder == "gain" else activity
    modulator = (m.std * deviations.to(activity.dtype))[:, None]
    decoded = head.decode(modulate(labelling, w, modulator, m.std)[:, 0]).mean((-2, -1))
    answered = head.decode(modulate(answering, w, modulator, m.std)[:, 0])
    logits = head.read(answered * head.gains(activity, u, tasks)[:, :, None, None])
    logits = method.finish(logits, tasks.expand(len(logits)))
    return Modulated(
        m.std, deviations, w[0], modulate(torch.ones_like(w), w, modulator, m.std)[:, 0], decoded,
        head.statistics(labelling, w).slope[0], apply_temperature(logits, temperature).exp(),
    )  # fmt: skip
