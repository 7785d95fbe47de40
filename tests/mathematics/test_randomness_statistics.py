"""The noise against what independent standard normal numbers do.

Every tolerance follows from the number of values and ``ALARM``: a generator of truly independent standard normal numbers fails
a test of this file with at most that probability, over all that the test looks at. Distributions of sums are exact (normal,
chi-square, binomial) or bounded by Bernstein's inequality; only the tests of skewness, kurtosis and Kolmogorov-Smirnov approximate.
"""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from scipy import stats

from comodulation.mathematics.randomness import modulator_noise, philox

ALARM = 1e-6
COORDINATES = ("sample", "task", "layer", "step", "seed")


@functools.cache
def along(coordinate: str, values: range, draws: int = 1) -> torch.Tensor:
    """Noise where one coordinate takes many values and the others stay: ``(draws, len(values))``, float64."""
    numbers = torch.tensor(list(values), dtype=torch.int64)
    same = torch.full_like(numbers, 7)
    if coordinate in ("sample", "task"):
        ids = (numbers, same) if coordinate == "sample" else (same, numbers)
        return modulator_noise(*ids, draws, seed=3).double()
    columns = [modulator_noise(same[:1], same[:1], draws, **{"seed": 3, coordinate: value}) for value in values]
    return torch.cat(columns, 1).double()


def two_sided(distribution: object, value: float) -> float:
    """Probability of a value as far out as this one, on its side, twice."""
    return 2 * min(distribution.cdf(value), distribution.sf(value))  # type: ignore[attr-defined]


def bernstein(count: int, variance: float, largest: float, alarm: float) -> float:
    """What a sum of independent centred numbers exceeds in size with probability at most ``alarm``.

    Args:
        count: how many. variance: of each. largest: no number is larger in size.
    """
    log = math.log(2 / alarm)
    return largest * log / 3 + math.sqrt((largest * log / 3) ** 2 + 2 * count * variance * log)


@pytest.mark.parametrize("coordinate", COORDINATES)
def test_mean_and_variance(coordinate: str) -> None:
    """The sum of n values is normal with variance n, their sum of squares chi-square with n degrees of freedom: exactly."""
    values = along(coordinate, range(200), draws=100)
    n = values.numel()
    assert two_sided(stats.norm(scale=math.sqrt(n)), float(values.sum())) > ALARM / 2
    assert two_sided(stats.chi2(n), float(values.square().sum())) > ALARM / 2


@pytest.mark.parametrize("coordinate", COORDINATES)
def test_shape(coordinate: str) -> None:
    """Skewness, excess kurtosis and the distribution function of 20,000 values."""
    values = along(coordinate, range(200), draws=100).flatten().numpy()
    for test in (stats.skewtest, stats.kurtosistest, lambda seen: stats.kstest(seen, "norm")):
        assert test(values).pvalue > ALARM / 3


@pytest.mark.parametrize("coordinate", COORDINATES)
def test_every_stream_is_normal(coordinate: str) -> None:
    """200 streams of 100 draws: the p values of their Kolmogorov-Smirnov tests are themselves uniform."""
    streams = along(coordinate, range(200), draws=100)
    p_values = [stats.kstest(stream, "norm").pvalue for stream in streams.T.numpy()]
    assert stats.kstest(p_values, "uniform").pvalue > ALARM


def test_skewness_and_kurtosis_of_a_million() -> None:
    """With a million values the standard errors are 0.0024 and 0.0049: a wrong tail would show."""
    values = modulator_noise(torch.arange(2000), torch.arange(2000) % 20, 500, seed=1).double().flatten().numpy()
    assert stats.skewtest(values).pvalue > ALARM / 3
    assert stats.kurtosistest(values).pvalue > ALARM / 3
    assert stats.kstest(values, "norm").pvalue > ALARM / 3


@pytest.mark.parametrize("coordinate", COORDINATES)
def test_no_two_streams_are_correlated(coordinate: str) -> None:
    """All pairs of 40 neighbours, values and their distances from the middle, as percentiles: bounded, so the bound is exact."""
    draws, number = 4000, 40
    percentile = torch.special.ndtr(along(coordinate, range(number), draws))
    pairs = number * (number - 1) // 2
    upper = torch.triu(torch.ones(number, number, dtype=torch.bool), 1)
    place = percentile - 0.5  # variance 1/12, at most 1/2 in size
    spread = place.square() - 1 / 12  # variance 1/180, at most 1/6 in size
    for values, variance, largest in ((place, 1 / 12, 1 / 2), (spread, 1 / 180, 1 / 6)):
        limit = bernstein(draws, variance**2, largest**2, ALARM / (2 * pairs))
        assert float((values.T @ values)[upper].abs().max()) < limit


