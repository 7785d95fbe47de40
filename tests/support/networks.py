"""Small networks with awkward habits, for tests of what works inside any module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block with an in-place ReLU that runs twice, as torchvision's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Blocks(nn.Module):
    """Stem, three blocks, pooling, classifier."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.first, self.second, self.third = Block(width), Block(width), Block(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.third(self.second(self.first(self.stem(x)))).mean((2, 3)))

    def parts(self, x: Tensor) -> Tensor:
        """Activity of the first block."""
        return self.first(self.stem(x))


class Tuples(nn.Module):
    """Layers that return tuples, the second reading what the first returned beside its activity."""

    class Part(nn.Module):
        def __init__(self, size: int, out: int) -> None:
            super().__init__()
            self.linear = nn.Linear(size, out)

        def forward(self, x: Tensor, extra: str) -> tuple[Tensor, str]:
            return self.linear(x).relu(), extra + "!"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.Part(4, 6), self.Part(6, 7)

    def forward(self, x: Tensor) -> dict[str, object]:
        h, note = self.first(x, "a")
        d, note = self.second(h, note)
        return {"out": d, "note": note}


class Skips(nn.Module):
    """What comes before the encoder is changed in place behind it, and joins the decoder's input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encoder, self.decoder = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.encoder_act, self.decoder_act = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        s = self.stem(x)
        h = self.encoder_act(self.encoder(s))
        s.add_(1.0)  # not idempotent: a second time would be another network
        return self.decoder_act(self.decoder(h) + s) + s


class Sequence(nn.Module):
    """Two recurrent layers, inputs in dimension 1, the last step classified."""

    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.first = nn.LSTM(3, 5, batch_first=batch_first, bidirectional=True)
        self.second = nn.LSTM(10, 6, batch_first=batch_first)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.first(x)
        d, _ = self.second(h)
        return self.classifier(d[:, -1] if self.batch_first else d[-1])


class StateSpace(nn.Module):
    """A diagonal linear state-space layer, rectified: x_t = a x_(t-1) + b u_t, y_t = relu(c x_t), tokens ``(B, L, N)``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size
        self.a, self.b, self.c = (nn.Parameter(torch.rand(size)) for _ in range(3))

    def forward(self, u: Tensor) -> Tensor:
        state, outputs = torch.zeros_like(u[:, 0]), []
        for step in u.unbind(1):
            state = self.a * state + self.b * step
            outputs.append((self.c * state).relu())
        return torch.stack(outputs, 1)


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model with random parameters and plausible normalisation statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


def couple(net, scale=0.7, seed=3):
    """Give every task a coupling of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.controller.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def untouched(model):
    """Whether nothing of a call is left on a model."""
    return all(
        not module._forward_hooks and not module._forward_pre_hooks and "forward" not in vars(module)
        for module in model.modules()
    )
