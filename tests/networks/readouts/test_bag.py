"""A bag is so many plain networks."""

import pytest
import torch
from torch import nn

from comodulation.networks.readouts import Bag
from comodulation.networks.readouts.bag import dropped


def drawn(members=3, width=6, hidden=5, outputs=4):
    bag = Bag(members, width, hidden, outputs)
    with torch.no_grad():
        for parameter in bag.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(len(parameter.shape) + parameter.numel()))
    return bag


def plain(bag, member):
    """One of its networks, of torch's own layers."""
    first, second = nn.Linear(*bag.first.shape[1:]), nn.Linear(*bag.second.shape[1:])
    with torch.no_grad():
        first.weight.copy_(bag.first[member].T)
        first.bias.copy_(bag.first_bias[member, 0])
        second.weight.copy_(bag.second[member].T)
        second.bias.copy_(bag.bias[member, 0])
    return nn.Sequential(first, nn.ReLU(), second)


@pytest.mark.parametrize("own", [False, True])
def test_a_bag_is_so_many_networks(own):
    """On the same rows, or each network on its own; values and gradients."""
    bag, rows = drawn(), torch.randn(*([3] if own else []), 7, 6, generator=torch.Generator().manual_seed(1))
    logits = bag(rows)
    logits.square().sum().backward()
    for member in range(3):
        network = plain(bag, member)
        expected = network(rows[member] if own else rows)
        torch.testing.assert_close(logits[member], expected)
        expected.square().sum().backward()
        torch.testing.assert_close(bag.first.grad[member], network[0].weight.grad.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(bag.bias.grad[member, 0], network[2].bias.grad, rtol=1e-4, atol=1e-4)


def test_what_is_left_out_is_random_and_the_mean_stays():
    values = torch.ones(200, 200)
    left = dropped(values, 0.3, torch.Generator().manual_seed(0))
    assert left.unique().tolist() == pytest.approx([0, 1 / (1 - 77 / 256)])  # in steps of 1/256
    assert float(left.mean()) == pytest.approx(1, abs=0.02)
    assert dropped(values, 0.0, None) is values
    bag, rows = drawn(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    logits = [bag(rows, input_dropout=0.5, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
