"""Gains that stay in place while the model's own methods run."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate
from networks import couple, untouched

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


def test_what_is_refused(net):
    x = torch.ones(2, 4)
    with net.under(0):
        for call in (
            lambda: net(x, torch.tensor([0, 1])),
            lambda: net(x, mode="base"),
            lambda: net.all_tasks(x),
            lambda: net.store_task_gains([(x, torch.tensor([0, 1]))]),
        ):
            with pytest.raises(InputError, match="gains in place"):
                call()
        with pytest.raises(InputError, match="gains in place"), net.under(1):
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


def test_other_threads_see_nothing_of_it(net):
    x = torch.ones(3, 4)
    expected, found = [net(x, TASKS), net.model(x)], []
    with net.under(2):
        thread = threading.Thread(target=lambda: found.extend([net(x, TASKS), net.model(x)]))
        thread.start()
        thread.join()
    assert all(torch.equal(*each) for each in zip(found, expected, strict=True))
    assert len(found) == 2


def test_gains_of_other_couplings_are_not_put_in_place(net):
    net.store_task_gains(iter([(torch.ones(3, 4), torch.arange(3))]))
    with torch.no_grad():
        net.controller.embedding.weight.add_(1.0)
    with pytest.raises(InputError, match="other couplings"), net.under(0):
        pass


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
