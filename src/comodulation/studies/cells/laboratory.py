"""Where cells are trained: one process's data, features and sessions, shared by all cells that it is given."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ...data.features import Encoder, Source, extract
from ...data.sets import make_scenes
from ...errors import InputError, choose
from ...mathematics import derived_seed
from ...networks.methods import METHODS
from ...runs import Adapted, ControllerSettings, Encoded, HeadSettings, Session, TuningData
from ...tasks import Examples, TaskFamily
from ...training import Alone, Progress, Silent, Venue
from .material import Material
from .rows import Cell, Row

VALIDATION_PAIRS = 20_000  # of binary tasks


class Laboratory:
    """Trains cells.

    Args:
        material: data and configuration.
        tell: told of extraction and pretraining.
        engine: of extraction; see ``extract``.
    """

    def __init__(self, material: Material, tell: Progress | None = None, engine: str = "auto") -> None:
        self.material, self.tell, self.engine = material, tell or Silent(), engine
        self.fabric = Alone()
        self._session: tuple[tuple[str, int, HeadSettings], Session] | None = None

    @cached_property
    def encoder(self) -> Encoder:
        return self.material.config.encoder.encoder()

    def source(self) -> Source | None:
        """What other machines extract the features of; None where there is nothing that they could."""
        config = self.material.config
        splits = {name: data.split for name, data in self.material.labelled.items()}
        return Source(self.encoder, splits, config.precision, config.skip_bad)

    @cached_property
    def features(self) -> dict[str, Any]:
        """Features of every split, from the cache or extracted now."""
        return {
            name: extract(
                self.encoder, data.split, self.material.cache, device=self.fabric.device,
                precision=self.material.config.precision, engine=self.engine, skip_bad=self.material.config.skip_bad,
                report=partial(self.tell.extraction, name), say=self.tell.message,
            )
            for name, data in self.material.labelled.items()
        }  # fmt: skip

    def session(self, variant: str, seed: int, row: Row | None = None) -> Session:
        """Partition and pretrained layers of a seed, and of a row whose layers are its own; the last one is kept."""
        shared = self.material.config
        head = replace(shared.head, residual=variant == "residual")
        head = head if row is None else row.layers(head)
        if self._session is None or self._session[0] != (variant, seed, head):
            config = shared.model_copy(update={"seed": seed, "head": head})
            encoded, venue = Encoded(self.encoder, self.features), Venue(self.fabric, self.tell)
            session = Session(config, self.material, encoded, venue, self.material.cache)
            self._session = ((variant, seed, head), session)
        return self._session[1]

    def adapt(self, cell: Cell, settings: dict[str, Any]) -> tuple[Session, Adapted]:
        """Train a cell's network."""
        session = self.session(cell.variant, cell.seed, cell.row)
        config = cell.row.configure(session.config.model_copy(update={"readout": cell.readout}), settings)
        if kind := cell.row.get("task_vectors"):
            vectors = task_vectors(kind, session)
            controller = ControllerSettings(**{**config.controller.model_dump(), "task_vectors": vectors})
            config = config.model_copy(update={"controller": controller})
        if METHODS[config.method].without_layers:  # temperatures are for all rows fitted in the same way
            config = config.model_copy(update={"calibrate": False})
        draw = cell.row.get("draw")
        seed = None if draw is None else derived_seed(cell.seed, "draw", draw) % 2**32
        return session, session.adapt(config, data=self.training_data(session, cell), training_seed=seed)

    def training_data(self, session: Session, cell: Cell) -> TuningData:
        """The family's half, or as much or whatever is made of it as the row's data options say.

        A method without layers learns from those images, too, that the others are validated on.
        """
        data, row = session.tuning_data(), cell.row
        whole = METHODS[row.method].without_layers and not row.get("images")
        if session.family.kind == "binary" and not whole:
            # Every image has a label for every task: a sample of the pairs will do.
            number, seed = VALIDATION_PAIRS // session.family.num_tasks, derived_seed(cell.seed, "validation")
            data = replace(data, validation=data.validation.take(few_per_task(data.validation, number, seed)))
        if classes := row.get("classes"):
            kept = classes_kept(session.family, classes, cell.seed)
            data = replace(data, tuning=_of_classes(data.tuning, kept), validation=_of_classes(data.validation, kept))
        if number := row.get("images"):
            draw = row.get("draw")
            seed = derived_seed(cell.seed, "few images", *(() if draw is None else (draw,)))
            data = replace(data, tuning=data.tuning.take(few_per_task(data.tuning, number, seed)))
            if draw is not None:
                seed = derived_seed(cell.seed, "few validate", draw)
                data = replace(data, validation=data.validation.take(few_per_task(data.validation, number, seed)))
        if distractors := row.get("distractors"):
            features, (tuning, validation) = make_scenes(
                data.features, [data.tuning, data.validation], distractors, derived_seed(cell.seed, "scenes")
            )
            data = TuningData(features, tuning, validation)
        if whole:  # what judges it, it keeps out by itself
            data = replace(data, tuning=data.tuning.followed_by(data.validation))
        return data

    def test_data(self, session: Session, cell: Cell) -> tuple[Any, Examples]:
        """Features and examples to test on; where there is no test split, the validation examples."""
        if session.test_examples is None:
            data = self.training_data(session, cell)
            return data.features, data.validation
        features, examples = session.features[session.config.test_split], session.test_examples
        if classes := cell.row.get("classes"):
            examples = _of_classes(examples, classes_kept(session.family, classes, cell.seed))
        if distractors := cell.row.get("distractors"):
            scenes, (examples,) = make_scenes(features, [examples], distractors, derived_seed(cell.seed, "test scenes"))
            return scenes, examples
        return features, examples


