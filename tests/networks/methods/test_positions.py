"""Comodulation of positions: what it computes, with couplings learned and in closed form; and beside a distractor."""

import pytest
import torch
from torch.nn import functional as F

from comodulation.errors import InputError
from comodulation.mathematics import (
    closed_form_couplings,
    decoder_statistics,
    population,
    position_labels,
)
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import add_tasks, begin_tasks, make_method
from comodulation.tasks import TaskFamily
from support.methods import CLASSES, make


def positions(seed: int = 0, spread: float = 0.5, **options):
    """The method on a small head, with couplings of its own."""
    torch.manual_seed(seed)
    head = ComodulatedHead(5, 7, 3, encoder_channels=8, decoder_channels=6, hidden=16, **options.pop("head", {}))
    method = make_method("positions", head, CLASSES, "open", **options).eval()
    torch.nn.init.normal_(head.controller.embedding.weight, std=spread)
    return method


FEATURES = torch.randn(12, 5, 2, 3, generator=torch.Generator().manual_seed(3))
TASKS = torch.arange(12) % 3


@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
@pytest.mark.parametrize("depth", [1, 2])
def test_it_reads_a_mean_weighed_by_labels(estimator, depth):
    """By the general estimators, and weights written out; at every depth of the decoder."""
    method = positions(strength=5.0, head={"estimator": estimator, "depth": depth})
    head, h = method.head, method.prepare(FEATURES)
    w = head.controller(TASKS)
    labels = position_labels(decoder_statistics(population(head.decode), h, w, 0.3, estimator=estimator))
    weights = (5 * labels).softmax(1)
    pooled = (head.decode(h).flatten(2) * weights[:, None]).sum(2)
    torch.testing.assert_close(method(h, TASKS)[0], head.readout(pooled))


def test_equal_couplings_of_all_neurons_pool_as_the_mean_does():
    """In a decoder without bias; and without strength, whatever the couplings."""
    method = positions(spread=0.0)
    torch.nn.init.constant_(method.head.controller.embedding.weight, 0.8)
    torch.nn.init.zeros_(method.head.decoder.bias)
    h = method.prepare(FEATURES)
    base = method.head.read(method.head.decode(h))
    torch.testing.assert_close(method(h, TASKS)[0], base)
    weak = positions(strength=0)
    h = weak.prepare(FEATURES)
    assert torch.equal(weak(h, TASKS)[0], weak.head.read(weak.head.decode(h)))


@pytest.mark.parametrize("kind", ["informativeness", "discriminability", "discriminant"])
def test_closed_forms_are_those_of_what_it_observes(kind):
    """Whatever the batches; nothing is learned; an adapter carries couplings and strengths."""
    method = positions(couplings=kind)
    h = method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    expected = closed_form_couplings(kind, h.mean((2, 3)), TASKS, 3)
    torch.testing.assert_close(method.head.controller.embedding.weight.detach(), expected)
    assert method.num_learnable() == 0
    assert (method.strengths >= 0).all()
    assert (method.strengths > 0).any()
    other = positions(couplings=kind)
    other.observe([(h[:5], TASKS[:5]), (h[5:], TASKS[5:])])
    torch.testing.assert_close(other(h, TASKS), method(h, TASKS))
    loaded = positions(couplings=kind)
    loaded.load_adapter_tensors(method.adapter_tensors())
    assert torch.equal(loaded(h, TASKS), method(h, TASKS))


