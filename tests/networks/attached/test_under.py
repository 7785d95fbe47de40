"""Gains that stay in place while the model's own methods run."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate
from support.networks import couple, untouched

TASKS = torch.tensor([1, 0, 1])


class Chain(nn.Module):
    """A model with a method of its own, which runs its layers several times."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.second(self.first(x)))

    def steps(self, x, number=3):
        for _ in range(number):
            x = x + self(x)
        return x


@pytest.fixture
def net():
    net = couple(comodulate(Chain(), encoder="first", decoder="second", num_tasks=3, example=torch.ones(1, 4)))
    net.store_task_gains([(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3)])
    return net


def test_methods_of_the_model_have_the_gains(net):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    base = net.model.steps(x)
    expected = x
    for _ in range(3):
        expected = expected + net(expected, TASKS)
    with net.under(TASKS) as model:
        assert model is net.model
        torch.testing.assert_close(model.steps(x), expected)
    with net.under(1) as model:  # one task, any number of inputs
        torch.testing.assert_close(model.steps(x[:1]), expected[:1])
        torch.testing.assert_close(model.steps(x)[2], expected[2])
    assert untouched(net.model)
    assert torch.equal(net.model.steps(x), base)
    assert not torch.equal(base, expected)


def test_without_the_encoders_gain():
    net = couple(comodulate(Chain(), encoder="first", decoder="second", num_tasks=3, encoder_gain=False))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    net.store_task_gains([(x, TASKS)])
    model = net.model
    expected = model.last(model.second(model.first(x)) * net.task_gains[TASKS])
    with net.under(TASKS):
        assert torch.equal(model(x), expected)


def test_integers_of_numpy_are_tasks(net):
    x = torch.ones(2, 4)
    with net.under(1) as model:
        expected = model(x)
    with net.under(np.int64(1)) as model:
        assert torch.equal(model(x), expected)


def test_what_is_refused(net):
    x = torch.ones(2, 4)
    with net.under(0):
        for call in (
            lambda: net(x, torch.tensor([0, 1])),
            lambda: net(x, mode="base"),
            lambda: net.all_tasks(x),
            lambda: net.store_task_gains([(x, torch.tensor([0, 1]))]),
        ):
            with pytest.raises(InputError, match="call this network after the block"):
                call()
        with pytest.raises(InputError, match="applied already; leave its other"), net.under(1):
            pass
    with pytest.raises(IndexError, match=r"in \[0, 2\], got 3"), net.under(3):
        pass
    with net.under(TASKS) as model, pytest.raises(InputError, match="3 task ids for 2 inputs"):
        model(x)
    with pytest.raises(KeyError), net.under(0):
        raise KeyError
    assert untouched(net.model)
    fresh = comodulate(Chain(), encoder="first", decoder="second", num_tasks=3)
    for each in (fresh, fresh.eval(), net.train()):
        with pytest.raises(InputError, match="store_task_gains"), each.under(0):
            pass


def test_other_threads_go_on_without_these_gains(net):
    x = torch.ones(3, 4)

    def under_another():
        with net.under(0) as model:
            return model(x)

    calls = [lambda: net(x, TASKS), lambda: net.model(x), lambda: net.all_tasks(x), under_another]
    expected, found = [call() for call in calls], []
    with net.under(2) as model:
        inside = model(x)
        thread = threading.Thread(target=lambda: found.extend(call() for call in calls))
        thread.start()
        thread.join()
        assert torch.equal(model(x), inside)
    assert len(found) == len(calls)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not torch.equal(inside, expected[-1])
    assert untouched(net.model)


# Gains in place are those of the couplings in use, here as in a call.
def test_gains_in_place_follow_the_couplings(net):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        net.controller.embedding.weight.mul_(-1)
    with net.under(TASKS) as model:
        found = model(x)
    torch.testing.assert_close(found, net(x, TASKS))
    net.store_task_gains(iter([(x, TASKS)]))
    with torch.no_grad():
        net.controller.embedding.weight[1] += 1
    with pytest.raises(InputError, match="stored gains of task 1 were computed at other couplings"), net.under(1):
        pass
    assert untouched(net.model)


def test_frozen_layers_are_in_evaluation_mode(net):
    net.model.train()
    with net.under(1) as model:
        assert not any(module.training for module in model.modules())


# Stored gains from an adapter, and nothing yet has said which dimension of the activity holds the neurons.
def test_a_network_that_has_seen_no_inputs():
    def made(**options):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(1, 6, 3), nn.ReLU(), nn.Conv1d(6, 6, 3), nn.ReLU())
        return comodulate(model, encoder="1", decoder="3", num_tasks=3, encoder_width=6, **options)

    x = torch.randn(3, 1, 10, generator=torch.Generator().manual_seed(2))
    net, fresh = couple(made(example=x)), made().eval()
    net.store_task_gains([(x, TASKS)])
    fresh.load_adapter_tensors(net.adapter_tensors())
    with pytest.raises(InputError, match="dimensions of the neurons are not known yet"), fresh.under(1):
        pass
    assert torch.equal(fresh(x, TASKS), net(x, TASKS))
    expected = net(x, TASKS)
    with fresh.under(TASKS) as model:
        assert torch.equal(model(x), expected)


def test_recurrent_layers_and_encoders_with_a_fast_path():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.GRU(4, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)

        def forward(self, x):
            return self.b(self.a(x)[0])[1][-1]

    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))
    for model, names in ((Last(), ("a", "b")), (encoder, ("layers.0", "layers.2"))):
        net = couple(
            comodulate(
                model, encoder=names[0], decoder=names[1], num_tasks=3, unrectified="magnitude", estimator="quadrature", example=x
            )
        )  # fmt: skip
        net.store_task_gains([(x, TASKS)])
        with torch.no_grad():
            expected = net(x, TASKS)
            with net.under(TASKS) as own:
                torch.testing.assert_close(own(x), expected)
        assert not torch.allclose(expected, model(x), atol=1e-3)


# Token by token with a cache, as against whole sequences through the network itself.
def test_generate():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=32, n_layer=4, n_head=4, vocab_size=100, n_positions=40, bos_token_id=1, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    words = torch.randint(2, 100, (2, 5))
    net = comodulate(
        model, encoder="transformer.h.1.mlp.act", decoder="transformer.h.2.mlp.act", num_tasks=2, encoder_width=128,
        unrectified="magnitude", estimator="quadrature", example={"input_ids": words, "use_cache": False},
    )  # fmt: skip
    couple(net, 2.0)
    net.store_task_gains([({"input_ids": words, "use_cache": False}, torch.tensor([0, 1]))])
    plain = model.generate(words, max_new_tokens=6, do_sample=False, pad_token_id=0)
    answers = []
    for task in range(2):
        expected = words
        for _ in range(6):
            logits = net(input_ids=expected, use_cache=False, task_ids=torch.full((2,), task)).logits[:, -1]
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], 1)
        with net.under(task) as own:
            found = own.generate(words, max_new_tokens=6, do_sample=False, pad_token_id=0)
            beams = own.generate(words, max_new_tokens=4, do_sample=False, num_beams=3, pad_token_id=0)
        assert torch.equal(found, expected)
        assert beams.shape == (2, 9)
        answers.append(found)
    assert not torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], plain)
    assert torch.equal(model.generate(words, max_new_tokens=6, do_sample=False, pad_token_id=0), plain)
