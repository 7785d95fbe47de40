"""Noise geometry where covariance, dimension and share are known; against numpy and sampled random subspaces."""

import itertools
import math

import numpy as np
import pytest
import torch

from comodulation.evaluation import fluctuation as noise
from comodulation.evaluation.fluctuation import (
    fluctuation_covariance,
    noise_geometry,
    participation_ratio,
    permuted_share,
    random_share,
    subspace_share,
)
from comodulation.mathematics import gauss_hermite


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def basis(rows, columns, seed=0):
    return torch.linalg.qr(normal(rows, columns, seed=seed))[0]


def test_covariance_is_the_mean_of_each_inputs_own(monkeypatch):
    """As numpy.cov input by input; the inputs' own differences do not enter; in parts as in one piece."""
    samples = normal(6, 11, 4) + 100 * normal(1, 11, 4, seed=1)
    expected = np.mean([np.cov(samples[:, n].numpy().T) for n in range(11)], 0)
    covariance = fluctuation_covariance(samples)
    np.testing.assert_allclose(covariance, expected, rtol=1e-9)
    monkeypatch.setattr(noise, "NUMBERS_PER_PASS", 50)
    torch.testing.assert_close(fluctuation_covariance(samples), covariance)
    torch.testing.assert_close(fluctuation_covariance(samples.float()), covariance, rtol=1e-4, atol=1e-4)


def test_quadrature_nodes_give_the_exact_covariance():
    """d = m^2 v has covariance 2 sigma^4 v v', exactly with three nodes."""
    nodes, weights = gauss_hermite(3, torch.float64, torch.device("cpu"))
    v = normal(5)
    samples = ((0.5 * nodes) ** 2)[:, None, None] * v.expand(3, 2, 5) + 7
    torch.testing.assert_close(fluctuation_covariance(samples, weights), 2 * 0.5**4 * torch.outer(v, v))


def test_noise_confined_to_a_subspace():
    """All of it inside, none outside; its dimension is that of the subspace."""
    inside = basis(20, 3)
    samples = normal(200, 50, 3, seed=1) @ inside.T + normal(1, 50, 20, seed=2)
    geometry = noise_geometry(samples, inside)
    assert geometry.share == pytest.approx(1)
    assert geometry.outside == pytest.approx(0, abs=1e-9)
    assert geometry.participation_ratio == pytest.approx(3, rel=0.02)
    assert geometry.total == pytest.approx(3, rel=0.05)
    assert geometry.chance == 3 / 20
    assert geometry.spectrum[3:].max() < 1e-9
    assert float(geometry.spectrum.sum()) == pytest.approx(geometry.total)
    complement = torch.linalg.qr(torch.cat([inside, normal(20, 17)], 1))[0][:, 3:]
    assert subspace_share(fluctuation_covariance(samples), complement) == pytest.approx(0, abs=1e-9)


def test_isotropic_noise_fills_everything():
    covariance = 2 * torch.eye(9)
    assert participation_ratio(covariance) == pytest.approx(9)
    assert random_share(covariance, 4) == (pytest.approx(4 / 9), pytest.approx(0, abs=1e-9))
    assert subspace_share(covariance, basis(9, 4)) == pytest.approx(4 / 9)


def test_one_direction_has_participation_ratio_one():
    v = normal(8)
    assert participation_ratio(torch.outer(v, v)) == pytest.approx(1)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_random_share_against_random_subspaces(rank):
    """Closed mean and sd against 4000 random subspaces, within four standard errors."""
    factor = normal(8, 8) * torch.linspace(0.1, 3, 8)
    covariance = factor @ factor.T
    sampled = torch.tensor([subspace_share(covariance, basis(8, rank, seed)) for seed in range(4000)])
    mean, std = random_share(covariance, rank)
    assert float(sampled.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(4000))
    assert float(sampled.std()) == pytest.approx(std, rel=0.08)


@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1e15, 1e150])
def test_scale_does_not_matter(scale):
    covariance = fluctuation_covariance(normal(5, 6, 4))
    assert participation_ratio(scale * covariance) == pytest.approx(participation_ratio(covariance))
    assert subspace_share(scale * covariance, basis(4, 2)) == pytest.approx(subspace_share(covariance, basis(4, 2)))


def test_no_fluctuation_and_one_neuron():
    """No noise at all: exactly 0, no dimension, no share; the spectrum is still there."""
    geometry = noise_geometry(torch.full((7, 3, 4), 0.1), basis(4, 2))
    assert geometry.total == 0
    assert geometry.participation_ratio == 0
    assert math.isnan(geometry.share)
    assert geometry.chance == 0.5
    assert geometry.spectrum.tolist() == [0] * 4
    single = noise_geometry(normal(5, 3, 1), torch.ones(1, 1))
    assert (single.share, single.chance, single.chance_std) == (pytest.approx(1), 1, 0)
    assert noise_geometry(normal(5, 3, 4), torch.zeros(4, 0)).share == 0


def test_errors():
    with pytest.raises(ValueError, match=r"\(T, N, D\) with T > 1"):
        fluctuation_covariance(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match=r"weights must be \(4,\)"):
        fluctuation_covariance(torch.ones(4, 2, 3), torch.ones(3))
    with pytest.raises(ValueError, match=r"basis must be \(D, r\) with D = 3"):
        subspace_share(torch.eye(3), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"covariance must be \(D, D\)"):
        participation_ratio(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"rank must be in \[0, 3\], got 4"):
        random_share(torch.eye(3), 4)


def test_share_after_permuted_gains():
    """Over all orders of four neurons by hand; equal gains change nothing; gains on the subspace's own neurons are above it."""
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance, basis = root @ root.T, torch.eye(4, dtype=torch.float64)[:, :1]
    gains = torch.tensor([3.0, 0.5, 1.0, 0.2], dtype=torch.float64)
    every = [gains[list(order)] for order in itertools.permutations(range(4))]
    expected = sum(subspace_share(torch.diag(g) @ covariance @ torch.diag(g), basis) for g in every) / 24
    found = permuted_share(covariance, basis, gains, 20_000, torch.Generator().manual_seed(1))
    assert found == pytest.approx(expected, abs=0.01)
    assert permuted_share(covariance, basis, torch.full((4,), 2.0)) == pytest.approx(subspace_share(covariance, basis))
    assert subspace_share(torch.diag(gains) @ covariance @ torch.diag(gains), basis) > found
    with pytest.raises(ValueError, match=r"gains must be \(D,\) with D = 4, got \(3,\)"):
        permuted_share(covariance, basis, gains[:3])
