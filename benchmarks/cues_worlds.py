"""Objects of benchmarks/cues.py: digits, pictures in a colour or turned, messages of named people; single ones, and scenes of two.

Features of pictures and messages come from frozen encoders, each seen alone under every cue, are computed once, and are kept in a
folder. A scene is the maps of two objects joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from comodulation import RunConfig, TaskFamily
from comodulation.data import Split, class_column, label_names, open_split
from comodulation.data.features import Backbone, BackboneSettings, FeatureRows, Features, TextEncoder, TextSettings
from comodulation.data.sets import (
    COLOURS,
    CUED,
    NAMES,
    TURNS,
    Digits,
    SceneFeatures,
    cued_family,
    cued_pairs,
    cued_scenes,
    cued_texts,
    load_digits,
    named_family,
    patches,
    resampled,
    split_digits,
    tinted,
    turned,
)
from comodulation.mathematics import derived_seed
from comodulation.runs import open_splits
from comodulation.tasks import Examples

Set = tuple[FeatureRows, Examples]
PARTS = ("pretraining", "tuning", "held", "test")  # the last are of the data's test split
DIGITS = (0.4, 0.25, 0.1, 0.25)  # shares of the digits that are these parts
CUES = 3
PLACES = 12  # of a message; it has 14 tokens on average


@dataclass(frozen=True)
class Kind:
    """Objects whose features are kept.

    Attributes:
        cues: three of them. family: of the answers. counts: of objects, part by part. label: column of the answers.
        channels: of layers that begin at random. shown: a picture under a cue; messages have none.
    """

    cues: tuple[str, ...]
    family: Callable[[Sequence[str]], TaskFamily]
    counts: tuple[int, int, int, int]
    label: str
    channels: int = 128
    shown: Callable[[Image.Image, int], Image.Image] | None = None


KINDS = {
    "tinted": Kind(
        COLOURS, lambda names: cued_family("picture", names), (6000, 2000, 600, 2000), "coarse_label", shown=tinted
    ),
    "turned": Kind(
        TURNS, lambda names: cued_family("picture", names, TURNS), (3000, 1000, 400, 1000), "coarse_label", shown=turned
    ),
    "messages": Kind(NAMES, named_family, (2400, 800, 300, 1000), "domain"),
}


class World(Protocol):
    """Objects of a seed. ``single`` and ``scenes`` draw from a part of them."""

    family: TaskFamily
    channels: int  # of encoder, decoder and readout

    def single(self, part: str, count: int, name: str) -> Set: ...

    def scenes(self, part: str, count: int, name: str) -> Set: ...


class DigitWorld:
    """Digits of scikit-learn, two in one picture."""

    def __init__(self, seed: int) -> None:
        self.seed, self.family, self.channels = seed, CUED, 64
        parts = split_digits(load_digits(), DIGITS, derived_seed(seed, "digits"))
        self.parts: dict[str, Digits] = dict(zip(PARTS, parts, strict=True))

    def single(self, part: str, count: int, name: str) -> Set:
        return self._drawn(part, count, name, distractor=False)

    def scenes(self, part: str, count: int, name: str) -> Set:
        return self._drawn(part, count, name, distractor=True)

    def _drawn(self, part: str, count: int, name: str, *, distractor: bool) -> Set:
        scenes = cued_scenes(self.parts[part], count, derived_seed(self.seed, name), distractor=distractor)
        return Features(patches(scenes.images).numpy(), (), f"cued digits {name}"), scenes.examples


class KeptWorld:
    """Objects of a kind, the maps of two joined."""

    def __init__(self, seed: int, kind: str, data: str, keep: Path) -> None:
        self.seed, self.channels = seed, KINDS[kind].channels
        kept, counts = np.load(kept_features(kind, data, keep)), KINDS[kind].counts
        self.family = KINDS[kind].family([str(name) for name in kept["names"]])
        self.features, self.labels = {}, {}
        order = np.random.default_rng(derived_seed(seed, "pictures")).permutation(len(kept["train_labels"]))
        cuts = np.cumsum(counts[:-1])
        maps = {split: kept[f"{split}_maps"] for split in ("train", "test")}
        for part, rows in zip(PARTS, [*np.split(order, cuts)[:-1], np.arange(counts[-1])], strict=True):
            split = "test" if part == "test" else "train"
            own = maps[split][rows]  # (n, 3, C, H, W)
            self.features[part] = Features(own.reshape(-1, *own.shape[2:]), (), f"{kind} {part} {seed}")
            self.labels[part] = torch.from_numpy(kept[f"{split}_labels"][rows])

    def single(self, part: str, count: int, name: str) -> Set:
        pairs, examples = self._drawn(part, count, name)
        asked = pairs.gather(1, (pairs % CUES != examples.task[:, None]).long().argmin(1, keepdim=True))
        return SceneFeatures(self.features[part], asked), examples

    def scenes(self, part: str, count: int, name: str) -> Set:
        pairs, examples = self._drawn(part, count, name)
        return SceneFeatures(self.features[part], pairs), examples

    def _drawn(self, part: str, count: int, name: str) -> tuple[Tensor, Examples]:
        return cued_pairs(self.labels[part], count, derived_seed(self.seed, name))


def kept_features(kind: str, data: str, keep: Path) -> Path:
    """A file of the maps of objects under every cue ``(N, 3, C, H, W)``, and of their labels; made where it is not there."""
    path, own = keep / f"{kind}.npz", KINDS[kind]
    if path.exists():
        return path
    keep.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name, count in {"train": sum(own.counts[:-1]), "test": own.counts[-1]}.items():
        split = opened(own, data, name)
        names = label_names(split, own.label)
        rows = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
        objects = [split.read(int(row)) for row in rows]
        found[f"{name}_maps"] = message_maps(objects) if own.shown is None else picture_maps(objects, own.shown)
        found[f"{name}_labels"] = class_column(split, own.label, names)[rows]
    np.savez(path, names=np.array(names), **found)
    return path


def opened(kind: Kind, data: str, name: str) -> Split:
    """One split of the data."""
    if kind.shown is not None:
        return open_split(data, name)
    config = RunConfig(data=data, text=TextSettings("text"), tasks=[kind.label])
    return open_splits(config, [name])[name]


@torch.inference_mode()
def picture_maps(pictures: list[Image.Image], shown: Callable[[Image.Image, int], Image.Image]) -> np.ndarray:
    """What EfficientNet-Lite0 sees of pictures under each cue, float16 ``(N, 3, C, s, s)``."""
    backbone, maps = Backbone(BackboneSettings()), []
    for start in range(0, len(pictures), 64):
        part = pictures[start : start + 64]
        batch = torch.stack([backbone.preprocess(shown(picture, cue)) for picture in part for cue in range(CUES)])
        maps.append(backbone(batch).half().unflatten(0, (-1, CUES)).numpy())
    return np.concatenate(maps)


@torch.inference_mode()
def message_maps(utterances: list[str]) -> np.ndarray:
    """What MiniLM makes of each token of messages by each person, on so many places: float16 ``(N, 3, V, 1, PLACES)``."""
    encoder = TextEncoder(TextSettings("text"))
    messages = cued_texts(utterances, torch.arange(CUES * len(utterances))[:, None])
    ids = [encoder.preprocess(message) for message in messages]
    maps = torch.empty(len(ids), encoder.pooled_width, 1, PLACES, dtype=torch.float16)
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        hidden = token_vectors(encoder, [ids[row] for row in rows])
        for row, tokens in zip(rows, hidden, strict=True):
            maps[row, :, 0] = resampled(tokens, PLACES).T.half()
    return maps.unflatten(0, (-1, CUES)).numpy()


def token_vectors(encoder: TextEncoder, ids: list[Tensor]) -> list[Tensor]:
    """The last hidden states of texts, before pooling, ``(L, V)`` each, without padding."""
    batch, mask = encoder.collate(ids)
    hidden = encoder.model(input_ids=batch, attention_mask=mask).last_hidden_state
    return [own[: len(one)] for own, one in zip(hidden, ids, strict=True)]
