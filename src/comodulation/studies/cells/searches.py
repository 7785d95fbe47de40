"""The search for a row's settings: the same number of trials for every method, validation split only, resumable.

Trials are drawn by Optuna's TPE sampler and trained to the end. None is stopped for being behind: under a one-cycle schedule the
best learning rates are behind while the rate is high (comodulation with 0.2 is at 0.73 after two epochs of six and ends at 0.592;
with 0.06 at 0.66 and 0.605), so that pruning by the median chooses rates that are too low. Every finished trial is a line of a
JSON file, from which an interrupted search goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ...errors import DivergedError, InputError
from ...evaluation import METRICS, metrics
from ...files import MAX_JSON, parse_json, read_bounded, write_bytes
from ...mathematics import derived_seed
from ...runs import Written, checked
from .laboratory import Laboratory
from .rows import YARDSTICKS, Cell, Row

DIVERGED = 1e3  # stands for the NLL of a trial without one
START_TRIALS = 5  # drawn from the whole ranges
SEARCH_SEED = 100  # not among the seeds that are compared
LAYERS = ("hard-sharing", "gradient-aggregation", "task-routing", "maximum-roaming", "fine-tuning")
FREE = (
    "base",
    "class-mask",
    "local-mask",
    *YARDSTICKS,
)  # nothing to search; what the last two learn, they choose by themselves

# Ranges of the learning rate, log-uniform, set so that no best trial lies at an end. Layers that begin at the probe take lower
# rates than the paper's.
RATES = {
    "task-bias": (0.05, 10.0),
    "attention": (0.003, 0.6),
    "decoder-gains": (0.003, 0.6),
    "ia3": (0.003, 0.6),
    "film": (0.01, 0.3),
    "comodulation": (0.003, 0.6),
    "paper": (0.003, 0.6),
    "positions": (0.05, 2.0),
    **dict.fromkeys(LAYERS, (3e-5, 3e-3)),
}


MLP_RATES = (3e-4, 0.03)  # of a controller with hidden layers


EDGE = 0.05  # share of a range, counted as its end
WIDER = 3.0  # by which a logarithmic range grows at an end where the best trial lies
# What no range may leave: the options themselves end there.
LIMITS = {
    "learning_rate": (1e-6, 100.0),
    "weight_decay": (1e-7, 100.0),
    "std": (1e-3, 10.0),
    "sharing": (0.05, 1.0),
    "share": (0.05, 1.0),
    "gain_rate": (0.1, 1e4),
}


Range = tuple[str, float, float]  # scale, low, high


def limits(row: Row, name: str) -> tuple[float, float]:
    """What a range cannot leave."""
    if name == "beta":
        bounded = row.method == "paper" or row.get("link") == "rectified"
        return (0.0, 1.0) if bounded else (0.0, 4.0)
    return LIMITS[name]


def widened(row: Row, done: Sequence[dict[str, Any]]) -> dict[str, Range]:
    """The ranges that the next trial is drawn from: wider at every end where the best trial so far lies.

    A function of the finished trials alone, so that an interrupted search goes on as it would have gone, and every row gets the
    same number of trials however often its ranges grew.

    Args:
        row: searched. done: its finished trials, in their order.
    """
    ranges = space(row)
    for number in range(START_TRIALS, len(done) + 1):
        complete = [line for line in done[:number] if not line["diverged"]]
        if complete:
            best = min(complete, key=lambda line: line["nll"])["params"]
            ranges = {
                name: _wider(own, best[name], limits(row, name)) if name in best else own
                for name, own in ranges.items()
            }
    return ranges


def _wider(own: Range, value: float, within: tuple[float, float]) -> Range:
    scale, low, high = own
    place = place_in(own, value)
    step = (lambda end, up: end * WIDER if up else end / WIDER) if scale == "log" else (
        lambda end, up: end + (high - low) / 4 * (1 if up else -1)
    )  # fmt: skip
    if place < EDGE:
        low = max(within[0], step(low, False))
    elif place > 1 - EDGE:
        high = min(within[1], step(high, True))
    return scale, low, high


def place_in(own: Range, value: float) -> float:
    """Where a value lies in a range, as a share of it: 0 at the low end, 1 at the high one."""
    scale, *ends = own
    at, low, high = (math.log(max(v, 1e-300)) if scale == "log" else v for v in (value, *ends))
    return (at - low) / (high - low)


def space(row: Row) -> dict[str, tuple[str, float, float]]:
    """What is searched for a row: name -> (scale, low, high)."""
    ranges: dict[str, tuple[str, float, float]] = {
        "learning_rate": ("log", *(MLP_RATES if row.get("hidden") else RATES[row.method])),
        "weight_decay": ("log", 1e-4, 10.0),
    }
    if row.method == "comodulation":
        ranges["beta"] = ("linear", 0.4, 1.0 if row.get("link") == "rectified" else 1.4)
    if row.method == "paper":
        ranges["std"] = ("log", 0.05, 1.0)
        ranges["beta"] = ("linear", 0.4, 1.0)
    if row.method == "task-routing":
        ranges["sharing"] = ("linear", 0.3, 0.95)
    if row.method == "maximum-roaming":
        ranges["share"] = ("linear", 0.5, 0.95)
    if row.method == "fine-tuning":
        ranges["gain_rate"] = ("log", 10.0, 300.0)
    return {name: value for name, value in ranges.items() if row.get(name) is None}


def search(laboratory: Laboratory, cell: Cell, trials: int, path: Path) -> Iterator[int]:
    """Run the trials of a row that are not there yet, one by one; yields the number of finished ones after each.

    Args:
        laboratory: where they run.
        cell: variant, readout and row; its seed is ``SEARCH_SEED``.
        trials: how many in all.
        path: file of finished trials, one JSON object a line.
    """
    try:
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.trial import TrialState, create_trial
    except ImportError as error:
        raise InputError("a search needs Optuna: pip install 'comodulation[studies]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    done = read_trials(path)
    for number in range(len(done), trials):
        ranges = {
            name: FloatDistribution(low, high, log=scale == "log")
            for name, (scale, low, high) in widened(cell.row, done).items()
        }
        study = optuna.create_study()
        for entry in done:
            state = TrialState.PRUNED if entry["diverged"] else TrialState.COMPLETE
            study.add_trial(create_trial(state=state, value=entry["nll"], params=entry["params"], distributions=ranges))
        # A sampler of its own for each trial: a search that was interrupted draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(
            seed=derived_seed(SEARCH_SEED, cell.variant, cell.readout, cell.row.label, number) % 2**31,
            n_startup_trials=START_TRIALS,
        )
        trial = study.ask(ranges)
        line: dict[str, Any] = {"params": trial.params, "diverged": False}
        try:
            _, adapted = laboratory.adapt(replace(cell, seed=SEARCH_SEED), dict(trial.params))
            line["nll"] = min(entry["nll"] for entry in adapted.history)
            line["accuracy"] = max(entry["accuracy"] for entry in adapted.history)
            line["epochs"] = [entry["nll"] for entry in adapted.history]
        except DivergedError:
            line |= {"diverged": True, "nll": DIVERGED}
        done.append(line)
        write_lines(path, done)
        yield number + 1


def ablate(
    laboratory: Laboratory,
    rows: Sequence[Row],
    settings: Callable[[Row], dict[str, Any]],
    path: Path,
) -> Iterator[str]:
    """One change at a time, on the search's seed and validation images: the evidence for the defaults.

    Yields:
        The label of each row that is finished.

    Args:
        laboratory: where they run. rows: each with what it changes. settings: of a row, as the searches chose them.
        path: file of what is finished, one JSON object a line.
    """
    done = read_changes(path)
    for row in rows:
        if any(line["row"] == row.label for line in done):
            continue
        try:
            _, adapted = laboratory.adapt(Cell("residual", "open", row, SEARCH_SEED), settings(row))
            found = metrics(adapted.validation.log_probabilities, adapted.validation.target)
            line = {"row": row.label, **{name: found[name] for name in METRICS}, "seconds": adapted.seconds["tuning"]}
        except DivergedError as error:
            line = {"row": row.label, "failed": str(error)}
        done.append(line)
        write_lines(path, done)
        yield row.label


def write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write what is finished of a search or an ablation, one JSON object a line."""
    write_bytes(path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())


