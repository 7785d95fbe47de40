"""Residual networks for 32x32 images: timm's ResNet with the stem of the CIFAR literature (3x3, stride 1, no pooling).

Source of stem and sizes: He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (CVPR 2016), section 4.2.
No weights exist for them here: they are trained on the primary task's half of the data (benchmarks/train_backbone.py).
"""

from __future__ import annotations

from typing import Any

from torch import nn

SIDE = 32  # pixels of the images
# Blocks and channels of the four stages.
SMALL_RESNETS = {
    "resnet18-cifar": ((2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet10-cifar": ((1, 1, 1, 1), (16, 32, 64, 128)),
}


def small_resnet(name: str, num_classes: int = 100) -> Any:
    """A randomly initialised network, ``(B, 3, 32, 32) -> (B, num_classes)``; last feature map ``(B, C, 4, 4)``."""
    from timm.models.resnet import BasicBlock, ResNet

    blocks, channels = SMALL_RESNETS[name]
    model = ResNet(BasicBlock, list(blocks), num_classes=num_classes, channels=channels)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    model.pretrained_cfg = {
        "input_size": (3, SIDE, SIDE), "mean": mean, "std": std, "crop_pct": 1.0, "interpolation": "bicubic",
        "classifier": "fc",
    }  # fmt: skip
    return model
