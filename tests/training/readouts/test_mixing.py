"""Weights of a mixture against a general optimizer on the simplex."""

import numpy as np
import pytest
import torch
from scipy import optimize

from comodulation.training.readouts import mixing, mixture_weights


def drawn(members=3, answers=200, seed=0):
    """Log-probabilities of true answers: the members are right of different rows."""
    return (
        torch.randn(members, answers, generator=torch.Generator().manual_seed(seed)).mul(1.5).sub(1.5).clamp(max=-0.01)
    )


def simplex(truth):
    """The weights of the lowest NLL, by SLSQP."""
    shares = truth.double().exp().numpy()
    found = optimize.minimize(
        lambda w: -np.log(w @ shares).mean(), np.full(len(shares), 1 / len(shares)), bounds=[(1e-12, 1)] * len(shares),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, method="SLSQP", tol=1e-12,
    )  # fmt: skip
    assert found.success
    return torch.tensor(found.x)


@pytest.fixture
def no_prior(monkeypatch):
    for name, value in {"SHARED_ANSWERS": 0.0, "EVEN_ANSWERS": 0.0, "EM_STEPS": 5000}.items():
        monkeypatch.setattr(mixing, name, value)


@pytest.mark.usefixtures("no_prior")
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_the_best_of_the_simplex(seed):
    truth, other = drawn(seed=seed), drawn(seed=seed + 10)
    question = torch.zeros(200, dtype=torch.int64)
    torch.testing.assert_close(mixture_weights(truth, question, 1)[0].double(), simplex(truth), rtol=0, atol=2e-3)
    both = mixture_weights(torch.cat([truth, other], 1), torch.cat([question, question + 1]), 2)
    for weights, own in zip(both, (truth, other), strict=True):
        torch.testing.assert_close(weights.double(), simplex(own), rtol=0, atol=2e-3)


def test_the_prior_is_so_many_answers_of_even_weights():
    """With the prior, the weights maximise likelihood times w^(5/M), an answer of each member being worth 5/M."""
    truth = drawn()
    shares = truth.double().exp()
    weights = mixture_weights(truth, torch.zeros(200, dtype=torch.int64), 1)[0].double().requires_grad_()
    value = (weights @ shares).log().sum() + mixing.EVEN_ANSWERS / 3 * weights.log().sum()
    (gradient,) = torch.autograd.grad(value, weights)
    assert float(gradient.max() - gradient.min()) < 0.01 * float(gradient.mean())


def test_a_member_that_is_always_better_takes_all():
    truth = torch.stack([torch.full((5000,), -0.1), torch.full((5000,), -3.0)])
    weights = mixture_weights(truth, torch.arange(5000) % 3, 3)
    assert (weights[:, 0] > 0.99).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3))


def test_questions_with_few_answers_lean_on_all():
    """One whose two answers say the opposite of all others, one with none, one with many that do."""
    sizes = (3000, 2, 0, 3000)
    question = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    truth = torch.tensor([[-0.1], [-2.0]]).repeat(1, sum(sizes))
    turned = (question == 1) | (question == 3)
    truth[:, turned] = truth[:, turned].flip(0)
    truth[:, : sizes[0]] -= torch.tensor([[0.0], [3.0]])  # so that all together are for the first
    weights = mixture_weights(truth, question, 4)
    together = mixture_weights(truth, torch.zeros_like(question), 1)[0]
    torch.testing.assert_close(weights[2], together)
    assert (weights[1] - together).abs().max() < 0.1
    assert weights[0, 0] > 0.95
    assert weights[3, 1] > 0.9


@pytest.mark.parametrize("value", [-1e4, -200.0, -torch.inf])
def test_answers_that_no_member_expects(value):
    truth = torch.full((3, 20), value)
    weights = mixture_weights(truth, torch.arange(20) % 2, 2)
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3))


def test_no_answers_at_all():
    torch.testing.assert_close(
        mixture_weights(torch.zeros(4, 0), torch.zeros(0, dtype=torch.int64), 2), torch.full((2, 4), 0.25)
    )
