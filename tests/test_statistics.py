"""Paired differences against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from comodulation.statistics import paired_difference


def test_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027."""
    d = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert d.mean == 2
    assert d.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert d.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert not d.decided


def test_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), rng.normal(size=12)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.9)
    d = paired_difference(a, b, 0.9)
    assert d.p == pytest.approx(expected.pvalue)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high))
    assert d.n == 12


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [paired_difference(rng.normal(0.3, 1, 5), np.zeros(5)) for _ in range(1000)]
    share = np.mean([d.low <= 0.3 <= d.high for d in covered])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


def test_equal_differences_and_errors():
    d = paired_difference([1.0, 1.0], [0.5, 0.5])
    assert (d.mean, d.low, d.high) == (0.5, 0.5, 0.5)
    assert math.isnan(d.p)
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        paired_difference([1.0], [1.0])
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
