"""A small study as a command, and what may differ between two of its folders."""

from __future__ import annotations

import json

from comodulation.studies.cells import CELLS
from support.faults import (
    tree,
    without_times,
)
from support.small_study import SMALL as SMALL_STUDY

NARROW = ["--part", "core", "--method", "attention", "--devices", "1"]
SHORT_STUDY = ["--seeds", "2", "--trials", "2", "--epochs", "2", "--pretraining-epochs", "2"]


def study_words(data, out, cache, *options):
    return [
        "reproduce", "cifar100", "--data", data, "--out", out, "--cache", cache, *SMALL_STUDY, *SHORT_STUDY, *NARROW,
        *options,
    ]  # fmt: skip


def study_differences(out, reference):
    """What two finished studies differ in: trials, scores, gains by the byte, numbers but for times, what is there."""
    found = sorted(tree(out) ^ tree(reference))
    for name in sorted(tree(reference) & tree(out)):
        path, other = out / name, reference / name
        if path.suffix in (".safetensors", ".jsonl") and path.read_bytes() != other.read_bytes():
            found.append(name)
        if path.suffix == ".json" and path.parent.name == CELLS and _numbers(path) != _numbers(other):
            found.append(name)
    tables = [
        [line.rpartition(",")[0] for line in (place / "cells.csv").read_text().splitlines()]
        for place in (out, reference)
    ]
    return found + (["cells.csv"] if tables[0] != tables[1] else [])


def _numbers(path):
    return without_times(json.loads(path.read_text()))