def test_coordinates_are_not_mixed_up() -> None:
    """The same numbers in other places (sample 3 of task 5, task 3 of sample 5, ...) give streams that are uncorrelated."""
    draws, names = 4000, ("sample", "task", "layer", "step", "seed")
    streams = []
    for first in names:
        for second in names:
            if first != second:
                at = dict.fromkeys(names, 0) | {first: 3, second: 5}
                ids = torch.tensor([at.pop("sample")]), torch.tensor([at.pop("task")])
                streams.append(modulator_noise(*ids, draws, **at)[:, 0].double())
    place = torch.special.ndtr(torch.stack(streams, 1)) - 0.5
    number = len(streams)
    upper = torch.triu(torch.ones(number, number, dtype=torch.bool), 1)
    limit = bernstein(draws, 1 / 144, 1 / 4, ALARM / (number * (number - 1) // 2))
    assert float((place.T @ place)[upper].abs().max()) < limit


def test_successive_draws_are_not_correlated() -> None:
    """Lags up to 64 of one stream, values and distances from the middle. Two draws come from one counter (Box-Muller)."""
    lags, values = 64, along("sample", range(1), draws=100_000)[:, 0]
    place = torch.special.ndtr(values) - 0.5
    spread = place.square() - 1 / 12
    for series, variance, largest in ((place, 1 / 12, 1 / 2), (spread, 1 / 180, 1 / 6)):
        for lag in range(1, lags + 1):
            # Products that overlap are not independent; those of every other block of ``lag`` numbers are.
            products = series[:-lag] * series[lag:]
            for half in range(2):
                chosen = products[(torch.arange(len(products)) // lag) % 2 == half]
                limit = bernstein(len(chosen), variance**2, largest**2, ALARM / (4 * lags))
                assert abs(float(chosen.sum())) < limit, (lag, half)


def test_the_two_draws_of_a_counter_are_independent() -> None:
    """Cosine and sine share radius and angle: counts in 16 x 16 cells of equal probability, chi-square."""
    pairs = along("sample", range(2000), draws=100).T.reshape(-1, 50, 2)
    cells = (torch.special.ndtr(pairs) * 16).long().clamp(max=15)
    counts = torch.bincount((cells[..., 0] * 16 + cells[..., 1]).flatten(), minlength=256)
    assert stats.chisquare(counts.numpy()).pvalue > ALARM


def test_every_bit_of_the_counters_turns_half_of_the_output() -> None:
    """One bit of one of the six words flipped, the lowest as well as the highest: a binomial number of output bits changes."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 2**32, (6, 500), generator=generator)
    before = torch.stack(philox(tuple(base[:4]), tuple(base[4:])))
    expected = stats.binom(128 * base.shape[1], 0.5)
    for word, bit in itertools.product(range(6), range(32)):
        flipped = base.clone()
        flipped[word] ^= 1 << bit
        changed = before ^ torch.stack(philox(tuple(flipped[:4]), tuple(flipped[4:])))
        ones = sum(int(((changed >> place) & 1).sum()) for place in range(32))
        assert two_sided(expected, ones) > ALARM / (6 * 32), (word, bit)


@pytest.mark.parametrize("coordinate", ["sample", "task"])
def test_the_noise_does_not_know_the_bits_of_an_id(coordinate: str) -> None:
    """Ids in a row and multiples of 2^k: values with and without a low bit have the same mean; the difference is normal."""
    n, bits, strides = 4096, 12, (0, 1, 8, 16, 19)
    numbers = torch.arange(n)
    for stride in strides:
        values = along(coordinate, range(0, n << stride, 1 << stride))[0]
        for bit in range(bits):
            sign = 1 - 2 * ((numbers >> bit) & 1)
            z = float((values * sign).sum()) / math.sqrt(n)
            assert two_sided(stats.norm, z) > ALARM / (bits * len(strides)), (stride, bit)


def test_the_low_bits_of_the_words_are_fair() -> None:
    """Every bit of the four words over counters in a row: ones are binomial, and so are agreements of neighbouring counters."""
    n = 20_000
    zero = torch.zeros(n, dtype=torch.int64)
    words = torch.stack(philox((torch.arange(n), zero, zero, zero), (zero, zero)))
    for place in range(32):
        bits = (words >> place) & 1
        agree = bits[:, 1::2] == bits[:, ::2]
        for word in range(4):
            for ones, count in ((int(bits[word].sum()), n), (int(agree[word].sum()), n // 2)):
                assert two_sided(stats.binom(count, 0.5), ones) > ALARM / 256, (word, place)
