"""Exact gains between any two layers: the response, column by column, against statistics of whole tasks."""

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate
from comodulation.networks.controller import coupling
from comodulation.networks.stored_gains import all_couplings


def convolutions() -> nn.Module:
    """Two convolutions between encoder ``1`` and decoder ``5``, one of them smooth: slopes are linear in couplings all the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 7, 3, padding=1), nn.Softplus(), nn.Conv2d(7, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ).double()  # fmt: skip


def tokens() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3)
    ).double()


def adapted(**options):
    options = {"encoder": "1", "decoder": "5", "example": INPUTS} | options
    net = comodulate(convolutions(), num_tasks=3, **options)
    with torch.no_grad():
        net.controller.embedding.weight.copy_(0.5 * torch.randn(net.controller.embedding.weight.shape))
    return net


INPUTS = torch.randn(30, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TASKS = torch.arange(30) % 3
BATCHES = [(INPUTS[:11], TASKS[:11]), (INPUTS[11:], TASKS[11:])]


@pytest.mark.parametrize(
    "options", [{}, {"link": "rectified"}, {"encoder": ["0", "1"], "unrectified": "magnitude"}], ids=str
)
def test_exact_gains_are_those_of_whole_tasks(options):
    """In training, of any part of a batch; stored, those that are estimated from the same batches; and for other couplings, too."""
    net = adapted(**options)
    net.observe(BATCHES)
    for _ in range(2):
        net.train()
        exact = net(INPUTS, TASKS)
        torch.testing.assert_close(net(INPUTS[:2], TASKS[:2]), exact[:2])
        response, net.response = net.response, None
        torch.testing.assert_close(net(INPUTS, TASKS), exact)
        net.response = response
        net.eval()
        net.store_task_gains()
        stored = net.task_gains.clone()
        net.store_task_gains(BATCHES)
        torch.testing.assert_close(net.task_gains, stored)
        torch.nn.init.normal_(net.controller.embedding.weight, std=0.7)


def test_gradients_are_those_of_whole_tasks():
    net = adapted().train()
    gradients = []
    for observed in (False, True):
        if observed:
            net.observe(BATCHES)
        net.controller.zero_grad()
        net(INPUTS, TASKS).square().sum().backward()
        gradients.append(net.controller.embedding.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("unrectified", ["magnitude", "layer_norm"])
def test_exact_gains_of_signed_activity(unrectified):
    torch.manual_seed(1)
    x, tasks = torch.randn(12, 4, 5, dtype=torch.float64), torch.arange(12) % 3
    net = comodulate(tokens(), encoder="1", decoder="5", num_tasks=3, example=x, unrectified=unrectified)
    torch.nn.init.normal_(net.controller.embedding.weight)
    net.store_task_gains([(x, tasks)])
    estimated = net.task_gains.clone()
    net.observe([(x, tasks)])
    net.store_task_gains()
    torch.testing.assert_close(net.task_gains, estimated)


def test_stored_exact_gains_follow_the_couplings():
    """Where the couplings are changed outside training, the next call has the gains that belong to them."""
    net = adapted().eval()
    net.observe(BATCHES)
    net.store_task_gains()
    torch.nn.init.normal_(net.controller.embedding.weight)
    answer = net(INPUTS, TASKS)
    expected = net._link(net.response.statistics(coupling(all_couplings(net.controller), "exponential")))
    torch.testing.assert_close(net.task_gains, expected)
    assert torch.equal(net(INPUTS, TASKS), answer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "quadrature"}, "estimator 'derivative'"),
        ({"level": "input"}, "level='input'"),
        ({"after_gain": True}, "after_gain=True"),
        ({"labels": "positions"}, "labels='positions'"),
    ],
)
def test_gains_that_are_not_linear_in_couplings_are_refused(options, message):
    net = adapted(**options)
    with pytest.raises(InputError, match=message):
        net.observe(BATCHES)
    with pytest.raises(InputError, match="no batches"):
        net.observe([])


# Who observes in inference mode trains later, and who observes on one device may train on another.
def test_a_response_serves_training_wherever_it_was_found():
    net, other = adapted(), adapted()
    other.load_state_dict(net.state_dict())
    gradients = []
    for each, mode in ((net, torch.inference_mode), (other, torch.no_grad)):
        with mode():
            each.observe(BATCHES)
        each.train()(INPUTS, TASKS).square().mean().backward()
        gradients.append(each.controller.embedding.weight.grad)
    assert torch.equal(*gradients)
    jacobian = net.response.jacobian
    assert torch.equal(net.to("cpu").response.jacobian, jacobian)
    assert net.to("meta").response.jacobian.device.type == net.response.mean.device.type == "meta"
