"""The task response against other routes to the same numbers, through one decoder layer and through several."""

import pytest
import torch

from comodulation.mathematics.estimators import average_over_tasks, decoder_statistics
from comodulation.mathematics.response import ResponseByColumns, some_of_each
from comodulation.networks import ComodulatedHead
from comodulation.networks.head import RESPONSE_INPUTS


def make_head(
    residual: bool, encoder: int = 6, decoder: int = 5, kernel: int = 3, skip: float = 1.0, **options
) -> ComodulatedHead:
    torch.manual_seed(0)
    head = ComodulatedHead(
        4, 3, 3, encoder_channels=encoder, decoder_channels=decoder, residual=residual, kernel_size=kernel, hidden=8,
        decoder_skip=skip, **options,
    ).double()  # fmt: skip
    for layer in head.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    return head.freeze().eval()


def rand(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("residual", "skip"), [(True, 1.0), (True, 0.6), (False, 1.0)])
@pytest.mark.parametrize(("encoder", "decoder"), [(6, 6), (6, 5)])
@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 2)), (1, (1, 1)), (3, (4, 3)), (5, (3, 3))])
def test_response_equals_averaged_derivative(residual, skip, encoder, decoder, kernel, size):
    """J_k w_k and the mean activities are the task averages of the forward-mode derivative, for any coupling."""
    head = make_head(residual, encoder, decoder, kernel, skip)
    generator = torch.Generator().manual_seed(1)
    activity = torch.rand(17, encoder, *size, generator=generator, dtype=torch.float64)
    tasks = torch.tensor([0, 2] * 8 + [2])  # task 1 has no inputs
    assert head.observe([(activity[:5], tasks[:5]), (activity[5:], tasks[5:])])
    for scale in (1e-3, 1.0, 30.0):
        w = scale * torch.randn(3, encoder, generator=generator, dtype=torch.float64)
        ours = head.response.statistics(w)
        general = decoder_statistics(head.decode, activity, w[tasks], 0.3, estimator="derivative")
        fused = head.statistics(activity, w[tasks])
        for theirs in (average_over_tasks(general, tasks, 3), average_over_tasks(fused, tasks, 3)):
            torch.testing.assert_close(ours.slope, theirs.slope, rtol=1e-10, atol=1e-12 * scale)
            torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-10, atol=1e-12)
    assert (ours.slope[1] == 0).all()
    assert (ours.mean[1] == 0).all()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("depth", "size"), [(2, (2, 2)), (2, (4, 3)), (3, (2, 2))])
def test_response_of_several_layers(depth, size, residual, batch_norm):
    """At every depth: the task averages of the general forward-mode derivative, and of finite differences of the decoder."""
    head = make_head(residual, 6, 5, depth=depth, batch_norm=batch_norm)
    activity, tasks = rand(17, 6, *size), torch.tensor([0, 2] * 8 + [2])
    assert head.observe([(activity[:5], tasks[:5]), (activity[5:], tasks[5:])])
    w = 2 * rand(3, 6, seed=2) - 1
    ours = head.response.statistics(w)
    general = average_over_tasks(
        decoder_statistics(head.decode, activity, w[tasks], 0.3, estimator="derivative"), tasks, 3
    )
    torch.testing.assert_close(ours.slope, general.slope, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.mean, general.mean, rtol=1e-10, atol=1e-12)
    m = 1e-7
    up, down = (head.decode(activity * torch.exp(sign * m * w[tasks])[:, :, None, None]) for sign in (1, -1))
    differences = ((up - down) / (2 * m)).mean((2, 3))
    for task in (0, 2):
        torch.testing.assert_close(ours.slope[task], differences[tasks == task].mean(0), rtol=1e-5, atol=1e-6)
    assert (ours.slope[1] == 0).all()


def test_columns_of_one_layer_are_the_weight_gradient():
    """Two ways to the response of one decoder layer: a derivative for each neuron, and the convolution's weight gradient."""
    head = make_head(True)
    activity, tasks = rand(9, 6, 2, 2), torch.arange(9) % 3
    head.observe([(activity, tasks)])
    found = ResponseByColumns(3, 6)
    for rows in (slice(0, 4), slice(4, 9)):
        part = activity[rows]
        slopes = lambda w, h=part: head.statistics(h, w).slope  # noqa: E731
        found.add(slopes, head.decode(part).mean((2, 3)), tasks[rows])
    found = found.result()
    torch.testing.assert_close(found.jacobian, head.response.jacobian)
    torch.testing.assert_close(found.mean, head.response.mean)


def test_deep_gains_in_training_are_those_of_the_response():
    """Training at two decoder layers no longer depends on which inputs share a batch; and what is stored is what was trained."""
    head = make_head(True, 6, 6, depth=2)
    torch.nn.init.normal_(head.controller.embedding.weight, std=0.5)
    activity, tasks = rand(30, 6, 2, 2), torch.arange(30) % 3
    head.observe([(activity, tasks)])
    head.train()
    whole, part = head.logits(activity, tasks, "comodulation"), head.logits(activity[:2], tasks[:2], "comodulation")
    torch.testing.assert_close(part, whole[:, :2])
    head.eval()
    head.store_task_gains()
    torch.testing.assert_close(head.logits(activity, tasks, "comodulation"), whole)


