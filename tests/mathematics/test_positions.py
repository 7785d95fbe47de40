"""Labels of positions: finite differences and quadrature of the modulated network, a model of counts, and their invariants."""

from functools import partial

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from comodulation.mathematics import (
    calibrated_middle,
    calibrated_strength,
    decoder_statistics,
    log_posteriors,
    modulate,
    population,
    position_gains,
    position_labels,
)


def rand(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNEL, BIAS = rand(5, 6, 3, 3) - 0.45, 0.2 * rand(5, seed=2)
ACTIVITY, COUPLING = rand(7, 6, 3, 4, seed=3), 2 * rand(7, 6, seed=4) - 1


def decode(h: torch.Tensor, kernel: torch.Tensor = KERNEL, bias: torch.Tensor | None = BIAS) -> torch.Tensor:
    return F.conv2d(h, kernel, bias, padding=kernel.shape[-1] // 2).relu()


bare = partial(decode, bias=None)


def labels(decode, activity=ACTIVITY, coupling=COUPLING, std=0.3, **options):
    options = {"estimator": "derivative"} | options
    return position_labels(decoder_statistics(population(decode), activity, coupling, std, **options))


def test_a_label_is_the_change_of_log_activity():
    """Finite differences of the log of the population's activity at each position of the modulated network."""
    m, std = torch.full((7,), 1e-6, dtype=torch.float64), 1e-9
    up, down = (decode(modulate(ACTIVITY, COUPLING, sign * m, std)).sum(1).log() for sign in (1, -1))
    torch.testing.assert_close(labels(decode), ((up - down) / 2e-6).flatten(1), rtol=1e-6, atol=1e-7)


def test_estimators_agree():
    """Quadrature goes to the derivative with sigma, samples to quadrature with their number."""
    far, near = (
        (labels(decode, std=std, estimator="quadrature", num_nodes=40) - labels(decode)).abs().mean()
        for std in (0.5, 0.05)
    )
    assert 0 < near < far / 5
    generator = torch.Generator().manual_seed(0)
    sampled = labels(decode, std=0.2, estimator="monte_carlo", num_samples=4000, generator=generator)
    exact = labels(decode, std=0.2, estimator="quadrature", num_nodes=9)
    assert (sampled - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("std", [0.1, 0.8])
def test_a_linear_decoder_averages_couplings(std):
    """The mean of the couplings, weighted by what each neuron contributes to a position, for every sigma; within their range."""
    kernel = KERNEL.abs()
    each = torch.einsum("beyx,ne->bnyx", ACTIVITY, torch.eye(6, dtype=torch.float64))
    contributions = F.conv2d(each, kernel.sum(0)[:, None], padding=1, groups=6)
    expected = (contributions * COUPLING[:, :, None, None]).sum(1) / contributions.sum(1)
    found = labels(lambda h: decode(h, kernel, None), std=std, estimator="quadrature", num_nodes=20)
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-8, atol=1e-10)
    assert (found <= COUPLING.max(1, keepdim=True).values).all()
    assert (found >= COUPLING.min(1, keepdim=True).values).all()


def test_gains_are_a_weighted_mean():
    """Gains before a plain mean are weights that sum to 1, in proportion to exp(beta s); their mean is 1."""
    s, decoded = labels(decode), decode(ACTIVITY).flatten(2)
    gains = position_gains(s, 3.0)
    torch.testing.assert_close(gains.mean(1), torch.ones(7, dtype=torch.float64))
    weights = (3 * s).softmax(1)
    torch.testing.assert_close((gains[:, None] * decoded).mean(2), (weights[:, None] * decoded).sum(2))
    each = torch.linspace(0, 5, 7, dtype=torch.float64)
    one_by_one = torch.cat([position_gains(row[None], float(beta)) for row, beta in zip(s, each, strict=True)])
    torch.testing.assert_close(position_gains(s, each), one_by_one)
    hard = position_gains(s, 1e6)
    assert torch.equal(hard.argmax(1), s.argmax(1))
    torch.testing.assert_close(hard.amax(1), torch.full((7,), 12.0, dtype=torch.float64))


def test_without_coupling_pooling_is_the_mean_to_the_bit():
    gains = position_gains(labels(decode, coupling=torch.zeros_like(COUPLING)), 7.0)
    assert (gains == 1).all()


def test_equal_couplings_label_no_position():
    """Euler: in a decoder without bias they are a factor of everything; so a constant added to couplings changes no weight."""
    torch.testing.assert_close(labels(bare, coupling=torch.full_like(COUPLING, 0.7)), torch.full((7, 12), 0.7).double())
    torch.testing.assert_close(labels(bare, coupling=COUPLING + 0.7), labels(bare) + 0.7)
    torch.testing.assert_close(position_gains(labels(bare, coupling=COUPLING + 0.7)), position_gains(labels(bare)))
    assert not torch.allclose(labels(decode, coupling=COUPLING + 0.7), labels(decode) + 0.7, atol=0.01)  # with bias


def test_scale_does_not_matter():
    """Of all activity; and of a position by itself, as long as nothing mixes positions."""
    torch.testing.assert_close(labels(bare, 7 * ACTIVITY), labels(bare))
    torch.testing.assert_close(labels(lambda h: 0.1 * decode(h)), labels(decode))
    pointwise = partial(decode, kernel=KERNEL[:, :, :1, :1], bias=None)
    brighter = ACTIVITY * (1 + 5 * rand(7, 1, 3, 4, seed=5))
    torch.testing.assert_close(labels(pointwise, brighter), labels(pointwise))


def test_permutations():
    """Positions have their labels permuted; neurons of encoder and decoder, nothing."""
    order, mirrored = torch.randperm(12), torch.arange(12).view(3, 4).flip(1).flatten()
    pointwise = partial(decode, kernel=KERNEL[:, :, :1, :1])
    moved = ACTIVITY.flatten(2)[..., order].unflatten(2, (3, 4))
    torch.testing.assert_close(labels(pointwise, moved), labels(pointwise)[:, order])
    mirror = partial(decode, kernel=KERNEL.flip(3))
    torch.testing.assert_close(labels(mirror, ACTIVITY.flip(3)), labels(decode)[:, mirrored])
    torch.testing.assert_close(position_gains(labels(pointwise)[:, order]), position_gains(labels(pointwise))[:, order])
    own = torch.randperm(6)
    swapped = partial(decode, kernel=KERNEL[:, own][[3, 1, 4, 0, 2]], bias=BIAS[[3, 1, 4, 0, 2]])
    torch.testing.assert_close(labels(swapped, ACTIVITY[:, own], COUPLING[:, own]), labels(decode))


def test_padding_takes_no_part():
    s = labels(decode)
    counts = torch.arange(12) < torch.tensor([12, 3, 7, 1, 12, 5, 0])[:, None]
    gains = position_gains(s.masked_fill(~counts, 1e30), 2.0, counts)
    for row, (own, where) in enumerate(zip(s, counts, strict=True)):
        assert (gains[row, ~where] == 1).all()
        if where.any():
            torch.testing.assert_close(gains[row, where], position_gains(own[where][None], 2.0)[0])
    torch.testing.assert_close(position_gains(s, 2.0, torch.ones_like(counts)), position_gains(s, 2.0))


def test_silence_and_gradients():
    """A silent position has label 0; gradients are finite where activity is 0, and those of finite differences elsewhere."""
    silent = ACTIVITY.clone()
    silent[:, :, :, :2] = 0
    coupling = COUPLING.clone().requires_grad_()
    s = labels(lambda h: decode(h, KERNEL[:, :, :1, :1], None), silent, coupling)
    assert (s.unflatten(1, (3, 4))[:, :, :2] == 0).all()
    position_gains(s, 2.0).square().sum().backward()
    assert coupling.grad.isfinite().all()
    two = COUPLING[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: position_gains(labels(decode, ACTIVITY[:2], w), 2.0), two)


def test_weights_are_the_posterior_of_counts():
    """Counts at one position come from the task's distribution over neurons, at the others from that of all images: the posterior
    over positions, by scipy's multinomial probabilities, is exp(n s) read at the encoder."""
    q, own = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.3, 0.2]], dtype=torch.float64)
    counts = torch.tensor([[3, 1, 4, 2], [1, 2, 3, 4], [5, 0, 2, 3]]).double()  # 10 a position
    any_image, task = (stats.multinomial.logpmf(counts.numpy(), 10, p.numpy()) for p in (q, own))
    likelihood = torch.from_numpy(task - any_image)  # all others being of any image
    h, w = counts.T[None, :, :, None], (own / q).log()[None]
    s = labels(lambda h: h, h, w)
    torch.testing.assert_close(position_gains(s, 10.0)[0] / 3, likelihood.softmax(0))


