"""Weights of positions between any two layers: those of the head's method, without padding, in adapters, and at their limit."""

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate, load_adapter, save_adapter
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import make_method
from comodulation.tensors import read_tensors
from support.methods import CLASSES

GENERATOR = torch.Generator().manual_seed(3)
TASKS = torch.arange(12) % 3
FEATURES = torch.randn(12, 5, 2, 3, generator=GENERATOR) + TASKS[:, None, None, None]
TOKENS = torch.randn(12, 6, 5, generator=GENERATOR) + TASKS[:, None, None]
LENGTHS = torch.tensor([6, 2, 4])[torch.arange(12) // 4]


class Layers(nn.Module):
    """A head's layers as a network of its own."""

    def __init__(self, head: ComodulatedHead) -> None:
        super().__init__()
        self.head, self.encoder, self.decoder = head, nn.Identity(), nn.Identity()

    def forward(self, features):
        return self.head.read(self.decoder(self.head.decode(self.encoder(self.head.encode(features)))))


class Tokens(nn.Module):
    """The mean over tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 4)
        self.encoder, self.decoder = nn.ReLU(), nn.ReLU()

    def forward(self, x, attention_mask=None):
        h = self.decoder(self.second(self.encoder(self.first(x))))
        weights = torch.ones_like(h[..., 0]) if attention_mask is None else attention_mask.to(h)
        return self.last((h * weights[..., None]).sum(1) / weights.sum(1, keepdim=True))


def tokens(weights="each", couplings="informativeness", labels="positions", num_tasks=3):
    return comodulate(
        Tokens(), encoder="encoder", decoder="decoder", num_tasks=num_tasks, example=TOKENS, labels=labels,
        couplings=couplings, weights=weights,
    ).eval()  # fmt: skip


def observed(weights="each", labels="positions"):
    net = tokens(weights, labels=labels)
    net.observe([(TOKENS, TASKS)])
    return net


@pytest.mark.parametrize("weights", ["one", "each"])
def test_they_are_those_of_the_head(weights):
    """The method on a head, and `comodulate` around the same layers: other code, the same couplings, strengths and answers."""
    torch.manual_seed(0)
    head = ComodulatedHead(5, 7, 3, encoder_channels=8, decoder_channels=6, hidden=16, estimator="derivative").eval()
    net = comodulate(
        Layers(head), encoder="encoder", decoder="decoder", num_tasks=3, example=FEATURES, estimator="derivative",
        labels="positions", couplings="discriminability", weights=weights,
    ).eval()  # fmt: skip
    net.observe([(FEATURES[:5], TASKS[:5]), (FEATURES[5:], TASKS[5:])])
    method = make_method("positions", head, CLASSES, "open", couplings="discriminability", weights=weights).eval()
    method.observe([(method.prepare(FEATURES), TASKS)])
    assert (method.strengths > 0).any()
    torch.testing.assert_close(net.strengths, method.strengths)
    if weights == "each":
        assert (method.middles != 0).any()
        torch.testing.assert_close(net.middles, method.middles)
    for turn in range(3):
        asked = (TASKS + turn) % 3
        torch.testing.assert_close(net(FEATURES, asked), method(method.prepare(FEATURES), asked)[0])


@pytest.mark.parametrize("labels", ["positions", "both"])
@pytest.mark.parametrize("weights", ["one", "each"])
def test_padding_is_in_no_strength_and_no_answer(weights, labels):
    """Whatever stands in padded places: as if inputs of each length came without padding."""
    padded = torch.where((torch.arange(6) < LENGTHS[:, None])[..., None], TOKENS, 100 * TOKENS.roll(1, 0))
    padded = torch.cat([padded, 50 + padded[:, :2]], 1)
    mask = torch.arange(8) < LENGTHS[:, None]
    net, plain = tokens(weights, labels=labels), tokens(weights, labels=labels)
    net.observe([({"x": padded, "attention_mask": mask}, TASKS)])
    groups = [length == LENGTHS for length in (6, 4, 2)]
    plain.observe([(TOKENS[rows, : int(LENGTHS[rows][0])], TASKS[rows]) for rows in groups])
    assert (plain.strengths > 0).any()
    torch.testing.assert_close(net.strengths, plain.strengths)
    if weights == "each":
        torch.testing.assert_close(net.middles, plain.middles)
    answers = net(padded, attention_mask=mask, task_ids=TASKS)
    assert not torch.allclose(answers, net.model(padded, attention_mask=mask), atol=1e-3)
    for rows in groups:
        alone = plain(TOKENS[rows, : int(LENGTHS[rows][0])], task_ids=TASKS[rows])
        torch.testing.assert_close(answers[rows], alone, rtol=1e-4, atol=1e-5)


def test_where_no_position_is_likely_they_compete():
    """With middles far above every label, the weights are those of kind `one` at the same strengths."""
    each, one = observed("each"), observed("one")
    assert (each.strengths > 0).any()
    one.strengths.copy_(each.strengths)
    assert not torch.allclose(each(TOKENS, TASKS), one(TOKENS, TASKS), atol=1e-3)
    each.middles.copy_(torch.where(each.strengths > 0, 40 / each.strengths.clamp(min=1e-9), 0))
    torch.testing.assert_close(each(TOKENS, TASKS), one(TOKENS, TASKS), rtol=1e-4, atol=1e-5)


def test_adapters_states_and_added_tasks_have_the_middles(tmp_path):
    net = observed()
    save_adapter(net, tmp_path / "each.safetensors")
    other, third = tokens(), tokens()
    load_adapter(other, tmp_path / "each.safetensors")
    third.load_state_dict(net.state_dict())
    for copy in (other, third):
        assert torch.equal(copy.middles, net.middles)
        assert torch.equal(copy(TOKENS, TASKS), net(TOKENS, TASKS))
    more = net.joined(other)
    assert torch.equal(more.middles, torch.cat([net.middles, other.middles]))
    assert torch.equal(more(TOKENS, TASKS), net(TOKENS, TASKS))
    torch.testing.assert_close(more(TOKENS, TASKS + 3), net(TOKENS, TASKS))


def test_adapters_of_weights_that_compete_are_as_they_were(tmp_path):
    """Nothing in them tells that there is another kind: adapters written before there was load for ever. Kinds are not mixed."""
    net, each = observed("one"), observed("each")
    save_adapter(net, tmp_path / "one.safetensors")
    tensors, metadata = read_tensors(tmp_path / "one.safetensors")
    assert set(tensors) == {"controller.embedding.weight", "strengths"}
    assert "weights" not in metadata
    assert set(net.state_dict()) == set(each.state_dict()) - {"middles"}
    other = tokens("one")
    load_adapter(other, tmp_path / "one.safetensors")
    assert torch.equal(other(TOKENS, TASKS), net(TOKENS, TASKS))
    with pytest.raises(InputError, match="another weights"):
        load_adapter(each, tmp_path / "one.safetensors")
    save_adapter(each, tmp_path / "each.safetensors")
    before = net.strengths.clone()
    with pytest.raises(InputError, match=r"comodulate\(\.\.\., weights='each'\)"):
        load_adapter(net, tmp_path / "each.safetensors")
    assert torch.equal(net.strengths, before)
    with pytest.raises(InputError, match="learned with another weights"):
        net.joined(each)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"couplings": "learned"}, "need couplings in closed form.*couplings='informativeness', or weights='one'"),
        ({"labels": "channels"}, "labels='channels' give none to weigh.*'positions' or 'both'"),
        ({"weights": "eahc"}, "did you mean 'each'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError, match=message):
        tokens(**options)