def read_trials(path: Path) -> list[dict[str, Any]]:
    """Finished trials of a file, [] if there is none. Raises InputError for a damaged file.

    A line is finished once it has its end: what a power cut leaves of the last one is drawn again, to the same numbers.
    """
    return _read_lines(path, Trial)


def read_changes(path: Path) -> list[dict[str, Any]]:
    """Finished rows of an ablation's file, [] if there is none. Raises InputError for a damaged file."""
    return _read_lines(path, Change)


class Trial(Written):
    """A line of a search's file."""

    params: dict[str, float]
    diverged: bool
    nll: float
    epochs: list[float] = Field(default_factory=list)


class Numbers(Written):
    """What a change of the defaults does."""

    accuracy: float
    nll: float
    ece: float
    seconds: float


class Change(Written):
    """A line of an ablation's file: a row, and its numbers unless it failed."""

    row: str
    failed: str | None = None


def _read_lines(path: Path, expected: type[Written]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        finished = read_bounded(path, MAX_JSON).decode().rstrip("\0").rpartition("\n")[0]
        entries = [checked(parse_json(line), expected, path) for line in finished.splitlines()]
        for entry in entries:
            if expected is Change and entry.get("failed") is None:
                checked(entry, Numbers, path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a list of trials: {error}; remove it to search again") from error
    return entries


def best_settings(path: Path) -> dict[str, Any]:
    """Parameters of the finished trial of lowest validation NLL; {} where nothing was searched."""
    complete = [line for line in read_trials(path) if not line["diverged"]]
    return min(complete, key=lambda line: line["nll"])["params"] if complete else {}


def params_at_an_end(row: Row, params: dict[str, Any], done: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Names of searched parameters whose best value lies within 5% of an end of its range, as it was for the last trial.

    Args:
        row: searched. params: the best. done: all finished trials; none takes the ranges that a search begins with.
    """
    ranges = widened(row, done[:-1])
    return [
        name for name, own in ranges.items() if name in params and not EDGE <= place_in(own, params[name]) <= 1 - EDGE
    ]
