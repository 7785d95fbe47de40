"""Answers to many inputs as columns of a table, in shards; `Run.answers` gives the same for one input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..data.features import Batches, Encoder, forward_of
from ..errors import InputError
from ..evaluation import apply_temperature, decide
from ..networks.methods import task_chunks
from ..processes import Resources
from .folder import ADAPTER, METRICS, network_hash
from .run import Run
from .shards import shard_schema
from .streaming import Streamed, stream

PAIR_NUMBERS = 2**22  # probabilities of a batch's answers that are held at once


def stream_answers(
    run_folder: Path,
    files: Sequence[Path],
    out: Path,
    *,
    tasks: Sequence[str] = (),
    seed: int | None = None,
    engine: str = "auto",
    rows_per_shard: int | None = None,
    resume: bool = False,
    resources: Resources | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Streamed:
    """Answer all inputs of some files; memory does not grow with their number.

    Args:
        run_folder: of a finished run.
        tasks: names; none: all. seed: of the modulator's noise; None: the run's.
        files, out, engine, rows_per_shard, resume, resources, report, say: as in ``stream``.

    Raises:
        InputError, RunError: as ``stream``. An input that cannot be used is named in the column ``error``.
    """
    make = partial(AnswerColumns, run_folder.absolute(), tuple(tasks), seed)
    return stream(
        make, files, out, engine=engine, rows_per_shard=rows_per_shard, resume=resume, resources=resources, report=report,
        say=say,
    )  # fmt: skip


class AnswerColumns:
    """A run's answers to some tasks as columns; see ``Columns``.

    Args:
        folder: of a finished run. tasks: names of its tasks; none: all. seed: of the modulator's noise; None: the run's.

    Raises:
        InputError: no finished run, an unknown task, or one that would have the name of another column.
    """

    holds, manifest, pictures, skip_bad = "answers", "predictions.json", "inputs.parquet", True

    def __init__(self, folder: Path, tasks: Sequence[str], seed: int | None) -> None:
        self.run = run = Run.open(folder)
        if seed is not None:
            run.method.head.seed = seed
        self.noisy = not run.method.without_layers  # and a damaged run shows before any input does
        self.encoder: Encoder = run.encoder
        self.reader, self.precision = run.config.encoder.reader, run.config.precision
        self.files = [run.folder / METRICS, run.folder / ADAPTER]
        self.ids = run.task_ids(tasks)
        family = run.family
        self.names = [family.tasks[task] for task in self.ids]
        self.own = [list(family.own_targets(task)) for task in self.ids]
        self.dictionary = pa.array(family.targets, pa.string())
        # Their answers need no more memory than they may.
        self.rows = max(1, min(1024, PAIR_NUMBERS // (len(self.ids) * len(self.dictionary))))
        self.schema = shard_schema([field for place in range(len(self.ids)) for field in self._fields(place)])
        taken = self.schema.names
        if twice := [name for name in taken if taken.count(name) > 1]:
            raise InputError(f"two columns of the answers would be named {twice[0]!r}; choose tasks with --task")

    def about(self) -> dict[str, Any]:
        """The run, the tasks and the seed."""
        run = self.run
        return {
            "run": network_hash(run.folder),
            "temperature": run.temperature,
            **({} if run.decisions is None else {"decisions": run.decisions.to_json()}),
            "tasks": self.names,
            "seed": run.method.head.seed,
        }

    def use(self, engine: str, device: str) -> None:
        """Compute by an engine on a device from now on."""
        self.run.method.to(device)
        self.forward = forward_of(self.encoder, engine, device, self.precision)
        self.tasks = torch.tensor(self.ids, device=device)

    def _fields(self, place: int) -> list[pa.Field]:
        """Columns of a task: its answer, that answer's probability, and those of all its classes."""
        name, targets = self.names[place], self.run.family.targets
        classes = json.dumps([targets[one] for one in self.own[place]])
        return [
            pa.field(name, pa.dictionary(pa.int32(), pa.string())),
            pa.field(f"{name} probability", pa.float32()),
            pa.field(f"{name} probabilities", pa.list_(pa.float32()), metadata={"classes": classes}),
        ]

    def compute(self, batch: Batches, ids: Tensor | None) -> list[pa.Array]:
        """The tasks' columns for B preprocessed inputs.

        Args:
            ids: ``content_id`` of each, ``(B,)``; None where no noise is drawn.
        """
        run = self.run
        features = batch.features(self.forward, self.precision, self.encoder.kept, self.tasks.device)
        logs = torch.cat([found for _, found in task_chunks(run.method, features, self.tasks, sample_ids=ids)])
        answers = logs if run.temperature is None else apply_temperature(logs, run.temperature)
        probabilities = answers.exp().unflatten(0, (len(features), len(self.ids))).cpu()
        columns: list[pa.Array] = []
        for place, (task, own) in enumerate(zip(self.ids, self.own, strict=True)):
            found, offsets = probabilities[:, place], run.decision(task)
            best = found.argmax(-1) if offsets is None else decide(found.log(), offsets)
            confidence = found.gather(1, best[:, None])[:, 0]
            columns += [
                pa.DictionaryArray.from_arrays(best.numpy().astype(np.int32), self.dictionary),
                pa.array(confidence.numpy()),
                # Not of a fixed size: before pyarrow 26, such a column with empty rows cannot be written, or not be read.
                pa.ListArray.from_arrays(
                    np.arange(len(found) + 1, dtype=np.int32) * len(own), found[:, own].flatten().numpy()
                ),
            ]
        return columns
