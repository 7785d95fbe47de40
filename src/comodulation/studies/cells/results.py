"""Cells on disk, the two tables for machines, and the paired comparisons between rows.

cells.csv has one row a trained network, comparisons.csv one a pair of rows, metric, variant and readout; anyone can recompute the
second from the first. A row's name in the second is its method with its options.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...evaluation import METRICS, PairedDifference, as_family, paired_difference
from ...files import MAX_JSON, read_bounded, read_json
from ...tensors import read_arrays
from .numbers import checked_scores
from .rows import DATA_OPTIONS, YARDSTICK, YARDSTICKS, Cell, Row

CELL_COLUMNS = (
    "variant", "readout", "method", "options", "seed", "accuracy", "nll", "ece", "brier", "learnable_parameters",
    "seconds",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "variant", "readout", "metric", "a", "b", "n", "difference", "low", "high", "p_t", "p_wilcoxon", "p_holm", "family",
    "low_family", "high_family",
)  # fmt: skip
# Against what comodulation is compared, everywhere; the first is the primary comparison's.
REFERENCES = (
    "attention",
    "class-mask",
    "local-mask",
    "task-bias",
    "decoder-gains",
    "ia3",
    "film",
    "paper",
    "hard-sharing",
    "base",
    YARDSTICK,
)


@dataclass(frozen=True)
class Result:
    """A finished cell: what it is, and its numbers."""

    cell: Cell
    numbers: dict[str, Any]
    key: str = ""  # of its files; the cell's unless it stands for another one that is the same
    constant: bool = False  # whether it stands for every seed of its row (``held_constant``)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.cell.key)

    @property
    def name(self) -> str:
        return self.cell.row.label

    @property
    def series(self) -> tuple[str, str, str]:
        """What is compared over seeds: variant, readout, and name of the row."""
        return self.cell.variant, self.cell.readout, self.name


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two rows over seeds.

    Attributes:
        variant, readout, metric: where.
        a, b: names of rows; the difference is a - b.
        seeds: the seeds both have.
        difference: alone; None with fewer than two seeds.
        judged: the same as one of its table's family, which decides; the primary comparison's as it stands. None as
            ``difference``, or where it has not been put into a table (``as_table``).
    """

    variant: str
    readout: str
    metric: str
    a: str
    b: str
    seeds: tuple[int, ...]
    difference: PairedDifference | None
    judged: PairedDifference | None = None

    @property
    def primary(self) -> bool:
        return (self.variant, self.readout, self.metric, self.a, self.b) == PRIMARY

    @property
    def p_holm(self) -> float:
        """Adjusted over the table's secondary comparisons; nan for the primary one."""
        return math.nan if self.primary or self.judged is None else self.judged.p


def read_results(folder: Path, cells: Iterable[Cell]) -> list[Result]:
    """Numbers of the cells that are finished, in the order given. Raises InputError for a damaged file."""
    found = []
    for cell in cells:
        path = folder / f"{cell.key}.json"
        if path.exists():
            found.append(Result(cell, read_json(path)))
    return found


def with_yardstick(results: Sequence[Result]) -> list[Result]:
    """The results, and those of ``YARDSTICKS`` in every variant and readout of the others: without layers, they are the same."""
    wanted: dict[tuple[str, str], set[Row]] = {}
    for result in results:
        wanted.setdefault((result.cell.variant, result.cell.readout), set()).add(result.cell.row.yardstick)
    again = [
        replace(r, cell=replace(r.cell, variant=variant, readout=readout))
        for (variant, readout), rows in wanted.items()
        for r in results
        if r.cell.row.method in YARDSTICKS and r.cell.row.yardstick in rows
        if (variant, readout) != (r.cell.variant, r.cell.readout)
    ]
    return [*results, *again]


def incomplete_yardsticks(results: Sequence[Result]) -> list[str]:
    """Names of the yardsticks that are there, but not of every seed that the results have."""
    seeds = {result.cell.seed for result in results}
    fitted = {name: {result.cell.seed for result in results if result.name == name} for name in YARDSTICKS}
    return [name for name, own in fitted.items() if own and own != seeds]


def held_constant(results: Sequence[Result], names: Iterable[str]) -> list[Result]:
    """The results, where the first cell of each of these rows stands for all seeds: ``compare`` holds each of them against it."""
    left, found = set(names), []
    for result in results:
        found.append(replace(result, constant=True) if result.name in left else result)
        left.discard(result.name)
    return found


