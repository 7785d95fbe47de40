"""Modulation inside real architectures and awkward ones: what works, what needs to be said, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comodulation import InputError, comodulate, decoder_gains
from support import networks
from support.networks import couple, untouched

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TASKS = torch.tensor([1, 0, 1])


def busy(model):
    """A model whose residual branches are not initialised to nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
    return model


def timm_model(name):
    import timm

    torch.manual_seed(0)
    return busy(timm.create_model(name, num_classes=5, pretrained=False).eval())


def vit(name="vit_tiny_patch16_224"):
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, img_size=64, depth=4, embed_dim=48, num_heads=3).eval()


def torchvision_resnet():
    import torchvision

    torch.manual_seed(0)
    return busy(torchvision.models.resnet18(num_classes=5).eval())


NETWORKS = {
    "torchvision resnet18": (torchvision_resnet, "layer3", "layer4", {}),
    "timm resnet18": (lambda: timm_model("resnet18"), "layer3", "layer4", {}),
    "inside a block": (lambda: timm_model("resnet18"), "layer4.0.act1", "layer4.1.act2", {}),
    "timm convnext": (lambda: timm_model("convnext_atto"), "stages.2", "stages.3", {"unrectified": "magnitude"}),
    "timm vit": (vit, "blocks.1", "blocks.3", {"unrectified": "magnitude"}),
}


