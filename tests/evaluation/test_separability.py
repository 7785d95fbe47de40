"""Separability on Gaussians whose Fisher ratio and d' are known, on held-out inputs, and on degenerate classes."""

import math

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from comodulation.evaluation.separability import class_dprime, fisher_ratio, task_separability, task_subspace


def gaussians(means, per_class, seed, sd=1.0):
    """``per_class`` samples of N(mean, sd^2) for each row of ``means``; activity (N, D) and labels (N,)."""
    noise = torch.randn(per_class * len(means), means.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    labels = torch.arange(len(means)).repeat_interleave(per_class)
    return means[labels] + sd * noise, labels


def test_known_dprime_and_fisher_of_two_gaussians():
    """Means 3 sd apart in the first of 6 neurons: d' = 3; Fisher (3/2)^2 / 1 inside the one-dimensional subspace."""
    means = torch.zeros(2, 6, dtype=torch.float64)
    means[1, 0] = 3
    fit, test = gaussians(means, 4000, 0), gaussians(means, 4000, 1)
    basis = task_subspace(*fit)
    assert basis.shape == (6, 1)
    assert abs(float(basis[0, 0])) > 0.99
    # Standard error of d' about sqrt(2 / n + d'^2 / (4 n)) = 0.03; four of them.
    assert class_dprime(*fit, *test) == pytest.approx(3, abs=0.15)
    assert fisher_ratio(*test, basis) == pytest.approx(2.25, abs=0.2)
    assert fisher_ratio(*test) == pytest.approx(2.25 / 6, abs=0.05)


def test_fisher_by_hand():
    """Means 0 and 4 have variance 4; variances of {-1, 1} and {3, 5} with n - 1 are 2: ratio 2."""
    assert fisher_ratio(torch.tensor([[-1.0], [1], [3], [5]]), torch.tensor([0, 0, 1, 1])) == 2


def test_subspace_spans_the_class_means_like_lda():
    """Orthonormal, C - 1 dimensions, holds every difference of means; with white noise it is LDA's own subspace."""
    means = 4 * torch.randn(5, 12, generator=torch.Generator().manual_seed(2)).double()
    activity, labels = gaussians(means, 3000, 3)
    basis = task_subspace(activity, labels)
    assert basis.shape == (12, 4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64))
    observed = torch.stack([activity[labels == c].mean(0) for c in range(5)])
    centred = observed - observed.mean(0)
    torch.testing.assert_close(centred @ basis @ basis.T, centred)
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(activity.numpy(), labels.numpy())
    other = torch.linalg.qr(torch.as_tensor(lda.scalings_[:, :4]))[0]
    assert float(torch.linalg.svdvals(basis.T @ other).min()) > 0.99


def test_noise_has_no_separation_on_held_out_inputs():
    """More neurons than samples, no signal: far apart where it was fitted, d' 0 on average on new inputs."""
    held_out, circular = [], []
    for seed in range(40):
        fit, test = (gaussians(torch.zeros(3, 100).double(), 10, 2 * seed + i) for i in (0, 1))
        held_out.append(class_dprime(*fit, *test))
        circular.append(class_dprime(*fit, *fit))
    held_out = torch.tensor(held_out)
    assert min(circular) > 3
    assert abs(float(held_out.mean())) < 4 * float(held_out.std()) / math.sqrt(40)


def test_fisher_without_signal_is_as_large_as_the_manual_says():
    """Means of n samples differ by chance: (1 - 1/C) / n on average, here 0.8 / 20, in any fixed subspace."""
    nothing = torch.zeros(5, 4).double()
    ratios = torch.tensor([fisher_ratio(*gaussians(nothing, 20, seed), torch.eye(4)[:, :2]) for seed in range(300)])
    assert float(ratios.mean()) == pytest.approx(0.8 / 20, abs=4 * float(ratios.std()) / math.sqrt(300) + 0.0005)


def test_mean_over_pairs():
    """Three classes at 0, 2 and 6 on a line, sd 1: pairs 2, 4 and 6, mean 4."""
    means = torch.tensor([[0.0, 0], [2, 0], [6, 0]]).double()
    fit, test = gaussians(means, 5000, 4), gaussians(means, 5000, 5)
    assert class_dprime(*fit, *test) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e15])
def test_a_common_gain_changes_nothing(scale):
    means = torch.randn(4, 8, generator=torch.Generator().manual_seed(6)).double()
    fit, test = gaussians(means, 50, 7), gaussians(means, 50, 8)
    scaled = (scale * fit[0], fit[1]), (scale * test[0], test[1])
    assert class_dprime(*scaled[0], *scaled[1]) == pytest.approx(class_dprime(*fit, *test))
    basis = task_subspace(*fit)
    assert fisher_ratio(*scaled[1], basis) == pytest.approx(fisher_ratio(*test, basis))


