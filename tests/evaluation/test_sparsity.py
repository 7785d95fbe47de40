"""Counts, quantiles, movement and histogram of gains, by hand and against numpy; zero, equal and extreme gains."""

import math

import numpy as np
import pytest
import torch

from comodulation.evaluation.sparsity import FLOOR, gain_sparsity, log2_histogram


def test_counts_by_hand():
    """Below is below: a gain of exactly a threshold is not counted."""
    result = gain_sparsity(torch.tensor([[0.0, 0.01, 0.02, 0.05, 0.2, 1.0, 2.0, 5.0], [1.0] * 8], dtype=torch.float64))
    assert result.counts.tolist() == [[1, 3, 4, 5], [0, 0, 0, 0]]
    assert result.fractions[0].tolist() == [1 / 8, 3 / 8, 4 / 8, 5 / 8]
    assert result.mean_fractions.tolist() == [1 / 16, 3 / 16, 4 / 16, 5 / 16]
    assert result.zeros.tolist() == [1 / 8, 0]


def test_equal_gains_have_not_moved():
    result = gain_sparsity(torch.ones(3, 5))
    assert result.movement.tolist() == [0, 0, 0]
    assert result.quantiles.unique().tolist() == [1]


def test_movement_counts_up_and_down_alike_and_zeros_as_the_floor():
    result = gain_sparsity(torch.tensor([[math.e, 1 / math.e, 1.0, 1.0], [0.0, 1, 1, 1]], dtype=torch.float64))
    assert result.movement.tolist() == pytest.approx([0.5, -math.log(FLOOR) / 4])


def test_quantiles_against_numpy():
    gains = torch.rand(3, 17, generator=torch.Generator().manual_seed(0)).double()
    expected = np.quantile(gains.numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
    np.testing.assert_allclose(gain_sparsity(gains).quantiles, expected)


def test_histogram_is_complete_and_centred_on_one():
    """Slightly moved gains on both sides of 1 share a bin; zeros and extremes are in the first and last one."""
    edges, counts = log2_histogram(torch.tensor([[0.0, 1e-30, 0.99, 1, 1.01, 2, 1e9], [1.0] * 7]))
    assert len(edges) == 26
    centres = (edges[1:] + edges[:-1]) / 2
    place = {float(c): i for i, c in enumerate(centres)}
    assert (counts[0, place[-8]], counts[0, place[0]], counts[0, place[1]], counts[0, place[4]]) == (2, 3, 1, 1)
    assert counts[1, place[0]] == 7
    assert counts.sum(1).tolist() == [7, 7]


def test_histogram_against_numpy():
    gains = torch.randn(2, 500, generator=torch.Generator().manual_seed(1)).double().exp()
    edges, counts = log2_histogram(gains, low=-12, high=12, per_octave=3)
    for row, count in zip(gains, counts, strict=True):
        np.testing.assert_array_equal(count, np.histogram(row.log2(), edges)[0])


def test_one_task_one_neuron():
    result = gain_sparsity(torch.tensor([[0.05]]))
    assert result.counts.tolist() == [[0, 0, 1, 1]]
    assert result.quantiles.shape == (1, 5)


@pytest.mark.parametrize("gains", [torch.tensor([[-0.1]]), torch.tensor([[torch.nan]]), torch.tensor([[torch.inf]])])
def test_values_that_are_no_gains(gains):
    with pytest.raises(ValueError, match="finite and not negative"):
        gain_sparsity(gains)


def test_errors():
    with pytest.raises(ValueError, match=r"\(K, D\) with K, D > 0, got \(3,\)"):
        log2_histogram(torch.ones(3))
    with pytest.raises(ValueError, match="low <= 0 <= high"):
        log2_histogram(torch.ones(1, 3), low=1)
