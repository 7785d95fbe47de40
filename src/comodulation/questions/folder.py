"""The folder of a study of an open question: what it is of, its finished trials and its finished cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, brief, first_difference
from ..store import PARTIAL, json_bytes, read_json, torn
from ..studies.results import Result
from ..studies.rows import Cell
from ..studies.search import SEARCH_SEED, read_trials
from ..written_metrics import Written, checked
from .question import CELLS, SEARCH, Inquiry, Question
from .rates import at_an_end

QUESTION, LOCK = "question.json", ".lock"


class CellNumbers(Written):
    """KEY.json of a cell, as far as every question needs it; what one of them measures besides may be absent or null."""

    variant: str
    readout: str
    method: str
    options: str
    seed: int
    accuracy: float
    nll: float
    ece: float
    brier: float
    learnable_parameters: int
    seconds: float


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
    before, now = read_json(out / QUESTION), inquiry.to_json()
    if not isinstance(before, dict):
        raise InputError(f"{out / QUESTION} is not a study of an open question: it holds {brief(before)}")
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


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether a cell is there. Its numbers are written last: where a power cut has torn them, it is trained again."""
    path = cell_path(out, cell)
    try:
        return path.exists() and isinstance(read_json(path), dict)
    except InputError:
        return False


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
    own = {
        "variant": cell.variant, "readout": cell.readout, "method": cell.row.method, "options": cell.row.described,
        "seed": cell.seed,
    }  # fmt: skip
    for name, value in own.items():
        if numbers[name] != value:
            raise InputError(f"{path} is another cell's: {name} is {brief(numbers[name])}, expected {brief(value)}")
    for name in columns if cell.row.method == "comodulation" else ():
        if not isinstance(numbers.get(name), (int, float)):
            raise InputError(f"{path} is damaged: {name} is {brief(numbers.get(name))}, expected a number")
    return numbers


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
        if "learning_rate" not in line["params"]:
            raise InputError(f"{path} is damaged: a trial without learning_rate")
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
