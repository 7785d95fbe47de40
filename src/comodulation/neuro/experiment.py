"""Accuracy of every decoder against the number of training trials and the modulator's strength (docs/neuro.md, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..evaluation import PairedDifference, as_family, paired_difference
from .checks import Floats, check_positive, check_whole
from .decoders import LEARNED, MAXIMUM_LIKELIHOOD, accuracy, log_likelihood_ratio
from .population import Population, draw_population, simulate, simulate_totals

DECODERS = (MAXIMUM_LIKELIHOOD, *LEARNED)
MOST_COUNTS = 2**28  # simulated at once: 2 GiB, and a few times that while they are made
Progress = Callable[[int, int], None]  # how many seeds are done, of how many


@dataclass(frozen=True)
class PopulationSettings:
    """What is simulated; rates are expected spikes a bin.

    Attributes:
        neurons, informative, rate, contrast, spread: as for ``draw_population``.
        bins: of a trial, each with a new value of the modulator.
        std: sigma of the learning curves. learning_trials: their points.
        strengths: sigma of the other curves, which learn from ``trials`` trials.
        seeds: populations; a seed draws rates, training trials and test trials. test_trials: of each.
    """

    neurons: int = 200
    informative: int = 20
    rate: float = 0.5
    contrast: float = 0.3
    spread: float = 0.5
    bins: int = 20
    std: float = 0.5
    learning_trials: tuple[int, ...] = (4, 10, 20, 50, 100, 200, 500, 1000)
    strengths: tuple[float, ...] = (0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
    trials: int = 40
    seeds: tuple[int, ...] = tuple(range(10))
    test_trials: int = 2000

    def __post_init__(self) -> None:
        for number in (self.trials, *self.learning_trials):
            check_whole(number, 2, "training trials")
        if not self.strengths or not self.learning_trials:
            raise InputError("at least one strength and one number of training trials are needed")
        each = max(
            check_whole(self.bins, 1, "bins") * max(self.trials, *self.learning_trials),
            check_whole(self.test_trials, 2, "test_trials"),
        )
        if (
            check_whole(self.neurons, 2, "neurons") * each > MOST_COUNTS
        ):  # before a population is drawn, which may not fit either
            raise InputError(
                f"neurons must be at most {MOST_COUNTS // each} for {each} counts each, got {self.neurons}"
            )
        draw_population(
            self.neurons, self.informative, np.random.default_rng(0),
            rate=self.rate, contrast=self.contrast, spread=self.spread,
        )  # fmt: skip
        for value in (self.std, *self.strengths):
            check_positive(value, "strength of the modulator")
        if len(set(self.seeds)) < 2:
            raise InputError(f"an interval over seeds needs at least 2 different seeds, got {len(set(self.seeds))}")


@dataclass(frozen=True)
class PopulationStudy:
    """Accuracies, in [0, 1].

    Attributes:
        settings: what was simulated.
        learning: decoder -> accuracy, ``(seeds, learning_trials)``.
        strength: decoder -> accuracy, ``(seeds, strengths)``.
    """

    settings: PopulationSettings
    learning: dict[str, Floats]
    strength: dict[str, Floats]

    def trials_needed(self, decoder: str) -> int | None:
        """Training trials after which the decoder's mean accuracy has nine tenths of what maximum likelihood has above chance.

        None where no number of trials that was tried is enough.
        """
        wanted = 0.5 + 0.9 * (self.learning[MAXIMUM_LIKELIHOOD].mean() - 0.5)
        reached = np.flatnonzero(self.learning[decoder].mean(0) >= wanted)
        return self.settings.learning_trials[reached[0]] if len(reached) else None

    def peak(self) -> tuple[float, PairedDifference, PairedDifference]:
        """The strength of highest mean accuracy of modulator-guided decoding, and that accuracy minus the one at the weakest and at
        the strongest modulator.

        The peak is chosen on the same seeds, which favours it by less than the spread over seeds.
        """
        best = int(self.strength["modulator-guided"].mean(0).argmax())
        _, _, weakest, strongest = self._judged()
        return self.settings.strengths[best], weakest, strongest

    def ahead(self) -> tuple[int, PairedDifference]:
        """Training trials that modulator-guided decoding needs (the most that were tried, where none is enough), and its accuracy
        minus that of regression after them."""
        return self._trials(), self._judged()[0]

    def harmed(self) -> PairedDifference:
        """Accuracy of maximum likelihood at the weakest modulator, minus that at the strongest."""
        return self._judged()[1]

    def _trials(self) -> int:
        return self.trials_needed("modulator-guided") or self.settings.learning_trials[-1]

    def _judged(self) -> list[PairedDifference]:
        """The four differences of the two verdicts, as one family: ahead, harmed, and the peak above either end."""
        place = self.settings.learning_trials.index(self._trials())
        guided, learned = (self.learning[name][:, place] for name in ("modulator-guided", "regression"))
        ideal, values = self.strength[MAXIMUM_LIKELIHOOD], self.strength["modulator-guided"]
        best = values[:, int(values.mean(0).argmax())]
        sides = ((guided, learned), (ideal[:, 0], ideal[:, -1]), (best, values[:, 0]), (best, values[:, -1]))
        return [d for d in as_family([paired_difference(*pair) for pair in sides]) if d is not None]

    def labels_help(self) -> bool:
        """Whether labels from the modulator help decoding: fewer trials are needed than for regression, decidedly."""
        guided, learned = (self.trials_needed(name) or math.inf for name in ("modulator-guided", "regression"))
        d = self.ahead()[1]
        return guided < learned and d.decided and d.mean > 0

    def trades_off(self) -> bool:
        """Whether strength decidedly harms the ideal decoder while modulator-guided decoding decidedly peaks in between."""
        _, weakest, strongest = self.peak()
        return all(d.decided and d.mean > 0 for d in (self.harmed(), weakest, strongest))

    def verdict(self) -> list[str]:
        """A sentence each for the two known answers, with intervals over seeds, simultaneous, in points of accuracy."""
        s = self.settings
        guided, learned = self.trials_needed("modulator-guided"), self.trials_needed("regression")
        most = s.learning_trials[-1]
        word = lambda number: f"{number}" if number else f"more than {most}"  # noqa: E731
        number, ahead = self.ahead()
        lead = _told(ahead, "it is {} ahead", "it is behind, by {}", "it cannot be told which is ahead ({})")
        ends = f"from sigma {s.strengths[0]:g} to {s.strengths[-1]:g}"
        harm = _told(
            self.harmed(), f"The ideal decoder loses {{}} {ends}", f"The ideal decoder gains {{}} {ends}",
            f"Whether the ideal decoder loses {ends} cannot be told ({{}})",
        )  # fmt: skip
        where, weakest, strongest = self.peak()
        peaked = all(d.decided and d.mean > 0 for d in (weakest, strongest))
        return [
            f"Modulator-guided decoding needs {word(guided)} training trials for 90% of what maximum likelihood has above "
            f"chance, regression {word(learned)}; with {number} trials {lead}.",
            f"{harm}; modulator-guided decoding with {s.trials} trials "
            + (
                f"peaks in between, at sigma {where:g}: {_points(weakest)} above the weakest and {_points(strongest)} above "
                "the strongest modulator."
                if peaked
                else f"is best at sigma {where:g}; a peak in between is not decided ({_points(weakest)} above the weakest, "
                f"{_points(strongest)} above the strongest)."
            ),
        ]

    def rows(self) -> list[dict[str, Any]]:
        """One row a curve, decoder, seed and point, for a table: curve, decoder, seed, trials, std, accuracy."""
        s, found = self.settings, []
        for curve, table, points in (
            ("learning", self.learning, [(number, s.std) for number in s.learning_trials]),
            ("strength", self.strength, [(s.trials, std) for std in s.strengths]),
        ):
            for decoder, values in table.items():
                for seed, line in zip(s.seeds, values.tolist(), strict=True):
                    start = {"curve": curve, "decoder": decoder, "seed": seed}
                    for (number, std), value in zip(points, line, strict=True):
                        found.append({**start, "trials": number, "std": std, "accuracy": value})
        return found


def population_study(settings: PopulationSettings | None = None, progress: Progress | None = None) -> PopulationStudy:
    """Both curves of every decoder, over seeds.

    Within a seed all decoders see the same trials, shorter training sets are the beginnings of longer ones, and every
    strength has the same population.

    Raises:
        RunError: the counts do not fit into the memory that is left.
    """
    s = settings or PopulationSettings()
    try:
        return _study(s, progress)
    except MemoryError as error:
        raise RunError(f"not enough memory for counts of {s.neurons} neurons; take fewer") from error


def _study(s: PopulationSettings, progress: Progress | None) -> PopulationStudy:
    learning: dict[str, list[list[float]]] = {name: [] for name in DECODERS}
    strength: dict[str, list[list[float]]] = {name: [] for name in DECODERS}
    for done, seed in enumerate(s.seeds):
        population = draw_population(
            s.neurons, s.informative, np.random.default_rng([seed, 0]),
            rate=s.rate, contrast=s.contrast, spread=s.spread,
        )  # fmt: skip
        curve = accuracies(population, s, s.std, s.learning_trials, np.random.default_rng([seed, 1]))
        by_strength = [
            accuracies(population, s, std, (s.trials,), np.random.default_rng([seed, 2])) for std in s.strengths
        ]
        for name in DECODERS:
            learning[name].append(curve[name])
            strength[name].append([point[name][0] for point in by_strength])
        if progress is not None:
            progress(done + 1, len(s.seeds))
    tables = ({name: np.array(values) for name, values in table.items()} for table in (learning, strength))
    return PopulationStudy(s, *tables)


def accuracies(
    population: Population, settings: PopulationSettings, std: float, trials: Sequence[int], rng: np.random.Generator
) -> dict[str, list[float]]:
    """Test accuracy of every decoder after each number of training trials; stimuli alternate."""
    training = simulate(population, np.arange(max(trials)) % 2, settings.bins, std, rng)
    shown = np.arange(settings.test_trials) % 2
    totals, modulator = simulate_totals(population, shown, settings.bins, std, rng)
    ideal = accuracy(log_likelihood_ratio(population, totals, modulator, std), shown)
    found = {MAXIMUM_LIKELIHOOD: [ideal] * len(trials)}
    for name, train in LEARNED.items():
        decoders = [train(training.first(number), std) for number in trials]
        found[name] = [accuracy(decoder.statistic(totals, modulator), shown) for decoder in decoders]
    return found


def _told(d: PairedDifference, above: str, below: str, unknown: str) -> str:
    """One of three sentences, with the points that a difference is decidedly above or below 0, or neither."""
    if not d.decided:
        return unknown.format(_points(d))
    return above.format(_points(d)) if d.mean > 0 else below.format(_points(d, -1))


def _points(d: PairedDifference, sign: int = 1) -> str:
    """The difference in points of accuracy with its interval; with sign -1, the opposite difference."""
    if math.isnan(d.mean):
        return "nan points"
    low, high = sorted((100 * sign * d.low, 100 * sign * d.high))
    return f"{100 * sign * d.mean:.1f} points [{low:.1f}, {high:.1f}]"