def test_many_inputs_of_several_layers_are_drawn_from():
    """40 of each task, the same for an equal seed, whatever the batches; near the response of all, and not it."""
    activity, tasks = rand(900, 6, 2, 2), torch.arange(900) % 3
    found = []
    for seed, size in ((0, 900), (0, 900), (1, 900), (0, 70)):
        head = make_head(True, depth=2, seed=seed)
        head.observe(list(zip(activity.split(size), tasks.split(size), strict=True)))
        found.append(head.response.jacobian)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])
    slopes = lambda w: head.statistics(activity, w).slope  # noqa: E731
    whole = ResponseByColumns(3, 6).add(slopes, head.decode(activity).mean((2, 3)), tasks).result().jacobian
    error = (found[0] - whole).norm() / whole.norm()
    assert 0 < error < 0.2
    assert RESPONSE_INPUTS == 40


def test_some_of_each_task():
    """All of a task with few inputs, ``most`` of others, each input at most once and equally often over many draws."""
    inputs, tasks = torch.arange(23.0)[:, None], torch.tensor([2] * 3 + [0] * 20)
    for seed in range(5):
        few, own = some_of_each(zip(inputs.split(7), tasks.split(7), strict=True), 4, 5, seed)
        assert own.tolist() == [0] * 5 + [2] * 3
        assert sorted(few[5:, 0].tolist()) == [0, 1, 2]
        assert len(set(few[:5, 0].tolist())) == 5
        assert (few[:5] >= 3).all()
    counts = torch.zeros(23)
    for seed in range(400):
        few, _ = some_of_each([(inputs, tasks)], 4, 5, seed)
        counts[few[:, 0].long()] += 1
    assert (counts[3:] / 400 - 0.25).abs().max() < 0.1  # 4.6 standard errors
    with pytest.raises(ValueError, match="no batches"):
        some_of_each([], 2, 5, 0)
    with pytest.raises(ValueError, match="no batches"):
        ResponseByColumns(2, 5).result()


@pytest.mark.parametrize("residual", [True, False])
def test_tasks_that_share_their_images_share_a_response(residual):
    """Once over the images equals every task over its own copy of them."""
    head = make_head(residual)
    activity = torch.rand(9, 6, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert head.observe([(activity.repeat(3, 1, 1, 1), torch.arange(3).repeat_interleave(9))])
    apart = head.response
    assert head.observe(
        [(activity[:4], torch.zeros(4, dtype=torch.int64)), (activity[4:], torch.ones(5).long())], shared=True
    )
    torch.testing.assert_close(head.response.jacobian, apart.jacobian)
    torch.testing.assert_close(head.response.mean, apart.mean)


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_of_fewer_inputs_than_tasks(shared):
    """Gains and gradients of a few inputs are those they have in a batch with every task."""
    head = make_head(True)
    generator = torch.Generator().manual_seed(3)
    activity, tasks = torch.rand(9, 6, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2] * 3)
    head.observe([(activity, tasks)], shared=shared)
    torch.nn.init.normal_(head.controller.embedding.weight, generator=generator)
    head.train()
    few = torch.tensor([2, 0])
    weights = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    gradients = []
    for batch in (few, torch.cat([few, tasks])):
        head.controller.zero_grad()
        gains = head.gains(activity, head.controller(batch), batch)[:2]  # the activity has been observed
        (gains * weights).sum().backward()
        gradients.append((gains.detach(), head.controller.embedding.weight.grad.clone()))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert (gradients[0][1][1] == 0).all()  # the task that does not occur


def test_slopes_of_finite_differences():
    """The response predicts how mean decoder activity moves when the encoder is scaled by exp(m w), for small m."""
    head = make_head(True)
    activity = torch.rand(50, 6, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    head.observe([(activity, torch.zeros(50, dtype=torch.int64))])
    w, m = torch.randn(6, dtype=torch.float64), 1e-6
    up, down = (head.decode(activity * torch.exp(sign * m * w)[:, None, None]).mean((0, 2, 3)) for sign in (1, -1))
    predicted = head.response.statistics(w.expand(3, 6)).slope[0]
    torch.testing.assert_close(predicted, (up - down) / (2 * m), rtol=1e-4, atol=1e-5)


def test_training_with_response_equals_training_on_the_whole_task():
    """Gains in training, with a response, are those of a batch that holds all inputs of every task."""
    head = make_head(True, 6, 6).float()
    activity = torch.rand(40, 6, 2, 2, generator=torch.Generator().manual_seed(3))
    tasks = torch.arange(40) % 3
    torch.nn.init.normal_(head.controller.embedding.weight, std=0.5)
    head.train()
    from_batch = head.logits(activity, tasks, "comodulation")
    head.observe([(activity, tasks)])
    exact = head.logits(activity, tasks, "comodulation")
    torch.testing.assert_close(exact, from_batch, rtol=1e-4, atol=1e-5)
    # ... and the same for any part of the batch, which a batch estimate cannot give.
    part = head.logits(activity[:4], tasks[:4], "comodulation")
    torch.testing.assert_close(part, exact[:, :4], rtol=1e-4, atol=1e-5)


def test_not_used_where_it_does_not_hold():
    """Only level `task` with estimator `derivative` is linear in the coupling."""
    for options in ({"level": "input"}, {"estimator": "quadrature"}):
        head = ComodulatedHead(4, 3, 3, encoder_channels=6, decoder_channels=6, **options)
        assert not head.observe([(torch.rand(4, 6, 2, 2), torch.zeros(4, dtype=torch.int64))])
        assert head.response is None
