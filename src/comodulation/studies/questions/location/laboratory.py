"""What the cells of the study of location share: images, pretrained networks, and the encoder's activity of canvases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....data import Partition, Split
from ....data.sets import DIGITS, PLACES, Canvases, digit_splits, draw_canvases, side_by_side
from ....errors import InputError
from ....evaluation import METRICS, Predictions, metrics
from ....files import locked
from ....mathematics import derived_seed, drawing_from
from ....networks.attached import Comodulated
from ....runs import HeadSettings, deal_images, read_family, read_labels
from ....tasks import Examples
from ....tensors import read_tensors, write_tensors
from ....training import Objective, TrainingSettings, Venue, train
from ...cells import Cell, Inquiry, Laboratory, Material, read_material, study_config
from .network import LOCATIONS, WIDTHS, LocationNetwork, arranged, augmented, frozen, modulated

VERSION = 1
# Canvases to learn from, of an epoch, to validate on, to test on.
TUNED, DRAWN, VALIDATED, TESTED = 4096, 2048, 512, 2048
MEASURED = 512  # canvases from which an epoch's task gains are estimated before it is validated
BLOCK = 256
PRETRAINING = TrainingSettings(learning_rate=4e-3, batch_size=128, weight_decay=0.05)


class Encoded(NamedTuple):
    """Canvases and the encoder's activity of each, float16, ``(M, C, H, W)``, of sequences ``(M, 4, C, H, W)``."""

    canvases: Canvases
    activity: Tensor


class Tuning(nn.Module):
    """A modulated network as ``train`` takes it."""

    def __init__(self, net: Comodulated, mode: str) -> None:
        super().__init__()
        self.net, self.mode = net, mode

    def loss(self, activity: Tensor, tasks: Tensor, targets: Tensor) -> Tensor:
        """Mean NLL; activity of the encoder, tasks and targets ``(B,)``."""
        return F.cross_entropy(self.net(activity, task_ids=tasks, mode=self.mode), targets)


class Trained(NamedTuple):
    """A trained cell. ``history`` of its validation, one entry an epoch."""

    net: Comodulated
    history: list[dict[str, float]]


