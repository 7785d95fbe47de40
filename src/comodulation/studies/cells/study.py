"""The parts of a study of an open question: cells in order of importance, and the functions that train and judge them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...report import Figure, Section, Verdict
from ...runs import RunConfig, Written
from .agenda import Manifest, Stage
from .laboratory import Laboratory
from .numbers import Count
from .results import Result
from .rows import Cell, Row

QUESTION = "question.json"


class InquiryFile(Written):
    """question.json; what the configuration must be, ``written_in_full`` knows."""

    version: Literal[1] = Field(alias="schema")
    question: str
    config: dict[str, Any]
    seeds: list[Count]
    trials: Count


@dataclass(frozen=True)
class Inquiry:
    """One question asked of one data set.

    Attributes:
        question: its name.
        config: what all cells share: data, backbone, layers, training.
        seeds: of the cells, which are paired by them.
        trials: of each row's search for its learning rate; 0 takes the settings of the paper's study.
    """

    question: str
    config: RunConfig
    seeds: tuple[int, ...]
    trials: int

    @property
    def manifest(self) -> Manifest:
        return Manifest(QUESTION, "a study of an open question", self.to_json(), ("seeds",), InquiryFile)

    def to_json(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        return {
            "schema": 1, "question": self.question, "config": config, "seeds": list(self.seeds), "trials": self.trials
        }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What the finished cells say.

    Attributes:
        verdicts: the first one is the study's.
        sections: of the report. figures: by file name; the first one is the study's.
        numbers: for machines.
        text: for the terminal.
        notes: what weakens the answer.
    """

    verdicts: list[Verdict]
    sections: list[Section]
    figures: dict[str, Figure]
    numbers: dict[str, Any]
    text: str
    notes: list[str] = field(default_factory=list)


Measure = Callable[[Laboratory, Cell, dict[str, Any], Path], dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """An open question, and how it is answered.

    Attributes:
        name: on the command line. title: of the report.
        asks, predicts: the question, and what was expected before anything was measured.
        stages: cells of some seeds, in the order of their worth.
        measure: trains a cell, writes what it keeps besides and returns its numbers.
        settings: of a cell, where nothing is searched.
        answer: judges the finished cells; told the folder that holds what ``measure`` kept.
        trials: of each row's search, unless told otherwise.
        first_rate: where a row's search for its learning rate begins.
        searched: the row whose search gives a cell its learning rate; by default its own, whatever the draw.
        columns: numbers of a cell that cells.csv has besides the usual ones.
        make_laboratory: what trains the cells, from the inquiry and the cache; None for the usual one.
        network: what is frozen, in words, where it is not the configuration's backbone.
        has_yardstick: whether linear readouts of the same features, fitted to the same images, stand beside the rows.
        rates: where the learning rates are from that a row has without a search.
        place: "module:NAME" of the question, where a process of the study finds it: its functions cannot be sent.
    """

    name: str
    title: str
    asks: str
    predicts: str
    stages: Callable[[Sequence[int]], list[Stage]]
    measure: Measure
    settings: Callable[[Cell, Inquiry, int], dict[str, Any]]
    answer: Callable[[Sequence[Result], Inquiry, Path], Answer]
    trials: int = 0
    first_rate: Callable[[Row], float] = lambda row: 0.2
    searched: Callable[[Row], Row] = lambda row: row.without("draw")
    columns: tuple[str, ...] = ()
    make_laboratory: Callable[[Inquiry, Path], Laboratory] | None = None
    network: str = ""
    place: str = ""
    has_yardstick: bool = True
    rates: str = "Learning rates are those that another study's searches chose for attention and comodulation."

    def __reduce__(self) -> tuple[Callable[[str], Question], tuple[str]]:
        return _at, (self.place,)


def _at(place: str) -> Question:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
