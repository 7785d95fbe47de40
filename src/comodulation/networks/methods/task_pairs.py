"""All tasks of an image at once: what lies before the task is computed once per image, the decoder runs over tasks in batches.

A pair (image, task) needs a decoder pass of its own, because its gains are its own; it shares everything before them. Pairs run
in chunks of bounded memory, so that ten thousand tasks need no more of it than ten.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InputError
from ..head import ComodulatedHead
from .base import Method

CHUNK_NUMBERS = 2**22  # in the largest intermediate tensor of a chunk: 16 MiB in float32


@torch.no_grad()
def all_tasks(
    network: Method | ComodulatedHead,
    features: Tensor,
    tasks: Tensor | None = None,
    *,
    sample_ids: Tensor | None = None,
) -> Tensor:
    """Answers to several tasks for every input, with one pass up to the encoder.

    Args:
        network: a fine-tuned method, or a head.
        features: of the backbone, ``(B, C, H, W)``.
        tasks: numbers of the tasks asked for, integers ``(n,)``; None asks for all K.
        sample_ids: identity of each input, integers ``(B,)``; needed where the encoder is stochastic.

    Returns:
        Log probabilities of a method, ``(B, n, C)`` or, for binary tasks, ``(B, n, 2)``; a head's logits, ``(B, n, C)``.

    Raises:
        InputError: ``tasks`` or ``sample_ids`` of another shape or type.
        IndexError: a task out of range.
    """
    head = network.head if isinstance(network, Method) else network
    chunks = [answers for _, answers in task_chunks(network, features, tasks, sample_ids=sample_ids)]
    return torch.cat(chunks).unflatten(0, (len(features), head.num_tasks if tasks is None else len(tasks)))


@torch.no_grad()
def task_chunks(
    network: Method | ComodulatedHead,
    features: Tensor,
    tasks: Tensor | None = None,
    *,
    sample_ids: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """As ``all_tasks``, chunk by chunk, for answers that need not be kept.

    Yields:
        Places of the chunk's pairs in the order of inputs, tasks within an input, ``(N,)``, and their answers, ``(N, C)`` or
        ``(N, 2)``.
    """
    head = network.head if isinstance(network, Method) else network
    device = head.decoder.weight.device
    asked = torch.arange(head.num_tasks) if tasks is None else tasks
    if asked.ndim != 1 or asked.is_floating_point() or asked.dtype == torch.bool or not len(asked):
        raise InputError(f"tasks must be integers (n,), at least one, got {asked.dtype} {tuple(asked.shape)}")
    if sample_ids is not None and sample_ids.shape != (len(features),):
        raise InputError(f"sample_ids must be ({len(features)},), one per input, got {tuple(sample_ids.shape)}")
    asked = head.check_tasks(asked.to(device), len(asked))
    given = features.to(device)
    shared = network.encoded(network.prepare(given)) if isinstance(network, Method) else head.encode(given)
    size = pairs_per_chunk(head, shared)
    for places in torch.arange(len(features) * len(asked), device=device).split(size):
        rows = places // len(asked)
        encoded, ids = shared.index_select(0, rows), asked[places % len(asked)]
        own = None if sample_ids is None else sample_ids.to(device)[rows]
        if isinstance(network, Method):
            yield places, network.decided(encoded, ids, own)
        else:
            logits = head.logits(encoded, ids, "comodulation", sample_ids=own)
            yield places, head.over_samples(logits)


def pairs_per_chunk(head: ComodulatedHead, shared: Tensor) -> int:
    """How many (input, task) pairs a chunk holds, at least 1, so that no tensor of it has more than ``CHUNK_NUMBERS`` numbers.

    Args:
        head: the layers, and how often a pair runs through the decoder at once.
        shared: what the pairs of an input share, ``(B, E, H, W)`` or ``(B, D)``.
    """
    m = head.modulation
    sampled = "stochastic" in (m.encoder_in(False), m.encoder_in(head.training)) or m.estimator == "monte_carlo"
    copies = max(m.num_samples if sampled else 1, m.num_nodes if m.estimator == "quadrature" else 1)
    positions = shared[0, 0].numel() if len(shared) else 1
    wide = max(shared.shape[1], head.decoder_channels) * positions
    return max(1, CHUNK_NUMBERS // (copies * max(wide, head.num_outputs)))
