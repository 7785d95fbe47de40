"""Features as one vector: its blocks by another route each, what is left out, and maps that stay as they were."""

import pytest
import timm
import torch

from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.extraction import features_of
from comodulation.errors import InputError

# Fingerprints of 0.1.0, before there were vectors: caches and adapters are found by them.
KEPT = {
    (-1, 2): "993abe16b36ea64498690be78d24daa421a6a76535a09885714e83a286ebe572",
    (-2, 0): "7f3fab7c443136a308b8449e8e83733c78256a5bc5f099b0c0116f3223502fa8",
}


def vector(name="test_vit", size=64, weights="random", **options):
    return Backbone(BackboneSettings(name, weights, size, output="vector", **options))


def pixels(size=64, number=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


def blocks(backbone, images):
    """The blocks of a backbone's vectors by name, each ``(B, width)``."""
    found = backbone(images)
    assert found.shape == (len(images), sum(width for _, width in backbone.vector_blocks), 1, 1)
    assert tuple(found.shape[1:]) == backbone.feature_shape
    names, widths = zip(*backbone.vector_blocks, strict=True)
    return dict(zip(names, found[:, :, 0, 0].split(widths, 1), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_convnext",
        "test_efficientnet",
        "mobilenetv3_small_050",
        "swin_tiny_patch4_window7_224",
        pytest.param(
            "vgg11",  # 133 million random numbers
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    not hasattr(timm.models.VGG, "forward_intermediates"),
                    reason="VGG of this version of timm gives no maps",
                ),
            ],
        ),
    ],
)
def test_the_blocks_by_another_route(name):
    """timm's own forward_features, forward_head and forward_intermediates; the map as a backbone of maps gives it."""
    backbone, images = vector(name), pixels()
    found = blocks(backbone, images)
    assert list(found) == ["prelogits", "mean", "map"]
    assert backbone.pooled_width == found["prelogits"].shape[1] + found["mean"].shape[1]
    scaled = (images - backbone.pixel_mean) / backbone.pixel_std
    model = backbone.model
    expected = model.forward_head(model.forward_features(scaled), pre_logits=True)
    torch.testing.assert_close(found["prelogits"], expected, atol=1e-5, rtol=1e-4)
    whole = model.forward_intermediates(scaled, indices=[-1], intermediates_only=True)[0]
    torch.testing.assert_close(found["mean"], whole.flatten(2).mean(2), atol=1e-5, rtol=1e-4)
    maps = Backbone(BackboneSettings(name, "random", 64))
    assert torch.equal(found["map"], maps(images).flatten(1))
    if whole.shape[-1] % 2 == 0:
        mean_of_quarters = found["map"].reshape(len(images), -1, 4).mean(2)
        torch.testing.assert_close(found["mean"], mean_of_quarters, atol=1e-5, rtol=1e-4)


def test_the_packages_own_network_gives_timms_prelogits():
    """On weights of the package; and its logits still are timm's."""
    backbone, images = vector("efficientnet-lite0", 97, "pretrained"), pixels(97)
    assert backbone.vector_blocks == (("prelogits", 1280), ("mean", 320), ("map", 1280))
    assert backbone.pooled_width == 1600
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(backbone.model.state_dict())
    scaled = (images - backbone.pixel_mean) / backbone.pixel_std
    expected = theirs.forward_head(theirs.forward_features(scaled), pre_logits=True)
    torch.testing.assert_close(blocks(backbone, images)["prelogits"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(backbone.model(scaled), theirs(scaled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "options", "kept"),
    [
        ("resnet10t", 64, {}, ["mean", "map"]),  # its classifier reads the mean
        ("resnet10-cifar", 32, {}, ["mean", "map"]),
        ("resnet10t", 64, {"layer": -2}, ["prelogits", "mean", "map"]),  # but not that of another layer
        ("resnet10t", 64, {"feature_size": 1}, ["mean"]),
        ("test_resnet", 32, {}, ["mean"]),  # a map of one position
        ("test_vit", 32, {"feature_size": 1}, ["prelogits", "mean"]),
    ],
)
def test_nothing_is_there_twice(name, size, options, kept):
    backbone = vector(name, size, **options)
    assert [block for block, _ in backbone.vector_blocks] == kept
    assert list(blocks(backbone, pixels(size))) == kept


def test_models_without_prelogits(monkeypatch):
    """A head that gives nothing but logits, or none at all: the other blocks are there."""
    from timm.models.efficientnet import EfficientNet

    monkeypatch.setattr(EfficientNet, "forward_head", lambda self, x: self.classifier(self.global_pool(x)))
    assert [name for name, _ in vector("test_efficientnet").vector_blocks] == ["mean", "map"]
    monkeypatch.delattr(EfficientNet, "forward_head")
    assert [name for name, _ in vector("test_efficientnet").vector_blocks] == ["mean", "map"]


def test_one_pass():
    """The network's first layer sees each batch once."""
    backbone, calls = vector("test_efficientnet"), []
    backbone.model.conv_stem.register_forward_hook(lambda *_: calls.append(1))
    backbone(pixels())
    assert len(calls) == 1


def test_vectors_in_bfloat16():
    backbone, images = vector(), pixels()
    half, whole = features_of(backbone, (images,), "bfloat16"), features_of(backbone, (images,))
    assert half.shape == whole.shape == (3, *backbone.feature_shape)
    assert 0 < (half - whole).abs().max() < 0.1 * whole.abs().max()


def test_maps_keep_their_fingerprints():
    for (layer, side), expected in KEPT.items():
        backbone = Backbone(BackboneSettings("test_resnet", "random", 32, layer, side))
        assert backbone.fingerprint() == expected
        assert (backbone.vector_blocks, backbone.pooled_width) == ((), 0)
        assert vector("test_resnet", 32, layer=layer, feature_size=side).fingerprint() != expected


def test_outputs_that_are_refused():
    with pytest.raises(InputError, match=r"unknown output of the backbone 'vectr'; did you mean 'vector'\?"):
        BackboneSettings(output="vectr")
    with pytest.raises(InputError, match="the image size of backbone 'test_vit' is not settled"):
        Backbone(BackboneSettings("test_vit", "random", None))
