"""One response for all tasks: gains from couplings alone, for tasks that are added and for tasks that are described."""

import pytest
import torch

from comodulation import ComodulatedHead, load_adapter, save_adapter
from comodulation.networks.controller import coupling
from comodulation.networks.methods import add_tasks, begin_tasks, make_method
from comodulation.tasks import TaskFamily

FAMILY = TaskFamily("classes", ("a", "b", "c"), tuple("tuvwxyz"), ((0, 1), (2, 3, 4), (5, 6)))
FEATURES = torch.randn(24, 5, 2, 2, generator=torch.Generator().manual_seed(1))
TASKS = torch.arange(24) % 3


def made(controller=None, response="shared", **options):
    torch.manual_seed(0)
    head = ComodulatedHead(
        5, 7, 3, encoder_channels=8, decoder_channels=6, hidden=16, response=response, controller=controller, **options
    )
    method = make_method("comodulation", head, FAMILY).eval()
    for parameter in head.controller.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return method


@pytest.mark.parametrize("depth", [1, 2])
def test_it_is_the_response_over_the_inputs_of_all_tasks(depth):
    """Of one task that has them all; kept once, D (E + 1) numbers whatever the number of tasks; the gains follow from couplings."""
    method, other = made(depth=depth), made(response="task", depth=depth)
    h = method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    other.head.observe([(h, torch.zeros_like(TASKS))])
    known = method.head.known_response()
    torch.testing.assert_close(known.jacobian[2], other.head.response.jacobian[0])
    assert (
        sum(value.numel() for name, value in method.head.state_dict().items() if name.startswith("response_")) == 6 * 9
    )
    before = method.head.response_jacobian.clone()
    method.observe([(3 * h, TASKS)])  # not seen again
    assert torch.equal(method.head.response_jacobian, before)
    method.settle([])
    w = coupling(method.head.controller(torch.arange(3)), "exponential")
    slope, mean = w @ other.head.response.jacobian[0].T, other.head.response.mean[0]
    expected = torch.where(mean > 0, (slope / torch.where(mean > 0, mean, 1)).clamp(-4, 4), 0).exp()
    torch.testing.assert_close(method.head.task_gains, expected)


def test_a_task_is_added_without_inputs():
    """The new task's gains are those of its couplings; the others keep their bits."""
    method = made()
    h = method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    method.settle([])
    learned = begin_tasks(method, {"d": ("t", "z")})
    torch.nn.init.normal_(learned.head.controller.embedding.weight)
    learned.settle([])
    grown = add_tasks(method, learned)
    assert torch.equal(grown(h, TASKS), method(h, TASKS))
    assert torch.equal(grown.head.task_gains[3], learned.head.task_gains[0])
    known = method.head.known_response().expand(1).statistics(learned.head.controller(torch.tensor([0])))
    torch.testing.assert_close(grown.head.task_gains[3:], method.head._link(known))
    fresh = made()
    fresh.observe([(2 * h, TASKS)])
    fresh.settle([])
    with pytest.raises(ValueError, match="another shared response"):
        add_tasks(fresh, learned)


def test_a_task_is_described_by_a_vector():
    """A known task's vector answers as its number does; an unseen one's gains do not depend on the input."""
    vectors = torch.eye(3).tolist()
    method = made(controller={"task_vectors": vectors, "hidden": (4,)})
    head, h = method.head, method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    method.settle([])
    by_vector = head.logits(h, torch.eye(3)[TASKS], "comodulation")
    torch.testing.assert_close(by_vector, head.logits(h, TASKS, "comodulation"))
    between = torch.tensor([[0.5, 0.5, 0.0]]).expand(24, 3)
    gains = head.gains(h, head.controller(between), between)
    torch.testing.assert_close(gains, gains[:1].expand_as(gains))
    by_task = made(controller={"task_vectors": vectors, "hidden": (4,)}, response="task")
    by_task.observe([(h, TASKS)])
    gains = by_task.head.gains(h, by_task.head.controller(between), between)
    assert not torch.allclose(
        gains, gains[:1].expand_as(gains)
    )  # of each input: there is no response of an unseen task


def test_adapters(tmp_path):
    """The response goes with the couplings; adapters of before say nothing of it."""
    method, other = made(), made()
    h = method.prepare(FEATURES)
    method.observe([(h, TASKS)])
    method.settle([])
    save_adapter(method, tmp_path / "a.safetensors")
    load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(other.head.response_jacobian, method.head.response_jacobian)
    assert torch.equal(other(h, TASKS), method(h, TASKS))
    head = method.head
    save_adapter(head, tmp_path / "h.safetensors")
    fresh = made().head
    load_adapter(fresh, tmp_path / "h.safetensors")
    assert torch.equal(fresh.response_mean, head.response_mean)
    assert "response" not in made(response="task").adapter_identity()["modulation"]
    with pytest.raises(ValueError, match="another modulation"):
        load_adapter(made(response="task"), tmp_path / "a.safetensors")


@pytest.mark.parametrize("options", [{"level": "input"}, {"estimator": "quadrature"}, {"after_gain": True}])
def test_refused(options):
    with pytest.raises(ValueError, match="response 'shared' needs"):
        made(**options)
    with pytest.raises(ValueError, match="did you mean 'shared'"):
        made(response="share")
