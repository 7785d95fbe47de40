"""d' of neurons with a known answer; rank correlation and AUC against scipy and scikit-learn, with ties and silent neurons."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from comodulation.evaluation.informative_neurons import informative_auc, informativeness, neuron_dprime, spearman


def two_classes(separation, count, seed=0):
    """Neurons whose class means are ``separation`` sd apart; activity (2 count, D), labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat_interleave(count)
    noise = torch.randn(2 * count, len(separation), generator=generator).double()
    return noise + labels[:, None] * torch.tensor(separation).double(), labels


def test_known_dprime_of_two_gaussians():
    activity, labels = two_classes([0.0, 1.0, 3.0], 20000)
    torch.testing.assert_close(
        neuron_dprime(activity, labels), torch.tensor([0.0, 1, 3]).double(), rtol=0.03, atol=0.05
    )


def test_more_classes_by_hand():
    """Means 0, 1, 3, each sd sqrt(2): squared d' of the pairs 1/2, 4/2, 9/2; mean 14/6."""
    activity = torch.tensor([[-1.0], [1], [0], [2], [2], [4]])
    assert float(neuron_dprime(activity, torch.tensor([0, 0, 1, 1, 2, 2]))) == pytest.approx(math.sqrt(14 / 6))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e15])
def test_a_neurons_own_gain_and_the_order_of_samples_change_nothing(scale):
    activity, labels = two_classes([0.5, 2.0], 30)
    order = torch.randperm(60)
    scaled = activity[order] * torch.tensor([scale, 1]).double()
    torch.testing.assert_close(neuron_dprime(scaled, labels[order]), neuron_dprime(activity, labels))


def test_silent_constant_perfect_and_too_few():
    """Silent and constant neurons 0, a perfect one infinite; a class of one sample is left out, a missing label too."""
    activity = torch.tensor([[0, 0.1, 0], [0, 0.1, 0], [0, 0.1, 2], [0, 0.1, 2], [5, 5, 5], [torch.nan] * 3])
    labels = torch.tensor([0, 0, 1, 1, 2, -1])
    assert neuron_dprime(activity, labels).tolist() == [0, 0, math.inf]
    assert neuron_dprime(activity[:2], labels[:2]).isnan().all()
    assert neuron_dprime(activity[:0], labels[:0]).isnan().all()


def test_spearman_against_scipy_with_ties_and_infinity():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 30).astype(float), rng.normal(size=30)
    assert spearman(torch.tensor(x), torch.tensor(y)) == pytest.approx(stats.spearmanr(x, y).statistic)
    x[3] = np.inf
    assert spearman(torch.tensor(x), torch.tensor(y)) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_auc_against_scikit_learn():
    rng = np.random.default_rng(1)
    dprime, gain = rng.normal(size=40), rng.integers(0, 6, 40).astype(float)
    expected = roc_auc_score(dprime >= np.sort(dprime)[-10], gain)
    assert informative_auc(torch.tensor(dprime), torch.tensor(gain)) == pytest.approx(expected)


def test_which_neurons_are_informative():
    """The top quarter with ties; never the lowest d', so mostly silent neurons do not count as informative."""
    gain = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 1])
    assert informative_auc(torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 3]), gain) == 1
    assert informative_auc(torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0]), gain) == pytest.approx(3 / 7)
    assert informative_auc(torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]), gain) == pytest.approx(3 / 8)


def test_equal_gains_equal_dprime_and_one_neuron_are_chance():
    dprime, equal = torch.tensor([1.0, 2, 3, 4]), torch.ones(4)
    assert (spearman(dprime, equal), informative_auc(dprime, equal)) == (0, 0.5)
    assert (spearman(equal, dprime), informative_auc(equal, dprime)) == (0, 0.5)
    assert (spearman(dprime[:1], equal[:1]), informative_auc(dprime[:1], equal[:1])) == (0, 0.5)
    assert (spearman(dprime[:0], equal[:0]), informative_auc(dprime[:0], equal[:0])) == (0, 0.5)


def test_tasks():
    """Gains in the order of d' in task 0, against it in task 1, equal in task 2, no data in task 3."""
    separation = [0.0, 1, 2, 3, 4, 5, 6, 7]
    parts = [two_classes(separation, 400, seed) for seed in range(3)]
    activity, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    tasks = torch.arange(3).repeat_interleave(800)
    gains = torch.stack([torch.arange(8.0), -torch.arange(8.0), torch.ones(8), torch.arange(8.0)])
    result = informativeness(activity, labels, tasks, gains)
    assert result.dprime.shape == (4, 8)
    assert result.spearman[:3].tolist() == pytest.approx([1, -1, 0])
    assert result.auc[:3].tolist() == [1, 0, 0.5]
    assert result.dprime[3].isnan().all()
    assert result.spearman[3].isnan()
    assert result.auc[3].isnan()


def test_errors():
    with pytest.raises(ValueError, match=r"gains must be \(K, D\) with D of activity \(4, 3\), got \(2, 2\)"):
        informativeness(torch.ones(4, 3), torch.zeros(4).long(), torch.zeros(4).long(), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"tasks must be in \[0, 1\], got 2 to 2"):
        informativeness(torch.ones(4, 3), torch.zeros(4).long(), torch.full((4,), 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"both must be \(D,\)"):
        spearman(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match=r"must be \(D,\)"):
        informative_auc(torch.ones(3), torch.ones(4))