def test_calibrated_strength_is_the_slope_of_the_likelihood_ratio():
    """Against scipy's normal densities; couplings in other units give the same weights."""
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(20000)[:, None] % 4 == 0
    s = 0.5 * torch.randn(20000, 1, generator=generator, dtype=torch.float64) + torch.where(own, 0.3, -0.1)
    beta = calibrated_strength(s, own)
    x = torch.tensor([0.0, 1.0])
    ratio = stats.norm.logpdf(x, 0.3, 0.5) - stats.norm.logpdf(x, -0.1, 0.5)
    assert abs(beta.item() - (ratio[1] - ratio[0])) < 0.1
    torch.testing.assert_close(calibrated_strength(7 * s + 3, own) * 7, beta)
    assert calibrated_strength(-s, own).item() == 0
    assert calibrated_strength(s, torch.zeros_like(own)).item() == 0
    assert calibrated_strength(torch.ones(4, 1), torch.tensor([[True], [True], [False], [False]])).item() == 0


def test_a_position_by_itself_weighs_as_its_posterior():
    """Of two normal densities at even odds; the scale and the origin of labels are immaterial."""
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(4000) % 2 == 0
    seen = (0.3 * torch.randn(4000, generator=generator) + own * 0.7 - 0.2).double()[:, None]
    strength, middle = calibrated_strength(seen, own[:, None]), calibrated_middle(seen, own[:, None])
    labels = torch.linspace(-1, 1, 9).double()[None]
    shown, other = (stats.norm(mean, 0.3).pdf(labels) for mean in (0.5, -0.2))
    found = log_posteriors(labels, strength, middle).exp()
    torch.testing.assert_close(found, torch.from_numpy(shown / (shown + other)), atol=0.03, rtol=0)
    moved = 5 * seen + 3
    again = log_posteriors(
        5 * labels + 3, calibrated_strength(moved, own[:, None]), calibrated_middle(moved, own[:, None])
    )
    torch.testing.assert_close(again.exp(), found)
    assert calibrated_middle(seen, torch.ones(4000, 1, dtype=torch.bool)) == 0


