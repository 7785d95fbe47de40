"""The table of docs/choosing_layers.md: which layers of the tutorial's network to modulate between.

    python docs/figures/layer_pairs.py

A classifier of single digits, frozen, is adapted to scenes of two overlapping digits of which the task names the one to report.
For each pair of layers: accuracy on scenes of digits that were never seen, with the gains and with the couplings trained as
attention alone, and the reach, the spread of the log decoder gains per unit of spread of random couplings.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comodulation import comodulate
from comodulation.data.sets import Scenes, digit_scenes, load_digits, split_digits
from comodulation.networks.attached import Comodulated

PAIRS = (("0", "1"), ("0", "4"), ("1", "3"), ("1", "4"), ("3", "4"))
RANDOM = 0.1  # spread of the random couplings


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def pretrained(single: Scenes) -> nn.Sequential:
    """A network that names single digits."""
    model = nn.Sequential(
        conv(1, 32), conv(32, 64), nn.MaxPool2d(2), conv(64, 64), conv(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(4):
        for rows in torch.randperm(len(single.images)).split(100):
            loss = F.cross_entropy(model(single.images[rows]), single.examples.target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def fine_tune(net: Comodulated, scenes: Scenes, mode: str) -> None:
    optimizer = torch.optim.Adam(net.learnable(), lr=0.05)
    net.train()
    for _ in range(4):
        for rows in torch.randperm(len(scenes.images)).split(100):
            logits = net(scenes.images[rows], scenes.examples.task[rows], mode=mode)
            loss = F.cross_entropy(logits, scenes.examples.target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()


def store(net: Comodulated, scenes: Scenes) -> None:
    net.store_task_gains(zip(scenes.images.split(500), scenes.examples.task.split(500), strict=True))


@torch.no_grad()
def accuracy(logits: Tensor, scenes: Scenes) -> float:
    return 100 * (logits.argmax(1) == scenes.examples.target).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {pair: [] for pair in PAIRS}
    base = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        learn, test = split_digits(load_digits(), (0.7, 0.3), seed=seed)
        model = pretrained(digit_scenes(learn, 4000, seed=seed, distractor=False))
        scenes = digit_scenes(learn, 2000, seed=seed + 100, distractor=True)
        held = digit_scenes(test, 1000, seed=seed + 200, distractor=True)
        base.append(accuracy(model(held.images), held))
        for encoder, decoder in PAIRS:
            made = []
            for mode in ("comodulation", "attention"):
                net = comodulate(model, encoder=encoder, decoder=decoder, num_tasks=2, example=scenes.images[:2])
                if mode == "comodulation":
                    with torch.no_grad():
                        net.controller.embedding.weight.normal_(0, RANDOM)  # type: ignore[union-attr]
                    store(net, scenes)
                    reach = (net.task_gains.log().std() / RANDOM).item()  # type: ignore[union-attr]
                    net.controller.reset_output()
                fine_tune(net, scenes, mode)
                if mode == "comodulation":
                    store(net, scenes)
                made.append(accuracy(net(held.images, held.examples.task, mode=mode), held))
            found[encoder, decoder].append((reach, *made))
    print(f"without a task: {statistics.mean(base):.1f}%")
    print("| encoder | decoder | reach | comodulation | attention |")
    for (encoder, decoder), values in found.items():
        reach, gains, attention = (statistics.mean(column) for column in zip(*values, strict=True))
        print(f"| `{encoder}` | `{decoder}` | {reach:.2f} | {gains:.1f} | {attention:.1f} |")


if __name__ == "__main__":
    main()