def constant_seed(results: Sequence[Result], variant: str, readout: str, name: str) -> int | None:
    """The seed whose cell stands for all seeds of a row; None where each has its own."""
    series = (variant, readout, name)
    return next((result.cell.seed for result in results if result.constant and result.series == series), None)


def names_of(results: Sequence[Result], variant: str, readout: str = "open") -> list[str]:
    """Names of the rows of a variant and readout, in the order of the results."""
    return list(dict.fromkeys(result.name for result in results if result.series[:2] == (variant, readout)))


def read_scores(folder: Path, result: Result) -> dict[str, np.ndarray]:
    """Scores of every test prediction of a cell, by name, each ``(M,)``."""
    path = folder / f"{result.key}.scores.safetensors"
    return checked_scores(read_arrays(path)[0], path)


def scores_by_seed(
    folder: Path, results: Sequence[Result], variant: str, readout: str, name: str, score: str
) -> dict[int, np.ndarray]:
    """One score of every test prediction of a row, by seed."""
    return {
        result.cell.seed: read_scores(folder, result)[score]
        for result in results
        if result.series == (variant, readout, name)
    }


@dataclass(frozen=True)
class PrimaryScores:
    """What the two rows of the primary comparison did on every test prediction.

    Attributes:
        seeds: the S seeds both have.
        a, b: scores of either row (hits, unless asked otherwise), ``(S, M)``.
        image, task: of the predictions, ``(M,)``.
    """

    seeds: tuple[int, ...]
    a: np.ndarray
    b: np.ndarray
    image: np.ndarray
    task: np.ndarray


def primary_scores(folder: Path, results: Sequence[Result], score: str = "hit") -> PrimaryScores | None:
    """One score of the primary comparison's rows, by seed; None with fewer than two seeds.

    Raises:
        InputError: damaged scores, or scores of other test predictions than another cell's.
    """
    variant, readout, _, a, b = PRIMARY
    both = [(variant, readout, name) for name in (a, b)]
    mine = {(result.name, result.cell.seed): result for result in results if result.series in both}
    seeds = tuple(sorted(seed for name, seed in mine if name == a and (b, seed) in mine))
    if len(seeds) < 2:
        return None
    first = read_scores(folder, mine[a, seeds[0]])
    hits: dict[str, list[np.ndarray]] = {a: [], b: []}
    for name, found in hits.items():
        for seed in seeds:
            scores = read_scores(folder, mine[name, seed])
            for field in ("image", "task"):
                if not np.array_equal(scores[field], first[field]):
                    key, other = mine[name, seed].cell.key, mine[a, seeds[0]].cell.key
                    raise InputError(
                        f"{folder / key}.scores.safetensors has other test predictions than {other}: {field}"
                    )
            found.append(scores[score])
    return PrimaryScores(seeds, np.stack(hits[a]), np.stack(hits[b]), first["image"], first["task"])


def read_gains(folder: Path, result: Result) -> dict[str, np.ndarray]:
    """Learned and computed gains of a cell; {} where it has none."""
    path = folder / f"{result.key}.gains.safetensors"
    return read_arrays(path)[0] if path.exists() else {}


def values(
    results: Sequence[Result], variant: str, readout: str, name: str, metric: str | Sequence[str]
) -> dict[int, float]:
    """A metric of a row by seed; metrics of a section of the numbers as ``section.metric``, or by their keys."""
    found, keys = {}, metric.split(".") if isinstance(metric, str) else metric
    for result in results:
        if result.series == (variant, readout, name):
            value: Any = result.numbers
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None and math.isfinite(value):
                found[result.cell.seed] = float(value)
    return found


def minus(left: Mapping[int, float], right: Mapping[int, float]) -> dict[int, float]:
    """Differences of two series, by the seeds that both have, in order."""
    return {seed: left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())}


def paired(left: Mapping[int, float], right: Mapping[int, float]) -> PairedDifference | None:
    """The paired difference of two series over the seeds that both have; None with fewer than two: said, not computed."""
    seeds = sorted(left.keys() & right.keys())
    return paired_difference([left[s] for s in seeds], [right[s] for s in seeds]) if len(seeds) > 1 else None


