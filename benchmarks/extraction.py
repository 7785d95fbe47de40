"""Where the time of an extraction goes: its parts, the floor, and the whole against the backbone's own forward pass.

    python benchmarks/extraction.py DATA                          # EfficientNet-Lite0 and ResNet18, 128 px; one thread
    python benchmarks/extraction.py DATA --threads 2 --wall       # on a machine that does nothing else

DATA is a folder of parquet files (CIFAR-100). Parts are CPU time of one thread, the least of several runs, so that what else
the machine does counts little; with --wall it is time. The forward pass alone gets images that are decoded already, and the
best batch size and memory format of those tried.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from comodulation.data import Split, open_split
from comodulation.data.features import Backbone, BackboneSettings, large_blocks_kept
from comodulation.data.features import extraction as features

BATCHES = (8, 16, 64, 256)
NETWORKS = (("efficientnet-lite0", "pretrained"), ("resnet18", "random"))


def cpu_seconds() -> float:
    """CPU time of this process, all threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def least(call: Callable[[], Any], clock: Callable[[], float], repeats: int) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        began = clock()
        call()
        times.append(clock() - began)
    return min(times)


def machine(clock: Callable[[], float]) -> tuple[float, float]:
    """Operations a second of a matrix product, and bytes a second of copying memory (read and written)."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    source, target = torch.ones(2**26), torch.ones(2**26)
    operations = 2 * 1024**3 / least(lambda: a @ b, clock, 20)
    return operations, 2 * 4 * 2**26 / least(lambda: target.copy_(source), clock, 5)


def counts(backbone: Backbone, images: Tensor) -> tuple[float, float]:
    """Operations of an image, and bytes that its layers read and write if each reads and writes its maps once."""
    total = 0

    def count(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        nonlocal total
        maps = [value for value in (*given, result) if isinstance(value, Tensor)]
        total += sum(value.nbytes for value in maps) + len(images) * sum(p.nbytes for p in module.parameters())

    layers = [module for module in backbone.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers if not isinstance(layer, nn.Identity)]
    with FlopCounterMode(display=False) as counter:
        backbone(images)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() / len(images), total / len(images)


def folded(backbone: Backbone) -> Backbone:
    """A copy whose normalisations are part of the convolutions before them."""
    from timm.layers import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    backbone = copy.deepcopy(backbone)
    pairs: list[tuple[nn.Module, str, nn.Conv2d, str, Any]] = []
    for parent in backbone.modules():
        children = list(parent.named_children())
        for (first, a), (second, b) in itertools.pairwise(children):
            if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d):
                pairs.append((parent, first, a, second, b))
    for parent, _, convolution, second, norm in pairs:
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        act = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        setattr(parent, second, act)
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def forward_times(backbone: Backbone, images: Tensor, clock: Callable[[], float]) -> dict[tuple[str, str, int], float]:
    """Seconds an image of the forward pass by allocator, memory format and batch size."""
    model = copy.deepcopy(backbone.model).to(memory_format=torch.contiguous_format)
    times = {}

    def planes(part: Tensor) -> Any:
        scaled = (part.contiguous() - backbone.pixel_mean) / backbone.pixel_std
        return model.forward_intermediates(scaled, indices=[-1], intermediates_only=True)

    def over(allocator: str, layout: str, network: Callable[[Tensor], Any], batches: tuple[int, ...]) -> None:
        for batch in batches:
            some = images[: max(batch, 64)]
            seconds = least(lambda b=batch, i=some: [network(part) for part in i.split(b)], clock, 2)  # type: ignore[misc]
            times[allocator, layout, batch] = seconds / len(some)

    over("usual", "channels_last", backbone, BATCHES)
    with large_blocks_kept():
        over("kept", "channels_last", backbone, BATCHES)
        over("kept", "contiguous", planes, (16, 64))
        over("kept", "folded", folded(backbone), (64,))
    return times


def rows_of(split: Split, rows: int) -> Split:
    return replace(split, table=split.table.select(range(rows)))


def whole(backbone: Backbone, split: Split, clock: Callable[[], float], repeats: int) -> float:
    """Seconds an image of `extract` into an empty cache, verification at its end included."""
    split.fingerprint  # noqa: B018  # once a process, and measured apart
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            began = clock()
            features.extract(backbone, split, Path(folder))
            times.append((clock() - began) / len(split))
    return min(times)


def parts(backbone: Backbone, split: Split, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds an image of what is not the forward pass."""
    rows, size = 128, 512
    pictures = [split.image(row) for row in range(rows)]
    block = torch.randn(size, *backbone.feature_shape).half().numpy()
    identity = {"shape": [size, *backbone.feature_shape]}

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            with features.FeatureStore(Path(folder) / "store", identity, size) as store:
                store.write(int(store.claim() or 0), block, [])
                store.merge()
            features.FeatureStore(Path(folder) / "store", identity, size).refresh()

    fresh = replace(split)
    return {
        "hash of the encoded images": least(lambda: replace(fresh).fingerprint, clock, 2) / len(split),
        "read and decode": least(lambda: [split.image(row) for row in range(rows)], clock, 3) / rows,
        "resize": least(lambda: [backbone.preprocess(picture) for picture in pictures], clock, 3) / rows,
        "all of loading": least(lambda: features._load(backbone, split, range(rows), False), clock, 3) / rows,
        "write, fsync, verify": least(write, clock, 5) / size,
    }


@torch.inference_mode()
def main(data: str, rows: int, threads: int, wall: bool) -> None:
    torch.set_num_threads(threads)
    clock = time.perf_counter if wall else cpu_seconds
    print(f"{threads} threads, torch {torch.__version__}, {'time' if wall else 'CPU time'} in milliseconds an image")
    operations, memory = machine(clock)
    print(f"matrix product {operations / 1e9:.0f} GFLOP/s, memory {memory / 1e9:.1f} GB/s")
    split = rows_of(open_split(data, "train"), rows)
    for name, weights in NETWORKS:
        backbone = Backbone(BackboneSettings(name, weights, 128))
        (images,), *_ = features._load(backbone, split, range(max(BATCHES)), False)
        flops, moved = counts(backbone, images[:8])
        floors = {"operations": flops / operations, "memory": moved / memory}
        print(f"\n{name}: {flops / 1e6:.0f} MFLOP and {moved / 1e6:.1f} MB an image; floor " + ", ".join(
            f"{what} {1000 * seconds:.2f}" for what, seconds in floors.items()
        ))  # fmt: skip
        times = forward_times(backbone, images, clock)
        for (allocator, layout, batch), seconds in times.items():
            print(f"    forward, {allocator:5s} allocator, {layout:13s} batch {batch:3d}  {1000 * seconds:7.2f}")
        before, after = features.features_of(backbone, (images,)), features.features_of(
            folded(backbone), images
        )  # fmt: skip
        print(f"    folding changes {100 * (before != after).float().mean():.1f}% of the stored values")
        for what, seconds in parts(backbone, split, clock).items():
            print(f"    {what:46s} {1000 * seconds:7.3f}")
        best = min(seconds for (_, layout, _), seconds in times.items() if layout != "folded")
        complete = whole(backbone, split, clock, 2)
        print(f"    extract, {rows} images {1000 * complete:31.2f}   {complete / best:.2f} times the best forward pass")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    given = parser.parse_args()
    main(given.data, given.rows, given.threads, given.wall)
