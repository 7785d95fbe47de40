"""Invariants of the head: what a task may change, and what it must not."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from comodulation import ComodulatedHead, Modulation, decoder_gains
from comodulation.networks.controller import coupling

B, K, C = 12, 4, 7


def make_head(*, strength: float = 0.5, seed: int = 0, **options) -> ComodulatedHead:
    torch.manual_seed(seed)
    sizes = {"encoder_channels": 8, "decoder_channels": 8, "hidden": 16} | {
        key: options.pop(key)
        for key in ("encoder_channels", "decoder_channels", "residual", "kernel_size")
        if key in options
    }
    head = ComodulatedHead(5, C, K, **sizes, **options).freeze().eval()
    with torch.no_grad():
        for parameter in head.controller.parameters():
            parameter.copy_(strength * torch.randn(parameter.shape))
    return head


def make_inputs(size: int = B) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 5, 2, 2, generator=generator), torch.arange(size) % K


OPTIONS = [
    {"link": link, "level": level, "estimator": estimator}
    for link, level, estimator in itertools.product(
        ("rectified", "exponential"), ("task", "input"), ("derivative", "quadrature", "monte_carlo")
    )
]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("mode", "link"), [("attention", "rectified"), ("comodulation", "exponential")])
@pytest.mark.parametrize("estimator", ["derivative", "quadrature", "monte_carlo"])
@pytest.mark.parametrize("stored", [True, False])
def test_zero_controller_is_the_base_network_bit_for_bit(residual, mode, link, estimator, stored):
    head = make_head(strength=0.0, residual=residual, link=link, estimator=estimator)
    features, tasks = make_inputs()
    if stored:
        head.store_task_gains([(head.encode(features), tasks)])
    assert torch.equal(head(features, tasks, mode), head(features, mode="base"))
    head.train()
    assert torch.equal(head(features, tasks, mode), head(features, mode="base"))


@pytest.mark.parametrize("mode", ["attention", "comodulation"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("stored", [True, False])
def test_mixed_batch_equals_task_by_task(mode, options, stored):
    """To 1e-5: the same arithmetic in matrix products of another size."""
    head = make_head(**options)
    features, tasks = make_inputs()
    if stored:
        head.store_task_gains([(head.encode(features), tasks)])
    mixed = head(features, tasks, mode)
    for task in range(K):
        rows = tasks == task
        torch.testing.assert_close(head(features[rows], tasks[rows], mode), mixed[rows], rtol=1e-5, atol=1e-5)
    order = torch.randperm(B)
    torch.testing.assert_close(head(features[order], tasks[order], mode), mixed[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("link", ["rectified", "exponential"])
@pytest.mark.parametrize("residual", [True, False])
def test_input_gains_are_those_of_the_public_function(link, residual):
    """Two routes to one number: the head's fused derivative and `decoder_gains` by forward mode."""
    head = make_head(link=link, level="input", residual=residual)
    features, tasks = make_inputs()
    activity, u = head.encode(features), head.controller(tasks)
    expected = decoder_gains(head.decode, activity, coupling(u, link), 0.3, estimator="derivative", link=link)
    torch.testing.assert_close(head.gains(activity, u, tasks), expected, rtol=1e-4, atol=1e-5)
    gained = head.read(head.decode(activity * u.exp()[:, :, None, None]) * expected[:, :, None, None])
    torch.testing.assert_close(head(features, tasks), gained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
@pytest.mark.parametrize("link", ["rectified", "exponential"])
def test_stored_gains_do_not_depend_on_the_batches_they_came_from(estimator, link):
    head = make_head(estimator=estimator, link=link)
    features, tasks = make_inputs(40)
    activity = head.encode(features)
    head.store_task_gains([(activity, tasks)])
    whole = head.task_gains
    head.store_task_gains([(activity[part], tasks[part]) for part in torch.randperm(40).split(7)])
    torch.testing.assert_close(head.task_gains, whole, rtol=1e-4, atol=1e-5)
    if head.observe([(activity, tasks)]):
        head.store_task_gains()
        torch.testing.assert_close(head.task_gains, whole, rtol=1e-4, atol=1e-5)


def test_quadrature_without_inputs_cannot_store_gains():
    head = make_head(estimator="quadrature")
    with pytest.raises(ValueError, match="no inputs"):
        head.store_task_gains()


def test_training_discards_stored_gains():
    """Gains of an older coupling must not survive into evaluation."""
    head = make_head()
    features, tasks = make_inputs()
    head.store_task_gains([(head.encode(features), tasks)])
    head.train()
    head(features, tasks)
    assert head.task_gains is None


@pytest.mark.parametrize("options", OPTIONS)
def test_only_the_controller_changes(options):
    """Fine-tuning leaves every bit of the layers; gradients are finite; the controller moves away from zero coupling."""
    head = make_head(strength=0.0, **options).train()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    features, tasks = make_inputs()
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], 0.05)
    for _ in range(3):
        loss = F.cross_entropy(head(features, tasks), torch.arange(B) % C)
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in head.controller.parameters())
        optimizer.step()
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("controller."), name