def test_a_distractor_is_left_out():
    """Two kinds of object, each with encoder neurons of its own, stand beside one another; a frozen readout names what is there.
    The mean over positions mixes both; couplings from single objects, without any training, leave the other one out."""
    torch.manual_seed(0)
    head = ComodulatedHead(8, 8, 2, encoder_channels=8, decoder_channels=8, residual=False, kernel_size=1, hidden=8)
    with torch.no_grad():
        for layer in (head.projection, head.encoder, head.decoder):
            layer.weight.copy_(torch.eye(8)[:, :, None, None])
            layer.bias.zero_()
        head.readout = torch.nn.Identity()
    family = TaskFamily("classes", ("lower", "upper"), tuple("abcdefgh"), ((0, 1, 2, 3), (4, 5, 6, 7)))
    generator = torch.Generator().manual_seed(1)

    def objects(labels):
        return F.one_hot(labels, 8).float() + 0.3 * torch.rand(len(labels), 8, generator=generator)

    labels = torch.arange(80) % 8
    method = make_method("positions", head, family, couplings="informativeness").eval()
    method.observe([(method.prepare(objects(labels)[:, :, None, None]), labels // 4)])
    target, other = torch.randint(4, (2, 300), generator=generator) + torch.tensor([[0], [4]])
    scenes = torch.stack([objects(target), 1.3 * objects(other)], -1)[:, :, None]  # the distractor is the brighter one
    tasks = torch.zeros(300, dtype=torch.int64)
    assert (head.read(head.decode(method.prepare(scenes))).argmax(1) == target).float().mean() < 0.2
    assert (method(method.prepare(scenes), tasks)[0].argmax(1) == target).float().mean() > 0.98
    assert (method(method.prepare(scenes), tasks + 1)[0].argmax(1) == other).float().mean() > 0.98


def test_positions_that_all_show_it_weigh_alike():
    """Several places show the object, one of them the cue most strongly and nothing else. Weights that compete read that one;
    weights of each position by itself read all of the object, and what is beside it is left out by both."""
    torch.manual_seed(0)
    head = ComodulatedHead(6, 6, 2, encoder_channels=6, decoder_channels=6, residual=False, kernel_size=1, hidden=6)
    with torch.no_grad():
        for layer in (head.projection, head.encoder, head.decoder):
            layer.weight.copy_(torch.eye(6)[:, :, None, None])
            layer.bias.zero_()
        head.readout = torch.nn.Identity()
    family = TaskFamily("classes", ("first", "second"), tuple("abcdef"), (tuple(range(6)),) * 2)
    generator = torch.Generator().manual_seed(1)

    def objects(cues, answers):  # neurons 0 and 1 carry the cue, 2 to 5 the answer; (N, 6, 1, 4)
        cue = F.one_hot(cues, 6).float()[:, :, None] * torch.tensor([5.0, 1.0, 1.0, 1.0])
        answer = 2 * F.one_hot(answers, 6).float()[:, :, None] * torch.tensor([0.0, 1.0, 1.0, 1.0])
        return (cue + answer + 0.2 * torch.rand(len(cues), 6, 4, generator=generator))[:, :, None]

    cues, answers = torch.arange(80) % 2, 2 + torch.arange(80) // 2 % 4
    target, other = 2 + torch.randint(4, (2, 200), generator=generator)
    tasks = torch.randint(2, (200,), generator=generator)
    scenes = torch.cat([objects(tasks, target), objects(1 - tasks, other)], -1)
    found = {}
    for weights in ("one", "each"):
        method = make_method("positions", head, family, couplings="informativeness", weights=weights).eval()
        method.observe([(method.prepare(objects(cues, answers)), cues)])
        found[weights] = method(method.prepare(scenes), tasks)[0][:, 2:]
    assert (found["each"].argmax(1) + 2 == target).float().mean() > 0.98
    # Almost all of the answer's three places of eight at the target; those that compete find hardly any of it.
    strength = found["each"].amax(1).mean()
    assert strength > 0.9 * 2 * 3 / 4
    assert found["one"].amax(1).mean() < 0.5 * strength
    loaded = make_method("positions", head, family, couplings="informativeness", weights="each").eval()
    loaded.load_adapter_tensors(method.adapter_tensors())
    assert torch.equal(loaded(scenes, tasks), method(scenes, tasks))


@pytest.mark.parametrize("weights", ["one", "each"])
def test_a_task_is_added_with_its_strength(weights):
    method = positions(couplings="informativeness", weights=weights)
    h = method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    learned = begin_tasks(method, {"d": ("t", "z"), "e": ("u", "y")})
    assert (learned.couplings, learned.weights) == ("informativeness", weights)
    learned.observe([(h, TASKS % 2)])
    grown = add_tasks(method, learned)
    torch.testing.assert_close(grown.strengths, torch.cat([method.strengths, learned.strengths]))
    assert torch.equal(grown(h, TASKS), method(h, TASKS))
    assert torch.equal(grown(h, TASKS % 2 + 3), learned(h, TASKS % 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"couplings": "informativ"}, "did you mean 'informativeness'"),
        ({"strength": -1}, "strength -1 is out of range"),
        ({"strength": float("nan")}, "strength nan"),
        ({"couplings": "discriminant", "weights": "al"}, "weights 'al'"),
        ({"weights": "each"}, "couplings='informativeness', or weights='one'"),
        ({"couplings": "discriminant", "head": {"controller": {"hidden": (4,)}}}, "must be an embedding"),
    ],
)
def test_refused(options, message):
    torch.manual_seed(0)
    head = ComodulatedHead(5, 7, 3, encoder_channels=8, decoder_channels=6, hidden=16, **options.pop("head", {}))
    with pytest.raises(InputError, match=message):
        make_method("positions", head, CLASSES, **options)


def test_tasks_of_the_same_inputs_have_no_closed_form():
    method = make("positions", CLASSES)
    method.couplings = "informativeness"
    with pytest.raises(InputError, match="couplings='learned'"):
        method.observe([(method.prepare(FEATURES), TASKS)], shared=True)
