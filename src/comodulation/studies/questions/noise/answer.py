"""What the finished cells of the study of training say: where noise pays, and what it does to bias and variance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....evaluation import BrierParts, PairedDifference, brier_parts
from ....report import FAILS, HOLDS, UNKNOWN, Figure, Point, Section, Table, Text, Verdict, curves_figure, svg
from ....report import Cell as Shown
from ...cells import (
    CELLS,
    Answer,
    Finding,
    Inquiry,
    Result,
    drawn_point,
    family_words,
    from_zero,
    judged,
    on_common_seeds,
    read_probabilities,
    shown_difference,
    shown_ends,
    shown_p,
    sign_verdict,
    together,
)

DRAWS = (0, 1)
IMAGES = (5, 25, 100, None)  # a task; None is all there are
FEW = 25
EXACT = "comodulation"
QUIET = "comodulation encoder=none"
NOISY = "comodulation encoder=none training_encoder=stochastic num_samples=2"
BOTH = "comodulation encoder=stochastic num_samples=4"
SIGMAS = (0.1, 0.6)  # besides 0.3
MARGIN = 0.005  # half a point of accuracy
LEARNED = 0.01  # nats below the NLL without a task: what a training that learned something has gained


class Condition(NamedTuple):
    """What a pair of trainings has in common: images a task (None: all), classes a task (None: all), decoder layers."""

    images: int | None = None
    classes: int | None = None
    depth: int = 1

    @property
    def options(self) -> str:
        parts = [f"images={self.images}"] if self.images else []
        parts += [f"classes={self.classes}"] if self.classes else []
        return " ".join([*parts, *([f"depth={self.depth}"] if self.depth > 1 else [])])

    @property
    def shown_images(self) -> str:
        return f"{self.images} images" if self.images else "all images"

    @property
    def shown(self) -> str:
        layers = f"{self.depth} decoder layer{'s' if self.depth > 1 else ''}"
        return f"{f'{self.classes} classes' if self.classes else 'all classes'} a task, {layers}"


def base_label(condition: Condition) -> str:
    """The network of a condition without a task; it has seen no images of the controller's half, however many there are."""
    return " ".join(part for part in ("base", condition._replace(images=None).options) if part)