def test_frozen_head_has_no_dropout():
    head = make_head().train()
    features, tasks = make_inputs()
    assert torch.equal(head(features, tasks, "attention"), head(features, tasks, "attention"))
    torch.manual_seed(0)
    loose = ComodulatedHead(5, C, K, encoder_channels=8, decoder_channels=8)
    assert not torch.equal(loose(features, mode="base"), loose(features, mode="base"))


def test_stochastic_encoder():
    """Noise belongs to (seed, sample, task), not to the place in the batch; more samples approach one another."""
    head = make_head(encoder="stochastic", num_samples=8, std=0.5)
    features, tasks = make_inputs()
    ids = torch.arange(B) + 100
    head.store_task_gains([(head.encode(features), tasks)])
    out = head(features, tasks, sample_ids=ids)
    torch.testing.assert_close(out.exp().sum(1), torch.ones(B))  # log of a mean of probabilities
    order = torch.randperm(B, generator=torch.Generator().manual_seed(5))
    shuffled = head(features[order], tasks[order], sample_ids=ids[order])
    torch.testing.assert_close(shuffled, out[order], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(head(features, tasks, sample_ids=ids + 1), out)
    assert not torch.allclose(head(features, tasks, sample_ids=ids, step=1), out)
    with pytest.raises(ValueError, match="sample_ids"):
        head(features, tasks)
    logits = head.logits(head.encode(features), tasks, "comodulation", sample_ids=ids)
    assert logits.shape == (8, B, C)
    torch.testing.assert_close(out, logits.softmax(-1).mean(0).log(), rtol=1e-5, atol=1e-5)


def test_training_and_evaluation_may_differ_in_the_encoder():
    head = make_head(encoder="gain", training_encoder="stochastic", num_samples=4)
    features, tasks = make_inputs()
    assert head(features, tasks).shape == (B, C)
    with pytest.raises(ValueError, match="sample_ids"):
        head.train()(features, tasks)


def test_statistics_after_the_task_gain():
    """The same gains as statistics before it, of an encoder that has the gain built in; no stored response."""
    head = make_head(after_gain=True, level="input")
    features, tasks = make_inputs()
    activity, u = head.encode(features), head.controller(tasks)
    gained = activity * u.exp()[:, :, None, None]
    expected = decoder_gains(head.decode, gained, u, 0.3, estimator="derivative", link="exponential")
    torch.testing.assert_close(head.gains(activity, u, tasks), expected, rtol=1e-4, atol=1e-5)
    assert not make_head(after_gain=True).observe([(activity, tasks)])
    by_task = make_head(after_gain=True)
    by_task.store_task_gains([(activity, tasks)])
    assert not torch.allclose(by_task.task_gains[tasks], make_head(level="input").gains(activity, u, tasks))


def test_encoder_none_leaves_the_encoder_alone():
    head = make_head(encoder="none", level="input")
    features, tasks = make_inputs()
    activity, u = head.encode(features), head.controller(tasks)
    gains = head.gains(activity, u, tasks)[:, :, None, None]
    torch.testing.assert_close(head(features, tasks), head.read(head.decode(activity) * gains))


def test_pooled_features_and_one_by_one_kernels():
    head = make_head(kernel_size=1)
    features, tasks = make_inputs()
    pooled = features.mean((2, 3))
    assert torch.equal(head(pooled, tasks, "attention"), head(pooled[:, :, None, None], tasks, "attention"))


def test_standardization_is_part_of_the_head():
    head = make_head()
    features, tasks = make_inputs()
    plain = head(features, tasks, "attention")
    mean, std = torch.randn(5), torch.rand(5) + 0.5
    head.standardize(mean, std)
    scaled = features * std[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(head(scaled, tasks, "attention"), plain, rtol=1e-4, atol=1e-5)
    head.standardize(mean, torch.zeros(5))  # a constant channel
    assert torch.isfinite(head(scaled, tasks, "attention")).all()


def test_empty_batch():
    head = make_head()
    for mode in ("base", "attention", "comodulation"):
        assert head(torch.zeros(0, 5, 2, 2), torch.zeros(0, dtype=torch.int64), mode).shape == (0, C)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8])
def test_any_integer_type_of_task_ids(dtype):
    head = make_head()
    features, tasks = make_inputs()
    assert torch.equal(head(features, tasks.to(dtype)), head(features, tasks))


@pytest.mark.parametrize(
    ("tasks", "error", "words"),
    [
        (torch.full((B,), K), IndexError, rf"\[0, {K - 1}\], got {K}"),
        (torch.full((B,), -1), IndexError, rf"\[0, {K - 1}\], got -1"),
        (torch.zeros(B), ValueError, "integer tensor, got torch.float32"),
        (torch.zeros(B, dtype=torch.bool), ValueError, "integer tensor, got torch.bool"),
        (torch.zeros(B + 1, dtype=torch.int64), ValueError, rf"\({B},\).*got \({B + 1},\)"),
        (torch.zeros(B, 1, dtype=torch.int64), ValueError, rf"\({B},\).*got \({B}, 1\)"),
        ([0] * B, ValueError, "list"),
        (None, ValueError, "NoneType"),
    ],
)
@pytest.mark.parametrize("mode", ["attention", "comodulation"])
def test_bad_task_ids(tasks, error, words, mode):
    with pytest.raises(error, match=words):
        make_head()(make_inputs()[0], tasks, mode)