def compare(results: Sequence[Result], variant: str, readout: str, metric: str, a: str, b: str) -> Comparison:
    """Paired comparison of two rows over the seeds that both have; with a row that is held constant, over those of the other."""
    left, right = (values(results, variant, readout, name, metric) for name in (a, b))
    one, other = (constant_seed(results, variant, readout, name) for name in (a, b))
    if one is not None and other is None and one in left:
        left = dict.fromkeys(right, left[one])
    elif other is not None and one is None and other in right:
        right = dict.fromkeys(left, right[other])
    seeds = tuple(sorted(left.keys() & right.keys()))
    return Comparison(variant, readout, metric, a, b, seeds, paired(left, right))


def as_table(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are shown together, judged as one family; the primary one, named beforehand, is read as it stands."""
    members = as_family([None if item.primary else item.difference for item in comparisons])
    return [
        replace(item, judged=item.difference if item.primary else member)
        for item, member in zip(comparisons, members, strict=True)
    ]


def all_comparisons(results: Sequence[Result]) -> list[Comparison]:
    """Every comparison of the study: comodulation with its rivals, and options and combinations with their method.

    Those of one variant, readout and metric are a table, and judged together.
    """
    found = []
    results = with_yardstick(results)
    for variant, readout in dict.fromkeys(result.series[:2] for result in results):
        compared = pairs(names_of(results, variant, readout))
        for metric in METRICS:
            found += as_table([compare(results, variant, readout, metric, a, b) for a, b in compared])
    return found


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which rows are compared, as (a, b)."""
    found = []
    for name in names:
        row = Row.parse(name)
        regime = {option: row.get(option) for option in DATA_OPTIONS if row.get(option) is not None}
        if row.without(*DATA_OPTIONS) == Row("comodulation"):
            rivals = [Row(method).adding(**regime).label for method in REFERENCES]
            found += [(name, rival) for rival in rivals if rival in names]
        elif not regime and row.options:
            plain = Row(row.method).label
            found += [(name, other) for other in dict.fromkeys((plain, "attention")) if other in names]
            if row.get("task_bias") and row.method == "comodulation":
                others = ("task-bias", "attention task_bias=True", "ia3 task_bias=True")
                found += [(name, other) for other in others if other in names]
    return found


def cells_csv(results: Sequence[Result], more: Sequence[str] = ()) -> str:
    """One row a trained network; ``more`` names further columns, empty where a network lacks the number."""
    columns = (*CELL_COLUMNS, *more)
    return _csv(columns, ([result.numbers.get(column, math.nan) for column in columns] for result in results))


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """One row a comparison. Those with fewer than two seeds have n and no numbers.

    The interval ``low, high`` and ``p_t`` are of the comparison alone; ``p_holm``, ``low_family`` and ``high_family`` are adjusted
    for the ``family`` comparisons of its table.
    """
    rows = []
    for item in comparisons:
        d, own = item.difference, item.judged
        numbers: list[float] = [d.mean, d.low, d.high, d.p, d.p_wilcoxon, item.p_holm] if d else [math.nan] * 6
        numbers += [own.family, own.low, own.high] if own else [math.nan] * 3
        rows.append([item.variant, item.readout, item.metric, item.a, item.b, len(item.seeds), *numbers])
    return _csv(COMPARISON_COLUMNS, rows)


def read_cells_csv(path: Path) -> list[Result]:
    """The cells of a table, without what only the cells' own files hold. Raises InputError for another file."""
    try:
        text = read_bounded(path, MAX_JSON).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    results = []
    for number, row in enumerate(rows, 2):
        try:
            label = f"{row['method']} {row['options']}".strip()
            cell = Cell(row["variant"], row["readout"], Row.parse(label), int(row["seed"]))
            numeric: dict[str, float] = {name: float(row[name]) for name in (*METRICS, "seconds")}
            numeric["learnable_parameters"] = int(row["learnable_parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: not a row of cells.csv: {error}") from error
        results.append(Result(cell, {**row, **numeric, "seed": cell.seed}))
    return results


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_shown(value) for value in row] for row in rows)
    return sink.getvalue()


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))  # all digits: what follows from it must follow exactly
    return value


PRIMARY = ("residual", "open", "accuracy", "comodulation", "attention")  # variant, readout, metric, a, b
NAMED = {
    "accuracy": "hit",
    "nll": "nll",
}  # metrics of the comparison named beforehand, and the score of each prediction