class Pair(NamedTuple):
    """One condition's noisy minus quiet training, a value a seed: accuracy, NLL, and the Brier score with its parts.

    ``gained`` is the lower NLL of the two minus the one without a task; nan where that is not there.
    """

    condition: Condition
    seeds: tuple[int, ...]
    accuracy: list[float]
    nll: list[float]
    brier: list[float]
    bias: list[float]
    variance: list[float]
    gained: list[float]

    def mean(self, name: str) -> float:
        """Mean over seeds of a series."""
        return float(np.mean(getattr(self, name)))

    @property
    def idle(self) -> bool:
        """Whether neither training learned anything: what noise then changes says nothing."""
        return self.mean("gained") > -LEARNED

    def over(self, seeds: Sequence[int]) -> Pair:
        """The same over some of its seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        return Pair(self.condition, tuple(seeds), *([row[place] for place in places] for row in self[2:]))


def answer(results: Sequence[Result], inquiry: Inquiry, out: Path) -> Answer:
    """Where noise in training pays, and whether it lowers variance and raises bias."""
    conditions = [Condition(i, c, d) for d, c, i in itertools.product((1, 2), (None, 2), IMAGES)]
    kept = _Kept(results, out / CELLS)
    pairs = [pair for condition in conditions if (pair := noisy_minus_quiet(kept, condition)).seeds]
    learned = [pair for pair in pairs if not pair.idle]
    pays, tested = pays_verdict(learned)
    verdicts = [pays, *judged([*explanation_findings(learned), trend_finding(learned)])]
    sections = [Section("The map", [_map_table(pairs, tested), Text(READING)])]
    parts = {
        (name, condition): found
        for name, method in (("quiet", QUIET), ("noisy", NOISY), ("default", EXACT))
        for condition in conditions
        if (found := kept.parts(method, condition)) is not None
    }
    if parts:
        sections.append(Section("Bias and variance", [_parts_table(parts)]))
    if others := _others_table(kept):
        sections.append(Section("Other noise", [others]))
    numbers: dict[str, Any] = {"pairs": [{**pair._asdict(), "condition": pair.condition._asdict()} for pair in pairs]}
    numbers["parts"] = [
        {"training": name, "condition": c._asdict(), **vars(found)} for (name, c), found in parts.items()
    ]
    notes = [
        "With all images the draws differ in order and noise alone: the variance over data is then that over seeds.",
        "With two decoder layers task gains in training are estimated from each batch, in both trainings alike.",
    ]
    untold = {
        "Not tested, because neither training did better than the network without a task": [p for p in pairs if p.idle],
        "Whether anything was learned is not known, because the network without a task is not there": [
            p for p in pairs if math.isnan(p.mean("gained"))
        ],
        "Not tested, because they lack a seed": [p for p in learned if p.condition not in tested],
    }
    for why, left in untold.items():
        if left:
            which = "; ".join(f"{pair.condition.shown_images}, {pair.condition.shown}" for pair in left)
            notes.append(f"{why}: {which}.")
    return Answer(verdicts, sections, _figures(learned, tested), numbers, _text(pairs, tested), notes)


READING = (
    "Noisy training minus quiet training, evaluated alike; mean over two draws of the images and over seeds. Intervals are "
    "simultaneous 95% t intervals over seeds, adjusted for the number of conditions; p is adjusted by Holm over them. Bias and "
    "variance are those of the Brier score given the base network of a seed, over draws of the images."
)


class _Kept:
    """Results by row, and the probabilities that cells kept."""

    def __init__(self, results: Sequence[Result], folder: Path) -> None:
        self.folder = folder
        self.by_cell = {(result.name, result.cell.seed): result for result in results}
        self.seeds = sorted({result.cell.seed for result in results})

    def without_task(self, condition: Condition, seed: int) -> float:
        """NLL of the network without a task; nan where it is not there."""
        found = self.by_cell.get((base_label(condition), seed))
        return math.nan if found is None else float(found.numbers["nll"])

    def draws(self, method: str, condition: Condition, seed: int) -> list[Result]:
        """Every draw of a training; [] unless all are there."""
        labels = [" ".join(p for p in (method, condition.options, f"draw={draw}") if p) for draw in DRAWS]
        found = [self.by_cell.get((label, seed)) for label in labels]
        return [result for result in found if result is not None] if all(found) else []

    def probabilities(self, results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
        """Of N cells tested on the same examples, ``(N, M, C)``, and the targets ``(M,)``."""
        return read_probabilities([self.folder / f"{r.cell.key}.probabilities.safetensors" for r in results])

    def parts(self, method: str, condition: Condition) -> BrierParts | None:
        """Of all seeds together; None with fewer than two, or where each seed has classes of its own."""
        if condition.classes:
            return None
        found = [draws for seed in self.seeds if (draws := self.draws(method, condition, seed))]
        if len(found) < 2:
            return None
        probabilities, target = self.probabilities([result for draws in found for result in draws])
        return brier_parts(probabilities.reshape(len(found), len(found[0]), *probabilities.shape[1:]), target)


def noisy_minus_quiet(kept: _Kept, condition: Condition, noisy: str = NOISY) -> Pair:
    """The seeds that have every draw of both trainings."""
    rows: list[tuple[float, ...]] = []
    seeds = []
    for seed in kept.seeds:
        sides = [kept.draws(method, condition, seed) for method in (noisy, QUIET)]
        if all(sides):
            seeds.append(seed)
            values = []
            for side in sides:
                probabilities, target = kept.probabilities(side)
                parts = brier_parts(probabilities[None], target)
                accuracy, nll = (float(np.mean([r.numbers[m] for r in side])) for m in ("accuracy", "nll"))
                values.append(np.array([accuracy, nll, parts.brier, parts.bias, parts.within_seeds]))
            gained = min(values[0][1], values[1][1]) - kept.without_task(condition, seed)
            rows.append((*(values[0] - values[1]).tolist(), float(gained)))
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(6)]
    return Pair(condition, tuple(seeds), *columns)


Tested = dict[Condition, PairedDifference]


def pays_verdict(pairs: Sequence[Pair]) -> tuple[Verdict, Tested]:
    """Whether noise in training raises accuracy in any condition; and every condition's difference, judged together."""
    statement = "Training the controller under the modulator's noise pays in accuracy somewhere."
    complete = on_common_seeds(pairs)
    if not complete:
        return Verdict("Pays", statement, UNKNOWN, note="Fewer than two seeds have both trainings."), {}
    found = together(pair.accuracy for pair in complete)
    tested = {pair.condition: d for pair, d in zip(complete, found, strict=True)}
    better = {c: d for c, d in tested.items() if sign_verdict(d) == HOLDS}
    condition, d = max((better or tested).items(), key=lambda item: item[1].mean)
    nowhere = all(d.high < MARGIN for d in tested.values())
    worse = sum(sign_verdict(d) == FAILS for d in tested.values())
    note = (
        f"Largest with {condition.shown_images} a task, {condition.shown}. {len(tested)} conditions: decided better in "
    )
    note += f"{len(better)}, worse in {worse}, with simultaneous intervals."
    if nowhere:
        note += " Every interval lies below half a point."
    return Verdict(
        "Pays", statement, HOLDS if better else FAILS if nowhere else UNKNOWN, f"{100 * d.mean:+.2f} points",
        shown_ends(d.low, d.high), f"{shown_p(d.p)} (Holm)", f"{d.n} seeds", note,
    ), tested  # fmt: skip


