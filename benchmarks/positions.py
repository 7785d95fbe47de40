"""Scenes of two images of which the task names one: labels of positions from couplings in closed form, beside what learns nothing.

    python benchmarks/positions.py FEATURES --seeds 3 --keep FOLDER

FEATURES holds maps_train.npy and maps_test.npy, ``(N, C, s, s)``, and labels_train.npz and labels_test.npz, with the class (`fine`)
and the superclass (`coarse`) of every image. For each seed, a base network is pretrained on single images of one half (kept in
FOLDER); couplings come from a few single images of the other half, nothing is trained on scenes. Every answer is among the
superclass's own classes, so that all rows have the mask. Columns: accuracy and NLL on scenes of the test images.

`predicted` is (1 - e) a + e a': e is how often the whole distractor has the higher label, a and a' are the accuracy on single
images and of answers read off the distractor alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from comodulation import ComodulatedHead, TaskFamily
from comodulation.data import Partition
from comodulation.data.features import Features
from comodulation.data.sets import make_scenes
from comodulation.mathematics import (
    CLOSED_FORMS,
    DecoderStatistics,
    calibrated_strength,
    derived_seed,
    position_gains,
    position_labels,
)
from comodulation.networks.methods import make_method
from comodulation.tasks import Examples
from comodulation.training import TrainingSettings, Venue, pretrain

CHANNELS = 256  # of encoder and decoder
IMAGES = (5, 25, 200)  # of each task, that couplings come from
PARTS = (0.45, 0.05, 0.45, 0.05)  # of the training images: the base network's, its validation; the tasks' half, alike


class Data:
    """Maps and labels of one split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.features = Features(np.load(folder / f"maps_{split}.npy").astype(np.float32), (), split)
        labels = np.load(folder / f"labels_{split}.npz")
        self.label, self.group = (torch.from_numpy(labels[name]).long() for name in ("fine", "coarse"))


def family_of(data: Data) -> TaskFamily:
    groups = [sorted(set(data.label[data.group == group].tolist())) for group in range(int(data.group.max()) + 1)]
    names = [f"group {group}" for group in range(len(groups))]
    classes = [f"class {label}" for label in range(int(data.label.max()) + 1)]
    return TaskFamily("classes", tuple(names), tuple(classes), tuple(map(tuple, groups)))


def base_network(
    train: Data, family: TaskFamily, seed: int, depth: int, epochs: int, keep: Path
) -> tuple[ComodulatedHead, list[Tensor]]:
    """A network pretrained on single images, and the images that are left for the tasks: to learn from, to choose by."""
    order = torch.from_numpy(np.random.default_rng(derived_seed(seed, "halves")).permutation(len(train.label)))
    parts = order.split([round(share * len(order)) for share in PARTS])
    torch.manual_seed(derived_seed(seed, "layers"))
    sizes = {"encoder_channels": CHANNELS, "decoder_channels": CHANNELS, "depth": depth}
    head = ComodulatedHead(train.features.shape[0], family.num_outputs, family.num_tasks, seed=seed, **sizes)
    path = keep / f"base {seed} depth {depth} epochs {epochs} channels {CHANNELS}.pt"
    if path.exists():
        head.load_state_dict(torch.load(path, weights_only=True), strict=False)
    else:
        settings = TrainingSettings(epochs=epochs, learning_rate=1.5e-3, weight_decay=0.1)
        fabric = Fabric(accelerator="cpu", devices=1)
        rows = [part.sort().values for part in parts]
        pretrain(head, train.features, train.label, Partition(*rows), settings, Venue(fabric), seed=seed)
        torch.save(head.pretrained_tensors(), path)
    return head.freeze().eval(), list(parts[2:])


def some_of(images: Tensor, group: Tensor, number: int, groups: int) -> Tensor:
    """The first images of each group."""
    return torch.cat([images[group[images] == each][:number] for each in range(groups)])


class Measured:
    """Scores of answers among the task's own classes."""

    def __init__(self, family: TaskFamily, tasks: Tensor, target: Tensor) -> None:
        self.others, self.target = ~family.member_mask(tasks), target

    def scores(self, logits: Tensor) -> tuple[float, float]:
        logs = logits.masked_fill(self.others, -torch.inf).log_softmax(-1)
        hits = (logs.argmax(1) == self.target).double().mean()
        return 100 * float(hits), float(-logs.gather(1, self.target[:, None]).clamp(min=-100).mean())


