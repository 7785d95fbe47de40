"""Modulation inside any module: against the bare mathematics, and what must stay as it is."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from adapters.make import FEATURES, attached
from comodulation import InputError, comodulate, decoder_gains, load_adapter, save_adapter
from comodulation.mathematics import average_over_tasks, decoder_statistics, gains_from_statistics
from support import networks
from support.networks import couple, untouched

TASKS = torch.tensor([1, 2, 0, 1])


@pytest.fixture
def images():
    return torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def blocks():
    torch.manual_seed(0)
    return networks.settled(networks.Blocks())


def by_hand(model, x, u, gains, gain=True):
    h = model.parts(x)
    h = h * u.exp()[:, :, None, None] if gain else h
    return model.classifier((model.third(model.second(h)) * gains[:, :, None, None]).mean((2, 3)))


def between(model):
    return lambda h: model.third(model.second(h))


# The whole path, hooks and replay and all, gives what the pure functions give on the part between the layers.
@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
@pytest.mark.parametrize("link", ["exponential", "rectified"])
@pytest.mark.parametrize("gain", [True, False])
def test_equals_decoder_gains(blocks, images, estimator, link, gain):
    net = couple(
        comodulate(
            blocks, encoder="first", decoder="third", num_tasks=3, estimator=estimator, link=link, level="input",
            encoder_gain=gain, std=0.4,
        )
    )  # fmt: skip
    u = net.controller(TASKS)
    w = u.exp() if link == "rectified" else u
    h = blocks.parts(images)
    gains = decoder_gains(between(blocks), h, w, 0.4, estimator=estimator, link=link)
    torch.testing.assert_close(net(images, TASKS), by_hand(blocks, images, u, gains, gain), rtol=1e-5, atol=1e-5)


def test_after_gain(blocks, images):
    net = couple(
        comodulate(blocks, encoder="first", decoder="third", num_tasks=3, level="input", after_gain=True, std=0.4)
    )
    u = net.controller(TASKS)
    h = blocks.parts(images) * u.exp()[:, :, None, None]
    gains = decoder_gains(between(blocks), h, u, 0.4, estimator="derivative", link="exponential")
    torch.testing.assert_close(net(images, TASKS), by_hand(blocks, images, u, gains), rtol=1e-5, atol=1e-5)


# Level task: in training from the batch, afterwards from what was stored, over several batches.
def test_task_level(blocks, images):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    u = net.controller(TASKS)
    found = decoder_statistics(between(blocks), blocks.parts(images), u, 0.3, estimator="derivative")
    gains = gains_from_statistics(average_over_tasks(found, TASKS, 3), link="exponential")
    expected = by_hand(blocks, images, u, gains[TASKS])
    torch.testing.assert_close(net.train()(images, TASKS), expected, rtol=1e-5, atol=1e-5)
    net.eval().store_task_gains([(images[:1], TASKS[:1]), ((images[1:],), TASKS[1:])])
    torch.testing.assert_close(net.task_gains, gains, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(images, TASKS), expected, rtol=1e-5, atol=1e-5)


def test_stored_gains_go_when_training_goes_on(blocks, images):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    net.store_task_gains([(images, TASKS)])
    net.train()(images, TASKS)
    assert net.task_gains is None


# A task that was not among the batches keeps what it had.
def test_storing_some_tasks(blocks, images):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    net.store_task_gains([(images, torch.tensor([0, 0, 1, 1]))])
    assert bool((net.task_gains[2] == 1).all())
    before = net.task_gains.clone()
    net.store_task_gains([(images, torch.full((4,), 2))])
    assert torch.equal(net.task_gains[:2], before[:2])
    assert not bool((net.task_gains[2] == 1).all())


# Before training (u = 0) the exponential link changes no bit; disabled, nothing ever does.
def test_the_base_bit_for_bit(blocks, images):
    base = blocks(images)
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=3).eval()
    assert torch.equal(net(images, TASKS), base)
    assert torch.equal(net(images, TASKS, mode="attention"), base)
    couple(net)
    assert not torch.equal(net(images, TASKS), base)
    with net.disabled():
        assert torch.equal(net(images), base)
        assert torch.equal(net(images, TASKS), base)
        assert torch.equal(net(images, task_ids=TASKS), base)
    assert torch.equal(net(images, mode="base"), base)
    assert torch.equal(blocks(images), base)


def test_gradients_against_finite_differences(blocks, images):
    for estimator in ("derivative", "quadrature"):
        net = couple(
            comodulate(blocks.double(), encoder="first", decoder="third", num_tasks=3, estimator=estimator).double()
        )
        row = net.controller.embedding.weight
        net.train()
        loss = net(images.double(), TASKS).square().sum()
        (gradient,) = torch.autograd.grad(loss, row)
        direction = torch.randn(row.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                row.add_(step * direction)
                values.append(net(images.double(), TASKS).square().sum().item())
                row.sub_(step * direction)
        slope = (values[0] - values[1]) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5)


# Fine-tuning moves the controller and no bit of the model.
def test_training_leaves_the_model(blocks, images):
    before = copy.deepcopy(blocks.state_dict())
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=3).train()
    optimizer = torch.optim.Adam(net.learnable(), lr=0.1)
    target = torch.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(net(images, TASKS), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert {id(p) for p in net.parameters() if p.requires_grad} == {id(p) for p in net.learnable()}
    assert all(torch.equal(value, before[name]) for name, value in blocks.state_dict().items())


def test_mixed_batches_equal_separate_ones(blocks, images):
    for level in ("input", "task"):
        net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3, level=level))
        mixed = net(images, TASKS)
        single = torch.cat([net(images[row : row + 1], TASKS[row : row + 1]) for row in range(4)])
        torch.testing.assert_close(mixed, single, rtol=1e-4, atol=1e-5)


def test_all_tasks_share_the_first_part(blocks, images):
    for stored in (False, True):
        net = couple(comodulate(blocks, encoder="second", decoder="third", num_tasks=3))
        if stored:
            net.store_task_gains([(images, TASKS)])
        separate = torch.cat([net(images, torch.full((4,), task)) for task in range(3)])
        torch.testing.assert_close(net.all_tasks(images), separate, rtol=1e-4, atol=1e-5)
        some = net.all_tasks(images, tasks=torch.tensor([2, 0]))
        torch.testing.assert_close(some, torch.cat([separate[8:], separate[:4]]), rtol=1e-4, atol=1e-5)


# A mode means the same for one task and for all of them.
def test_all_tasks_in_every_mode(blocks, images):
    net = couple(comodulate(blocks, encoder="second", decoder="third", num_tasks=3))
    base = blocks(images)
    assert torch.equal(net.all_tasks(images, mode="base"), base.repeat(3, 1))
    assert torch.equal(net.all_tasks(images, tasks=torch.tensor([2, 0]), mode="base"), base.repeat(2, 1))
    with net.disabled():
        assert torch.equal(net.all_tasks(images), base.repeat(3, 1))
    separate = torch.cat([net(images, torch.full((4,), task), mode="attention") for task in range(3)])
    torch.testing.assert_close(net.all_tasks(images, mode="attention"), separate, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="did you mean 'attention'"):
        net.all_tasks(images, mode="atention")


# The part before the encoder is computed once, whatever the number of passes behind it.
def test_the_first_part_runs_once(blocks, images, monkeypatch):
    calls = []
    real = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: calls.append(self) or real(self, x))
    net = couple(
        comodulate(
            blocks, encoder="second", decoder="third", num_tasks=3, estimator="quadrature", num_nodes=4, example=images
        )
    )  # fmt: skip
    calls.clear()
    net(images, TASKS)
    assert calls.count(blocks.third.conv1) == 5  # four nodes and the answer
    assert calls.count(blocks.stem[0]) == calls.count(blocks.second.conv2) == 1
    calls.clear()
    net.all_tasks(images)
    assert calls.count(blocks.stem[0]) == calls.count(blocks.second.conv2) == 1


def test_several_encoders(blocks, images):
    layers = {"encoder": ["first", "second"], "decoder": "third", "num_tasks": 3, "level": "input"}
    net = couple(comodulate(blocks, **layers, estimator="quadrature"))
    assert net.controller(TASKS).shape == (4, 16)
    derivative = comodulate(blocks, **layers)
    derivative.controller.load_state_dict(net.controller.state_dict())
    u = net.controller(TASKS).split(8, 1)
    m = torch.zeros(4, requires_grad=True)

    def at(m):
        h = blocks.parts(images) * torch.exp(m[:, None] * u[0])[:, :, None, None]
        return blocks.third(blocks.second(h) * torch.exp(m[:, None] * u[1])[:, :, None, None]).mean((2, 3))

    value, slope = torch.func.jvp(at, (m,), (torch.ones(4),))
    gains = torch.exp((slope / value).nan_to_num(0, 0, 0).clamp(-4, 4))
    h = blocks.second(blocks.parts(images) * u[0].exp()[:, :, None, None]) * u[1].exp()[:, :, None, None]
    expected = blocks.classifier((blocks.third(h) * gains[:, :, None, None]).mean((2, 3)))
    torch.testing.assert_close(derivative.eval()(images, TASKS), expected, rtol=1e-4, atol=1e-5)
    # Quadrature goes to the derivative as sigma goes to 0.
    small = comodulate(blocks.double(), **layers, estimator="quadrature", std=1e-6).double()
    small.controller.load_state_dict(net.controller.state_dict())
    torch.testing.assert_close(small.eval()(images.double(), TASKS).float(), expected, rtol=1e-3, atol=1e-4)


# ---- nothing outlives a call --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["stem", "second", "third", "classifier"])
@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
def test_hooks_go_with_an_exception(blocks, images, where, estimator, monkeypatch):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3, estimator=estimator))
    base = blocks(images)

    def fail(*_):
        raise KeyError("no")

    monkeypatch.setattr(type(getattr(blocks, where)), "forward", fail)
    with pytest.raises(KeyError):
        net(images, TASKS)
    with pytest.raises(KeyError), net.disabled():
        net(images)
    monkeypatch.undo()
    assert untouched(blocks)
    assert torch.equal(blocks(images), base)
    assert not torch.equal(net(images, TASKS), base)  # and it is enabled again


def test_a_forward_of_ones_own_is_put_back(blocks, images):
    mine = blocks.stem.forward
    blocks.stem.forward = lambda x: mine(x)
    own = blocks.stem.forward
    couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))(images, TASKS)
    assert blocks.stem.forward is own


def test_threads_do_not_meet(blocks, images):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    expected = {task: net(images, torch.full((4,), task)) for task in range(3)}
    wrong = []

    base = blocks(images)

    def ask(task):
        for _ in range(5):
            if not torch.equal(net(images, mode="base"), base):
                wrong.append("base")
            if not torch.equal(net(images, torch.full((4,), task)), expected[task]):
                wrong.append(task)

    threads = [threading.Thread(target=ask, args=(task,)) for task in (0, 1, 2, 0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_copy_is_on_its_own(blocks, images):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    before = net(images, TASKS)
    other = copy.deepcopy(net)
    assert torch.equal(other(images, TASKS), before)
    with torch.no_grad():
        other.controller.embedding.weight.zero_()
        other.model.classifier.weight.zero_()
    assert not torch.equal(other(images, TASKS), before)
    assert torch.equal(net(images, TASKS), before)


# ---- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "frist"}, "did you mean 'first'"),
        ({"decoder": "thirdd"}, "did you mean 'third'"),
        ({"encoder": "third"}, "must be different layers"),
        ({"encoder": []}, "must be different layers"),
        ({"encoder": nn.ReLU()}, "encoder is a ReLU, expected a name"),
        ({"encoder": None}, "encoder is a NoneType, expected a name"),
        ({"encoder": ["first", "second"], "encoder_width": [8]}, "encoder_width has 1 numbers for 2 encoder layers"),
        ({"num_tasks": 0}, "positive integer"),
        ({"num_tasks": True}, "positive integer, got True"),
        ({"strength": float("nan"), "labels": "positions"}, "strength must be a finite number of at least 0, got nan"),
        ({"strength": -1, "labels": "positions"}, "strength must be"),
        ({"mask": "attention_mask"}, "unknown argument of the model for mask=; 'attention_mask'; known: "),
        ({"estimator": "derivativ"}, "did you mean 'derivative'"),
        ({"lnik": "rectified"}, "did you mean 'link'"),
        ({"unrectified": "magnitud"}, "did you mean 'magnitude'"),
        ({"beta": -1.0}, "beta must be"),
        ({"encoder_width": 9}, "expected 9 neurons"),
        ({"neurons": "position", "neuron_dim": 1}, "expected no neuron_dim, got 1"),
        ({"neurons": "position", "example": None, "encoder_width": 9}, "pass example="),
        ({"encoder": "third", "decoder": "first"}, "did not run"),
        ({"encoder": "first.relu"}, "more than once"),
        ({"decoder": "third.relu"}, "more than once"),
        ({"encoder": "first.conv1", "decoder": "third"}, "not rectified"),
        ({"decoder": "classifier"}, "not rectified"),
    ],
)
def test_refused(blocks, images, changes, message):
    arguments = {"encoder": "first", "decoder": "third", "num_tasks": 3, "example": images} | changes
    with pytest.raises(ValueError, match=message):
        comodulate(blocks, **arguments)
    assert untouched(blocks)


def test_numbers_of_numpy_are_numbers(blocks, images):
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=np.int64(3), example=images)
    assert net.adapter_identity()["num_tasks"] == 3
    assert type(net.num_tasks) is int


def test_refused_at_the_first_call(blocks, images):
    net = comodulate(blocks, encoder="third", decoder="first", num_tasks=3).eval()
    with pytest.raises(InputError, match="did not run"):
        net(images, TASKS)


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        (None, ValueError, "task_ids is missing"),
        (torch.tensor([0.0, 1, 2, 0]), ValueError, "must be an integer tensor"),
        (torch.tensor([[0, 1, 2, 0]]), ValueError, r"must have shape \(B,\)"),
        (torch.tensor([0, 1, 2]), ValueError, "3 task ids for 4 inputs"),
        (torch.tensor([0, 1, 2, 3]), IndexError, r"in \[0, 2\], got 3"),
        (torch.tensor([0, -1, 2, 0]), IndexError, "got -1"),
        ([0, 1, 2, 0], ValueError, r"must be a tensor of integers \(B,\), got \[0, 1, 2, 0\]"),
        (1, ValueError, "got 1"),
    ],
)
def test_task_ids_that_do_not_fit(blocks, images, tasks, error, message):
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=3).eval()
    with pytest.raises(error, match=message):
        net(images, task_ids=tasks)


# What comes last without a name, and is not taken for tasks, is in the message; so is what is given for tasks and is none.
def test_the_message_says_what_was_given_for_tasks(blocks, images):
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=3, example=images).eval()
    for tasks, found in ((TASKS[:, None], r"a tensor \(4, 1\) of torch.int64"), (TASKS.tolist(), r"\[1, 2, 0, 1\]")):
        with pytest.raises(ValueError, match=f"task_ids is missing.*the last argument, {found}, is none"):
            net(images, tasks)
    with pytest.raises(ValueError, match=r"got \[0, 1\]"):
        net.all_tasks(images, tasks=[0, 1])


@pytest.mark.parametrize("name", ["observe", "store_task_gains"])
def test_batches_that_are_no_pairs(blocks, images, name):
    see = getattr(comodulate(blocks, encoder="first", decoder="third", num_tasks=3), name)
    for batches, found in {
        "labels": ([(images, TASKS, TASKS)], r"a tuple of 3, expected \(inputs, task_ids\).*for inputs, task_ids, labels"),
        "one pair": ((images, TASKS), "batch 0 is a Tensor, expected.*one pair in a list"),
        "a dictionary": ([{"x": images, "task_ids": TASKS}], "batch 0 is a dict"),
        "nothing": (None, "got None"),
    }.values():  # fmt: skip
        with pytest.raises(InputError, match=found):
            see(batches)


def test_compiled_and_scripted_models_are_refused(blocks):
    with pytest.raises(InputError, match="compiled"):
        comodulate(torch.compile(blocks), encoder="first", decoder="third", num_tasks=3)
    inside = copy.deepcopy(blocks)
    inside.second.compile()
    with pytest.raises(InputError, match="its part 'second'"):
        comodulate(inside, encoder="first", decoder="third", num_tasks=3)
    with pytest.raises(InputError, match="must be a torch"):
        comodulate(lambda x: x, encoder="first", decoder="third", num_tasks=3)


def test_level_input_has_nothing_to_store(blocks, images):
    net = comodulate(blocks, encoder="first", decoder="third", num_tasks=3, level="input")
    with pytest.raises(InputError, match="no task gains"):
        net.store_task_gains([(images, TASKS)])
    with pytest.raises(InputError, match="no batches"):
        comodulate(blocks, encoder="first", decoder="third", num_tasks=3).store_task_gains([])


# ---- adapters ---------------------------------------------------------------------------------------------------------------


def test_saved_equals_loaded(blocks, images, tmp_path):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    net.store_task_gains([(images, TASKS)])
    save_adapter(net, tmp_path / "adapter.safetensors")
    other = comodulate(blocks, encoder="first", decoder="third", num_tasks=3).eval()
    metadata = load_adapter(other, tmp_path / "adapter.safetensors")
    assert torch.equal(other(images, TASKS), net(images, TASKS))
    assert metadata["encoder"] == ["first"]
    assert (tmp_path / "adapter.safetensors").stat().st_size < 4096


# Written by the release in their names, with the answers they gave then.
@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "adapters" / "networks").glob("*.safetensors")), ids=str
)
def test_adapters_of_past_releases_load(path):
    net = attached()
    load_adapter(net, path)
    expected = torch.tensor(json.loads(path.with_suffix(".json").read_text()))
    inputs = FEATURES.flatten(2).mean(2)
    torch.testing.assert_close(net.all_tasks(inputs), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(attached().all_tasks(inputs), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "second"}, "another encoder"),
        ({"num_tasks": 4}, "another num_tasks"),
        ({"beta": 0.5}, "another modulation.beta"),
        ({"model": networks.settled(networks.Blocks(), 7)}, "another model"),
    ],
)
def test_an_adapter_of_something_else(blocks, tmp_path, changes, message):
    save_adapter(comodulate(blocks, encoder="first", decoder="third", num_tasks=3), tmp_path / "a.safetensors")
    arguments = {"model": blocks, "encoder": "first", "decoder": "third", "num_tasks": 3} | changes
    other = couple(comodulate(**arguments))
    before = other.controller.embedding.weight.clone()
    with pytest.raises(InputError, match=message):
        load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(other.controller.embedding.weight, before)


LANDSCAPE, PORTRAIT = torch.rand(2, 2, 4, 8), torch.rand(2, 2, 8, 4)


def places(example):
    """A model whose every layer takes maps of any size, modulated at each position of its example's maps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    return couple(comodulate(model, encoder="1", decoder="3", num_tasks=2, example=example, neurons="position"))


