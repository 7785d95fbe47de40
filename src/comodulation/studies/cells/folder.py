"""The folder of a study of an open question: what it is of, its finished trials and its finished cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, create_model

from ...errors import InputError, brief, first_difference
from ...files import PARTIAL, json_bytes, read_json, torn
from ...runs import Written, checked, written_in_full
from ...tensors import read_tensors
from .numbers import Count, Number
from .rates import at_an_end
from .results import Result
from .rows import Cell
from .searches import SEARCH_SEED, read_trials
from .study import CELLS, SEARCH, Inquiry, Question

QUESTION, LOCK = "question.json", ".lock"


# A search multiplies and divides the best rate until a neighbour is new: for 0 and infinity none ever is.
Rate = Annotated[float, Field(ge=1e-100, le=1e100)]
# A training that diverged leaves no numbers, and a rank correlation or an interval of what is not finite is none.
Finite = Annotated[Number, Field(allow_inf_nan=False)]


class CellNumbers(Written):
    """KEY.json of a cell, as far as every question needs it; ``read_cell`` adds what one of them measures besides."""

    variant: str
    readout: str
    method: str
    options: str
    seed: Count
    accuracy: Finite
    nll: Finite
    ece: Finite
    brier: Finite
    learnable_parameters: Count
    seconds: Finite
    alone: Finite = Field(default=math.nan)  # accuracy on images without distractors, where a question has them


class Asked(Written):
    """question.json; what the configuration must be, ``claim`` knows."""

    version: Literal[1] = Field(alias="schema")
    question: str
    config: dict[str, Any]
    seeds: list[Count]
    trials: Count


class Tried(Written):
    """Parameters of a trial."""

    learning_rate: Rate


class RateTrial(Written):
    """A line of a search for a learning rate."""

    params: Tried
    nll: Number


def claim(inquiry: Inquiry, out: Path) -> None:
    """Raise InputError for a folder that is something else, or another inquiry; seeds may be added to one."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder to write the study to")
    found = [path.name for path in out.iterdir()] if out.exists() else []
    found = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
    if not found:
        return
    if QUESTION not in found:
        raise InputError(f"{out} is not empty and not a study of an open question; choose another --out")
    if not has_begun(out) and torn(out / QUESTION, json_bytes(inquiry.to_json())):
        return  # a power cut when nothing else had been written
    before, now = checked(read_json(out / QUESTION), Asked, out / QUESTION), inquiry.to_json()
    before = {**before, "config": written_in_full(before["config"])}
    then_fixed, now_fixed = ({key: value for key, value in side.items() if key != "seeds"} for side in (before, now))
    if differing := first_difference(then_fixed, now_fixed):
        key, then, here = differing
        raise InputError(
            f"{out} holds a study with another {key} ({brief(then)}, now {brief(here)}); choose another --out"
        )


def has_begun(out: Path) -> bool:
    """Whether a folder holds a trial or a cell."""
    return any(path.is_file() for name in (CELLS, SEARCH) for path in (out / name).glob("*"))


@contextlib.contextmanager
def cleared_if_refused(out: Path) -> Iterator[None]:
    """Where bad input turns up before anything is finished in a new folder, leave nothing in it."""
    fresh = not (out / QUESTION).exists()
    try:
        yield
    except InputError:
        if fresh and not has_begun(out):
            for name in (CELLS, SEARCH):
                with contextlib.suppress(OSError):
                    (out / name).rmdir()
            for name in (QUESTION, LOCK):
                (out / name).unlink(missing_ok=True)
        raise


def cell_path(out: Path, cell: Cell) -> Path:
    return out / CELLS / f"{cell.key}.json"


