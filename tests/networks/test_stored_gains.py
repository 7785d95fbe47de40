"""Stored task gains are those of the couplings in use, or there is an error; whatever changed the couplings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from comodulation import ComodulatedHead, InputError, comodulate, load_adapter, save_adapter
from support import networks
from support.networks import couple

TASKS = torch.tensor([1, 2, 0, 1])
IMAGES = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def made(**options):
    torch.manual_seed(0)
    model = networks.settled(networks.Blocks())
    return couple(comodulate(model, encoder="first", decoder="third", num_tasks=3, **options))


def fresh(net):
    """What a network answers whose gains were stored just now."""
    other = copy.deepcopy(net)
    other.store_task_gains([(IMAGES, TASKS)])
    return other(IMAGES, TASKS)


CHANGES = {
    "an earlier epoch's weights": lambda net: net.controller.load_state_dict(couple(made(), seed=9).controller.state_dict()),
    "data in place": lambda net: net.controller.embedding.weight.data.mul_(-1),
    "an optimiser": lambda net: nn.init.normal_(net.controller.embedding.weight, generator=torch.Generator().manual_seed(4)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_gains_follow_the_couplings(change):
    net = made()
    net.store_task_gains([(IMAGES, TASKS)])
    CHANGES[change](net)
    torch.testing.assert_close(net(IMAGES, TASKS), fresh(net))
    # What cannot be read again is refused, and what is saved says nothing else.
    net.store_task_gains(iter([(IMAGES, TASKS)]))
    before = net(IMAGES, TASKS)
    with torch.no_grad():
        net.controller.embedding.weight[2] += 1
    for use in (lambda: net(IMAGES, TASKS), net.state_dict, net.adapter_tensors):
        with pytest.raises(InputError, match="stored gains of task 2 were computed at other couplings"):
            use()
    torch.testing.assert_close(net(IMAGES[:1], TASKS[:1]), before[:1])  # task 1 is what it was
    net.train()
    assert "task_gains" not in net.state_dict()


# Tasks that are not among new batches must not keep gains of couplings that are gone.
def test_storing_some_tasks_again():
    net = made()
    net.store_task_gains([(IMAGES, TASKS)])
    with torch.no_grad():
        net.controller.embedding.weight.mul_(-1)
    net.store_task_gains([(IMAGES, torch.zeros(4, dtype=torch.int64))])
    net(IMAGES, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match="stored gains of task 1"):
        net(IMAGES, TASKS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_no_other_couplings(dtype):
    net = made()
    net.store_task_gains(iter([(IMAGES, TASKS)]))
    net.to(dtype)(IMAGES.to(dtype), TASKS)
    net.float()(IMAGES, TASKS)


# Gains have the precision of their statistics, which need not be the controller's.
@pytest.mark.parametrize("model_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("whole_dtype", [None, torch.float64, torch.bfloat16])
def test_gains_of_every_precision_load(model_dtype, whole_dtype, tmp_path):
    dtype = whole_dtype or model_dtype

    def network():
        torch.manual_seed(0)
        model = networks.settled(networks.Blocks()).to(model_dtype)
        net = couple(comodulate(model, encoder="first", decoder="third", num_tasks=3))
        return net if whole_dtype is None else net.to(whole_dtype)

    net, images = network(), IMAGES.to(dtype)
    net.store_task_gains([(images, TASKS)])
    answer = net(images, TASKS)
    save_adapter(net, tmp_path / "a.safetensors")
    loaded, stated = network(), network()
    load_adapter(loaded, tmp_path / "a.safetensors")
    stated.load_state_dict(net.state_dict())
    for other in (loaded, stated):
        assert other.task_gains.dtype == net.task_gains.dtype
        assert torch.equal(other(images, TASKS), answer)
    both = comodulate(net.model, encoder="first", decoder="third", num_tasks=3)
    both = couple(both if whole_dtype is None else both.to(whole_dtype))
    load_adapter(both, tmp_path / "a.safetensors")
    assert torch.equal(net.joined(both)(images, TASKS), answer)


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_head_of_every_precision(dtype, observed, tmp_path):
    def made_head():
        torch.manual_seed(0)
        head = ComodulatedHead(3, 5, 3, encoder_channels=8, decoder_channels=8, hidden=8).freeze()
        return couple(head).to(dtype)

    head, features = made_head(), IMAGES.to(dtype)
    batches = [(head.encode(features), TASKS)]
    if observed:
        head.observe(batches)
        head.train()(features, TASKS).sum().backward()
        head.eval()
    head.store_task_gains(batches)
    save_adapter(head, tmp_path / "a.safetensors")
    loaded = made_head()
    load_adapter(loaded, tmp_path / "a.safetensors")
    assert torch.equal(loaded(features, TASKS), head(features, TASKS))
    assert head(features, TASKS).dtype == dtype


def test_states_with_and_without_gains():
    stored, plain = made(), couple(made(), seed=9)
    stored.store_task_gains([(IMAGES, TASKS)])
    answer, state = stored(IMAGES, TASKS), copy.deepcopy(stored.state_dict())
    base, without = plain(IMAGES, TASKS), copy.deepcopy(plain.state_dict())
    plain.load_state_dict(state)
    assert torch.equal(plain(IMAGES, TASKS), answer)
    stored.load_state_dict(without)
    assert stored.task_gains is None
    assert torch.equal(stored(IMAGES, TASKS), base)
    holder = nn.ModuleDict({"net": plain})
    holder.load_state_dict({f"net.{name}": value for name, value in state.items()})
    assert torch.equal(plain(IMAGES, TASKS), answer)
    with pytest.raises(RuntimeError, match="size mismatch for task_gains"):
        plain.load_state_dict({**state, "task_gains": torch.ones(2, 8)})


@pytest.mark.parametrize("observed", [True, False])
def test_the_head(observed):
    torch.manual_seed(0)
    head = ComodulatedHead(3, 5, 3, encoder_channels=8, decoder_channels=8, hidden=8).eval()
    head.freeze()
    couple(head)
    batches = [(head.encode(IMAGES).detach(), TASKS)]
    if observed:
        head.observe(batches)
    head.store_task_gains([] if observed else batches)
    first = copy.deepcopy(head.state_dict())
    answer = head(IMAGES, TASKS)
    with torch.no_grad():
        head.controller.embedding.weight.mul_(-1)
    changed = head(IMAGES, TASKS)
    head.store_task_gains(batches)
    torch.testing.assert_close(changed, head(IMAGES, TASKS))
    other = ComodulatedHead(3, 5, 3, encoder_channels=8, decoder_channels=8, hidden=8).eval()
    other.load_state_dict(first)
    assert torch.equal(other(IMAGES, TASKS), answer)