class LocationLaboratory(Laboratory):
    """Pretrains networks on single images, and trains controllers between their stages.

    Args:
        material: data and configuration.
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._networks: dict[int, LocationNetwork] = {}
        self._encoded: tuple[tuple[int, bool, int], dict[str, Encoded]] | None = None

    @cached_property
    def encoder(self) -> Any:
        """None from elsewhere: the network is the study's own."""

    def source(self) -> None:
        """Nothing: pixels are decoded in a moment."""

    @cached_property
    def features(self) -> Any:
        """Pixels, decoded before several processes ask for them; each network is pretrained by the first cell that needs it."""
        return self.images

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """Pixels of every split, uint8 ``(N, 3, s, s)``."""
        return {name: decoded_images(data.split, self.material.cache) for name, data in self.material.labelled.items()}

    def labels(self, split: str) -> tuple[Tensor, Tensor]:
        """Class and superclass of every row of a split, each ``(N,)``."""
        groups, labels = self.material.labelled[split].columns
        return torch.from_numpy(np.asarray(labels)), torch.from_numpy(np.asarray(groups))

    def parts(self, seed: int) -> Partition:
        config = self.material.config.model_copy(update={"seed": seed})
        return deal_images(config, self.material.family, self.material.labelled[config.train_split].examples)

    # ---- the networks -------------------------------------------------------------------------------------------------

    def network(self, seed: int) -> LocationNetwork:
        """The network of a seed, pretrained on single images of the primary half, frozen; from the cache or trained now."""
        if seed not in self._networks:
            self._networks[seed] = frozen(self._pretrained(seed))
        return self._networks[seed]

    def _pretrained(self, seed: int) -> LocationNetwork:
        config = self.material.config
        split = self.material.labelled[config.train_split].split
        settings = replace(PRETRAINING, epochs=config.pretraining.epochs)
        outputs = self.material.family.num_outputs
        labels = hashlib.sha256(
            repr([column.tolist() for column in self.labels(config.train_split)]).encode()
        ).hexdigest()
        names = self.material.family.to_json()
        identity = repr((VERSION, split.fingerprint, labels, names, seed, config.validation_fraction, WIDTHS, settings))
        key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        folder = self.material.cache / "networks"
        folder.mkdir(parents=True, exist_ok=True)
        with drawing_from(derived_seed(seed, "network")):
            network = LocationNetwork(outputs)
        network = network.to(memory_format=torch.channels_last)
        path = folder / f"{key}.safetensors"
        with locked(folder / f"{key}.lock"):
            try:
                network.load_state_dict(read_tensors(path)[0])
            except InputError:  # not there, or damaged
                self._pretrain(network, seed, settings, folder / f"{key}.checkpoint.safetensors", identity)
                tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
                write_tensors(path, tensors)
                (folder / f"{key}.checkpoint.safetensors").unlink(missing_ok=True)
        return network.eval()

    def _pretrain(
        self, network: LocationNetwork, seed: int, settings: TrainingSettings, checkpoint: Path, identity: str
    ) -> None:
        config, parts = self.material.config, self.parts(seed)
        images, (labels, _) = self.images[config.train_split], self.labels(config.train_split)

        def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
            order = parts.pretraining[torch.randperm(len(parts.pretraining), generator=generator)]
            for rows in order.split(settings.batch_size):
                if len(rows) > 1:  # one image has no variance to normalise by
                    yield augmented(images[rows], generator), labels[rows]

        def validate() -> dict[str, float]:
            rows = parts.pretraining_validation
            logits = torch.cat([network(images[part]) for part in rows.split(BLOCK)])
            return metrics(logits.log_softmax(1), labels[rows])

        # What normalisation has seen is not learned, and belongs to an epoch as the weights do.
        state = [value for value in network.buffers() if value.is_floating_point()]
        objective = Objective(
            f"pretraining, seed {seed}", network, [(parameter, 1.0) for parameter in network.parameters()], batches,
            -(-len(parts.pretraining) // settings.batch_size), validate, state=state,
        )  # fmt: skip
        venue = Venue(self.fabric, self.tell, checkpoint, identity)
        train(objective, settings, venue, seed=derived_seed(seed, "pretraining"))

    # ---- canvases -----------------------------------------------------------------------------------------------------

    def encoded(self, seed: int, sequences: bool, location: int) -> dict[str, Encoded]:
        """Canvases to learn from (``tuning``), to validate and to ``test`` on, and the encoder's activity; the last is kept."""
        key = (seed, sequences, location)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = None  # its memory first
            config, parts = self.material.config, self.parts(seed)
            tested = self.material.labelled[config.test_split].examples.image
            found = {}
            for name, split, rows, number in (
                ("tuning", config.train_split, parts.tuning, TUNED),
                ("validation", config.train_split, parts.tuning_validation, VALIDATED),
                ("test", config.test_split, tested, TESTED),
            ):
                canvases = draw_canvases(rows, self.labels(split)[1], number, derived_seed(seed, "canvases", name))
                network = self.network(seed)
                found[name] = Encoded(canvases, _activity(network, self.images[split], canvases, sequences, location))
            self._encoded = (key, found)
        return self._encoded[1]

    def examples(self, kind: str, canvases: Canvases, name: str) -> Examples:
        """Task and target of canvases; ``name`` as in ``encoded``."""
        config = self.material.config
        return canvases.examples(kind, *self.labels(config.test_split if name == "test" else config.train_split))

    # ---- controllers --------------------------------------------------------------------------------------------------

    def adapt(self, cell: Cell, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Train a cell's controller, and fix its task gains. Returns None (for a session) and what was trained."""
        kind, row = cell.variant, cell.row
        location, sequences = row.get("location", LOCATIONS[-1]), kind == "temporal"
        encoded = self.encoded(cell.seed, sequences, location)
        learned = self.examples(kind, encoded["tuning"].canvases, "tuning")
        net = self.net(cell, encoded["tuning"].activity)
        tuning = self.material.config.tuning
        changed = replace(
            tuning, batch_size=128, learning_rate=settings["learning_rate"], weight_decay=settings["weight_decay"]
        )
        mode = row.method

        def inputs(name: str, rows: Tensor) -> Tensor:
            return self.arranged(cell, encoded[name].activity[rows])

        def batches(epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            order = torch.randperm(len(learned), generator=generator)[:DRAWN]
            for rows in order.split(changed.batch_size):
                yield inputs("tuning", rows), learned.task[rows], learned.target[rows]

        def fix_gains(number: int) -> None:
            if mode == "comodulation":
                rows = torch.arange(min(number, len(learned))).split(BLOCK)
                net.store_task_gains((inputs("tuning", part), learned.task[part]) for part in rows)

        def validate() -> dict[str, float]:
            fix_gains(MEASURED)
            found = self.answer(cell, net, "validation")
            return {name: metrics(found.log_probabilities, found.target)[name] for name in METRICS}

        steps = -(-min(DRAWN, len(learned)) // changed.batch_size)
        learnable = [(parameter, 1.0) for parameter in net.learnable()]
        objective = Objective("tuning", Tuning(net, mode), learnable, batches, steps, validate)
        history = train(objective, changed, Venue(self.fabric), seed=derived_seed(cell.seed, "tuning"))
        with torch.no_grad():
            fix_gains(len(learned))
        return None, Trained(net, history)

    def net(self, cell: Cell, activity: Tensor) -> Comodulated:
        """An untrained network of a cell; ``activity`` of some canvases, for the shapes."""
        kind, row = cell.variant, cell.row
        groups = len(self.material.family.tasks)
        return modulated(
            self.network(cell.seed), row.get("location", LOCATIONS[-1]), row.get("neurons", "channel"), kind == "temporal",
            groups if kind == "category" else len(PLACES), self.arranged(cell, activity[:2]),
        )  # fmt: skip

    def arranged(self, cell: Cell, activity: Tensor) -> Tensor:
        """Encoder activity of canvases or sequences as the cell's network takes it, float32."""
        if cell.variant != "temporal":
            return activity.float().contiguous(memory_format=torch.channels_last)
        return arranged(activity.float().flatten(0, 1), activity.shape[1], cell.row.get("neurons") == "moment")

    @torch.no_grad()
    def answer(self, cell: Cell, net: Comodulated, name: str) -> Predictions:
        """Predictions for the canvases called ``name`` in ``encoded``."""
        encoded = self.encoded(cell.seed, cell.variant == "temporal", cell.row.get("location", LOCATIONS[-1]))[name]
        examples = self.examples(cell.variant, encoded.canvases, name)
        logits = [
            net(self.arranged(cell, encoded.activity[rows]), task_ids=examples.task[rows], mode=cell.row.method)
            for rows in examples.image.split(BLOCK)
        ]
        return Predictions(examples.image, examples.task, examples.target, torch.cat(logits).log_softmax(1))


def make_laboratory(inquiry: Inquiry, cache: Path) -> LocationLaboratory:
    """The laboratory of an inquiry. Raises InputError for options of another network."""
    config = inquiry.config
    usual = study_config("cifar100", config.data)
    if config.backbone != usual.backbone or config.head not in (usual.head, HeadSettings()):
        raise InputError(
            "the study of location pretrains a network of its own: leave out --backbone, --weights, --image-size and --channels"
        )
    if config.data == DIGITS:
        splits = digit_splits()
        family = read_family(config, splits["train"])
        material = Material(family, {n: read_labels(config, s, family) for n, s in splits.items()}, config, cache)
    else:
        material = read_material("cifar100", config, cache)
    return LocationLaboratory(material)


def decoded_images(split: Split, cache: Path) -> Tensor:
    """All images of a split in one size, uint8 ``(N, 3, s, s)``; s is 32, or 16 where the first image is smaller.

    They are decoded once and kept in ``cache`` under a hash of their content.

    Raises:
        BadImageError: an unreadable image.
    """
    side = 32 if min(split.image(0).size) >= 32 else 16
    key = hashlib.sha256(f"{VERSION} {split.fingerprint} {side}".encode()).hexdigest()[:32]
    folder = cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.safetensors"
    with locked(folder / f"{key}.lock"):
        try:
            return read_tensors(path)[0]["images"]
        except InputError:  # not there, or damaged
            pixels = np.empty((len(split), 3, side, side), np.uint8)
            for row in range(len(split)):
                image = split.image(row)
                image = image if image.size == (side, side) else image.resize((side, side))
                pixels[row] = np.asarray(image).transpose(2, 0, 1)
            images = torch.from_numpy(pixels)
            write_tensors(path, {"images": images})
            return images


@torch.no_grad()
def _activity(network: LocationNetwork, images: Tensor, canvases: Canvases, sequences: bool, location: int) -> Tensor:
    """Encoder activity in half precision: a canvas passes as one image, the frames of a sequence one by one."""
    found = []
    for members in canvases.members.split(BLOCK):
        pixels = images[members]
        if sequences:
            activity = network.upto(pixels.flatten(0, 1), location).unflatten(0, members.shape)
        else:
            activity = network.upto(side_by_side(pixels), location)
        found.append(activity.half().contiguous())
    return torch.cat(found)
