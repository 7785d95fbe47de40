"""The search: the same number of trials for all, stopped and continued to the same bits, and what it leaves on disk."""

import json
import math

import pytest

from comodulation.errors import DivergedError, InputError
from comodulation.studies.cells.rows import Cell, Row
from comodulation.studies.cells.searches import (
    SEARCH_SEED,
    START_TRIALS,
    best_settings,
    limits,
    params_at_an_end,
    read_trials,
    search,
    space,
    widened,
)

CELL = Cell("residual", "open", Row("comodulation"), 0)
EPOCHS = 4
TOO_FAST = 0.4


class Bench:
    """A laboratory whose trainings are a formula: a bowl with its lowest point inside the ranges; high rates diverge."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def adapt(self, cell, settings):
        if self.stop_after is not None and len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append((cell, settings))
        rate = math.log(settings["learning_rate"])
        floor = (rate - math.log(0.15)) ** 2 + (settings.get("beta", 1) - 0.9) ** 2 + settings["weight_decay"]
        if settings["learning_rate"] > TOO_FAST:
            raise DivergedError("the training loss became nan in epoch 2; try a lower learning rate")
        history = [{"nll": floor + 1 / number, "accuracy": 1 / (1 + floor)} for number in range(1, EPOCHS + 1)]
        return None, type("Adapted", (), {"history": history})


def trials(path):
    return read_trials(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Sixteen trials in one go, and what was trained."""
    path, bench = tmp_path_factory.mktemp("search") / "whole.jsonl", Bench()
    assert list(search(bench, CELL, 16, path)) == list(range(1, 17))
    return path, bench


def test_trials_on_disk(whole):
    """Every trial is there, those that diverged too; the seed is not one that is compared."""
    path, bench = whole
    entries = trials(path)
    assert len(entries) == len(bench.asked) == 16
    assert {cell.seed for cell, _ in bench.asked} == {SEARCH_SEED}
    assert SEARCH_SEED not in range(10)
    assert [entry["params"] for entry in entries] == [settings for _, settings in bench.asked]
    for number, entry in enumerate(entries):
        ranges = widened(CELL.row, entries[:number])
        assert set(entry["params"]) == set(ranges) == set(space(CELL.row))
        assert all(ranges[name][1] <= value <= ranges[name][2] for name, value in entry["params"].items())
        assert entry["diverged"] == (entry["params"]["learning_rate"] > TOO_FAST)
        if not entry["diverged"]:
            assert len(entry["epochs"]) == EPOCHS
            assert entry["nll"] == min(entry["epochs"])
    assert 0 < sum(entry["diverged"] for entry in entries) < 8


def test_the_search_finds_the_bowl(whole):
    """Better than the first trials, which are random; and the best is the lowest of those that were finished."""
    path, _ = whole
    entries = trials(path)
    finished = [entry for entry in entries if not entry["diverged"]]
    best = min(finished, key=lambda entry: entry["nll"])
    assert best_settings(path) == best["params"]
    assert entries.index(best) >= 5
    # In beta the bowl is flat, and where the best lies in it is the luck of the version of optuna.
    assert "learning_rate" not in params_at_an_end(CELL.row, best["params"])


@pytest.mark.parametrize("stop", [1, 4, 7, 12, 15])
def test_an_interrupted_search_goes_on_to_the_same_bits(stop, whole, tmp_path):
    path = tmp_path / "trials.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(search(Bench(stop), CELL, 16, path))
    assert len(trials(path)) == stop
    bench = Bench()
    list(search(bench, CELL, 16, path))
    assert len(bench.asked) == 16 - stop
    assert path.read_bytes() == whole[0].read_bytes()