def classes_kept(family: TaskFamily, number: int, seed: int) -> Tensor:
    """Which of the outputs are left where each task keeps at most ``number`` of its classes, drawn at random: bool ``(C,)``."""
    if family.kind != "classes" or number < 2:
        raise InputError(
            f"fewer classes a task, at least 2, are for tasks of kind classes; got {number} and {family.kind}"
        )
    generator = torch.Generator().manual_seed(derived_seed(seed, "classes"))
    kept = torch.zeros(family.num_outputs, dtype=torch.bool)
    for members in family.members:
        order = torch.randperm(len(members), generator=generator)[:number]
        kept[torch.tensor(members)[order]] = True
    return kept


def _of_classes(examples: Examples, kept: Tensor) -> Examples:
    return examples.take(kept[examples.target].nonzero()[:, 0])


def task_vectors(kind: str, session: Session) -> list[list[float]]:
    """A description of each task, K vectors, to be read by a controller in place of a learned embedding.

    ``onehot``: K numbers, of which the task's own is 1. ``prototypes``: the mean feature of the task's images in the *other* half
    of the training split, without what all tasks have in common, rotated to its at most K - 1 principal axes, mean square 1.
    """
    number = session.family.num_tasks
    if choose(kind, ("onehot", "prototypes"), "task vectors") == "onehot":
        return torch.eye(number).tolist()
    examples = session.train_examples.of_images(session.parts.pretraining)
    means = []
    for task in range(number):
        images = examples.image[examples.task == task].unique()
        if not len(images):
            raise InputError(f"task {session.family.tasks[task]!r} has no image to take a prototype from")
        means.append(session.train_features.rows(images).float().mean((0, 2, 3)))
    centred = torch.stack(means).double()
    centred -= centred.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    axes = int((s > 1e-9 * s[0]).sum()) if s[0] else 0
    if not axes:
        raise InputError("all tasks have the same mean feature: prototypes do not tell them apart")
    vectors = u[:, :axes] * s[:axes]
    return (vectors / vectors.square().mean().sqrt()).tolist()


def few_per_task(examples: Examples, number: int, seed: int) -> Tensor:
    """Rows of at most ``number`` examples of each task, drawn at random."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    kept = []
    for task in examples.task.unique():
        kept.append(order[examples.task[order] == task][:number])
    return torch.cat(kept).sort().values