def diverged_path(out: Path, cell: Cell) -> Path:
    """What a cell whose training diverged leaves: the reason. It is not trained again, which would end in the same way."""
    return out / CELLS / f"{cell.key}.diverged"


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether a cell is there. Its numbers are written last: where a power cut has torn them, it is trained again."""
    path = cell_path(out, cell)
    try:
        return path.exists() and isinstance(read_json(path), dict)
    except InputError:
        return False


def is_over(out: Path, cell: Cell) -> bool:
    """Whether nothing is left to do for a cell: it is finished, or its training diverged."""
    return is_finished(out, cell) or diverged_path(out, cell).exists()


def finished(question: Question, inquiry: Inquiry, out: Path) -> list[Result]:
    """Results of the cells that are there, in the order of their worth. Raises InputError for a cell of something else."""
    cells = [cell for stage in question.stages(inquiry.seeds) for cell in stage.cells]
    return [Result(cell, read_cell(out, cell, question.columns)) for cell in cells if is_finished(out, cell)]


def read_cell(out: Path, cell: Cell, columns: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of a finished cell. Raises InputError for a file that lacks some or is another cell's.

    Args:
        columns: what comodulation's cells have besides, numbers.
    """
    path = cell_path(out, cell)
    numbers = checked(read_json(path), CellNumbers, path)
    if columns and cell.row.method == "comodulation":
        measured: dict[str, Any] = dict.fromkeys(columns, (Finite, ...))
        checked(numbers, create_model("Columns", __base__=Written, **measured), path)
    own = {
        "variant": cell.variant, "readout": cell.readout, "method": cell.row.method, "options": cell.row.described,
        "seed": cell.seed,
    }  # fmt: skip
    for name, value in own.items():
        if numbers[name] != value:
            raise InputError(f"{path} is another cell's: {name} is {brief(numbers[name])}, expected {brief(value)}")
    return numbers


def read_probabilities(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """What N cells kept of the same M test examples. Raises InputError for files that are damaged or do not fit each other.

    Returns:
        Probabilities ``(N, M, C)`` and the targets, classes ``(M,)``.
    """
    found: list[np.ndarray] = []
    answers = shown = np.empty(0)
    for path in paths:
        tensors, _ = read_tensors(path)
        if missing := [name for name in ("probabilities", "target") if name not in tensors]:
            raise InputError(f"{path} is damaged: it has no {missing[0]}, expected probabilities and target")
        p, target = tensors["probabilities"].double().numpy(), tensors["target"].numpy()
        if p.ndim != 2 or not p.size or target.shape != p.shape[:1]:
            raise InputError(
                f"{path} is damaged: probabilities are {p.shape} and target {target.shape}, expected (examples, classes) "
                "and (examples,)"
            )
        if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1.001):  # half precision
            raise InputError(f"{path} is damaged: probabilities from {p.min():g} to {p.max():g}, expected 0 to 1")
        if target.dtype.kind not in "iu" or target.min() < 0 or target.max() >= p.shape[1]:
            raise InputError(
                f"{path} is damaged: target is {target.dtype} from {target.min():g} to {target.max():g}, expected classes "
                f"from 0 to {p.shape[1] - 1}"
            )
        images = tensors["image"].numpy() if "image" in tensors else np.empty(0)
        same = [np.array_equal(*pair) for pair in ((target, answers), (images, shown))] if found else []
        if found and (p.shape != found[0].shape or not all(same)):
            raise InputError(f"{path} has other test examples than {paths[0].name}")
        found.append(p)
        answers, shown = target, images
    return np.stack(found), answers


def search_of(question: Question, cell: Cell) -> Cell:
    """The search whose rate a cell takes."""
    return Cell(cell.variant, cell.readout, question.searched(cell.row), SEARCH_SEED)


def search_path(out: Path, search: Cell) -> Path:
    return out / SEARCH / f"{search.key}.jsonl"


def tried_rates(out: Path, search: Cell) -> dict[float, float]:
    """Learning rate -> validation NLL of a search's finished trials; infinite where training diverged."""
    path = search_path(out, search)
    found = {}
    for line in read_trials(path):
        checked(line, RateTrial, path)
        found[line["params"]["learning_rate"]] = math.inf if line["diverged"] else line["nll"]
    return found


def settings_of(question: Question, inquiry: Inquiry, out: Path, cell: Cell, num_tasks: int) -> dict[str, Any]:
    """Settings of a cell: the usual ones, with the learning rate that the row's search chose where there was one."""
    tried = tried_rates(out, search_of(question, cell))
    chosen = {"learning_rate": min(tried, key=lambda rate: tried[rate])} if tried else {}
    return {**question.settings(cell, inquiry, num_tasks), **chosen}


def rates_at_an_end(question: Question, out: Path, cells: Sequence[Cell]) -> list[str]:
    """Names of rows whose best rate is the smallest or largest that was tried."""
    searches = dict.fromkeys(search_of(question, cell) for cell in cells)
    return [search.row.label for search in searches if (tried := tried_rates(out, search)) and at_an_end(tried)]
