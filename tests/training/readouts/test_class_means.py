"""The nearest class mean: its formula, scikit-learn's centroids, missing labels, and no row that judges itself."""

import pytest
import torch
from sklearn.neighbors import NearestCentroid

from comodulation.networks.readouts import Questions
from comodulation.training.readouts.class_means import SPREADS, fit_class_means


def data(rows=120, width=6):
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(rows) % 3
    means = 1.5 * torch.randn(3, width, generator=generator, dtype=torch.float64)
    x = means[place] + torch.randn(rows, width, generator=generator, dtype=torch.float64)
    answers = torch.stack([place, torch.randint(2, (rows,), generator=generator)], 1)
    answers[torch.rand(rows, 2, generator=generator) < 0.2] = -1
    return (x - x.mean(0)) / x.std(0, correction=0), answers


QUESTIONS, FOLD = Questions((3, 2)), torch.arange(120) % 4


def test_probabilities_are_those_of_gaussians_around_the_means():
    rows, answers = data()
    probe, _ = fit_class_means(rows, answers, QUESTIONS, FOLD)
    found = QUESTIONS.log_softmax(probe.double()(rows)[0])
    for first, size, own in ((0, 3, answers[:, 0]), (3, 2, answers[:, 1])):
        counts = torch.bincount(own[own >= 0], minlength=size) + 1 / size
        means = torch.stack([rows[own == one].mean(0) for one in range(size)])
        squares = (rows[:, None] - means).square().sum(2)
        errors = [
            float(((counts.log() - squares / (2 * s)).log_softmax(1) - found[:, first : first + size]).abs().max())
            for s in SPREADS
        ]
        assert min(errors) < 1e-5
        assert size == 2 or sorted(errors)[1] > 1e-3  # the second question is not answered by the features


def test_the_answer_is_that_of_scikit_learns_centroids():
    """Where classes are equally frequent."""
    rows, answers = data()
    answers[:, 0] = torch.arange(120) % 3
    probe, _ = fit_class_means(rows, answers, QUESTIONS, FOLD)
    theirs = NearestCentroid().fit(rows.numpy(), answers[:, 0].numpy()).predict(rows.numpy())
    assert (probe.double()(rows)[0, :, :3].argmax(1).numpy() == theirs).all()


def test_binary_questions_are_questions_of_two_answers():
    rows, answers = data()
    answers = answers.clamp(max=1)
    columns, columns_unseen = fit_class_means(rows, answers, Questions((2, 2)), FOLD)
    binary, binary_unseen = fit_class_means(rows, answers, Questions((1, 1), True), FOLD)
    for two, yes in ((columns.double()(rows)[0], binary.double()(rows)[0]), (columns_unseen, binary_unseen)):
        torch.testing.assert_close(two[:, 1::2] - two[:, ::2], yes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [0, 17])
def test_no_answer_helps_to_judge_itself(row):
    """With one spread, another answer to a row leaves what is said of its fold out of fold, to the bit."""
    rows, answers = data()
    answers[row] = 0
    other = answers.clone()
    other[row] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comodulation.training.readouts.class_means.SPREADS", (2.0,))
        first, second = (fit_class_means(rows, one, QUESTIONS, FOLD)[1] for one in (answers, other))
    own = FOLD[row] == FOLD
    assert torch.equal(first[own], second[own])
    assert not torch.equal(first[~own], second[~own])


def test_a_class_without_a_row_is_possible_and_improbable():
    rows, answers = data()
    answers[:, 0] = answers[:, 0].clamp(max=1)
    probe, unseen = fit_class_means(rows, answers, QUESTIONS, FOLD)
    assert unseen.isfinite().all()
    assert float(QUESTIONS.log_softmax(probe.double()(rows)[0])[:, 2].exp().mean()) < 0.02
