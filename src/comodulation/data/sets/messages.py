"""Texts in which several people say something; a name says whose words are asked about.

"Anna wrote: how do I boil an egg. Ben wrote: block my card." The task names a person, the answer is what that person's words are
about, and every answer may be that of every task. People, and the order in which they speak, are drawn for each text: neither a
place, nor a prior over answers, nor reading each place by itself can choose between the two.

A frozen text encoder gives one vector for each token, and texts are of different lengths. ``resampled`` brings them to the same
number of places, as pictures are brought to one size; the mean over places stays the mean over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ...tasks import TaskFamily

NAMES = ("Anna", "Ben", "Carla")


def named_family(answers: Sequence[str]) -> TaskFamily:
    """A task for each of ``NAMES``, all with the same answers."""
    tasks = tuple(f"what {name} wrote" for name in NAMES)
    return TaskFamily("classes", tasks, tuple(answers), (tuple(range(len(answers))),) * len(NAMES))


def cued_texts(utterances: Sequence[str], members: Tensor) -> list[str]:
    """A text for each row of members: what several people wrote, one after the other.

    Args:
        utterances: N of them.
        members: in the order in which they stand, integers ``(S, n)``; 3 i + c is utterance i, written by the person c of
            ``NAMES``, as ``cued_pairs`` draws them.

    >>> cued_texts(["freeze my card", "what is the time"], torch.tensor([[4, 0]]))
    ['Ben wrote: what is the time. Anna wrote: freeze my card.']
    """
    return [
        " ".join(f"{NAMES[row % len(NAMES)]} wrote: {utterances[row // len(NAMES)]}." for row in text)
        for text in members.tolist()
    ]


def resampled(tokens: Tensor, places: int) -> Tensor:
    """A sequence of L tokens ``(L, V)`` on a given number of places ``(places, V)``, each the mean of the stretch it covers.

    Place p covers the tokens from p L / places to (p + 1) L / places, with fractions; so the mean over places is the mean over
    tokens.

    Raises:
        InputError: no token, or no place.

    >>> resampled(torch.tensor([[1.0], [3.0], [8.0]]), 2).T
    tensor([[1.6667, 6.3333]])
    """
    length = len(tokens)
    if length < 1 or places < 1:
        raise InputError(f"{length} tokens cannot stand on {places} places; expected at least one of each")
    place = torch.arange(places, dtype=torch.float64)[:, None] * length / places
    token = torch.arange(length, dtype=torch.float64)
    shared = (torch.minimum(place + length / places, token + 1) - torch.maximum(place, token)).clamp(min=0)
    return (shared * places / length).to(tokens) @ tokens