def explanation_findings(pairs: Sequence[Pair]) -> list[Finding]:
    """The explanation: noise regularises, so that with few images variance falls and bias grows."""
    few = on_common_seeds([pair for pair in pairs if pair.condition.images and pair.condition.images <= FEW])
    findings = []
    for name, statement, positive in (
        ("variance", "With few images, noise in training lowers the variance over draws of the images.", False),
        ("bias", "With few images, noise in training raises the bias.", True),
    ):
        if not few:
            findings.append(Finding(name.capitalize(), statement, note="Fewer than two seeds have both trainings."))
            continue
        d = from_zero(np.mean([getattr(pair, name) for pair in few], axis=0))
        note = f"Part of the Brier score, mean over {len(few)} conditions of at most {FEW} images a task."
        findings.append(Finding(name.capitalize(), statement, (d,), note, positive, scale=1, unit=""))
    return findings


def trend_finding(pairs: Sequence[Pair]) -> Finding:
    """Whether noise pays more, the fewer the images: the slope of the difference over the number of images, by seed."""
    statement = "The fewer the images, the more noise in training pays."
    first = on_common_seeds([pair for pair in _plain(pairs) if pair.condition.images])
    if len(first) < 2:
        return Finding("Trend", statement, note="Fewer than two numbers of images have both trainings.")
    x = np.log10([pair.condition.images for pair in first if pair.condition.images])
    x = x - x.mean()
    slopes = (x @ np.array([pair.accuracy for pair in first])) / (x @ x)
    note = "Slope of the difference in accuracy over the logarithm of images a task, one decoder layer, all classes."
    return Finding("Trend", statement, (from_zero(slopes),), note, positive=False, unit="points a factor of ten")


def _plain(pairs: Sequence[Pair]) -> list[Pair]:
    """Those with one decoder layer and all classes, which differ in the number of images alone."""
    return [pair for pair in pairs if pair.condition._replace(images=None) == Condition()]


def _in_order(condition: Condition) -> Shown:
    """The number of images, all of them last."""
    return Shown(condition.shown_images, condition.images or math.inf)


def _points(d: PairedDifference) -> Shown:
    return Shown(shown_difference(d, unit=" points"), d.mean)


def _map_table(pairs: Sequence[Pair], tested: Tested) -> Table:
    columns = ("condition", "images a task", "seeds", "accuracy (points)", "p", "NLL", "Brier", "bias", "variance")
    rows = []
    for pair in pairs:
        d = tested.get(pair.condition)
        found = (Shown("", None), Shown("", None)) if d is None else (_points(d), Shown(shown_p(d.p), d.p))
        means = [pair.mean(name) for name in ("nll", "brier", "bias", "variance")]
        rows.append([pair.condition.shown, _in_order(pair.condition), len(pair.seeds), *found, *means])
    formats = {"NLL": "+.3f", "Brier": "+.4f", "bias": "+.4f", "variance": "+.4f"}
    return Table(columns, rows, "**Noisy minus quiet training**, evaluated alike; p after Holm's correction.", formats)


