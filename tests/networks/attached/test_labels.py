"""Labels of positions between any two layers: pixels, tokens, moments; what may follow; couplings in closed form."""

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate, load_adapter, save_adapter
from comodulation.mathematics import (
    closed_form_couplings,
    decoder_statistics,
    population,
    position_gains,
    position_labels,
)

B = 9
TASKS = torch.arange(B) % 3


def pixels() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4),
    )  # fmt: skip


class Tokens(nn.Module):
    """The mean over tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.relu, self.last = nn.Linear(5, 6), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4)
        self.encoder, self.decoder = nn.ReLU(), nn.ReLU()

    def forward(self, x, attention_mask=None):
        h = self.decoder(self.second(self.encoder(self.first(x))))
        weights = torch.ones_like(h[..., 0]) if attention_mask is None else attention_mask.to(h)
        return self.last((h * weights[..., None]).sum(1) / weights.sum(1, keepdim=True))


class Moments(nn.Module):
    """The mean of a recurrent layer over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift, self.relu, self.lstm, self.last = nn.Linear(5, 6), nn.ReLU(), nn.LSTM(6, 7), nn.Linear(7, 4)

    def forward(self, x):
        return self.last(self.lstm(self.relu(self.lift(x)))[0].mean(0))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CASES = {
    "pixels": (pixels, randn(B, 3, 4, 5), {"encoder": "1", "decoder": "3"}),
    "tokens": (Tokens, randn(B, 6, 5), {"encoder": "encoder", "decoder": "decoder"}),
    "moments": (
        Moments, randn(6, B, 5),
        {"encoder": "relu", "decoder": "lstm", "batch_dim": 1, "estimator": "quadrature", "unrectified": "magnitude"},
    ),
}  # fmt: skip


def adapt(case, labels="positions", strength=3.0, spread=0.7, **options):
    make, x, given = CASES[case]
    net = comodulate(make(), num_tasks=3, example=x, labels=labels, strength=strength, **given, **options)
    torch.manual_seed(2)
    torch.nn.init.normal_(net.controller.embedding.weight, std=spread)
    return net.eval(), x


@pytest.mark.parametrize("labels", ["positions", "both"])
@pytest.mark.parametrize("case", CASES)
def test_untrained_it_is_the_model(case, labels):
    net, x = adapt(case, labels, spread=0)
    torch.testing.assert_close(net(x, TASKS), net.model(x), rtol=0, atol=0)
    with net.disabled():
        assert torch.equal(net(x, TASKS), net.model(x))


@pytest.mark.parametrize("labels", ["positions", "both"])
@pytest.mark.parametrize("case", CASES)
def test_batches_do_not_matter(case, labels):
    """Mixed batches are those of each task; all tasks at once are each task; answers move with couplings."""
    net, x = adapt(case, labels)
    if labels == "both":
        net.store_task_gains([(x, TASKS)])
    mixed, along = net(x, TASKS), 1 if case == "moments" else 0
    assert not torch.allclose(mixed, net.model(x), atol=1e-3)
    together = net.all_tasks(x).unflatten(0, (3, B))
    for task in range(3):
        rows = (task == TASKS).nonzero()[:, 0]
        alone = net(x.index_select(along, rows), TASKS[rows])
        torch.testing.assert_close(alone, mixed[rows], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together[task, rows], mixed[rows], rtol=1e-4, atol=1e-6)


def test_pixels_by_hand():
    """The part between the layers as a decoder, its labels by the general estimators, the rest of the model on what they pool."""
    net, x = adapt("pixels")
    model = net.model
    h, w = model[:2](x), net.controller(TASKS)
    statistics = decoder_statistics(population(model[2:4]), h, w, 0.3, estimator="derivative")
    gains = position_gains(position_labels(statistics), 3.0).view(B, 1, 4, 5)
    torch.testing.assert_close(net(x, TASKS), model[4:](model[:4](x) * gains))


def test_both_multiply():
    """Gains of channels and of positions, and those of the encoder, are those that each has alone."""
    net, x = adapt("pixels", "both")
    net.store_task_gains([(x, TASKS)])
    model = net.model
    h, w = model[:2](x), net.controller(TASKS)
    gains = position_gains(
        position_labels(decoder_statistics(population(model[2:4]), h, w, 0.3, estimator="derivative")), 3.0
    )
    decoded = (
        model[2:4](h * w.exp()[:, :, None, None]) * net.task_gains[TASKS][:, :, None, None] * gains.view(B, 1, 4, 5)
    )
    torch.testing.assert_close(net(x, TASKS), model[4:](decoded))


