"""One seed: its labels, partition and pretrained layers, and the methods fine-tuned on them.

The pretrained layers depend on data, backbone, head, pretraining settings and seed, not on the method. They are kept in
the cache under that key, so that all methods of a seed share them, whether fitted together or one by one.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Partition
from ..data.features import Encoder, FeatureRows, Features
from ..errors import InputError, RunError
from ..evaluation import Predictions, evaluate_predictions, metrics, scaled, temperature_of
from ..files import locked, read_json, remove_partials, write_json
from ..mathematics import derived_seed, drawing_from
from ..networks import ComodulatedHead
from ..networks.methods import METHODS, Method, NoLayers, ReadoutMethod, make_method
from ..processes import Processes
from ..tasks import Examples, TaskFamily
from ..tensors import hash_tensors, read_tensors, write_tensors
from ..training import Inputs, Silent, Venue, predict, pretrain, pretraining_targets, tune
from ..training.readouts import Yardstick, fit_method
from .answered import Answered
from .claiming import CHECKPOINT
from .config import RunConfig
from .dataset import TaskData, deal_images
from .decisions import decided, find_decisions, judged
from .finishing import finish_run
from .folder import HEAD, load_head

KEPT_INPUTS = 8  # what methods read of a split, kept for the next method; at most 1 GiB each
HISTORY = "history.json"


@dataclass(frozen=True)
class Adapted:
    """A fine-tuned method: its validation predictions, the layers it started from (and their key), and how it came about.

    Of a method of readouts, the validation predictions are those out of fold, ``about`` says what was weighed, and ``linear`` is
    the probe that it is measured by.
    """

    method: Method
    layers: str
    validation: Predictions
    pretrained: dict[str, Tensor]
    pretraining: list[dict[str, float]]
    history: list[dict[str, float]]
    seconds: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)
    linear: Yardstick | None = None


@dataclass(frozen=True)
class TuningData:
    """What a method is fine-tuned on: features, and the (image, task) pairs to train and to validate on."""

    features: FeatureRows
    tuning: Examples
    validation: Examples


@dataclass(frozen=True)
class Encoded:
    """An encoder, and its features of each split by name."""

    encoder: Encoder
    splits: dict[str, Features]


class Session:
    """What the runs of one seed share: features, partition, pretrained layers."""

    def __init__(self, config: RunConfig, data: TaskData, encoded: Encoded, venue: Venue, cache: Path) -> None:
        self.config, self.family, self.labelled = config, data.family, data.labelled
        self.encoder, self.features = encoded.encoder, encoded.splits
        self.venue, self.fabric, self.tell, self.cache = venue, venue.fabric, venue.tell, cache
        usable = {name: self.features[name].readable(own.examples) for name, own in self.labelled.items()}
        for name, examples in usable.items():
            if not len(examples):
                raise InputError(
                    f"split {name!r} of {config.data!r} has no labelled {self.labelled[name].split.what} that can be read"
                )
        self.train_examples = usable[config.train_split]
        self.test_examples = usable.get(config.test_split)
        self.processes = Processes.of(self.fabric)
        self._prepared: dict[tuple[str, ...], Tensor] = {}
        self._probes: dict[bool, tuple[Predictions, ReadoutMethod]] = {}  # by whether they are calibrated

    @property
    def train_features(self) -> Features:
        return self.features[self.config.train_split]

    @cached_property
    def parts(self) -> Partition:
        """The images of each step, for methods with layers."""
        return deal_images(self.config, self.family, self.train_examples)

    def tuning_data(self) -> TuningData:
        """The family's half of the training split."""
        return TuningData(
            self.train_features,
            self.train_examples.of_images(self.parts.tuning),
            self.train_examples.of_images(self.parts.tuning_validation),
        )

    def adapt(
        self,
        config: RunConfig,
        checkpoint: Path | None = None,
        data: TuningData | None = None,
        training_seed: int | None = None,
    ) -> Adapted:
        """Fine-tune one method on this seed's pretrained layers, on the family's half unless told otherwise.

        Args:
            config: of the method. checkpoint: file to go on from. data: to train and validate on.
            training_seed: of the order of the data and of the modulator's noise, in [0, 2^32); None takes the configuration's.
        """
        head = build_head(config, self.family, self.train_features.shape[0]).to(self.fabric.device)
        began = time.perf_counter()
        if METHODS[config.method].without_layers:
            return self._read_out(config, head, data)
        key, pretraining = self._pretrained(head, config)
        trained = time.perf_counter()
        if training_seed is not None:  # not before: the layers belong to the seed of the configuration
            config, head.seed = config.model_copy(update={"seed": training_seed}), training_seed
        pretrained = {name: tensor.clone() for name, tensor in head.pretrained_tensors().items()}
        method = config_method(config, head, self.family).to(self.fabric.device)
        data = data or self.tuning_data()
        images = torch.cat([data.tuning.image, data.validation.image]).unique()
        inputs = self._inputs(method, data.features, images, key)
        venue = replace(self.venue, checkpoint=checkpoint, identity=key)
        history = tune(
            method, inputs, data.tuning, data.validation, config.tuning, venue, seed=config.seed, balance=config.balance
        )
        seconds = {
            "pretraining": round(trained - began, 2),
            "tuning": round(time.perf_counter() - trained, 2),
        }
        found = predict(method, inputs, data.validation, self.processes)
        return Adapted(method, key, found, pretrained, pretraining, history, seconds)

    def _read_out(self, config: RunConfig, head: ComodulatedHead, data: TuningData | None) -> Adapted:
        """Fit a method of readouts to all labelled images, or, in protocol `claims`, to those of the family's half."""
        began = time.perf_counter()
        method = config_method(config, head, self.family)
        assert isinstance(method, ReadoutMethod)
        features: FeatureRows = self.train_features if data is None else data.features
        examples = self.train_examples if data is None else data.tuning
        if data is None and config.protocol == "claims":  # the images that other methods learn the tasks from
            examples = examples.of_images(torch.cat([self.parts.tuning, self.parts.tuning_validation]))
        found, about, linear = fit_method(
            method, features, examples, config.seed, self.tell,
            pooled=self.encoder.pooled_width, quality=config.quality, calibrate=config.calibrate,
        )  # fmt: skip
        seconds = {"pretraining": 0.0, "tuning": round(time.perf_counter() - began, 2)}
        return Adapted(method.to(self.fabric.device), "", found, {}, [], [], seconds, about, linear)

    def test(self, adapted: Adapted) -> Predictions | None:
        """Predictions on the test split, if there is one."""
        if self.test_examples is None:
            return None
        return self.answer(adapted, self.features[self.config.test_split], self.test_examples)

    def answer(self, adapted: Adapted, features: FeatureRows, examples: Examples) -> Predictions:
        """Predictions for examples of some features."""
        inputs = self._inputs(adapted.method, features, examples.image.unique(), adapted.layers)
        return predict(adapted.method, inputs, examples, self.processes)

    def yardstick(self, config: RunConfig, adapted: Adapted, tested: bool) -> dict[str, Predictions]:
        """What logistic regression alone answers, of the first process: out of fold under `validation`, and under `test` if the
        method was ``tested``. A method that has no probe among its members gets one that learns from the same labelled images."""
        if config.method == "linear" or not self.processes.first:
            return {}
        if adapted.linear is not None:
            assert isinstance(adapted.method, ReadoutMethod)
            found, alone = {"validation": adapted.linear.validation}, adapted.method.alone(adapted.linear.place)
        else:
            if config.calibrate not in self._probes:
                self._probes[config.calibrate] = self._probe(config)
            unseen, alone = self._probes[config.calibrate]
            found = {"validation": unseen}
        if tested and self.test_examples is not None:
            features = self.features[self.config.test_split]
            inputs = Inputs(alone, features, self.test_examples.image.unique())
            found["test"] = predict(alone, inputs, self.test_examples)
        own = find_decisions(found["validation"], self.family, config.metric)
        return {name: decided(answers, own) for name, answers in found.items()}

    def _probe(self, config: RunConfig) -> tuple[Predictions, ReadoutMethod]:
        """Logistic regression on all labelled images: its out-of-fold predictions, and itself."""
        settings = {"method": "linear", "options": {}, "task_bias": False}
        plain = config.model_copy(update=settings)
        method = config_method(plain, build_head(plain, self.family, self.train_features.shape[0]), self.family)
        assert isinstance(method, ReadoutMethod)
        unseen, _, _ = fit_method(
            method, self.train_features, self.train_examples, config.seed, Silent(),
            pooled=self.encoder.pooled_width, calibrate=config.calibrate,
        )  # fmt: skip
        return unseen, method.to(self.fabric.device).eval()

    def _inputs(self, method: Method, features: FeatureRows, images: Tensor, layers: str) -> Inputs:
        """What a method reads of some images; kept, so that the next method on the same layers finds it."""
        place = (layers, method.reads, features.key, hash_tensors({"images": images}))
        inputs = Inputs(method, features, images, self._prepared.get(place), self.processes)
        if inputs.prepared is not None:
            self._prepared[place] = inputs.prepared
            while len(self._prepared) > KEPT_INPUTS:
                self._prepared.pop(next(iter(self._prepared)))
        return inputs

    def run(self, config: RunConfig, folder: Path, seconds: dict[str, float], made_from: dict[str, Any]) -> None:
        """Fit and evaluate one method, and write its run folder; of several processes, the first writes.

        Args:
            config: of the method. folder: to write. seconds: spent before, by what for. made_from: see ``claiming.sources``.
        """
        adapted = self.adapt(config, folder / CHECKPOINT)
        method = adapted.method
        began = time.perf_counter()
        tested = self.test(adapted)
        if not self.processes.first:
            return
        predictions = {"validation": adapted.validation, **({} if tested is None else {"test": tested})}
        linear = self.yardstick(config, adapted, tested is not None)
        given, measured = self._measured(config, method, predictions)
        result: dict[str, Any] = {
            "schema": 1,
            "method": config.method,
            "seed": config.seed,
            "made_from": made_from,
            "readout": config.readout,
            "residual": config.head.residual,
            "learnable_parameters": method.num_learnable(),
            "finished": datetime.date.today().isoformat(),
            **({"readouts": adapted.about} if adapted.about else {}),
            **measured,
        }
        if linear:
            result["linear"] = {
                name: evaluate_predictions(answers, self.family.tasks) for name, answers in linear.items()
            }
        if any(features.bad_rows for features in self.features.values()):
            result["skipped_images"] = {name: len(features.bad_rows) for name, features in self.features.items()}
        evaluation = {"evaluation": round(time.perf_counter() - began, 2)}
        result["seconds"] = {**seconds, **adapted.seconds, **evaluation}
        result.update(pretraining=adapted.pretraining, history=adapted.history)
        write_tensors(folder / HEAD, adapted.pretrained)
        name, split = ("validation", config.train_split) if tested is None else ("test", config.test_split)
        data, beside = self.labelled[split].split, linear.get(name)
        if beside is not None and not (
            torch.equal(beside.image, given[name].image) and torch.equal(beside.task, given[name].task)
        ):
            beside = None  # it was judged by other images
        answered = Answered(given[name], self.family, data.names(config.data), data.read, data.what, beside)
        finish_run(folder, config, method, self.encoder.fingerprint(), result, answered)

    def _measured(
        self, config: RunConfig, method: Method, predictions: dict[str, Predictions]
    ) -> tuple[dict[str, Predictions], dict[str, Any]]:
        """Predictions of splits as the run gives them, and what metrics.json says of them: temperature, decisions, metrics."""
        own = config.calibrate and not method.without_layers  # readouts hold the temperatures of their tasks
        temperature = temperature_of(predictions["validation"]) if own else None
        at_temperature = {name: scaled(found, temperature) for name, found in predictions.items()}
        given, measured = judged(at_temperature, self.family, config.metric)
        if temperature is None:
            return given, measured
        unscaled = {name: metrics(found.log_probabilities, found.target) for name, found in predictions.items()}
        return given, {"temperature": temperature, "unscaled": unscaled, **measured}

    def _pretrained(self, head: ComodulatedHead, config: RunConfig) -> tuple[str, list[dict[str, float]]]:
        """Fill a method's head with the pretrained layers of this seed, from the cache or by pretraining now."""
        data = self.labelled[self.config.train_split]
        described = {
            "features": self.train_features.key,
            "labels": hashlib.sha256(b"".join(column.tobytes() for column in data.columns)).hexdigest(),
            "family": self.family.to_json(),
            "head": config.head.identity(),
            "pretraining": vars(config.pretraining),
            "split": [config.seed, config.validation_fraction, config.disjoint_halves],
            **({} if config.split_seed is None else {"split_seed": config.split_seed}),
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
        if self.processes.agree(key) != key:
            raise InputError(f"process {self.processes.rank} was given other data or settings than the first process")
        with self._layers_folder(key) if self.processes.first else contextlib.nullcontext() as folder:
            found = self.processes.agree(None if folder is None else _stored_head(head, folder))
            if found is not None:
                for tensor in head.pretrained_tensors().values():
                    self.processes.follow(tensor)
                self.tell.message(f"pretrained layers of seed {config.seed} found in the cache")
                if folder is not None:
                    (folder / CHECKPOINT).unlink(missing_ok=True)  # of a process that was killed before it could
                return key, found
            venue = replace(self.venue, checkpoint=None if folder is None else folder / CHECKPOINT, identity=key)
            history = pretrain(
                head, self.train_features, pretraining_targets(self.family, data.columns), self.parts,
                config.pretraining, venue, self.family, seed=config.seed,
            )  # fmt: skip
            if folder is not None:
                write_tensors(folder / HEAD, head.pretrained_tensors())
                write_json(folder / HISTORY, {"head": head.fingerprint(), "history": history})
                (folder / CHECKPOINT).unlink(missing_ok=True)
        return key, history

    @contextlib.contextmanager
    def _layers_folder(self, key: str) -> Iterator[Path]:
        """The folder of the pretrained layers of a key, which no other run has at the same time."""
        folder = self.cache / "heads" / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = folder / "lock"
            lock.touch()
        except OSError as error:
            raise RunError(f"cannot write the cache {folder}: {error.strerror or error}") from error
        with locked(lock):
            remove_partials(folder)
            yield folder


def _stored_head(head: ComodulatedHead, folder: Path) -> list[dict[str, float]] | None:
    """Fill the head from the cache and return its history; None, and nothing changed, where that is absent or damaged."""
    try:
        stored, (tensors, _) = read_json(folder / HISTORY), read_tensors(folder / HEAD)
        if not isinstance(stored, dict) or stored.get("head") != hash_tensors(tensors):
            return None
        load_head(head, folder / HEAD)
    except InputError:
        return None
    return stored.get("history", [])


def config_method(config: RunConfig, head: ComodulatedHead, family: TaskFamily) -> Method:
    """The method a configuration describes, on a head."""
    return make_method(config.method, head, family, config.readout, task_bias=config.task_bias, **config.options)


def build_head(config: RunConfig, family: TaskFamily, in_channels: int) -> ComodulatedHead:
    """The head a configuration describes, initialised from its seed."""
    with drawing_from(derived_seed(config.seed, "initialisation")):
        if METHODS[config.method].without_layers:
            return NoLayers(in_channels, family.num_outputs, family.num_tasks, seed=config.seed)
        return ComodulatedHead(
            in_channels,
            family.num_outputs,
            family.num_tasks,
            controller=config.controller.model_dump(),
            settings=config.head,
            modulation=config.modulation,
            seed=config.seed,
        )