def _parts_table(parts: dict[tuple[str, Condition], BrierParts]) -> Table:
    columns = (
        "training",
        "condition",
        "images a task",
        "Brier",
        "bias",
        "variance between seeds",
        "variance within seeds",
    )
    rows = [
        [
            name, c.shown, _in_order(c), found.brier, found.bias, found.between_seeds,
            found.within_seeds,
        ]
        for (name, c), found in parts.items()
    ]  # fmt: skip
    caption = (
        "**The Brier score split over seeds and draws.** Its three parts add up to it. Bias includes the noise of the labels; a "
        "seed redraws the halves and the base network, a draw the images. `default` multiplies the encoder by exp(u) as well."
    )
    return Table(columns, rows, caption, dict.fromkeys(columns[3:], ".4f"))


def _others_table(kept: _Kept) -> Table | None:
    methods = {
        **{f"noise in training, sigma {sigma}": f"{NOISY} std={sigma}" for sigma in SIGMAS},
        "noise in training and evaluation, sigma 0.3": BOTH,
        "default (encoder multiplied by exp(u))": EXACT,
    }
    compared = [
        (name, pair)
        for (name, method), images in itertools.product(methods.items(), IMAGES)
        if len((pair := noisy_minus_quiet(kept, Condition(images), noisy=method)).seeds) > 1
    ]
    found = together(pair.accuracy for _, pair in compared)
    rows = [
        [
            name,
            _in_order(pair.condition),
            d.n,
            _points(d),
            *(pair.mean(series) for series in ("nll", "bias", "variance")),
        ]
        for (name, pair), d in zip(compared, found, strict=True)
    ]
    columns = ("training", "images a task", "seeds", "accuracy (points)", "NLL", "bias", "variance")
    caption = f"**Minus quiet training**, one decoder layer, all classes; {family_words(found)}."
    return Table(columns, rows, caption, {"NLL": "+.3f", "bias": "+.4f", "variance": "+.4f"}) if rows else None


def _figures(pairs: Sequence[Pair], tested: Tested) -> dict[str, Figure]:
    if not tested:
        return {}
    place = {images: 1500 if images is None else images for images in IMAGES}
    ticks = {float(place[images]): "all" if images is None else str(images) for images in IMAGES}
    series: dict[str, list[Point]] = {}
    for condition, d in tested.items():
        series.setdefault(condition.shown, []).append(drawn_point(place[condition.images], d))
    found = {
        "map": Figure(
            svg(curves_figure(
                {"accuracy": series}, xlabel="images a task", ylabel="noisy minus quiet\n(points)", ticks=ticks,
                margin=100 * MARGIN,
            )),
            "How to read it: above the line, training under the modulator's noise gives the more accurate network. Simultaneous "
            "95% intervals over seeds; the band is half a point either way.",
            "Where noise in training pays",
        )
    }  # fmt: skip
    if first := on_common_seeds(_plain(pairs)):
        parts = {
            name: [_point(place[pair.condition.images], getattr(pair, name)) for pair in first]
            for name in ("brier", "bias", "variance")
        }
        figure = curves_figure(
            {"Brier score and its parts": parts}, xlabel="images a task", ylabel="noisy minus quiet", ticks=ticks
        )
        found["parts"] = Figure(
            svg(figure),
            "How to read it: what noise in training changes in the Brier score is the sum of what it changes in bias and variance. "
            "One decoder layer, all classes.",
            "Why: bias and variance",
        )
    return found


def _point(x: float, series: Sequence[float]) -> Point:
    d = from_zero(series)
    return Point(x, d.mean, d.low, d.high)


def _text(pairs: Sequence[Pair], tested: Tested) -> str:
    lines = [f"{'noisy minus quiet training':44s} images   accuracy [95%], points     NLL      bias   variance"]
    for pair in pairs:
        d = tested.get(pair.condition)
        nll, bias, variance = (pair.mean(name) for name in ("nll", "bias", "variance"))
        lines.append(
            f"  {pair.condition.shown:42s} {pair.condition.images or 'all':>6}   {shown_difference(d) if d else '':22s}  "
            f"{nll:+7.3f}  {bias:+8.4f}  {variance:+8.4f}"
        )
    return "\n".join(lines)