def test_padding_does_not_matter():
    net, x = adapt("tokens")
    mask = torch.arange(8) < torch.tensor([6] * 3 + [2] * 3 + [4] * 3)[:, None]
    longer = torch.cat([x, 100 * randn(B, 2, 5)], 1)
    padded = net(longer, attention_mask=mask, task_ids=TASKS)
    for row, length in ((0, 6), (4, 2), (8, 4)):
        alone = net(x[row, None, :length], task_ids=TASKS[row, None])
        torch.testing.assert_close(padded[row, None], alone, rtol=1e-4, atol=1e-5)


def test_couplings_learn_where_to_look():
    """Gradients reach the couplings through the labels, and the couplings alone."""
    net, x = adapt("pixels", spread=0)
    optimizer = torch.optim.Adam(net.learnable(), 0.1)
    target = torch.arange(B) % 4
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(x, TASKS), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    assert all(parameter.grad is None for parameter in net.model.parameters())


@pytest.mark.parametrize("labels", ["channels", "positions", "both"])
def test_closed_forms(labels):
    """Couplings by the public function from mean activity; a strength a task; nothing to learn; the same for the same inputs."""
    net, x = adapt("pixels", labels, couplings="informativeness")
    bright = x + TASKS[:, None, None, None] * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    net.observe([(bright[:5], TASKS[:5]), (bright[5:], TASKS[5:])])
    expected = closed_form_couplings("informativeness", net.model[:2](bright).mean((2, 3)), TASKS, 3)
    torch.testing.assert_close(net.controller.embedding.weight.detach(), expected)
    assert net.learnable() == []
    if labels != "channels":
        assert (net.strengths > 0).any()
        before = net.strengths.clone()
        net.observe([(bright, TASKS)])
        torch.testing.assert_close(net.strengths, before)
    if labels != "positions":
        net.store_task_gains([(bright, TASKS)])
    assert net(bright, TASKS).isfinite().all()


def test_adapters_and_added_tasks(tmp_path):
    net, x = adapt("pixels", couplings="informativeness")
    net.observe([(x, TASKS)])
    save_adapter(net, tmp_path / "a.safetensors")
    other, _ = adapt("pixels", couplings="informativeness")
    load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(other(x, TASKS), net(x, TASKS))
    more = net.joined(other)
    torch.testing.assert_close(more(x, TASKS + 3), net(x, TASKS))
    assert torch.equal(more(x, TASKS), net(x, TASKS))
    plain, _ = adapt("pixels", "channels")
    with pytest.raises(InputError, match="strengths"):
        load_adapter(plain, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder": "1", "encoder": "0", "unrectified": "magnitude"},
            "does not read the mean",
        ),  # a convolution and a ReLU follow
        ({"decoder": "7", "encoder": "3"}, "without positions"),
        ({"neurons": "position"}, "without positions"),
        ({"unrectified": "layer_norm"}, "layer_norm"),
        ({"labels": "places"}, "labels"),
        ({"couplings": "informative"}, "did you mean 'informativeness'"),
        ({"couplings": "discriminant", "controller": {"hidden": (4,)}}, "must be an embedding"),
    ],
)
def test_refused(change, message):
    options = {"encoder": "1", "decoder": "3", "labels": "positions"} | change
    with pytest.raises(InputError, match=message):
        comodulate(pixels(), num_tasks=3, example=CASES["pixels"][1], **options)


def test_half_precision_is_no_reason_to_refuse():
    net, x = adapt("pixels")
    exact = net(x, TASKS)
    net._pools = False
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, TASKS)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.02)


def test_refused_in_use():
    net, x = adapt("pixels")
    with pytest.raises(InputError, match="belong to an input"):
        net.store_task_gains([(x, TASKS)])
    both, _ = adapt("pixels", "both")
    both.store_task_gains([(x, TASKS)])
    with pytest.raises(InputError, match="labels='channels'"), both.under(1):
        pass
    flat = nn.Sequential(*list(pixels())[:4], nn.Flatten(), nn.Linear(100, 4))
    late = comodulate(flat, num_tasks=3, encoder="1", decoder="3", labels="positions", encoder_width=6)
    with pytest.raises(InputError, match="name the last layer before the global pooling"):
        late(x, TASKS)