# Base and disabled bit for bit; couplings change the answer; gains that are stored change nothing else; nothing is left behind.
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
def test_image_models(name, estimator):
    make, encoder, decoder, options = NETWORKS[name]
    model = make()
    if "vit" in name:
        for block in model.blocks:
            block.attn.fused_attn = False  # fused attention has no forward mode
    base = model(IMAGES)
    net = comodulate(
        model, encoder=encoder, decoder=decoder, num_tasks=2, estimator=estimator, example=IMAGES, **options
    )
    assert torch.equal(net(IMAGES, TASKS), base)
    couple(net, 0.3)
    changed = net(IMAGES, TASKS)
    assert changed.shape == base.shape
    assert float((changed - base).detach().abs().max()) > 1e-4
    single = torch.cat([net(IMAGES[row : row + 1], TASKS[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(changed, single, rtol=1e-3, atol=1e-4)
    net.store_task_gains([(IMAGES, TASKS)])
    together = net.all_tasks(IMAGES)
    torch.testing.assert_close(together[3:], net(IMAGES, torch.ones(3, dtype=torch.int64)), rtol=1e-3, atol=1e-4)
    with net.disabled():
        assert torch.equal(net(IMAGES), base)
    assert untouched(model)


# The derivative and small-noise quadrature are two routes to one number, in float64.
@pytest.mark.parametrize("name", ["timm resnet18", "timm convnext", "timm vit"])
def test_derivative_is_the_limit_of_quadrature(name):
    make, encoder, decoder, options = NETWORKS[name]
    model = make().double()
    for block in getattr(model, "blocks", []):
        block.attn.fused_attn = False
    answers = []
    for estimator, std in (("derivative", 0.3), ("quadrature", 1e-6)):
        net = comodulate(
            model, encoder=encoder, decoder=decoder, num_tasks=2, estimator=estimator, std=std, level="input",
            example=IMAGES.double(), **options,
        ).double()  # fmt: skip
        answers.append(couple(net, 0.3)(IMAGES.double(), TASKS))
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


def test_fused_attention_falls_back_and_says_so():
    model = vit()
    with pytest.warns(UserWarning, match="by quadrature"):
        net = comodulate(
            model, encoder="blocks.1", decoder="blocks.3", num_tasks=2, unrectified="magnitude", example=IMAGES
        )
    assert net.modulation.estimator == "quadrature"
    assert couple(net)(IMAGES, TASKS).shape == (3, 5)
    with pytest.raises(RuntimeError, match="use estimator 'quadrature'"):
        comodulate(
            model, encoder="blocks.1", decoder="blocks.3", num_tasks=2, unrectified="magnitude", estimator="derivative",
            example=IMAGES,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["timm convnext", "timm vit"])
def test_unrectified_activity_is_refused_by_default(name):
    make, encoder, decoder, _ = NETWORKS[name]
    with pytest.raises(InputError, match=r"not rectified.*unrectified='magnitude'"):
        comodulate(make(), encoder=encoder, decoder=decoder, num_tasks=2, example=IMAGES)


# What `magnitude` means: the statistics of |d|, at signed encoder activity that is scaled as it is.
def test_magnitude_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    net = couple(comodulate(model, encoder="0", decoder="1", num_tasks=2, unrectified="magnitude", level="input"))
    x = torch.randn(3, 4)
    u, h = net.controller(TASKS), model[0](x)
    d = model[1](h)
    slope = d.sign() * ((h * u) @ model[1].weight.T)
    gains = torch.exp((slope / d.abs()).clamp(-4, 4))
    torch.testing.assert_close(net(x, TASKS), model[2](model[1](h * u.exp()) * gains))


def test_a_text_encoder():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=100,
        max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    words = torch.randint(0, 100, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    batch = {"input_ids": words, "attention_mask": mask}
    base = model(**batch).last_hidden_state
    # The intermediate layer behind a GELU is nearly rectified only: `magnitude` again. The mask has a row for each input.
    with pytest.warns(UserWarning, match="by quadrature"):
        net = comodulate(
            model,
            encoder="encoder.layer.0",
            decoder="encoder.layer.2",
            num_tasks=2,
            unrectified="magnitude",
            example=batch,
        )
    assert torch.equal(net(**batch, task_ids=TASKS).last_hidden_state, base)
    couple(net)
    answer = net(**batch, task_ids=TASKS).last_hidden_state
    assert not torch.equal(answer, base)
    alone = net(input_ids=words[1:2], attention_mask=mask[1:2], task_ids=TASKS[1:2]).last_hidden_state
    torch.testing.assert_close(alone, answer[1:2], rtol=1e-3, atol=1e-4)
    net.store_task_gains([(batch, TASKS)])
    together = net.all_tasks(**batch).last_hidden_state
    torch.testing.assert_close(
        together[:3], net(**batch, task_ids=torch.zeros(3, dtype=torch.int64)).last_hidden_state, rtol=1e-3, atol=1e-4
    )
    with net.disabled():
        assert torch.equal(net(**batch).last_hidden_state, base)


@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers(batch_first):
    torch.manual_seed(0)
    model = networks.Sequence(batch_first).eval()
    x = torch.randn(3, 6, 3) if batch_first else torch.randn(6, 3, 3)
    with pytest.warns(UserWarning, match="by quadrature"):  # no forward mode
        net = comodulate(
            model, encoder="first", decoder="second", num_tasks=2, unrectified="magnitude", batch_dim=0 if batch_first else 1,
            example=x,
        )  # fmt: skip
    assert net.controller.num_channels == 10  # both directions
    assert torch.equal(net(x, TASKS), model(x))
    couple(net)
    take = (slice(2, 3),) if batch_first else (slice(None), slice(2, 3))
    torch.testing.assert_close(net(x[take], TASKS[2:]), net(x, TASKS)[2:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.all_tasks(x)[3:], net(x, torch.ones(3, dtype=torch.int64)), rtol=1e-4, atol=1e-5)


def test_a_state_space_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), networks.StateSpace(6), nn.Linear(6, 7), networks.StateSpace(7)).eval()
    x = torch.rand(3, 5, 3)
    net = couple(comodulate(model, encoder="1", decoder="3", num_tasks=2, example=x, level="input"))
    u, h = net.controller(TASKS), model[1](model[0](x))
    assert net.modulation.estimator == "derivative"
    # Tokens to maps (B, N, L), which is how decoder_gains reads them.
    gains = decoder_gains(
        lambda h: model[3](model[2](h.mT)).mT, h.mT, u, 0.3, estimator="derivative", link="exponential"
    )
    expected = model[3](model[2](h * u.exp()[:, None])) * gains[:, None]
    torch.testing.assert_close(net(x, TASKS), expected)


def test_a_plain_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
    )
    x = torch.randn(3, 4)
    net = couple(comodulate(model, encoder="1", decoder="4", num_tasks=2, example=x, level="input"))
    u, h = net.controller(TASKS), model[1](model[0](x))
    gains = decoder_gains(lambda h: model[3](h).relu(), h, u, 0.3, estimator="derivative", link="exponential")
    torch.testing.assert_close(net(x, TASKS), model[5](model[3](h * u.exp()).relu() * gains))
    assert torch.equal(net.train()(x, TASKS), net(x, TASKS))  # dropout stays off


# The number of neurons of a layer without parameters is read off an example, or has to be given.
def test_width_of_a_layer_without_parameters():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU())
    with pytest.raises(InputError, match=r"cannot tell the number of neurons of layer '1'.*example"):
        comodulate(model, encoder="1", decoder="3", num_tasks=2)
    net = comodulate(model, encoder="1", decoder="3", num_tasks=2, encoder_width=8)
    assert torch.equal(net(torch.ones(3, 4), TASKS), model(torch.ones(3, 4)))


def test_channels_last_activity_is_found_by_its_width():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 7)
            self.act1, self.act2 = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.act2(self.second(self.act1(self.first(x))))

    x = torch.randn(2, 4, 5, 3)
    model = Last()
    net = couple(
        comodulate(model, encoder="act1", decoder="act2", num_tasks=2, encoder_width=6, neuron_dim=-1, level="input")
    )
    u = net.controller(TASKS[:2])
    h = model.act1(model.first(x))
    gains = decoder_gains(
        lambda h: model.second(h.movedim(1, -1)).relu().movedim(-1, 1), h.movedim(-1, 1), u, 0.3, estimator="derivative",
        link="exponential",
    )  # fmt: skip
    expected = model.second(h * u.exp()[:, None, None]).relu() * gains[:, None, None]
    torch.testing.assert_close(net(x, TASKS[:2]), expected)


def test_tuples_keep_the_rest():
    torch.manual_seed(0)
    model = networks.Tuples().eval()
    x = torch.randn(3, 4)
    net = couple(comodulate(model, encoder="first", decoder="second", num_tasks=2, example=x))
    assert net(x, TASKS)["note"] == model(x)["note"] == "a!!"
    assert not torch.equal(net(x, TASKS)["out"], model(x)["out"])
    with pytest.raises(InputError, match="returns dict"):
        comodulate(nn.Sequential(model, nn.Identity()), encoder="0.first", decoder="0", num_tasks=2, example=x)


# An in-place change of what came before, between the layers: repeated passes must see each the first state of it.
@pytest.mark.parametrize("estimator", ["derivative", "quadrature"])
def test_in_place_changes_between_the_layers(estimator):
    torch.manual_seed(0)
    model = networks.Skips().eval()
    x = torch.randn(3, 4)
    base = model(x)
    net = comodulate(
        model,
        encoder="encoder_act",
        decoder="decoder_act",
        num_tasks=2,
        estimator=estimator,
        encoder_width=6,
        level="input",
    )
    assert torch.equal(net(x, TASKS), base)
    couple(net)
    u, s = net.controller(TASKS), model.stem(x)
    h = model.encoder(s).relu()
    gains = decoder_gains(
        lambda h: (model.decoder(h) + s.repeat(len(h) // 3, 1) + 1).relu(),
        h,
        u,
        0.3,
        estimator=estimator,
        link="exponential",
    )
    expected = (model.decoder(h * u.exp()) + s + 1).relu() * gains + s + 1
    torch.testing.assert_close(net(x, TASKS), expected)
    with torch.inference_mode():  # it has no forward mode, and does not count changes in place
        torch.testing.assert_close(net(x, TASKS), expected.detach())


# A part that the decoder shares with what comes before the encoder runs each time.
def test_a_layer_that_is_used_before_and_between():
    torch.manual_seed(0)
    shared = nn.Linear(5, 5)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), shared, nn.Linear(5, 4), nn.ReLU()).eval()
    x = torch.randn(3, 5)
    net = couple(comodulate(model, encoder="3", decoder="6", num_tasks=2, encoder_width=5, level="input"))
    u, h = net.controller(TASKS), model[:4](x)
    gains = decoder_gains(model[4:], h, u, 0.3, estimator="derivative", link="exponential")
    torch.testing.assert_close(net(x, TASKS), model[4:](h * u.exp()) * gains)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_close(dtype):
    model = timm_model("resnet18")
    net = couple(comodulate(model, encoder="layer3", decoder="layer4", num_tasks=2), 0.2)
    net.store_task_gains([(IMAGES, TASKS)])
    net.requires_grad_(False)
    full = net(IMAGES, TASKS)
    with torch.autocast("cpu", dtype):
        half = net(IMAGES, TASKS)
    assert float((half.float() - full).abs().max()) < 0.03 * float(full.abs().max())
