"""The probe is scikit-learn's logistic regression."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from comodulation.mathematics import derived_seed
from comodulation.networks.readouts import Questions
from comodulation.training.readouts import Basis, choose_strength, fit_probe, logistic_regression, moments_of
from comodulation.training.readouts import probe as probe_file


def drawn(rows, width, sizes, *, binary=False, missing=0.0, seed=0):
    """Features of different scales, and answers that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator) * torch.logspace(-2, 2, width) + 3
    standard = (x - x.mean(0)) / x.std(0)
    answers = []
    for size in sizes:
        logits = standard @ torch.randn(width, size, generator=generator) / width**0.5 * 2
        answers.append(torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0])
    table = torch.stack(answers, 1)
    table[torch.rand(table.shape, generator=generator) < missing] = -1
    return x, table


def ours(x, answers, questions, strength, **options):
    """Probabilities of each question's answers for all rows."""
    basis = Basis.of(x)
    weights, bias = logistic_regression(basis.turned(x), answers, questions, strength, basis.variance, **options)
    logits = ((x - basis.mean) / basis.deviation) @ basis.weights(weights).T + bias
    parts = logits.split(questions.sizes, 1)
    return [torch.cat([0 * p, p], 1).softmax(1) if questions.binary else p.softmax(1) for p in parts]


def theirs(x, answers, strength):
    """The same of one question, by scikit-learn; the rows are standardised over all, whether or not they are answered."""
    standard = StandardScaler().fit_transform(x.double().numpy())
    known = (answers >= 0).numpy()
    model = LogisticRegression(C=1 / (strength * known.sum()), tol=1e-10, max_iter=10_000)
    model.fit(standard[known], answers.numpy()[known])
    return torch.from_numpy(model.predict_proba(standard))


def assert_alike(x, answers, questions, strength):
    """To 1e-3 in float64. In float32 and at the usual tolerance, where few rows can be told apart by many features and hardly any
    penalty holds them, the minimum is so flat that 0.02 is what is found."""
    exact = ours(x.double(), answers, questions, strength, tolerance=1e-7)
    usual = ours(x, answers, questions, strength)
    for number, probabilities in enumerate(exact):
        # Two classes: a softmax of two outputs shares between them the weight that scikit-learn's one output has, so that
        # its penalty is half as much.
        binary = questions.binary or questions.sizes[number] > 2
        level = float(strength[number]) * (1 if binary else 0.5)
        expected = theirs(x, answers[:, number], level)
        torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-3)
        flat = len(x) < x.shape[1] and level < 0.2
        torch.testing.assert_close(usual[number].double(), expected, rtol=0, atol=0.02 if flat else 1e-3)


@pytest.mark.parametrize("shape", [(150, 8), (40, 90)])
@pytest.mark.parametrize("level", [3.0, 0.1, 1e-3])
@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("sizes", [(4,), (2,), (3, 5, 2)])
def test_softmax_is_that_of_scikit_learn(shape, level, missing, sizes):
    x, answers = drawn(*shape, sizes, missing=missing)
    assert_alike(x, answers, Questions(sizes), level * torch.linspace(1, 2, len(sizes)))


@pytest.mark.parametrize("shape", [(150, 8), (40, 90)])
@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_binary_is_that_of_scikit_learn(shape, missing):
    x, answers = drawn(*shape, (2, 2, 2), missing=missing)
    assert_alike(x, answers, Questions((1, 1, 1), True), torch.tensor([0.5, 0.1, 0.05]))


@pytest.mark.parametrize("sizes", [(3,), (3, 3)])
def test_constant_and_duplicated_features(sizes):
    """They have no direction of their own; the penalty is shared among duplicates."""
    x, answers = drawn(120, 6, sizes)
    more = torch.cat([x, torch.full((120, 2), 7.3), torch.zeros(120, 1), x[:, :3], 2 * x[:, :2] - 5], 1)
    assert_alike(more, answers, Questions(sizes), torch.full((len(sizes),), 0.02))


def test_a_start_near_the_minimum_leads_to_the_same_place():
    x, answers = drawn(100, 10, (3,))
    basis, questions = Basis.of(x), Questions((3,))
    level = torch.tensor([0.1])
    begin = logistic_regression(basis.turned(x), answers, questions, 10 * level, basis.variance)
    first, second = (
        logistic_regression(basis.turned(x), answers, questions, level, basis.variance, one) for one in (None, begin)
    )
    logits = [basis.turned(x) @ w + b for w, b in (first, second)]
    torch.testing.assert_close(logits[0].softmax(1), logits[1].softmax(1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 9), (9, 60), (2, 5)])
