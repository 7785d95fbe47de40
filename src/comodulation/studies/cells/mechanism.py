"""The analyses of one trained network: separability, noise under modulation, informativeness, sparsity, as numbers for a cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...data.features import FeatureRows
from ...evaluation import (
    fluctuation_covariance,
    gain_sparsity,
    informative_auc,
    informativeness,
    noise_geometry,
    permuted_share,
    task_separability,
    task_subspace,
)
from ...mathematics import derived_seed, gauss_hermite, modulate
from ...networks.methods import Comodulation, Method, gains_of
from ...runs import Adapted, Session
from ...tasks import Examples
from ...training import EVALUATION_BATCH

MOST_PER_TASK = 500  # examples of a task that are analysed
NOISE_PER_TASK = 50
NOISE_NODES = 9


@torch.no_grad()
def represent(method: Method, features: FeatureRows, examples: Examples) -> Tensor:
    """What the readout sees of each example under its task: pooled decoder activity with its gains, ``(M, D)``.

    With a stochastic encoder, its mean over the modulator's samples.
    """
    seen: list[Tensor] = []
    device = method.head.decoder.weight.device

    def see(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        activity = given[0]  # (B, D), or (T, B, D) with a stochastic encoder
        seen.append(activity.flatten(0, -3).mean(0) if activity.ndim > 2 else activity)

    hook = method.head.readout.register_forward_pre_hook(see)
    try:
        for rows in torch.arange(len(examples)).split(EVALUATION_BATCH):
            part = examples.take(rows)
            inputs = method.prepare(features.rows(part.image).to(device))
            method.head_logits(method.encoded(inputs), part.task.to(device), part.image.to(device), 0)
    finally:
        hook.remove()
    return torch.cat(seen).cpu()


@torch.no_grad()
def measure_mechanism(session: Session, adapted: Adapted, features: FeatureRows, examples: Examples) -> dict[str, Any]:
    """Every analysis of a cell. Subspaces are fitted on the validation examples and measured on the others.

    Args:
        session: of the cell. adapted: its network. features, examples: to measure on.

    Returns:
        Numbers and lists of numbers, by analysis: means over tasks, and some of them per task.
    """
    method, num_tasks = adapted.method.eval(), session.family.num_tasks
    data = session.tuning_data()
    fitted, held = (at_most(part, MOST_PER_TASK) for part in (data.validation, examples))
    fit_seen, seen = represent(method, data.features, fitted), represent(method, features, held)
    separation = task_separability(fit_seen, fitted.target, fitted.task, seen, held.target, held.task, num_tasks)
    result: dict[str, Any] = {
        "fisher": _mean(separation.fisher),
        "dprime": _mean(separation.dprime),
        "dprime_by_task": _list(separation.dprime),
    }
    gains = gains_of(method)
    if not gains:
        return result
    activity = torch.cat([_encode(method, features, part.image) for part in _parts(held)])
    plain = {
        "encoder": activity.mean((-2, -1)),
        "decoder": torch.cat(
            [method.head.decode(part.to(_device(method))).mean((-2, -1)).cpu() for part in activity.split(1024)]
        ),
    }
    for place in ("encoder", "decoder"):
        if place in gains:
            informed = informativeness(plain[place], held.target, held.task, gains[place])
            sparse = gain_sparsity(gains[place])
            result[place] = {
                "spearman": _mean(informed.spearman),
                "auc": _mean(informed.auc),
                # What neurons' mean activity under the task tells of them, without any gain.
                "auc_activity": _mean(
                    torch.tensor(
                        [
                            informative_auc(informed.dprime[k], plain[place][held.task == k].mean(0))
                            for k in range(num_tasks)
                        ]
                    )
                ),
                "below": dict(zip(("0.01", "0.03", "0.1", "0.3"), sparse.mean_fractions.tolist(), strict=True)),
                "movement": _mean(sparse.movement),
                "zeros": _mean(sparse.zeros),
            }
    if isinstance(method, Comodulation):
        result["noise"] = _noise(method, activity, held, fit_seen, fitted, gains)
    return result


def under_noise(method: Method, activity: Tensor, coupling: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder at the nodes of the modulator's quadrature.

    Args:
        method: whose head. activity: of the encoder, ``(B, E, H, W)``. coupling: of a task, ``(E,)``.

    Returns:
        Pooled activity ``(T, B, D)``, and the weights of the nodes ``(T,)``.
    """
    std = method.head.modulation.std
    nodes, weights = gauss_hermite(NOISE_NODES, torch.float32, torch.device("cpu"))
    number = len(activity)
    modulated = modulate(activity, coupling.expand(number, -1), (std * nodes)[:, None].expand(-1, number), std)
    decoded = method.head.decode(modulated.flatten(0, 1).to(_device(method))).mean((-2, -1)).cpu()
    return decoded.unflatten(0, modulated.shape[:2]), weights


def at_most(examples: Examples, number: int) -> Examples:
    """The first ``number`` examples of each task."""
    rows = [(examples.task == task).nonzero()[:number, 0] for task in examples.task.unique()]
    return examples.take(torch.cat(rows).sort().values)


def _noise(
    method: Method, activity: Tensor, held: Examples, fit_seen: Tensor, fitted: Examples, gains: dict[str, Tensor]
) -> dict[str, float]:
    """Where the modulator's fluctuation goes in the decoder, mean over tasks: before and after the decoder's gains."""
    names = ("participation_ratio", "share", "share_after_gains", "share_permuted", "chance", "total")
    rows_of: dict[str, list[float]] = {name: [] for name in names}
    for task in range(len(gains["coupling"])):
        rows = (held.task == task).nonzero()[:NOISE_PER_TASK, 0]
        mine = fitted.task == task
        basis = task_subspace(fit_seen[mine], fitted.target[mine])
        if not len(rows) or not basis.shape[1]:
            continue
        samples, weights = under_noise(method, activity[rows], gains["coupling"][task])
        before = noise_geometry(samples, basis, weights)
        gain = gains["decoder"][task] if "decoder" in gains else torch.ones(samples.shape[-1])
        after = noise_geometry(samples * gain, basis, weights)
        generator = torch.Generator().manual_seed(derived_seed(method.head.seed, "permuted gains", task))
        permuted = permuted_share(fluctuation_covariance(samples, weights), basis, gain, generator=generator)
        for name, value in (
            ("participation_ratio", before.participation_ratio), ("share", before.share),
            ("share_after_gains", after.share), ("share_permuted", permuted), ("chance", before.chance),
            ("total", before.total),
        ):  # fmt: skip
            rows_of[name].append(value)
    return {name: _mean(torch.tensor(values)) for name, values in rows_of.items()}


def _encode(method: Method, features: FeatureRows, images: Tensor) -> Tensor:
    return method.head.encode(features.rows(images).to(_device(method))).cpu()


def _parts(examples: Examples) -> list[Examples]:
    return [examples.take(rows) for rows in torch.arange(len(examples)).split(EVALUATION_BATCH)]


def _device(method: Method) -> torch.device:
    return method.head.decoder.weight.device


def _mean(values: Tensor) -> float:
    """Mean of what is defined; nan where nothing is."""
    return float(values.double().nanmean())


def _list(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]