def test_a_finished_search_is_not_repeated(whole, tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(whole[0].read_bytes())
    assert list(search(Bench(0), CELL, 16, path)) == []
    assert path.read_bytes() == whole[0].read_bytes()


def test_searches_differ_by_row_and_variant(tmp_path, whole):
    """Each draws its own trials; another number of trials begins with the same ones."""
    first = trials(whole[0])[0]["params"]
    for number, other in enumerate((Cell("base", "open", CELL.row, 0), Cell("residual", "open", Row("attention"), 0))):
        path = tmp_path / f"{number}.jsonl"
        list(search(Bench(), other, 2, path))
        assert trials(path)[0]["params"]["learning_rate"] != first["learning_rate"]
    list(search(Bench(), CELL, 3, tmp_path / "short.jsonl"))
    assert trials(tmp_path / "short.jsonl") == trials(whole[0])[:3]


@pytest.mark.parametrize(
    "content",
    [
        "{\n",
        "3\n",
        '{"params": {}}\n',
        '{"params": {"beta": "x"}, "diverged": false, "nll": 1.0, "epochs": []}\n',
        '{"params": {}, "diverged": false, "nll": null, "epochs": []}\n',
        '{"params": {}, "diverged": false, "nll": 1.0, "epochs": 3}\n',
        "\x00\xff",
    ],
)
def test_a_damaged_file(content, tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text(content, encoding="latin-1")
    for call in (lambda: read_trials(path), lambda: best_settings(path), lambda: list(search(Bench(), CELL, 3, path))):
        with pytest.raises(InputError, match=r"trials\.jsonl is not a list of trials: .*; remove it to search again"):
            call()


def test_best_settings_of_nothing(tmp_path):
    path = tmp_path / "trials.jsonl"
    assert best_settings(path) == {}
    line = {"params": {"beta": 1.0}, "diverged": True, "nll": 0.1, "epochs": [0.1]}
    path.write_text(json.dumps(line) + "\n")
    assert best_settings(path) == {}  # the method's defaults, rather than a trial that was stopped
    path.write_text(
        json.dumps(line) + "\n" + json.dumps({**line, "params": {"beta": 0.5}, "diverged": False, "nll": 3.0}) + "\n"
    )
    assert best_settings(path) == {"beta": 0.5}


def test_values_at_an_end():
    row = Row("comodulation")
    ranges = space(row)
    for end in (1, 2):
        assert params_at_an_end(row, {name: own[end] for name, own in ranges.items()}) == list(ranges)
    inside = {"learning_rate": 0.05, "weight_decay": 0.01, "beta": 0.9}
    assert params_at_an_end(row, inside) == []
    assert params_at_an_end(Row.parse("comodulation link=rectified"), {**inside, "beta": 0.99}) == ["beta"]


class Slope(Bench):
    """The best learning rate lies above the range that is searched at first, the best weight decay below."""

    def adapt(self, cell, settings):
        rate, decay = (math.log(settings[name]) for name in ("learning_rate", "weight_decay"))
        nll = (rate - math.log(2.0)) ** 2 + 0.1 * (decay - math.log(1e-6)) ** 2
        return None, type("Adapted", (), {"history": [{"nll": nll, "accuracy": 0.5}]})


def test_a_range_grows_where_the_best_trial_lies_at_its_end(tmp_path):
    """As long as trials are left; the next ones are drawn from what it has grown to, and nothing grows beyond its limits."""
    path = tmp_path / "slope.jsonl"
    list(search(Slope(), Cell("residual", "open", Row("attention"), 0), 40, path))
    done = trials(path)
    (_, _, high), (_, low, _) = (space(Row("attention"))[name] for name in ("learning_rate", "weight_decay"))
    assert widened(Row("attention"), done[: START_TRIALS - 1]) == space(Row("attention"))
    best = best_settings(path)
    assert best["learning_rate"] > high
    assert best["weight_decay"] < low
    assert max(line["params"]["learning_rate"] for line in done[:START_TRIALS]) <= high
    for number in range(len(done) + 1):
        for name, (_, bottom, top) in widened(Row("attention"), done[:number]).items():
            within = limits(Row("attention"), name)
            assert within[0] <= bottom < top <= within[1]
    rectified = Row.parse("comodulation link=rectified")
    at_one = [{"params": {"learning_rate": 0.2, "weight_decay": 0.01, "beta": 1.0}, "diverged": False, "nll": 0.5}] * 9
    assert widened(rectified, at_one)["beta"] == ("linear", 0.4, 1.0)  # the option itself ends there
    assert params_at_an_end(rectified, at_one[0]["params"], at_one) == ["beta"]
    assert widened(Row("comodulation"), at_one) == space(Row("comodulation"))
