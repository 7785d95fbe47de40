"""From seeds to statements: paired differences over seeds, over seeds and test images, and per task (docs/statistics.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

ALPHA, POWER = 0.05, 0.8
WILCOXON_SEEDS = 6  # the smallest n whose smallest two-sided p, 2 / 2^n, is below ALPHA
WEIGHTS_AT_ONCE = 2**22  # of resampled images, held in memory
EDGE = 0.1  # share of an interval's half width: an end nearer to 0 may lie on its other side on another processor
CROSSED_SEEDS = 6  # where seeds dominate, a simulated 95% interval covers 95% with 6, 92% with 5, 77% with 3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """What n differences a - b, one per seed, say about their mean.

    Attributes:
        mean: of the differences, in their units.
        low, high: t interval of the given confidence; as one of a family, simultaneous (see `as_family`).
        p: paired t-test, two-sided; nan where the differences are all equal. As one of a family, Holm's.
        n: number of seeds.
        sd: standard deviation of the differences, in their units; 0 where they are all equal up to rounding.
        p_wilcoxon: signed-rank test, two-sided, exact; nan with fewer than 6 seeds (see `note`) or differences all 0.
        freedom: degrees of freedom of `sd`; 0 stands for n - 1, those of the differences alone.
        family: number of comparisons that interval and p are adjusted for.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    sd: float
    p_wilcoxon: float
    freedom: int = 0
    family: int = 1

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0, and not by so little that rounding decides (`at_the_edge`)."""
        return (self.low > 0 or self.high < 0) and not self.at_the_edge

    @property
    def at_the_edge(self) -> bool:
        """Whether an end of the interval is 0 up to what another processor or number of threads may change (`EDGE`)."""
        return bool(self.sd) and min(abs(self.low), abs(self.high)) < EDGE * (self.high - self.low) / 2

    def interval(self, confidence: float) -> tuple[float, float]:
        """The t interval of another confidence; where all differences are equal, their value twice."""
        _check_confidence(confidence)
        critical = float(stats.t.isf((1 - confidence) / 2, self.freedom or self.n - 1)) if self.sd else 0.0
        half = critical * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    @property
    def cohen_dz(self) -> float:
        """Effect size: mean over sd of the differences; nan where they are all equal."""
        return self.mean / self.sd if self.sd else math.nan

    @property
    def hedges_gz(self) -> float:
        """Effect size without `cohen_dz`'s bias away from 0 with few seeds; nan with 2, where no factor corrects it.

        Source: Hedges, "Distribution theory for Glass's estimator of effect size and related estimators" (Journal of
        Educational Statistics 6, 1981), the exact factor.
        """
        if self.n < 3:
            return math.nan
        half = (self.n - 1) / 2
        return self.cohen_dz * math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)

    @property
    def detectable(self) -> float:
        """Smallest true |difference| that n seeds with this sd find with power 0.8; nan where sd is 0.

        See `detectable_difference`.
        """
        return detectable_difference(self.sd, self.n) if self.sd else math.nan

    @property
    def detectable_range(self) -> tuple[float, float]:
        """What ``detectable`` is at the ends of the 95% interval of the true sd (chi squared); nan, nan where sd is 0."""
        freedom = self.freedom or self.n - 1
        ends = (math.sqrt(freedom / float(stats.chi2.ppf(q, freedom))) for q in (0.975, 0.025))
        low, high = (self.detectable * end for end in ends)
        return low, high

    @property
    def note(self) -> str:
        """Which test these seeds are too few for, for reports; empty where they are enough."""
        if self.n >= WILCOXON_SEEDS:
            return ""
        return f"the Wilcoxon test needs at least {WILCOXON_SEEDS} seeds to reach p < {ALPHA}, got {self.n}"


@dataclass(frozen=True)
class CrossedDifference:
    """Mean of a - b over seeds and test images, and its bootstrap over both.

    Attributes:
        mean: of the differences, in their units.
        low, high: interval of the given confidence, from percentiles of the resampled means.
        standard_error: standard deviation of the resampled means.
        seed_error, image_error: standard errors of the mean over seeds (images fixed) and over images (seeds fixed).
        cell_error: the part of either that seed and image have only together; where it is not small against both,
            `standard_error` is too large.
        seeds, images: how many.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    seed_error: float
    image_error: float
    cell_error: float
    seeds: int
    images: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def note(self) -> str:
        """Why the interval may be too narrow, for reports; empty where the seeds are enough."""
        if self.seeds >= CROSSED_SEEDS:
            return ""
        return f"resampling needs at least {CROSSED_SEEDS} seeds, got {self.seeds}: the interval may be too narrow"