@torch.no_grad()
def measure(
    head: ComodulatedHead, family: TaskFamily, train: Data, test: Data, images: Tensor, seed: int
) -> dict[str, list[float]]:
    """Rows of one seed, by name: accuracy, NLL, and for labels the error and the predicted accuracy."""
    examples = Examples(torch.arange(len(test.label)), test.group, test.label)
    scenes, (asked,) = make_scenes(test.features, [examples], 1, derived_seed(seed, "test scenes"))
    h, tasks = head.encode(scenes.rows(slice(None))), asked.task
    decoded, side = head.decode(h), h.shape[3] // 2
    on = Measured(family, tasks, asked.target)
    single = head.encode(test.features.rows(slice(None)))
    alone = Measured(family, test.group, test.label).scores(head.read(head.decode(single)))
    distractor = scenes.members[torch.arange(len(tasks)), (scenes.members[:, 0] == examples.image).long()]
    fooled = on.scores(head.read(head.decode(single[distractor])))
    left = scenes.members[:, 0] == examples.image
    rows = {"single images": list(alone), "mean over the scene (class mask)": list(on.scores(head.read(decoded)))}
    columns, places = decoded.mean(2).transpose(1, 2), decoded.flatten(2).transpose(1, 2)
    for name, read in (("each column", columns), ("each position", places)):
        rows[f"local mask: {name}"] = list(on.scores(head.readout(read).log_softmax(-1).logsumexp(1)))
    for number in IMAGES:
        chosen = some_of(images, train.group, number, family.num_tasks)
        seen, shown = head.encode(train.features.rows(chosen)), train.group[chosen]
        for kind in CLOSED_FORMS:
            method = make_method("positions", head, family, "restricted", couplings=kind)
            method.observe([(seen, shown)])
            u = head.controller(tasks)
            labels = method.labels(h, tasks).flatten(1)
            _, statistics = head.position_statistics(h, u)
            halves = [_label_of(statistics, h.shape[2:], part) for part in (slice(0, side), slice(side, None))]
            error = float(((halves[0] > halves[1])[:, 0] != left).double().mean())
            name = f"{kind}, {number} images a task"
            found = on.scores(method.head_logits(h, tasks, None, 0)[0])
            rows[name] = [*found, 100 * error, (1 - error) * alone[0] + error * fooled[0]]
            if number == 25:
                hard = position_gains(labels, 1e6).unflatten(1, h.shape[2:])[:, None]
                rows[f"{name}: the best position alone"] = list(on.scores(head.read(decoded * hard)))
                whole = position_gains(torch.cat(halves, 1), 1e6).repeat_interleave(side, 1)[:, None, None]
                rows[f"{name}: the better half alone"] = list(on.scores(head.read(decoded * whole)))
                at_encoder = (h * u[:, :, None, None]).sum(1) / h.sum(1)
                ours = seen.sum((2, 3)) @ head.controller.embedding.weight.T / seen.sum((1, 2, 3))[:, None]
                strength = calibrated_strength(ours, F.one_hot(shown, family.num_tasks).bool())
                gate = position_gains(at_encoder.flatten(1), strength[tasks]).unflatten(1, h.shape[2:])[:, None]
                rows[f"{name}: read at the encoder"] = list(on.scores(head.read(decoded * gate)))
                for scale in (0.5, 1.0):
                    gains = (scale * u / (1 if kind == "informativeness" else u.std())).exp()[:, :, None, None]
                    rows[f"{name}: as gains of channels, x {scale:g}"] = list(
                        on.scores(head.read(head.decode(h * gains)))
                    )
    return rows


def _label_of(statistics: DecoderStatistics, sizes: torch.Size, columns: slice) -> Tensor:
    """The label of some columns of the map taken together, ``(B, 1)``."""
    slope, mean = (each.unflatten(1, sizes)[..., columns].sum((1, 2))[:, None] for each in statistics[:2])
    return position_labels(DecoderStatistics(slope, mean, slope))


def asked(about: str | None, depth: int) -> tuple[argparse.Namespace, Data, Data]:
    """The options of a benchmark on these features, and both splits; ``depth``: of the decoder, where nothing is said."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=depth)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", help="the row of this name alone, where there are several")
    parser.add_argument("--keep", type=Path, default=Path("runs/positions"))
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    return options, Data(options.features, "train"), Data(options.features, "test")


def main() -> None:
    options, train, test = asked(__doc__, 1)
    family, found = family_of(train), []
    for seed in range(options.seeds):
        began = time.perf_counter()
        head, (images, _) = base_network(train, family, seed, options.depth, options.epochs, options.keep)
        found.append(measure(head, family, train, test, images, seed))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        for name in found[0]:
            each = np.array([rows[name] for rows in found])
            mean = each.mean(0)
            more = f"  error {mean[2]:4.1f}  predicted {mean[3]:.1f}" if len(mean) > 2 else ""
            seeds = " ".join(f"{value:.1f}" for value in each[:, 0])
            print(f"{name:62s} {mean[0]:5.1f}  {mean[1]:.3f}{more}   ({seeds})", flush=True)


if __name__ == "__main__":
    main()
