"""Texts in which a name says whose words are asked about."""

import pytest
import torch

from comodulation.data.sets import NAMES, cued_pairs, cued_texts, named_family, resampled
from comodulation.errors import InputError

UTTERANCES = [f"utterance {number}" for number in range(40)]


def test_the_name_alone_says_whose_words_are_asked_about():
    """The task's person writes once, what they write has the answer; the other message neither is theirs nor has it."""
    labels = torch.arange(40) % 5
    pairs, examples = cued_pairs(labels, 300, 0)
    first = 0
    for text, task, target in zip(cued_texts(UTTERANCES, pairs), examples.task, examples.target, strict=True):
        parts = text.removesuffix(".").split(". ")
        said = dict(part.split(" wrote: ") for part in parts)
        assert len(parts) == len(said) == 2
        (other,) = set(said) - {NAMES[task]}
        assert labels[UTTERANCES.index(said[NAMES[task]])] == target
        assert labels[UTTERANCES.index(said[other])] != target
        first += parts[0].startswith(NAMES[task])
    assert 110 < first < 190


def test_every_answer_may_be_that_of_every_task():
    family = named_family(["home", "work"])
    assert family.member_mask().all()
    assert [task.split()[1] for task in family.tasks] == list(NAMES)


@pytest.mark.parametrize("length", [1, 3, 12, 40])
def test_the_mean_over_places_is_the_mean_over_tokens(length):
    """Whatever the length; and places that whole tokens fill repeat them, in order."""
    tokens = torch.randn(length, 6, generator=torch.Generator().manual_seed(0))
    places = resampled(tokens, 12)
    assert places.shape == (12, 6)
    torch.testing.assert_close(places.mean(0), tokens.mean(0))
    if 12 % length == 0:
        torch.testing.assert_close(places, tokens.repeat_interleave(12 // length, 0))


def test_places_by_hand():
    """5 tokens on 2 places: each place has two tokens and half of the middle one."""
    found = resampled(torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]]), 2)
    torch.testing.assert_close(found, torch.tensor([[(1 + 2 + 2) / 2.5], [(2 + 8 + 16) / 2.5]]))


def test_no_token_or_no_place():
    with pytest.raises(InputError, match="0 tokens cannot stand on 3 places"):
        resampled(torch.zeros(0, 4), 3)
    with pytest.raises(InputError, match="2 tokens cannot stand on 0 places"):
        resampled(torch.zeros(2, 4), 0)