def test_posteriors_saturate_where_positions_are_likely_and_compete_where_none_is():
    labels, strength, middle = (
        torch.tensor([[9.0, 6.0, -9.0], [-6.0, -9.0, -9.0]]),
        torch.full((2,), 3.0),
        torch.zeros(2),
    )
    gains = position_gains(log_posteriors(labels, strength, middle))
    torch.testing.assert_close(gains[0], torch.tensor([1.5, 1.5, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(gains[1], position_gains(labels[1:], 3.0)[0])


def test_the_bound_of_channel_gains():
    """No gains of channels raise the ratio of the target's power to the distractor's above that of the best channel; weights of
    positions do, and keep the proportions of the target's channels."""
    target, distractor = rand(500, 9, seed=1) ** 2, rand(500, 9, seed=2) ** 3
    powers = [each.square().mean(0) for each in (target, distractor)]
    bound = (powers[0] / powers[1]).max()
    gains = torch.exp(3 * torch.randn(2000, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    ratios = (gains.square() @ powers[0]) / (gains.square() @ powers[1])
    assert (ratios <= bound * (1 + 1e-12)).all()
    assert ratios.max() > 0.9 * bound
    s = torch.tensor([1.0, 0.0]).double().expand(500, 2)  # target and distractor, each at its own position
    g = position_gains(s, 5.0)
    pooled = [g[:, :1] * target, g[:, 1:] * distractor]
    ratio = pooled[0].square().mean(0) / pooled[1].square().mean(0)
    torch.testing.assert_close(ratio, powers[0] / powers[1] * torch.tensor(10.0).double().exp())
    assert (ratio > 1000 * bound).all()
    torch.testing.assert_close(pooled[0] / pooled[0].sum(1, keepdim=True), target / target.sum(1, keepdim=True))