# What is kept from observed batches decides every later gain: a task of -1 would be counted with the last task, features
# would be taken for activity where there are as many channels, and without inputs all gains would be 1.
@pytest.mark.parametrize("name", ["observe", "store_task_gains"])
@pytest.mark.parametrize("depth", [1, 2])
def test_bad_batches(name, depth):
    head, (features, tasks) = make_head(depth=depth), make_inputs()
    see, activity = getattr(head, name), head.encode(features)
    for batches, words in (
        ([(activity, torch.where(tasks == 0, -1, tasks))], rf"in \[0, {K - 1}\], got -1"),
        ([(activity, tasks + 1)], rf"in \[0, {K - 1}\], got {K}"),
        ([(activity, tasks.float())], "integer tensor, got torch.float32"),
        ([(activity, tasks[:-1])], rf"\({B},\).*got \({B - 1},\)"),
        ([(features, tasks)], r"\(B, 8, H, W\), got \(12, 5, 2, 2\); expected head.encode"),
        ([(activity - 1, tasks)], "rectified, got values from -"),
        ([(activity.mean((2, 3)), tasks)], r"\(B, 8, H, W\), got \(12, 8\)"),
        ([(activity, tasks, tasks)], r"batch 0 is a tuple of 3, expected \(encoder activity, task_ids\)"),
        ((activity, tasks), "batch 0 is a Tensor"),
        ([], "no (inputs|batches)"),
        ([(activity[:0], tasks[:0])], "no inputs"),
    ):
        with pytest.raises((ValueError, IndexError), match=words):
            see(batches)
    see([(activity, tasks.int())])


def test_other_bad_arguments():
    head = make_head()
    features, tasks = make_inputs()
    with pytest.raises(ValueError, match="did you mean 'attention'"):
        head(features, tasks, "atention")
    with pytest.raises(ValueError, match=r"\(B, 5, H, W\).*got \(12, 4, 2, 2\)"):
        head(features[:, :4], tasks)
    for name, value in {"in_channels": 0, "num_outputs": -1, "num_tasks": 0}.items():
        with pytest.raises(ValueError, match=name):
            ComodulatedHead(**({"in_channels": 4, "num_outputs": 3, "num_tasks": 2} | {name: value}))
    with pytest.raises(ValueError, match="kernel_size"):
        ComodulatedHead(4, 3, 2, kernel_size=2)
    with pytest.raises(TypeError, match="betta"):
        ComodulatedHead(4, 3, 2, betta=1.0)
    with pytest.raises(ValueError, match="not both"):
        ComodulatedHead(4, 3, 2, modulation=Modulation(), beta=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"std": 0.0},
        {"std": float("nan")},
        {"beta": 1.5, "link": "rectified"},
        {"beta": -0.1},
        {"link": "linear"},
        {"level": "batch"},
        {"encoder": "noisy"},
        {"training_encoder": "noisy"},
        {"estimator": "exact"},
        {"normalizer": "correlation", "link": "rectified"},
        {"normalizer": "covariance"},
    ],
)
def test_bad_modulation(options):
    with pytest.raises(ValueError, match=r"\S"):
        Modulation(**options)


def test_task_vectors_express_unseen_tasks():
    vectors = torch.eye(K)
    head = make_head(controller={"task_vectors": vectors, "hidden": (6,)}, level="input")
    features, tasks = make_inputs()
    torch.testing.assert_close(head(features, vectors[tasks]), head(features, tasks), rtol=1e-5, atol=1e-5)
    assert head(features, vectors[tasks] * 0.5).shape == (B, C)
    with pytest.raises(ValueError, match="task vectors"):
        head(features, torch.zeros(B + 1, K))


# What a head keeps from a call in inference mode (a matrix of frozen layers, the response) serves the training after it.
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("depth", [1, 2])
def test_training_after_inference_mode(size, depth):
    features = torch.rand(40, 5, size, size, generator=torch.Generator().manual_seed(1))
    tasks = torch.arange(40) % K
    gradients = []
    for mode in (torch.inference_mode, torch.no_grad):
        head = make_head(depth=depth)
        with mode():
            head(features, mode="base")
            head.observe([(head.encode(features), tasks)])
        head.train()(features, tasks).square().mean().backward()
        gradients.append(head.controller.embedding.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shared", [True, False])
def test_the_response_goes_where_the_head_goes(shared):
    head, (features, tasks) = make_head(), make_inputs()
    head.observe([(head.encode(features), tasks)], shared=shared)
    moved = head.to("meta").response
    assert moved.jacobian.device.type == moved.mean.device.type == "meta"
    assert moved.jacobian.shape == (K, 8, 8)
    assert (moved.jacobian.stride(0) == 0) == shared  # one that tasks share is kept once
