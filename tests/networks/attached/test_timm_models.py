"""Models of timm by name, one or two of nearly every family, between their last two stages or blocks, with random weights.

What each must do: before training the model's own answer bit for bit; gradients; answers that change with couplings, the same for
each input alone, and for all tasks at once; the base again when disabled.
"""

from __future__ import annotations

import warnings

import pytest
import torch

from comodulation import InputError, comodulate
from support.networks import couple

MODELS = {
    "swin_tiny_patch4_window7_224": ("layers.2", "layers.3", 64),
    "cait_xxs24_224": ("blocks.22", "blocks.23", 64),
    "xcit_nano_12_p16_224": ("blocks.10", "blocks.11", 64),
    "levit_128s": ("stages.1", "stages.2", 64),
    "mobilevitv2_050": ("stages.3", "stages.4", 64),
    "beit_base_patch16_224": ("blocks.10", "blocks.11", 64),
    "halonet26t": ("stages.2", "stages.3", 256),
    "test_byobnet": ("stages.2", "stages.3", 64),
    "convit_tiny": ("blocks.10", "blocks.11", 64),
    "convmixer_768_32": ("blocks.30", "blocks.31", 64),
    "test_convnext": ("stages.2", "stages.3", 64),
    "cpubone_nano": ("stages.2", "stages.3", 64),
    "csatv2": ("stages.2", "stages.3", 64),
    "darknet17": ("stages.3", "stages.4", 64),
    "davit_tiny": ("stages.2", "stages.3", 64),
    "deit_tiny_patch16_224": ("blocks.10", "blocks.11", 64),
    "densenet264d": ("features.denseblock4", "features.norm5", 64),
    "dla34": ("level4", "level5", 64),
    "dpn68": ("features.conv5_3", "features.conv5_bn_ac", 64),
    "edgenext_xx_small": ("stages.2", "stages.3", 64),
    "efficientformer_l1": ("stages.2", "stages.3", 224),
    "efficientformerv2_s0": ("stages.2", "stages.3", 64),
    "test_efficientnet": ("blocks.3", "blocks.4", 64),
    "efficientvit_b0": ("stages.2", "stages.3", 64),
    "efficientvit_m0": ("stages.1", "stages.2", 64),
    "eva02_tiny_patch14_224": ("blocks.10", "blocks.11", 64),
    "fasternet_t0": ("stages.2", "stages.3", 64),
    "fastvit_t8": ("stages.2", "stages.3", 64),
    "focalnet_tiny_lrf": ("layers.2", "layers.3", 64),
    "gcvit_tiny": ("stages.2", "stages.3", 64),
    "ghostnet_050": ("blocks.8", "blocks.9", 64),
    "hardcorenas_a": ("blocks.5", "blocks.6", 64),
    "hgnetv2_b0": ("stages.2", "stages.3", 64),
    "hrnet_w18_small": ("stage3", "stage4", 64),
    "iformer_t": ("stages.2", "stages.3", 64),
    "inception_next_atto": ("stages.2", "stages.3", 64),
    "inception_resnet_v2": ("repeat_1", "conv2d_7b", 96),
    "inception_v3": ("Mixed_6e", "Mixed_7c", 96),
    "inception_v4": ("features.20", "features.21", 96),
    "levit_384_s8": ("stages.1", "stages.2", 64),
    "lowformer_b0": ("stages.2", "stages.3", 64),
    "test_mambaout": ("stages.2", "stages.3", 64),
    "test_maxvit": ("stages.2", "stages.3", 64),
    "caformer_s18": ("stages.2", "stages.3", 64),
    "lcnet_050": ("blocks.4", "blocks.5", 64),
    "mobilenetv5_300m": ("blocks.2", "blocks.3", 64),
    "mobilevit_xxs": ("stages.3", "stages.4", 64),
    "mvitv2_tiny": ("stages.2", "stages.3", 64),
    "naflexvit_base_patch16_siglip": ("blocks.10", "blocks.11", 64),
    "nasnetalarge": ("reduction_cell_1.conv_1x1.act", "act", 64),
    "nest_tiny": ("levels.1", "levels.2", 64),
    "nextvit_small": ("stages.2", "stages.3", 64),
    "test_nfnet": ("stages.2", "stages.3", 64),
    "pit_xs_224": ("transformers.1", "transformers.2", 64),
    "pnasnet5large": ("cell_8.conv_1x1.act", "act", 64),
    "pvt_v2_b0": ("stages.2", "stages.3", 64),
    "qwen3_vit_88m": ("encoder.blocks.10", "encoder.blocks.11", 64),
    "rdnet_tiny": ("dense_stages.5", "dense_stages.6", 64),
    "regnetx_004_tv": ("s3", "s4", 64),
    "repghostnet_050": ("blocks.8", "blocks.9", 64),
    "repvit_m0_9": ("stages.2", "stages.3", 64),
    "res2net50_26w_4s": ("layer3", "layer4", 64),
    "resnest26d": ("layer3", "layer4", 64),
    "test_resnet": ("layer3", "layer4", 64),
    "resnetv2_18": ("stages.2", "stages.3", 64),
    "rexnet_100": ("features.15", "features.16", 64),
    "selecsls42": ("features.4", "features.5", 64),
    "legacy_senet154": ("layer3", "layer4", 64),
    "shvit_s1": ("stages.1", "stages.2", 64),
    "skresnet18": ("layer3", "layer4", 64),
    "starnet_s050": ("stages.2", "stages.3", 64),
    "swiftformer_xs": ("stages.2", "stages.3", 64),
    "swin_s3_tiny_224": ("layers.2", "layers.3", 64),
    "swinv2_tiny_window8_256": ("layers.2", "layers.3", 64),
    "swinv2_cr_tiny_224": ("stages.2", "stages.3", 64),
    "tiny_vit_5m_224": ("stages.2", "stages.3", 64),
    "tresnet_l": ("body.layer3", "body.layer4", 64),
    "vgg11": ("features.19", "features.20", 64),
    "test_vit": ("blocks.4", "blocks.5", 64),
    "vit_tiny_r_s16_p8_224": ("blocks.10", "blocks.11", 64),
    "test_vit_relpos": ("blocks.7", "blocks.8", 64),
    "samvit_base_patch16": ("blocks.10", "blocks.11", 64),
    "vitamin_small_224": ("blocks.12", "blocks.13", 64),
    "volo_d1_224": ("network.3", "network.4", 64),
    "ese_vovnet19b_slim": ("stages.2", "stages.3", 64),
    "legacy_xception": ("block12.rep.0", "act4", 64),
    "xception41": ("blocks.11", "blocks.12", 64),
    "xcit_nano_12_p8_224": ("blocks.10", "blocks.11", 64),
}  # name: encoder, decoder, size of the images