def test_gain_on_the_informative_neuron_raises_both():
    """d' 2 and 1/3 in two neurons: along the axis of means 1.39, with gains 1.5 and 0.3 it is 2.02 (by hand)."""
    means = torch.tensor([[0.0, 0], [2, 1]]).double()
    fit, test = (gaussians(means, 5000, seed, torch.tensor([1.0, 3]).double()) for seed in (9, 10))
    gain = torch.tensor([1.5, 0.3]).double()
    gained = (fit[0] * gain, fit[1]), (test[0] * gain, test[1])
    assert class_dprime(*fit, *test) == pytest.approx(5 / math.sqrt(13), abs=0.1)
    assert class_dprime(*gained[0], *gained[1]) == pytest.approx(2.017, abs=0.1)
    assert fisher_ratio(*gained[1], task_subspace(*gained[0])) > fisher_ratio(*test, task_subspace(*fit))


def test_invariant_to_order_of_neurons_and_samples():
    means = torch.randn(3, 7, generator=torch.Generator().manual_seed(11)).double()
    fit, test = gaussians(means, 30, 12), gaussians(means, 30, 13)
    neurons, rows = torch.randperm(7), torch.randperm(90)
    moved = class_dprime(fit[0][:, neurons], fit[1], test[0][rows][:, neurons], test[1][rows])
    assert moved == pytest.approx(class_dprime(*fit, *test))


def test_every_task_by_itself_with_missing_labels():
    """Task 0 has d' 4 between classes 7 and 9, binary task 1 none, task 2 one class, task 3 nothing."""
    means = torch.tensor([[0.0, 0, 0], [4, 0, 0]]).double()
    sets = []
    for seed in (14, 15):
        signal, labels = gaussians(means, 1500, seed)
        nothing = gaussians(means * 0, 1500, seed + 2)[0]
        activity = torch.cat([signal, nothing, signal[:5], torch.full((1, 3), torch.nan)])
        label = torch.cat([7 + 2 * labels, labels, torch.zeros(5).long(), torch.tensor([-1])])
        task = torch.cat([torch.zeros(3000), torch.ones(3000), torch.full((6,), 2)]).long()
        sets += [activity, label, task]
    result = task_separability(*sets, 4)
    assert float(result.dprime[0]) == pytest.approx(4, abs=0.3)
    assert float(result.fisher[0]) == pytest.approx(4, abs=0.6)
    assert abs(float(result.dprime[1])) < 0.15
    assert result.dprime[2:].isnan().all()
    assert result.fisher[2:].isnan().all()
    assert result.rank.tolist() == [1, 1, 0, 0]


def test_single_samples_single_neuron_and_no_variance():
    fit = torch.tensor([[0.0], [1], [5]]), torch.tensor([0, 1, 2])
    held_out = torch.tensor([[0.0], [0], [2], [2], [9]]), torch.tensor([0, 0, 1, 1, 2])
    # Class 2 has one held-out sample and is left out; 0 and 1 differ without any spread.
    assert class_dprime(*fit, *held_out) == math.inf
    assert fisher_ratio(*held_out) == math.inf
    silent = torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])
    assert task_subspace(*silent).shape == (3, 0)
    assert class_dprime(*silent, *silent) == 0
    assert fisher_ratio(*silent, task_subspace(*silent)) == 0
    # 0.1 has no exact mean in binary: rounding must not pass for signal.
    constant = torch.full((7, 2), 0.1), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert fisher_ratio(*constant) == 0
    assert class_dprime(*constant, *constant) == 0
    assert math.isnan(fisher_ratio(torch.ones(2, 2), torch.tensor([0, 1])))
    assert task_subspace(torch.ones(0, 2), torch.ones(0).long()).shape == (2, 0)


def test_errors():
    activity, labels = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"pooled, \(N, D\), got \(4, 3, 2, 2\)"):
        task_subspace(torch.ones(4, 3, 2, 2), labels)
    with pytest.raises(ValueError, match=r"labels must be integers \(4,\), got torch.float32"):
        fisher_ratio(activity, labels.float())
    with pytest.raises(ValueError, match=r"basis must be \(D, r\) with D = 3"):
        fisher_ratio(activity, labels, torch.ones(2, 1))
    with pytest.raises(ValueError, match="same D neurons, got 3 and 2"):
        class_dprime(activity, labels, activity[:, :2], labels)
    with pytest.raises(ValueError, match=r"tasks must be in \[0, 0\], got 0 to 1"):
        task_separability(activity, labels, labels, activity, labels, labels, 1)
    with pytest.raises(ValueError, match="finite"):
        task_subspace(activity * torch.nan, labels)
