"""Train a small residual network on the primary half of CIFAR-100, so that backbone and head have seen the same half.

    python benchmarks/train_backbone.py --data FOLDER --backbone resnet10-cifar --out resnet10.safetensors

SGD with momentum 0.9, one-cycle learning rate, weight decay 5e-4, random crops (padding 4) and flips. Validation accuracy is that
of the primary half's own validation images. An interrupted training goes on from its last epoch. On a GPU with --device cuda.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from comodulation.data import open_split
from comodulation.data.features import SMALL_RESNETS, small_resnet
from comodulation.mathematics import derived_seed
from comodulation.runs import deal_images, make_config, read_family, read_labels
from comodulation.tensors import write_tensors
from comodulation.training import one_cycle


def load(arguments: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels ``(N, 3, 32, 32)`` uint8 and classes ``(N,)`` of the split, rows to train on, rows to validate on."""
    columns = {"group": "coarse_label", "label": "fine_label"}
    config = make_config({"data": arguments.data, **columns, "split_seed": arguments.split_seed})
    split = open_split(config.data, "train")
    family = read_family(config, split)
    labelled = read_labels(config, split, family)
    parts = deal_images(config, family, labelled.examples)
    pixels = torch.stack([torch.from_numpy(np.array(split.image(row))) for row in range(len(split))]).permute(
        0, 3, 1, 2
    )
    return pixels, torch.from_numpy(labelled.columns[1]), parts.pretraining, parts.pretraining_validation


def batch_of(pixels: Tensor, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standardised images; with a generator, randomly cropped and flipped."""
    images = pixels[rows]
    if generator is not None:
        padded = F.pad(images, (4, 4, 4, 4))
        down, right = torch.randint(9, (2, len(rows), 1), generator=generator)
        side = torch.arange(32)
        flip = torch.rand(len(rows), 1, generator=generator) < 0.5
        columns = right + torch.where(flip, 31 - side, side)
        place = torch.arange(len(rows))[:, None, None]
        images = padded[place, :, (down + side)[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return (images.float() / 255 - 0.5) / 0.25


def train(arguments: argparse.Namespace) -> None:
    pixels, classes, training, validation = load(arguments)
    torch.manual_seed(derived_seed(arguments.split_seed, "backbone"))
    model = small_resnet(arguments.backbone).to(arguments.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    state, first = Path(f"{arguments.out}.state"), 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"]
    steps = len(training) // arguments.batch_size
    for epoch in range(first, arguments.epochs):
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(derived_seed(arguments.split_seed, "backbone", epoch))
        order = training[torch.randperm(len(training), generator=generator)]
        model.train()
        for step in range(steps):
            rows = order[step * arguments.batch_size : (step + 1) * arguments.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(epoch * steps + step, arguments.epochs * steps, arguments.learning_rate, 0.2)
            images = batch_of(pixels, rows, generator).to(arguments.device, memory_format=torch.channels_last)
            with torch.autocast(arguments.device, torch.bfloat16):
                loss = F.cross_entropy(model(images).float(), classes[rows].to(arguments.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad(), torch.autocast(arguments.device, torch.bfloat16):
            found = torch.cat(
                [
                    model(batch_of(pixels, part, None).to(arguments.device)).argmax(1).cpu()
                    for part in validation.split(250)
                ]
            )
        accuracy = float((found == classes[validation]).float().mean())
        print(
            f"epoch {epoch + 1}/{arguments.epochs}: loss {loss:.3f}, validation {accuracy:.4f}, "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
        partial = state.with_suffix(".part")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, partial)
        partial.replace(state)
    write_tensors(arguments.out, model.state_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", choices=sorted(SMALL_RESNETS), default="resnet10-cifar")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--split-seed", type=int, default=0, help="draws the halves; give the same one to `reproduce`")
    parser.add_argument("--device", default="cpu")
    train(parser.parse_args())