def habits(model):
    """Hooks of a model's modules, and the forwards that some models give their modules."""
    return [(len(module._forward_hooks), vars(module).get("forward")) for module in model.modules()]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_timm(name):
    timm = pytest.importorskip("timm")
    encoder, decoder, size = MODELS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the models themselves
        try:
            model = timm.create_model(name, pretrained=False, num_classes=5, img_size=size)
        except TypeError:  # it takes images of any size
            model = timm.create_model(name, pretrained=False, num_classes=5)
    model.eval()
    before = habits(model)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    tasks = torch.tensor([0, 1, 0])
    layers = {"encoder": encoder, "decoder": decoder, "num_tasks": 2, "example": images}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="comodulate: gains by quadrature")
        try:
            net = comodulate(model, **layers)
        except InputError:
            net = comodulate(model, **layers, unrectified="layer_norm")
    with torch.no_grad():
        base = model(images)
        assert torch.equal(net.eval()(images, tasks), base)
    couple(net, 0.3).train()(images, tasks).square().sum().backward()
    gradient = net.controller.embedding.weight.grad
    assert bool(torch.isfinite(gradient).all())
    assert bool(gradient.any())
    net.eval()
    with torch.no_grad():
        answer = net(images, tasks)
        assert not torch.equal(answer, base)
        size = float(answer.abs().max())
        alone = torch.cat([net(images[row : row + 1], tasks[row : row + 1]) for row in range(3)])
        torch.testing.assert_close(alone, answer, rtol=0, atol=1e-3 * size)
        net.store_task_gains([(images, tasks)])
        separate = torch.cat([net(images, torch.full((3,), task)) for task in range(2)])
        torch.testing.assert_close(net.all_tasks(images), separate, rtol=0, atol=1e-3 * float(separate.abs().max()))
        with net.disabled():
            assert torch.equal(net(images), base)
    assert habits(model) == before
