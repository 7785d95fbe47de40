"""Readouts answer as the weighted mean of their members, and come back from their tensors to the bit or not at all."""

import pytest
import torch

from comodulation.errors import InputError
from comodulation.networks.readouts import Bag, Probe, Questions, Readouts

ROWS = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
ASKED = {"columns": Questions((3, 2)), "binary": Questions((1, 1), True), "classes": Questions((4,))}
SIZES = {"columns": (3, 2), "binary": (2, 2), "classes": (4,)}  # as they are read again: numbers of answers


def drawn(kind):
    """A probe of the first four features, and a bag of all."""
    questions, generator = ASKED[kind], torch.Generator().manual_seed(0)
    members = [(Probe(4, questions.num_outputs), 0, 4), (Bag(2, 6, 3, questions.num_outputs), 0, 6)]
    made = Readouts(questions, 6, members)
    for member in made.members:
        for value in member.parameters():
            value.normal_(generator=generator)
    made.mean.normal_(generator=generator)
    made.deviation.uniform_(0.5, 2, generator=generator)
    made.weights.uniform_(0.1, 1, generator=generator).div_(made.weights.sum(1, keepdim=True))
    made.temperature.uniform_(0.5, 2, generator=generator)
    return made


@pytest.mark.parametrize("kind", ASKED)
def test_the_answer_is_the_weighted_mean_probability_at_its_temperature(kind):
    made, questions = drawn(kind), ASKED[kind]
    standard = (ROWS - made.mean) / made.deviation
    probe, bag = made.members
    logits = [probe(standard[:, :4])[0], *bag(standard)]
    combined = made.combine(*made(ROWS))
    first = 0
    for number, size in enumerate(questions.sizes):
        shares = [made.weights[number, 0], made.weights[number, 1] / 2, made.weights[number, 1] / 2]
        own = [one[:, first : first + size] for one in logits]
        if questions.binary:
            own = [torch.cat([torch.zeros_like(one), one], 1) for one in own]
        mixed = sum(share * one.softmax(1) for share, one in zip(shares, own, strict=True))
        expected = (mixed.log() / made.temperature[number]).softmax(1)
        given = combined[:, first : first + size]
        if questions.binary:
            given = torch.cat([torch.zeros_like(given), given], 1)
        torch.testing.assert_close(given.softmax(1), expected)
        first += size


def test_a_member_of_no_weight_says_nothing():
    made = drawn("columns")
    made.weights.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    logits, weights = made(ROWS)
    logits[1:] = torch.randn(logits[1:].shape)
    alone = ASKED["columns"].log_softmax(ASKED["columns"].log_softmax(logits[0]) / made.temperature[made.owner])
    torch.testing.assert_close(made.combine(logits, weights), alone)


@pytest.mark.parametrize("kind", ASKED)
def test_tensors_bring_it_back_to_the_bit(kind):
    made = drawn(kind)
    again = Readouts.of_tensors(made.tensors(), SIZES[kind])
    assert again.questions == made.questions
    assert again.places == made.places
    assert torch.equal(again.combine(*again(ROWS)), made.combine(*made(ROWS)))


def test_questions_that_belong_to_others_are_left():
    made = drawn("columns")
    assert Readouts.of_tensors(made.tensors(), (3, 2, 7, 7)).questions == made.questions


def changed(**values):
    return lambda tensors: {**tensors, **{name.replace("_at_", "."): value for name, value in values.items()}}


def without(*names):
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


NAN = torch.tensor([1.0, float("nan"), 1, 1, 1, 1])
HOSTILE = {
    "nothing": lambda tensors: {},
    "no mean": without("mean"),
    "no weights": without("weights"),
    "no temperature": without("temperature"),
    "no members": without(
        "0.weight", "0.bias", "0.features", "1.first", "1.first_bias", "1.second", "1.bias", "1.features"
    ),
    "no bias": without("0.bias"),
    "a bag without its second layer": without("1.second"),
    "a member that is missing": without("0.weight", "0.bias", "0.features"),
    "an unknown name": changed(more=torch.zeros(1)),
    "an unknown name of a member": changed(**{"1_at_third": torch.zeros(1)}),
    "a name for another": lambda tensors: {("Mean" if n == "mean" else n): v for n, v in tensors.items()},
    "mean of another shape": changed(mean=torch.zeros(5)),
    "mean of two axes": changed(mean=torch.zeros(6, 1)),
    "mean of none": changed(mean=torch.tensor(0.0)),
    "weights of one axis": changed(weights=torch.ones(2)),
    "weights of more members": changed(weights=torch.full((2, 3), 1 / 3)),
    "weights of no question": changed(weights=torch.zeros(0, 2)),
    "weights of more questions": changed(weights=torch.full((3, 2), 0.5)),
    "weights of fewer questions": changed(weights=torch.full((1, 2), 0.5)),
    "weights below 0": changed(weights=torch.tensor([[-1.0, 2.0], [0.5, 0.5]])),
    "weights of 0": changed(weights=torch.zeros(2, 2)),
    "not finite": changed(mean=NAN),
    "weights not finite": changed(**{"1_at_first": torch.full((2, 6, 3), torch.inf)}),
    "temperature below 0": changed(temperature=torch.tensor([1.0, -1.0])),
    "temperature of 0": changed(temperature=torch.tensor([0.0, 1.0])),
    "deviation of 0": changed(deviation=torch.zeros(6)),
    "integers": changed(mean=torch.zeros(6, dtype=torch.int64)),
    "another precision": changed(mean=torch.zeros(6, dtype=torch.float64)),
    "complex numbers": changed(mean=torch.zeros(6, dtype=torch.complex64)),
    "a bias of no axes": changed(**{"0_at_bias": torch.tensor(1.0)}),
    "a first layer of no units": changed(**{"1_at_first": torch.zeros(2, 6, 0)}),
    "a first layer of two axes": changed(**{"1_at_first": torch.zeros(6, 3)}),
    "a first layer of other units": changed(**{"1_at_first": torch.zeros(2, 6, 4)}),
    "features of one place": changed(**{"1_at_features": torch.tensor([0])}),
    "features of three places": changed(**{"1_at_features": torch.tensor([0, 6, 6])}),
    "features below 0": changed(**{"1_at_features": torch.tensor([-3, 3])}),
    "features beyond the row": changed(**{"1_at_features": torch.tensor([1, 7])}),
    "features turned round": changed(**{"1_at_features": torch.tensor([6, 0])}),
    "no features": changed(**{"1_at_features": torch.tensor([3, 3])}),
    "features that are fractions": changed(**{"1_at_features": torch.tensor([0.0, 6.0])}),
    "features that are complex": changed(**{"1_at_features": torch.tensor([0j, 6j])}),
    "features that are truths": changed(**{"1_at_features": torch.tensor([False, True])}),
    "features of 2^62": changed(**{"1_at_features": torch.tensor([0, 2**62])}),
    "more than a readout holds": changed(**{"1_at_first": torch.zeros(1).expand(2**20, 2**10, 2**10)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tensors(name):
    """Refused, without memory for what is claimed."""
    with pytest.raises(InputError, match="the adapter is damaged"):
        Readouts.of_tensors(HOSTILE[name](drawn("columns").tensors()), (3, 2))


@pytest.mark.parametrize("sizes", [(3, 3), (2, 2), (5,), (), (3,)])
def test_tensors_of_other_tasks(sizes):
    with pytest.raises(InputError, match="the adapter is damaged"):
        Readouts.of_tensors(drawn("columns").tensors(), sizes)
