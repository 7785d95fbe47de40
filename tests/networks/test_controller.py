"""The controller: starts at exactly no modulation, can leave it, and keeps tasks apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from comodulation.errors import InputError
from comodulation.networks.controller import ACTIVATIONS, Controller, coupling

TASKS, CHANNELS, WIDTH = 5, 7, 3
VECTORS = torch.randn(TASKS, WIDTH, generator=torch.Generator().manual_seed(0))
KINDS: dict[str, dict[str, object]] = {
    "embedding": {},
    "mlp": {"hidden": (11,), "embedding_size": 6},
    "deep mlp": {"hidden": (11, 4), "activation": "gelu"},
    "linear in task vectors": {"task_vectors": VECTORS},
    "mlp of task vectors": {"task_vectors": VECTORS, "hidden": (11,), "activation": "tanh"},
}


def make(kind: str) -> Controller:
    return Controller(TASKS, CHANNELS, **KINDS[kind])  # type: ignore[arg-type]


def randomized(kind: str) -> Controller:
    """A controller away from its start, with the same values in every call."""
    controller, generator = make(kind), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return controller


@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_exactly_zero_and_can_leave_it(kind: str) -> None:
    controller = make(kind)
    tasks = torch.arange(TASKS)
    u = controller(tasks)
    assert u.shape == (TASKS, CHANNELS)
    assert (u == 0).all()
    # A step of gradient descent moves every task off zero: the zero start is no dead point.
    u.sum().backward()
    with torch.no_grad():
        for parameter in controller.parameters():
            assert parameter.grad is not None
            parameter -= parameter.grad
    assert (controller(tasks).detach().abs().amax(1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_reset_output_returns_to_exactly_zero(kind: str) -> None:
    controller = randomized(kind)
    assert (controller(torch.arange(TASKS)) != 0).all()
    controller.reset_output()
    assert (controller(torch.arange(TASKS)) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_equals_its_tasks_one_by_one(kind: str) -> None:
    controller = randomized(kind)
    tasks = torch.tensor([3, 0, 3, 4, 1, 0])
    alone = torch.cat([controller(task[None]) for task in tasks])
    # One matrix product over six rows against six over one: equal to a few units in the last place.
    torch.testing.assert_close(controller(tasks), alone, rtol=1e-5, atol=1e-5)
    assert len({tuple(row.tolist()) for row in controller(torch.arange(TASKS))}) == TASKS  # tasks differ


def test_an_embedding_learns_each_task_alone() -> None:
    controller = make("embedding")
    controller(torch.tensor([2, 2])).sum().backward()
    assert controller.embedding is not None
    gradient = controller.embedding.weight.grad
    assert gradient is not None
    assert torch.equal(gradient.any(1), torch.arange(TASKS) == 2)


def test_an_mlp_is_linear_activation_linear() -> None:
    controller = randomized("mlp of task vectors")
    assert controller.mlp is not None
    first, last = controller.mlp[0], controller.mlp[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    by_hand = torch.tanh(VECTORS @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(controller(torch.arange(TASKS)), by_hand)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_used(activation: str) -> None:
    controller = Controller(TASKS, CHANNELS, hidden=(4, 4), activation=activation)
    assert controller.mlp is not None
    assert [type(layer) for layer in controller.mlp] == [nn.Linear, ACTIVATIONS[activation]] * 2 + [nn.Linear]


@pytest.mark.parametrize("kind", ["linear in task vectors", "mlp of task vectors"])
def test_task_vectors_express_known_and_unseen_tasks(kind: str) -> None:
    controller = randomized(kind)
    by_id = controller(torch.tensor([4, 1]))
    torch.testing.assert_close(controller(VECTORS[[4, 1]]), by_id)
    between = (VECTORS[4] + VECTORS[1])[None] / 2
    u = controller(between)
    assert u.shape == (1, CHANNELS)
    if kind.startswith("linear"):
        torch.testing.assert_close(u[0], by_id.mean(0))
    else:
        assert (u - by_id).abs().amax(1).min() > 1e-3


def test_task_vectors_are_copied_stored_and_not_learned() -> None:
    vectors = VECTORS.double().clone()
    controller = Controller(TASKS, CHANNELS, task_vectors=vectors)
    vectors.zero_()
    assert torch.equal(controller.state_dict()["task_vectors"], VECTORS)
    assert "task_vectors" not in dict(controller.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_restores_u(kind: str) -> None:
    first, second = randomized(kind), make(kind)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(torch.arange(TASKS)), second(torch.arange(TASKS)))


def test_coupling_by_link() -> None:
    u = torch.tensor([[-2.0, 0.0, 1.0]])
    torch.testing.assert_close(coupling(u, "rectified"), torch.tensor([[0.1353352832, 1.0, 2.7182818285]]))
    assert coupling(u, "exponential") is u


@pytest.mark.parametrize(
    ("options", "tasks", "message"),
    [
        ({}, torch.zeros(2, 3), r"task vectors of shape \(2, 3\) given, expected none"),
        ({"hidden": (4,)}, torch.zeros(2, 3), "expected none"),
        ({"task_vectors": VECTORS}, torch.zeros(2, 4), r"shape \(2, 4\) given, expected \(B, 3\)"),
        ({"task_vectors": VECTORS}, torch.zeros(3), r"shape \(3,\) given, expected \(B, 3\)"),
    ],
)
def test_task_vectors_that_do_not_fit(options: dict[str, object], tasks: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Controller(TASKS, CHANNELS, **options)(tasks)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(TASKS,), (TASKS + 1, WIDTH), (TASKS, WIDTH, 1)])
def test_one_task_vector_per_task(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"task_vectors must be \(K, V\) with K = 5"):
        Controller(TASKS, CHANNELS, task_vectors=torch.zeros(shape))


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown activation 'rellu'; did you mean 'relu'"):
        Controller(TASKS, CHANNELS, activation="rellu")
    with pytest.raises(InputError, match="unknown link 'exponental'; did you mean 'exponential'"):
        coupling(torch.zeros(1, 1), "exponental")
