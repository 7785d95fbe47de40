"""A trained network as if it had been recorded: Poisson counts of its encoder and decoder while its modulator fluctuates.

The statistics of cortex need nothing but spike counts, so that a network is best compared with a recording by recording it: the
same estimators then see both, with the same noise. Images are shown many times under one task; in each bin the modulator has a new
value, which the couplings of the task carry into the encoder, and the frozen layers into the decoder. The control shows the same
images under another task's couplings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..mathematics import modulate
from ..networks import ComodulatedHead, coupling
from ..networks.methods import Comodulation, Method
from .checks import Floats, Integers, check_positive, check_whole
from .counts import MIN_TRIALS
from .recording import Recording

ENCODER, DECODER = "encoder", "decoder"
ROWS_PER_PASS = 512


@torch.no_grad()
def record_network(
    network: ComodulatedHead | Method,
    features: Tensor,
    labels: Sequence[object],
    task: int,
    *,
    control: int | None = None,
    repeats: int = 20,
    bins: int = 5,
    mean_count: float = 2.0,
    most_neurons: int = 100,
    seed: int = 0,
    name: str = "network",
) -> Recording:
    """Record encoder and decoder of a head, or of the method that holds it.

    Args:
        network: with trained couplings, and a fixed set of tasks; of the methods, comodulation alone has couplings.
        features: what the backbone gives for M images, ``(M, C, H, W)`` or ``(M, C)``. Each image is a condition.
        labels: of each image, what the task tells apart, M of them: the recording's targets.
        task: whose couplings are used. control: another task, whose couplings are used on the same images.
        repeats: presentations of each image. bins: of a presentation.
        mean_count: spikes a bin of the average neuron of either layer.
        most_neurons: of either layer, drawn at random from those that are active.
        seed: of modulator, neurons and spikes. name: of the recording.

    Returns:
        Areas ``encoder`` and ``decoder``; contexts ``task`` and, with one, ``control``. Neurons that are silent for all images
        are not in it: an electrode does not find them.

    Raises:
        InputError: a method without couplings, shapes that do not fit, unknown tasks, a control that is the task, too few
            repeats, layers of which no neuron is active.
    """
    head = coupled_head(network)
    check_whole(repeats, MIN_TRIALS, "repeats")
    check_whole(bins, 1, "bins")
    check_whole(most_neurons, 1, "most_neurons")
    check_positive(mean_count, "mean_count")
    if len(labels) != len(features) or not len(features):
        raise InputError(f"every image needs one label, got {len(features)} images and {len(labels)} labels")
    for given in (task, control):
        if given is not None and not 0 <= given < head.num_tasks:
            raise InputError(f"tasks are 0 to {head.num_tasks - 1}, got {given}")
    if task == control:
        raise InputError(f"the control must be another task, got {task} for both")
    rng, device = np.random.default_rng(seed), head.decoder.weight.device
    activity = head.encode(features.to(device))
    contexts = {"task": task} | ({} if control is None else {"control": control})
    responses = []
    for chosen in contexts.values():
        u = head.controller(torch.tensor([chosen], device=device))
        responses.append(_respond(head, activity, coupling(u, head.modulation.link), repeats, bins, rng))
    counts, areas = [], []
    for area, parts in zip((ENCODER, DECODER), zip(*responses, strict=True), strict=True):
        counts.append(_spikes(area, np.concatenate(parts), mean_count, most_neurons, rng))
        areas += [area] * counts[-1].shape[2]
    images = np.repeat([f"image {number}" for number in range(len(features))], repeats)
    return Recording.of(
        np.concatenate(counts, axis=2),
        np.tile(images, len(contexts)),
        target=np.tile(np.repeat([str(label) for label in labels], repeats), len(contexts)),
        context=np.repeat(list(contexts), len(images)),
        area=areas,
        name=name,
    )


def coupled_head(network: ComodulatedHead | Method) -> ComodulatedHead:
    """The head of a method that trains couplings. Of others, attention among them (its gains are fixed, no modulator moves
    them), the controller is none of couplings, or untrained. Raises InputError for these."""
    if isinstance(network, ComodulatedHead):
        return network
    if not isinstance(network, Comodulation):
        raise InputError(f"method {network.name!r} has no couplings to a modulator; record a run of comodulation")
    return network.head


def _spikes(area: str, rate: Floats, mean_count: float, most_neurons: int, rng: np.random.Generator) -> Integers:
    """Counts of some active neurons, ``(contexts M repeats, bins, kept)``, from the activity of all, ``(..., bins, neurons)``."""
    mean = rate.mean((0, 1))
    active = np.flatnonzero(mean > 1e-3 * mean.max()) if mean.max() > 0 else np.array([], int)
    if not len(active):
        raise InputError(f"no {area} neuron is active for these images")
    kept = np.sort(rng.permutation(active)[:most_neurons])
    return rng.poisson(rate[:, :, kept] * (mean_count / mean[kept].mean()))


def _respond(
    head: ComodulatedHead, activity: Tensor, w: Tensor, repeats: int, bins: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Pooled activity of encoder and decoder, each ``(M repeats, bins, neurons)``, for activity ``(M, E, H, W)``, w ``(1, E)``."""
    std = head.modulation.std
    modulator = torch.as_tensor(
        std * rng.standard_normal(len(activity) * repeats * bins), dtype=activity.dtype, device=activity.device
    )
    image = torch.arange(len(activity), device=activity.device).repeat_interleave(repeats * bins)
    encoder, decoder = [], []
    for rows in torch.arange(len(image), device=activity.device).split(ROWS_PER_PASS):
        modulated = modulate(activity[image[rows]], w.expand(len(rows), -1).to(activity.dtype), modulator[rows], std)
        encoder.append(modulated.mean((-2, -1)).double().cpu())
        decoder.append(head.decode(modulated).mean((-2, -1)).double().cpu())
    shape = (len(activity) * repeats, bins, -1)
    return torch.cat(encoder).numpy().reshape(shape), torch.cat(decoder).numpy().reshape(shape)