# As many positions turned: couplings would be taken to other places, in silence.
@pytest.mark.parametrize("mode", ["comodulation", "attention"])
def test_maps_turned_are_maps_of_another_size(mode):
    net, tasks = places(LANDSCAPE).eval(), torch.tensor([0, 1])
    assert net(LANDSCAPE, tasks, mode=mode).shape == (2, 3)
    for stored in (False, True):
        with pytest.raises(InputError, match=r"expected 96 neurons \(3, 4, 8\).*has 96 an input \(3, 8, 4\)"):
            net(PORTRAIT, tasks, mode=mode)
        if not stored:
            net.store_task_gains([(LANDSCAPE, tasks)])
    assert net(LANDSCAPE, tasks, mode=mode).shape == (2, 3)
    assert net(LANDSCAPE[:1], tasks[:1], mode=mode).shape == (1, 3)  # any number of inputs


def test_adapters_of_maps_turned_are_refused(tmp_path):
    net = places(LANDSCAPE).eval()
    net.store_task_gains([(LANDSCAPE, torch.tensor([0, 1]))])
    save_adapter(net, tmp_path / "a.safetensors")
    other = places(LANDSCAPE).eval()
    load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(other.all_tasks(LANDSCAPE), net.all_tasks(LANDSCAPE))
    with pytest.raises(InputError, match="another sizes"):
        load_adapter(places(PORTRAIT), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="another sizes"):
        net.joined(places(PORTRAIT))
    assert "sizes" not in attached().adapter_identity()  # channels have none: adapters written before load


# New tasks are learned by themselves and joined: not a bit of the others' answers changes.
@pytest.mark.parametrize("stored", [True, False])
def test_tasks_added_later(blocks, images, stored):
    net = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=3))
    new = couple(comodulate(blocks, encoder="first", decoder="third", num_tasks=2), seed=9)
    if stored:
        net.store_task_gains([(images, TASKS)])
        new.store_task_gains([(images, torch.tensor([0, 1, 0, 1]))])
    both = net.joined(new)
    assert torch.equal(both(images, TASKS), net(images, TASKS))
    assert torch.equal(both(images, torch.tensor([3, 4, 3, 4])), new(images, torch.tensor([0, 1, 0, 1])))
    with pytest.raises(InputError, match=r"another modulation\.beta"):
        net.joined(comodulate(blocks, encoder="first", decoder="third", num_tasks=2, beta=0.5))
    mlp = comodulate(blocks, encoder="first", decoder="third", num_tasks=2, controller={"hidden": [4]})
    with pytest.raises(InputError, match="shared by all tasks"):
        net.joined(mlp)
    if stored:
        with pytest.raises(InputError, match="store them in both"):
            net.joined(comodulate(blocks, encoder="first", decoder="third", num_tasks=2))