@dataclass(frozen=True)
class TaskDifference:
    """One task's row.

    Attributes:
        task: its label.
        images: test images of the task.
        difference: over seeds, of the task's means.
        p_holm: `difference.p`, adjusted for the number of tasks.
    """

    task: int | str
    images: int
    difference: PairedDifference
    p_holm: float


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """Paired difference a - b over seeds.

    Args:
        a, b: one value per seed, in the same order, ``(S,)``.
        confidence: of the interval.

    Raises:
        ValueError: different lengths, values that are not finite, fewer than two seeds, with which no interval exists, or a
            confidence that is not between 0 and 1.

    >>> d = paired_difference([3.0, 5.0], [1.0, 1.0])
    >>> d.mean, round(d.low, 2), round(d.high, 2)
    (3.0, -9.71, 15.71)
    >>> d.note
    'the Wilcoxon test needs at least 6 seeds to reach p < 0.05, got 2'
    """
    a, b = _values(a, "a", 1), _values(b, "b", 1)
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many on both sides, got {len(a)} and {len(b)}")
    if len(a) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 seeds, got {len(a)}")
    _check_confidence(confidence)
    difference, n = a - b, len(a)
    # Accuracies are multiples of one fraction: equal differences must count as equal, and those of 0 as 0, though floats disagree.
    scale = float(max(np.abs(a).max(), np.abs(b).max())) or 1.0
    rounded = np.round(difference / scale, 12)
    mean, p_wilcoxon = float(difference.mean()) if rounded.any() else 0.0, _signed_rank_p(rounded)
    if np.ptp(rounded) == 0:
        return PairedDifference(mean, mean, mean, math.nan, n, 0.0, p_wilcoxon)
    sd = float(difference.std(ddof=1))
    p = 2 * float(stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1))
    found = PairedDifference(mean, mean, mean, p, n, sd, p_wilcoxon)
    low, high = found.interval(confidence)
    return replace(found, low=low, high=high)


