"""A finished run, loaded again: evaluate it on a data set, or predict images, texts or embeddings."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Asked
from ..data.features import (
    ENGINES,
    Encoder,
    Features,
    at_once,
    cut_note,
    extract,
    faster_engine,
    forward_of,
    in_batches,
)
from ..errors import InputError, brief, choose
from ..evaluation import apply_temperature, decide, evaluate_predictions, scaled, stored_temperature
from ..files import writable
from ..networks import load_adapter
from ..networks.methods import Method, extend_head, first_family, task_chunks
from ..tasks import Examples, TaskFamily
from ..tensors import WithoutValues, read_metadata
from ..training import Inputs, Progress, Silent, predict
from .card import model_card
from .claiming import ADDED
from .config import RunConfig, read_config
from .dataset import cut_in, open_splits, read_labels, without_labels
from .decisions import Decisions, decided, stored_decisions
from .folder import ADAPTER, CONFIG, HEAD, METRICS, feature_channels, load_head, run_folders
from .records import read_metrics
from .session import build_head, config_method
from .shared_folder import check_shared, with_weights
from .sharing import download, push_to_hub, save_pretrained


@dataclass(frozen=True)
class Run:
    """A finished run folder.

    Attributes:
        folder: where it is.
        config: how it was made.
        family: its tasks.
        added_outputs: number of outputs that came with each addition of tasks from label columns (networks/methods/added_tasks.py).
        paired_outputs: number of binary tasks that a column of classes was added to.
    """

    folder: Path
    config: RunConfig
    family: TaskFamily
    added_outputs: tuple[int, ...] = ()
    paired_outputs: int = 0

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run folder. Raises InputError for a folder that is not one, or is not finished."""
        folder = Path(folder)
        if (folder / ADDED).exists() and not (folder / METRICS).exists():
            raise InputError(f"the run in {folder} is not finished; continue it with add-task --resume")
        if not folder.is_dir() or not (folder / CONFIG).exists():
            inside = [path.name for path in run_folders(folder)]
            hint = f"; it holds the runs {', '.join(inside)}: name one of them" if inside else ""
            raise InputError(f"{folder} is not a run folder: it has no {CONFIG}{hint}")
        if not (folder / METRICS).exists():
            raise InputError(f"the run in {folder} is not finished; continue it with fit --resume")
        metadata = read_metadata(folder / ADAPTER)
        if not isinstance(metadata.get("family"), dict):
            raise InputError(f"{folder / ADAPTER} is not an adapter: its header names no tasks")
        family = TaskFamily.from_json(metadata["family"])
        added, paired = metadata.get("added_outputs", []), metadata.get("paired_outputs", 0)
        fine = isinstance(added, list) and all(type(number) is int and number > 0 for number in added)
        fine = fine and type(paired) is int and 0 <= paired <= family.num_tasks
        if not fine or (added and (family.kind == "classes" or sum(added) >= family.num_outputs - paired)):
            raise InputError(
                f"{folder / ADAPTER} is damaged: added_outputs {brief(added)}, paired_outputs {brief(paired)} do not fit its tasks"
            )
        return cls(folder, with_weights(read_config(folder / CONFIG), folder), family, tuple(added), paired)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache: str | Path | None = None,
        endpoint: str | None = None,
    ) -> Run:
        """Open a run that someone shared: a folder of ``save_pretrained``, or a repository of the Hugging Face hub.

        Args:
            name: path of a folder, or "owner/name".
            revision: branch, tag or commit of a repository.
            token: of the hub; None takes the one that is logged in.
            cache: folder of downloads; None takes the hub's own.
            endpoint: address of the hub, if it is another one.

        Raises:
            InputError: no such folder or repository; files that are missing, damaged, too large or lead outside.
        """
        folder, root = Path(name), None
        if not folder.is_dir():
            folder = download(
                str(name),
                revision=revision,
                token=token,
                cache=None if cache is None else Path(cache),
                endpoint=endpoint,
            )
            root = folder.parents[1]  # the cache keeps files beside the folder and links to them
        check_shared(folder, root)
        return cls.open(folder)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write what predicting needs, and a model card, to a new folder; see ``sharing.save_pretrained``."""
        return save_pretrained(self.folder, self.config, self._card(), folder)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, endpoint: str | None = None
    ) -> str:
        """Upload it with a model card to the Hugging Face hub; see ``sharing.push_to_hub``."""
        return push_to_hub(
            self.folder, self.config, self._card(), repo_id, private=private, token=token, endpoint=endpoint
        )

    def _card(self) -> str:
        """The model card; the method is loaded first, so that what cannot be loaded is not handed on."""
        _ = self.method
        return model_card(self.config, self.family, self.metrics)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json. Raises InputError for a file that is damaged."""
        return read_metrics(self.folder / METRICS)

    @cached_property
    def temperature(self) -> float | None:
        """What every answer of the run is given at, fitted on validation images; None: as the network gives it."""
        return stored_temperature(self.metrics)

    @cached_property
    def decisions(self) -> Decisions | None:
        """How its answers are chosen; None: the most probable ones."""
        return stored_decisions(self.metrics, self.family)

    def decision(self, task: int) -> Tensor | None:
        """Offsets ``(V,)`` of the log probabilities by which a task answers; None: the most probable."""
        return None if self.decisions is None else self.decisions.of_task(task)

    @cached_property
    def encoder(self) -> Encoder:
        """The frozen encoder of the run's inputs."""
        return self.config.encoder.encoder(feature_channels(self.folder / HEAD))

    @property
    def backbone(self) -> Any:
        """The encoder, by the name that it has where the inputs are images."""
        return self.encoder

    @cached_property
    def method(self) -> Method:
        """The adapted network. Raises InputError if head or adapter do not belong to this backbone and configuration."""
        first = first_family(self.family, self.added_outputs, self.paired_outputs)
        channels = self.encoder.feature_shape[0]
        with torch.device("meta"), WithoutValues():  # a configuration can describe more than there is memory for
            load_head(build_head(self.config, first, channels), self.folder / HEAD)
        head = build_head(self.config, first, channels)
        load_head(head, self.folder / HEAD)
        if self.added_outputs:
            extend_head(head, self.family.num_tasks, self.added_outputs, self.paired_outputs)
        method = config_method(self.config, head, self.family)
        load_adapter(method, self.folder / ADAPTER, backbone=self.encoder.fingerprint())
        return method.eval()

    def evaluate(
        self,
        data: str,
        split: str | None,
        cache: str | Path,
        *,
        labels: str | None = None,
        skip_bad: bool = False,
        engine: str = "auto",
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Metrics on a split, overall and per task, of the answers that ``predict`` gives.

        Args:
            data: folder or data set id with the run's columns; it may hold only the split asked for.
            split: None takes the run's test split.
            cache: folder of features.
            labels: table of labels; None takes the run's, if it has one.
            engine: of extraction; see ``extract``.

        Raises:
            InputError: as for fit.
        """
        temperature, decisions = self.temperature, self.decisions  # damaged ones show before anything is extracted
        features, examples = self.examples(
            data, split, cache, labels=labels, skip_bad=skip_bad, engine=engine, progress=progress
        )
        found = predict(self.method, Inputs(self.method, features, examples.image.unique()), examples)
        given = decided(scaled(found, temperature), decisions)
        result = evaluate_predictions(given, self.family.tasks)
        return {
            "run": str(self.folder),
            "method": self.config.method,
            "split": split or self.config.test_split,
            "skipped": len(features.bad_rows),
            "temperature": temperature,
            "metric": self.config.metric,
            **result,
        }

    def examples(
        self,
        data: str,
        split: str | None,
        cache: str | Path,
        *,
        labels: str | None = None,
        skip_bad: bool = False,
        engine: str = "auto",
        progress: Progress | None = None,
    ) -> tuple[Features, Examples]:
        """Features of a split, and its pairs of input and task whose label and input can be read. Arguments as in ``evaluate``."""
        tell = progress or Silent()
        name = split or self.config.test_split
        if labels is not None and self.config.group and self.config.table is None:
            raise InputError("a table of labels has a column for each task; this run's tasks are groups of classes")
        answers = None if self.family.kind == "classes" else self.answer_words
        opened = open_splits(self.config.of_data(data, labels, skip_bad=skip_bad), [name], answers=answers)[name]
        labelled = read_labels(self.config, opened, self.family)
        for warning in (*opened.notes, *cut_in(opened, self.encoder), *without_labels(self.family, labelled)):
            tell.message(f"warning: {warning}")
        self.method.eval()  # a damaged run shows before anything is extracted
        with writable(Path(cache)):
            features = extract(
                self.encoder, opened, cache, precision=self.config.precision, engine=engine, skip_bad=skip_bad,
                report=partial(tell.extraction, name), say=tell.message,
            )  # fmt: skip
        examples = features.readable(labelled.examples)
        if not len(examples):
            raise InputError(f"split {name!r} of {data!r} has no labelled {opened.what} that can be read")
        return features, examples

    def predict(self, inputs: Iterable[Any], tasks: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Predictions for inputs under named tasks (none: all of them), at the run's temperature.

        Args:
            inputs: as the run's encoder takes them: paths of image files; texts; or embeddings ``(N, V)`` or ``(N, C, H, W)``.
            tasks: by name; or the name of one.

        Returns:
            One dict per input: its name (of a file, a text, or a place among the embeddings) under ``image``, ``text`` or
            ``embedding``, and under ``tasks`` by name ``prediction``, ``confidence`` (a probability) and ``probabilities`` of
            the task's own classes (or yes and no), in falling order.

        Raises:
            InputError: an unknown task; BadInputError: an input that cannot be used.
        """
        return list(self.answers(inputs, tasks))

    def answers(
        self,
        inputs: Iterable[Any],
        tasks: Sequence[str],
        bad: Callable[[str, InputError], None] | None = None,
        *,
        engine: str = "torch",
        say: Callable[[str], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As ``predict``, input by input, in memory that does not grow with their number.

        Args:
            inputs, tasks: as for ``predict``; or what ``config.encoder.asked_in`` found in files.
            bad: called with the name of each input that cannot be used, which is then left out; None raises.
            engine: of the encoder's pass: ``torch``, ``onnx``, ``openvino``, or ``auto``, the fastest one where there are many
                inputs and their number is known.
            say: told a line on what ``auto`` has chosen.
        """
        choose(engine, ENGINES, "engine")
        ids, encoder = self.task_ids(tasks), self.encoder
        number = len(inputs) if isinstance(inputs, Sized) else 0
        named = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], Asked)
        remaining: Iterator[Asked] = iter(inputs) if named else self.config.encoder.asked(inputs)
        _ = self.method  # a damaged run shows before any input does
        precision = self.config.precision
        if engine == "auto":
            engine = faster_engine(encoder, number, precision=precision, say=say)
        forward = forward_of(encoder, engine, precision=precision)
        cut = done = 0
        while asked := list(itertools.islice(remaining, at_once(encoder))):
            names, prepared, values = [], [], []
            for one in asked:
                try:
                    values.append(one.read())
                    prepared.append(encoder.preprocess(values[-1]))
                    names.append(one.name)
                except InputError as error:
                    if bad is None:
                        raise
                    bad(one.name, error)
            if names:
                yield from self._answered(forward, names, prepared, ids)
            cut, done = cut + encoder.cut(values), done + len(asked)
        if say:
            for note in cut_note(encoder, cut, done):
                say(f"warning: {note}")

    def _answered(
        self, forward: Callable[..., Tensor], names: list[str], prepared: list[Tensor], ids: list[int]
    ) -> list[dict[str, Any]]:
        """Answers to tasks, by number, for preprocessed inputs."""
        features = in_batches(self.encoder, prepared).features(forward, self.config.precision, self.encoder.kept)
        # Noise belongs to an input's content, not to its place among those asked about.
        sample_ids = torch.tensor([content_id(one) for one in prepared])
        results: list[dict[str, Any]] = [{self.encoder.what: name, "tasks": {}} for name in names]
        for pairs, logs in task_chunks(self.method, features, torch.tensor(ids), sample_ids=sample_ids):
            given = logs if self.temperature is None else apply_temperature(logs, self.temperature)
            for pair, log in zip(pairs.tolist(), given.exp(), strict=True):
                place, task = divmod(pair, len(ids))
                number = ids[task]
                answer = describe(self.family, number, log, self.decision(number))
                results[place]["tasks"][self.family.tasks[number]] = answer
        return results

    @property
    def answer_words(self) -> dict[str, Sequence[str]]:
        """What each task answers, by its name."""
        return {task: self.family.answers(number) for number, task in enumerate(self.family.tasks)}

    def task_ids(self, tasks: Sequence[str]) -> list[int]:
        """Numbers of named tasks (none: all of them). Raises InputError for an unknown task, with the nearest name."""
        tasks = (tasks,) if isinstance(tasks, str) else tasks
        if unknown := [name for name in tasks if name not in self._places]:
            self.family.task_id(unknown[0])  # which says what is near to it
        return [self._places[name] for name in tasks] or list(range(self.family.num_tasks))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: task for task, name in enumerate(self.family.tasks)}


def describe(family: TaskFamily, task: int, probabilities: Tensor, offsets: Tensor | None = None) -> dict[str, Any]:
    """An answer in words.

    Args:
        family: of the task. task: its number. probabilities: ``(C,)``, or ``(2,)`` of no and yes.
        offsets: of the log probabilities, by which the answer is chosen; None takes the most probable.

    Returns:
        ``prediction``, ``confidence`` (its probability), and ``probabilities`` of the task's own classes (or no and yes), in
        falling order.
    """
    names = family.targets
    best = int(probabilities.argmax() if offsets is None else decide(probabilities.log(), offsets))
    listed = sorted(((float(probabilities[place]), names[place]) for place in family.own_targets(task)), reverse=True)
    return {
        "prediction": names[best],
        "confidence": float(probabilities[best]),
        "probabilities": {name: value for value, name in listed},
    }


def content_id(prepared: Tensor) -> int:
    """A number of 56 bits that stands for a preprocessed input: of an image, uint8 ``(3, S, S)``."""
    return int.from_bytes(hashlib.sha256(prepared.numpy().tobytes()).digest()[:7], "little")
