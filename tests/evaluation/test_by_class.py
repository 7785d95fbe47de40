"""Scores of each class and confusions, by hand; Wilson's interval against statsmodels, and the labels that it takes by search."""

import math

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint

from comodulation.evaluation import class_scores, confusions, labels_needed, wilson_interval

# Truth a a a a b b c; answers a a b c b a a. Class d is neither a label nor an answer.
TARGET, ANSWER = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 1, 0, 0])


def test_scores_by_hand():
    a, b, c, d = class_scores(TARGET, ANSWER, 4)
    assert a == (2 / 4, 2 / 4, 4 / 8, 4, 4)
    assert b == (1 / 2, 1 / 2, 2 / 4, 2, 2)
    assert c == (0.0, 0.0, 0.0, 1, 1)
    assert all(math.isnan(value) for value in d[:3])
    assert d[3:] == (0, 0)


def test_a_class_that_is_never_answered_has_no_precision():
    (_, never) = class_scores(torch.tensor([0, 1]), torch.tensor([0, 0]), 2)
    assert math.isnan(never.precision)
    assert never[1:] == (0.0, 0.0, 1, 0)


def test_confusions_by_hand():
    assert confusions(TARGET, ANSWER) == [(0, 0, 2), (0, 1, 1), (0, 2, 1), (1, 0, 1), (1, 1, 1), (2, 0, 1)]


@pytest.mark.parametrize(("hits", "number"), [(0, 1), (1, 1), (3, 10), (75, 75), (480, 1000)])
def test_wilson_as_statsmodels(hits, number):
    expected = proportion_confint(hits, number, method="wilson")
    assert wilson_interval(hits / number, number) == pytest.approx(expected, abs=1e-12)


def test_wilson_of_nothing_is_nan():
    assert np.isnan(wilson_interval(np.array([math.nan, 0.5]), np.array([math.nan, 4]))[0]).tolist() == [True, False]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.77, 0.9, 1.0])
@pytest.mark.parametrize("half", [0.01, 0.05, 0.2])
def test_so_many_labels_are_needed_and_no_fewer(share, half):
    def width(number):
        low, high = wilson_interval(share, number)
        return (high - low) / 2

    needed = labels_needed(share, half)
    assert width(needed) <= half + 1e-12
    assert needed == 1 or width(needed - 1) > half
