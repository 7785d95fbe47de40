"""Answers to a batch of inputs as columns of a table; `Run.answers` gives the same for one input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..data.features import Batches
from ..errors import InputError
from ..evaluation import apply_temperature, decide
from ..networks.methods import task_chunks
from .run import Run

PAIR_NUMBERS = 2**22  # probabilities of a batch's answers that are held at once


class AnswerColumns:
    """A run's answers to some tasks as columns.

    Args:
        run: a finished run. tasks: names of its tasks; none: all. forward: its encoder's pass.

    Raises:
        InputError: an unknown task, or one that would have the name of another column.
    """

    def __init__(self, run: Run, tasks: Sequence[str], forward: Any) -> None:
        self.run, self.forward = run, forward
        self.ids = run.task_ids(tasks)
        family = run.family
        self.names = [family.tasks[task] for task in self.ids]
        self.own = [list(family.own_targets(task)) for task in self.ids]
        self.dictionary = pa.array(family.targets, pa.string())
        taken = [name for column in self.schema for name in (column.name,)]
        if twice := [name for name in taken if taken.count(name) > 1]:
            raise InputError(f"two columns of the answers would be named {twice[0]!r}; choose tasks with --task")
        device = run.method.head.decoder.weight.device
        self.tasks = torch.tensor(self.ids, device=device)

    @property
    def rows(self) -> int:
        """Inputs of a batch, so that their answers need no more memory than they may."""
        return max(1, min(1024, PAIR_NUMBERS // (len(self.ids) * len(self.dictionary))))

    @property
    def schema(self) -> pa.Schema:
        """The columns: which input, and for each task its answer, that answer's probability, and those of all its classes."""
        of_inputs = [("file", pa.dictionary(pa.int32(), pa.string())), ("row", pa.int64()), ("id", pa.string())]
        fields = [pa.field(name, kind) for name, kind in of_inputs]
        for name, own in zip(self.names, self.own, strict=True):
            classes = json.dumps([self.run.family.targets[one] for one in own])
            fields += [
                pa.field(name, pa.dictionary(pa.int32(), pa.string())),
                pa.field(f"{name} probability", pa.float32()),
                pa.field(f"{name} probabilities", pa.list_(pa.float32()), metadata={"classes": classes}),
            ]
        return pa.schema([*fields, pa.field("error", pa.string())])

    def answers(self, batch: Batches, ids: Tensor | None) -> list[pa.Array]:
        """The tasks' columns for B preprocessed inputs.

        Args:
            ids: ``content_id`` of each, ``(B,)``; None where no noise is drawn.
        """
        run, encoder = self.run, self.run.encoder
        features = batch.features(self.forward, run.config.precision, encoder.kept, self.tasks.device)
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
