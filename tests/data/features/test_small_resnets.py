"""Residual networks for 32x32 images: sizes, stem, and their place among the backbones."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.small_resnets import SMALL_RESNETS, small_resnet
from comodulation.errors import InputError


@pytest.mark.parametrize(("name", "parameters"), [("resnet18-cifar", 11_220_132), ("resnet10-cifar", None)])
def test_sizes(name, parameters):
    """ResNet-18 with the 3x3 stem for 100 classes has 11.22 million parameters, as in the literature."""
    with torch.device("meta"):  # shapes without values: nothing is initialised or computed
        model, images = small_resnet(name).eval(), torch.zeros(2, 3, 32, 32)
    if parameters:
        assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.no_grad():
        features = model.forward_features(images)
        assert features.shape == (2, SMALL_RESNETS[name][1][-1], 4, 4)
        assert model(images).shape == (2, 100)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    with torch.device("meta"):
        assert small_resnet(name, num_classes=7).num_features == features.shape[1]


def test_an_unknown_name():
    with pytest.raises(KeyError):
        small_resnet("resnet12-cifar")
    with pytest.raises(InputError, match=r"unknown backbone 'resnet11-cifar'; did you mean 'resnet1.-cifar'"):
        Backbone(BackboneSettings("resnet11-cifar", "random", 32))


def test_there_are_no_pretrained_weights():
    with pytest.raises(InputError, match="resnet10-cifar"):
        Backbone(BackboneSettings("resnet10-cifar", "pretrained", 32))


def test_weights_of_ones_own(tmp_path):
    """A backbone from a file gives the model's last feature map on normalised images."""
    torch.manual_seed(0)
    model = small_resnet("resnet10-cifar").eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone(BackboneSettings("resnet10-cifar", str(tmp_path / "weights.safetensors"), 32, feature_size=0))
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(image).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.forward_features((images / 255 - 0.5) / 0.25)
        assert torch.allclose(backbone(images), expected, atol=1e-5)
