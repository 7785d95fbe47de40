"""EfficientNet-Lite0, so that a run on the package's own backbone need not load timm and its thousand models to answer one image.

Source: Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019), table 1, and the Lite
variant of the TensorFlow model garden: ReLU6 in place of swish, no squeeze-and-excitation. Names and order of the tensors are those
of timm's `tf_efficientnet_lite0`, and so are all features, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the seven stages: kernel size, stride, expansion, channels, blocks.
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
FEATURES = (0, 1, 2, 4, 6)  # the stages before each halving of the map, and the last
INPUT_SIZE = 224  # pixels a side, in training
PREPROCESSING = {
    "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
}  # fmt: skip


class _Convolution(nn.Conv2d):
    """Without bias; padded as TensorFlow pads: at stride 2 the odd pixel goes to the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            kernel, stride = self.kernel_size[0], self.stride[0]
            down, across = (max((side - 1) // stride * stride + kernel - side, 0) for side in x.shape[-2:])
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Separable(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _Convolution(inputs, inputs, kernel, stride, inputs), _norm(inputs)
        self.conv_pw, self.bn2 = _Convolution(inputs, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)), inplace=True)))


class _Inverted(nn.Module):
    """Pointwise to more channels, depthwise, pointwise back; beside it the identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv_pw, self.bn1 = _Convolution(inputs, inner, 1), _norm(inner)
        self.conv_dw, self.bn2 = _Convolution(inner, inner, kernel, stride, inner), _norm(inner)
        self.conv_pwl, self.bn3 = _Convolution(inner, outputs, 1), _norm(outputs)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        inner = F.relu6(self.bn2(self.conv_dw(inner)), inplace=True)
        out = self.bn3(self.conv_pwl(inner))
        return out + x if self.skips else out


class EfficientNet(nn.Module):
    """EfficientNet-Lite0: images ``(B, 3, S, S)``, scaled to [-1, 1], to feature maps. Made without weights, on no device."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.conv_stem, self.bn1 = _Convolution(3, 32, 3, 2), _norm(32)
            stages, inputs = [], 32
            for kernel, stride, expansion, outputs, number in STAGES:
                blocks: list[nn.Module] = []
                for place in range(number):
                    step = stride if place == 0 else 1
                    blocks.append(
                        _Separable(inputs, outputs, kernel, step)
                        if expansion == 1
                        else _Inverted(inputs, outputs, kernel, step, expansion)
                    )
                    inputs = outputs
                stages.append(nn.Sequential(*blocks))
            self.blocks = nn.Sequential(*stages)
            self.conv_head, self.bn2 = _Convolution(320, 1280, 1), _norm(1280)
            self.classifier = nn.Linear(1280, 1000)
        # For timm's functions.
        self.pretrained_cfg = {"input_size": (3, INPUT_SIZE, INPUT_SIZE), "classifier": "classifier", **PREPROCESSING}

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ImageNet's classes, ``(B, 1000)``, which features do not need."""
        last, _ = self.forward_intermediates(x, indices=[-1], intermediates_only=False)
        return self.forward_head(last)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map ``(B, 1280, s, s)`` -> what the classifier reads ``(B, 1280)``, or its logits ``(B, 1000)``."""
        x = x.mean((-2, -1))
        return x if pre_logits else self.classifier(x)

    def forward_intermediates(self, x: Tensor, *, indices: list[int], intermediates_only: bool) -> Any:
        """Feature maps by their places in ``FEATURES``, which may count from the end; as timm's method of this name.

        Returns:
            The maps; unless they are all that is asked for, the last map of all ``(B, 1280, s, s)`` and the maps.
        """
        wanted = [FEATURES[place] for place in indices]
        found = {}
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        for place, stage in enumerate(self.blocks):
            x = stage(x)
            found[place] = x
        maps = [found[place] for place in sorted(wanted)]
        return maps if intermediates_only else (F.relu6(self.bn2(self.conv_head(x))), maps)