def detectable_difference(sd: float, n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest true |mean difference| that a two-sided paired t-test on n seeds finds with the given power.

    Args:
        sd: standard deviation of the differences, > 0; the result is in its units.
        n: number of seeds, at least 2.
        power: probability of p < alpha when the true mean is the result, between alpha and 1.
        alpha: level of the test.

    Raises:
        ValueError: a number out of range.
    """
    if n < 2 or not 0 < alpha < power < 1 or not 0 < sd < math.inf:
        raise ValueError(
            f"needs sd > 0, at least 2 seeds and 0 < alpha < power < 1, got sd {sd}, {n} seeds, alpha {alpha}, power {power}"
        )
    # With a true mean of centre standard errors, t^2 is noncentral F: both tails in one number.
    critical = float(stats.t.isf(alpha / 2, n - 1)) ** 2

    def missing(centre: float) -> float:
        return power - float(stats.ncf.sf(critical, 1, n - 1, centre**2))

    upper = 1.0
    while missing(upper) > 0:
        upper *= 2
    return sd * float(optimize.brentq(missing, 0.0, upper)) / math.sqrt(n)


def holm(p_values: ArrayLike) -> Floats:
    """Holm-adjusted p values: below alpha for any hypothesis that is rejected at family-wise error rate alpha.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: ``(H,)``; nan marks a comparison that was not made: it stays nan and does not count.

    Returns:
        ``(H,)``, in the same order.

    Raises:
        ValueError: p values outside [0, 1].
    """
    adjusted = np.array(p_values, float)
    made = ~np.isnan(adjusted)
    if outside := int(((adjusted[made] < 0) | (adjusted[made] > 1)).sum()):
        raise ValueError(f"p values must be in [0, 1], got {outside} outside among {len(adjusted)}")
    # Of H made, the smallest p times H, the next times H - 1, ...; none below its predecessor's.
    given = adjusted[made]
    order = np.argsort(given)
    given[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)))
    adjusted[made] = given
    return adjusted


def as_family(
    differences: Sequence[PairedDifference | None], confidence: float = 0.95
) -> list[PairedDifference | None]:
    """The differences as what one table claims together: simultaneous intervals, and p values adjusted by Holm.

    With m differences, each interval has the confidence 1 - (1 - confidence) / m (Bonferroni): the chance that any of them
    misses its difference is at most 1 - confidence, whatever their dependence. An interval that excludes 0 has a p of Holm
    below 1 - confidence. The converse does not hold: intervals that exclude 0 exactly where Holm rejects cannot bound what is
    rejected (docs/statistics.md).

    Args:
        differences: of the family, each alone; None marks a comparison that was not made and does not count. One whose seeds
            all differ by the same amount was made: it counts, though it has no p.
        confidence: of all intervals together.

    Returns:
        The same differences in the same order, with ``low``, ``high``, ``p`` and ``family`` adjusted.

    Raises:
        ValueError: a confidence that is not between 0 and 1, or a difference that is one of a family already.

    >>> one, two = as_family([paired_difference([1, 2, 3], [0, 0, 0]), paired_difference([1, 2, 4], [0, 0, 0])])
    >>> round(one.low, 2), round(one.p, 3), one.family
    (-1.58, 0.148, 2)
    """
    _check_confidence(confidence)
    made = [d for d in differences if d is not None]
    if twice := next((d for d in made if d.family != 1), None):
        raise ValueError(f"a difference belongs to one family, got one of a family of {twice.family}")
    adjusted = iter(holm([1.0 if math.isnan(d.p) else d.p for d in made]))

    def member(d: PairedDifference) -> PairedDifference:
        low, high = d.interval(1 - (1 - confidence) / len(made))
        p = float(next(adjusted))
        return replace(d, low=low, high=high, p=math.nan if math.isnan(d.p) else p, family=len(made))

    return [None if d is None else member(d) for d in differences]


def paired_by_task(
    values_a: ArrayLike, values_b: ArrayLike, task: ArrayLike, confidence: float = 0.95
) -> list[TaskDifference]:
    """For every task, the paired difference over seeds of its mean score, with Holm's p over tasks.

    Args:
        values_a, values_b: scores per seed and test image of two methods, ``(S, N)``.
        task: of every image, a number or a name, ``(N,)``.
        confidence: of each task's interval, which is not adjusted for the number of tasks.

    Returns:
        One row per task, in the order of their labels.

    Raises:
        ValueError: as `paired_difference`, or shapes that disagree.
    """
    (a, b), labels = _tables(values_a, values_b), np.asarray(task)
    if labels.shape != a.shape[1:]:
        raise ValueError(f"task must name one task for each of {a.shape[1]} images, got shape {labels.shape}")
    rows = {label.item(): labels == label for label in np.unique(labels)}
    differences = [paired_difference(a[:, own].mean(1), b[:, own].mean(1), confidence) for own in rows.values()]
    adjusted = holm([d.p for d in differences])
    return [
        TaskDifference(label, int(own.sum()), d, float(p))
        for (label, own), d, p in zip(rows.items(), differences, adjusted, strict=True)
    ]


def crossed_bootstrap(
    values_a: ArrayLike, values_b: ArrayLike, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> CrossedDifference:
    """Difference a - b of two methods scored on the same test images with the same seeds, both factors resampled.

    Seeds and images are drawn with replacement, independently of each other (pigeonhole bootstrap): a resampled mean is
    ``u D v`` with D the differences and u, v multinomial weights. It overestimates the variance: what seed and image
    have only together (interaction, noise) enters three times and should once, so that the standard error is up to
    sqrt(3) times too large where there is nothing else. No bootstrap of a crossed table is exact. Sources: Owen, "The
    pigeonhole bootstrap" (Annals of Applied Statistics 1, 2007); Owen, Eckles, "Bootstrapping data arrays of arbitrary
    order" (Annals of Applied Statistics 6, 2012).

    With few seeds, plain percentiles are too close: a resample's variance is (S - 1) / S of the unbiased one, and the normal
    shape lacks the t's tails. The percentiles are therefore taken further out, as in Hesterberg, "What teachers should
    know about the bootstrap" (The American Statistician 69, 2015), expanded percentiles; departing from it, the degrees
    of freedom are Satterthwaite's for the two factors, so that images, which are many, cost nothing.

    Args:
        values_a, values_b: scores (hit 0 or 1, NLL, ...), ``(S, N)`` for S seeds and N images, complete. Where one image
            gives several scores, average them first: columns are taken as independent.
        confidence: of the interval.
        resamples: number of resampled means.
        seed: of the resampling.

    Raises:
        ValueError: shapes that disagree, values that are not finite, fewer than 2 seeds or 2 images, a confidence that is
            not between 0 and 1.
    """
    a, b = _tables(values_a, values_b)
    _check_confidence(confidence)
    difference, (seeds, images) = a - b, a.shape
    if seeds < 2 or images < 2:
        raise ValueError(f"resampling needs at least 2 seeds and 2 images, got {seeds} and {images}")
    mean, rows, columns = difference.mean(), difference.mean(1), difference.mean(0)
    cells = difference - rows[:, None] - columns + mean
    by_seed, by_image = rows.var(ddof=1) / seeds, columns.var(ddof=1) / images
    by_cell = np.square(cells).sum() / ((seeds - 1) * (images - 1) * seeds * images)
    means = _resampled_means(difference, resamples, np.random.default_rng(seed))
    tail = _tail(by_seed, by_image, seeds, images, confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    errors = float(means.std()), math.sqrt(by_seed), math.sqrt(by_image), math.sqrt(by_cell)
    return CrossedDifference(float(mean), float(low), float(high), *errors, seeds, images)


def _resampled_means(difference: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """``(S, N)`` -> ``(resamples,)``, in portions of ``WEIGHTS_AT_ONCE``."""
    seeds, images = difference.shape
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    means = np.empty(resamples)
    portion = max(1, WEIGHTS_AT_ONCE // images)
    for start in range(0, resamples, portion):
        rows = seed_weights[start : start + portion]
        drawn = rng.integers(images, size=(len(rows), images)) + images * np.arange(len(rows))[:, None]
        image_weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape) / images
        means[start : start + portion] = ((image_weights @ difference.T) * rows).sum(1)
    return means


def _tail(by_seed: float, by_image: float, seeds: int, images: int, confidence: float) -> float:
    """Share of resampled means to leave out on either side, from the squared standard errors of the two factors."""
    variance = by_seed + by_image
    if variance == 0:
        return (1 - confidence) / 2
    # In shares of the variance: its square would underflow for differences of 1e-80.
    share = by_seed / variance
    freedom = 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / (images - 1))
    shrunk = by_seed * (seeds - 1) / seeds + by_image * (images - 1) / images
    return float(stats.norm.sf(stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(variance / shrunk)))


def _signed_rank_p(difference: Floats) -> float:
    """Two-sided p of Wilcoxon's signed ranks over all signs; zeros are dropped, ties share their mean rank."""
    kept = difference[difference != 0]
    if len(difference) < WILCOXON_SEEDS or not len(kept):
        return math.nan
    ranks = np.rint(2 * stats.rankdata(np.abs(kept))).astype(int)  # doubled, so that shared ranks are whole numbers
    probabilities = np.ones(1)  # of each sum of positive ranks
    for rank in ranks:
        without = np.pad(probabilities, (0, rank))
        probabilities = (without + np.roll(without, rank)) / 2
    total = int(ranks[kept > 0].sum())
    return min(1.0, 2 * float(min(probabilities[: total + 1].sum(), probabilities[total:].sum())))


def _values(values: ArrayLike, name: str, dimensions: int) -> Floats:
    array = np.asarray(values, float)
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimension(s), got shape {array.shape}")
    if wrong := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name} must be finite, got {wrong} of {array.size} values that are not")
    return array


def _tables(values_a: ArrayLike, values_b: ArrayLike) -> tuple[Floats, Floats]:
    a, b = _values(values_a, "values_a", 2), _values(values_b, "values_b", 2)
    if a.shape != b.shape:
        raise ValueError(f"values must be (seeds, images) of one shape on both sides, got {a.shape} and {b.shape}")
    return a, b


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