def test_the_basis_is_orthonormal_and_keeps_the_rows(shape):
    x, _ = drawn(*shape, (2,))
    x[:, 3] = 4.2
    basis = Basis.of(x)
    directions = basis.directions
    torch.testing.assert_close(directions.T @ directions, torch.eye(directions.shape[1]), rtol=0, atol=1e-4)
    assert directions.shape[1] <= min(shape[1], max(shape[0] - 1, 0))
    turned = basis.turned(x)
    torch.testing.assert_close(turned @ directions.T, (x - basis.mean) / basis.deviation, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(turned.square().mean(0), basis.variance, rtol=1e-3, atol=1e-4)
    assert (basis.variance.diff() <= 1e-6).all()


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_that_do_not_differ(rows):
    """No direction is left, and the answer is the frequency."""
    x, answers = torch.full((rows, 4), 2.5), (torch.arange(rows) % 2)[:, None]
    found = ours(x, answers, Questions((3,)), torch.tensor([0.1]))[0]
    expected = torch.bincount(answers[:, 0], minlength=3) / rows
    torch.testing.assert_close(found, expected.expand(rows, 3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("signal", [0.0, 5.0])
def test_the_strength_is_the_best_on_held_out_rows(signal):
    """Against scikit-learn on the same folds: the held-out NLL chosen is near the lowest of all."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(150, 20, generator=generator)
    answers = (signal * x[:, 0] + torch.randn(150, generator=generator) > 0).long()[:, None]
    basis, questions = Basis.of(x), Questions((1,), True)
    fold = torch.arange(150) % 3
    folds = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(3)]
    strength, table = choose_strength(basis.turned(x), answers, questions, basis.variance, folds)

    def held_out(level):
        total = 0.0
        standard = ((x - basis.mean) / basis.deviation).numpy()
        for fitted, held in folds:
            model = LogisticRegression(C=1 / (level * len(fitted)), tol=1e-8, max_iter=5000)
            model.fit(standard[fitted], answers[fitted, 0].numpy())
            logs = np.log(model.predict_proba(standard[held]).clip(min=1e-9))
            total -= logs[np.arange(len(held)), answers[held, 0].numpy()].sum()
        return total / 150

    best = min(held_out(10.0 ** (power / 2)) for power in range(2, -11, -1))
    assert held_out(float(strength)) < best + 0.01
    assert table.shape[1] == 1


def test_every_strength_is_judged_at_its_own_minimum():
    """Against scikit-learn, also where a weak penalty hardly moves the gradient, and the solution of the strength before seems good
    enough: 100 rows of ten classes that are easy to tell apart."""
    generator = torch.Generator().manual_seed(5)
    answers = (torch.arange(100) % 10)[:, None]
    x = torch.randn(10, 60, generator=generator)[answers[:, 0]] + 2.5 * torch.randn(100, 60, generator=generator)
    basis, fold = Basis.of(x), torch.arange(100) // 10 % 5
    folds = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(5)]
    strength, table = choose_strength(basis.turned(x), answers, Questions((10,)), basis.variance, folds)
    standard, exact = ((x - basis.mean) / basis.deviation).numpy(), []
    for level in probe_file.STRENGTHS[: len(table)]:
        right, wrong = 0.0, 0.0
        for fitted, held in folds:
            model = LogisticRegression(C=1 / (level * len(fitted)), tol=1e-8, max_iter=5000)
            model.fit(standard[fitted], answers[fitted, 0].numpy())
            own = model.predict_proba(standard[held])[np.arange(len(held)), answers[held, 0].numpy()]
            right, wrong = right - np.log(own).sum(), wrong - np.log(1 - own).sum()
        exact.append((right + probe_file.WRONG_ANSWERS * wrong / 100) / 100)
    np.testing.assert_allclose(table[:, 0].numpy(), exact, rtol=0.02)
    assert float(strength) == pytest.approx(probe_file.STRENGTHS[int(np.argmin(exact))])


@pytest.mark.parametrize("rows", [20, 100])
def test_few_answers_that_are_all_right_are_no_proof(rows):
    """Where every held-out answer is right, the loss is lowest at the probability n / (n + 1/2): as near as the grid comes."""
    answers = (torch.arange(rows) % 2)[:, None]
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(6)) + 20 * answers
    basis, fold = Basis.of(x), torch.arange(rows) // 2 % 5
    folds = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(5)]
    questions = Questions((1,), True)
    strength, _ = choose_strength(basis.turned(x), answers, questions, basis.variance, folds)
    found = ours(x, answers, questions, strength)[0]
    sure = found.gather(1, answers).log().mean().exp()
    odds = float(sure / (1 - sure)) / (2 * rows)
    assert 1 / 3 < odds < 3


def test_questions_with_few_answers_take_the_strength_of_all():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(200, 15, generator=generator)
    answers = torch.randint(2, (200, 6), generator=generator)
    answers[2:, 5] = -1  # two labelled rows
    basis, fold = Basis.of(x), torch.arange(200) % 4
    folds = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(4)]
    strength, table = choose_strength(basis.turned(x), answers, Questions((1,) * 6, True), basis.variance, folds)
    assert strength.min() >= 1  # noise: as strong as there is
    assert table.isfinite().all()


# ---- on all rows, and outside each fold ----


def given(rows=240, width=7, seed=0):
    """Rows of which the first third lie elsewhere, so that some rows have other moments than all; three answers; four folds."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    x[: rows // 3] = 5 + 3 * x[: rows // 3]
    answers = (x[:, :3] + torch.randn(rows, 3, generator=generator)).argmax(1)[:, None]
    return x, answers, Questions((3,)), torch.arange(rows) % 4


def test_the_probe_of_some_rows_is_a_minimum_in_the_features_that_it_is_given(monkeypatch):
    """Fitted to half of the rows, it reads rows that are standardised by the moments of all: there its gradient is 0."""
    x, answers, questions, fold = given()
    moments = moments_of(x)
    monkeypatch.setattr(probe_file, "PROBE_NUMBERS", 120 * x.shape[1])
    fitted = fit_probe(x, answers, questions, fold, moments, 3)
    probe, strength = fitted.probe, fitted.strength
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(derived_seed(3, "probe")))
    taken = order[:120]
    standard = (x[taken] - moments[0]) / moments[1]
    weight, bias = probe.weight.detach().double().requires_grad_(), probe.bias.detach().double().requires_grad_()
    objective = torch.nn.functional.cross_entropy(standard @ weight.T + bias, answers[taken, 0])
    (objective + strength[0].double() * weight.square().sum() / 2).backward()
    assert weight.grad.abs().max() < 1e-3
    assert bias.grad.abs().max() < 1e-3


@pytest.mark.parametrize("width", [7, 400])
def test_no_answer_reaches_what_judges_it(width, monkeypatch):
    """With the strength held, a fold's logits have the same bits whatever its own answers are: also where the minimum is flat."""
    monkeypatch.setattr(probe_file, "choose_strength", lambda *_: (torch.tensor([0.01]), None))
    x, answers, questions, fold = given(width=width)
    logits = fit_probe(x, answers, questions, fold, moments_of(x), 0).unseen
    for part in range(4):
        other = answers.clone()
        other[fold == part] = (other[fold == part] + 1) % 3
        again = fit_probe(x, other, questions, fold, moments_of(x), 0).unseen
        assert torch.equal(again[fold == part], logits[fold == part])
        assert not torch.equal(again[fold != part], logits[fold != part])


def test_of_strengths_that_are_as_good_the_strongest_is_taken():
    """Few rows that are far from each other: weak strengths are all right, and new rows between them are not worth certainty."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(30) % 3
    rows = 2 * torch.eye(3)[classes] @ torch.randn(3, 50, generator=generator) + torch.randn(
        30, 50, generator=generator
    )
    basis = Basis.of(rows)
    fold = torch.arange(30) // 3 % 5
    folds = [((fold != one).nonzero()[:, 0], (fold == one).nonzero()[:, 0]) for one in range(5)]
    chosen, table = choose_strength(basis.turned(rows), classes[:, None], Questions((3,)), basis.variance, folds)
    place = [math.isclose(one, float(chosen), rel_tol=1e-5) for one in probe_file.STRENGTHS].index(True)
    margin = probe_file.TIED / (30 + probe_file.SHARED_ANSWERS)
    assert table[place, 0] <= table.min() + margin
    assert (table[:place, 0] > table.min() + margin).all()
    assert place < int(table[:, 0].argmin())
