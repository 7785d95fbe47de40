"""A bag's networks learn apart, and none learns from the rows that it judges."""

import itertools
from dataclasses import replace

import pytest
import torch

from comodulation.networks.readouts import Bag, Questions
from comodulation.networks.readouts.bag import dropped
from comodulation.training.readouts import BagSettings, deal_folds, train_bag
from comodulation.training.readouts.bagging import out_of_fold

SHORT = BagSettings(hidden=16, fewest_steps=40, passes=2)
EITHER = pytest.mark.parametrize("settings", [SHORT, replace(SHORT, turned=True)], ids=["features", "turned"])


def data(rows=60, width=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator)
    return x, torch.stack([(x[:, 0] > 0).long(), torch.randint(3, (rows,), generator=generator)], 1)


def last():
    """A judge for whom each look is better than the one before."""
    numbers = itertools.count()
    return lambda logits: -float(next(numbers))


def test_each_row_is_judged_by_the_network_of_its_fold():
    bag, (rows, _) = Bag(3, 5, 4, 2), data()
    for parameter in bag.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    fold = torch.randint(3, (60,), generator=torch.Generator().manual_seed(2))
    found, every = out_of_fold(bag, rows, fold), bag(rows)
    for row in range(60):
        torch.testing.assert_close(found[row], every[fold[row], row])


@EITHER
@pytest.mark.parametrize("row", [0, 17])
def test_no_network_learns_from_the_rows_that_it_judges(row, settings):
    """Another answer to a row changes what the others' networks say, and no bit of what its own says."""
    rows, answers = data()
    fold = torch.arange(60) % 4
    other = answers.clone()
    other[row] = (other[row] + 1) % 2
    first, second = (
        train_bag(rows, one, Questions((2, 3)), fold, last(), settings, 0).unseen for one in (answers, other)
    )
    own = fold == fold[row]
    assert torch.equal(first[own], second[own])
    assert not torch.equal(first[~own], second[~own])


@EITHER
def test_equal_seeds_give_equal_bits_and_others_do_not(settings):
    rows, answers = data()
    bags = [
        train_bag(rows, answers, Questions((2, 3)), torch.arange(60) % 3, last(), settings, s).bag for s in (0, 0, 1)
    ]
    assert torch.equal(bags[0].first, bags[1].first)
    assert not torch.equal(bags[0].first, bags[2].first)


@EITHER
@pytest.mark.parametrize("width", [5, 200])
def test_the_bag_is_that_of_its_best_look(width, settings):
    """What is kept says of unseen rows what the history has as its lowest NLL, also of features where it learned of components."""
    rows, answers = data(90, width)
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0)
    questions, fold = Questions((2, 3)), torch.arange(90) % 3

    def judge(logits):
        return float(questions.losses(logits, answers).mean())

    trained = train_bag(rows, answers, questions, fold, judge, settings, 0)
    lowest = min(look["nll"] for look in trained.history)
    assert judge(trained.unseen) == lowest
    assert trained.bag.first.shape == (3, width, 16)
    assert judge(out_of_fold(trained.bag, rows, fold)) == pytest.approx(lowest, abs=1e-5)
    assert lowest < trained.history[0]["nll"]


@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("rows", [3, 11, 100, 1003])
def test_folds_are_even_in_rows_and_in_answers(rows, missing):
    generator = torch.Generator().manual_seed(rows)
    answers = torch.randint(4, (rows, 3), generator=generator) ** 2 // 3
    answers[:, 0] = -1
    answers[:, 1][torch.rand(rows, generator=generator) < missing] = -1
    answers[:, 2][torch.rand(rows, generator=generator) < 0.8] = -1
    number = min(5, rows)
    fold = deal_folds(answers, number, 0)
    assert set(fold.tolist()) == set(range(number))
    fullest = int((answers >= 0).sum(0).argmax())
    for value in (None, *answers[:, fullest].unique()):
        own = torch.ones(rows, dtype=torch.bool) if value is None else answers[:, fullest] == value
        counts = torch.bincount(fold[own], minlength=number)
        assert counts.max() - counts.min() <= 1
    assert torch.equal(fold, deal_folds(answers, number, 0))
    assert rows < 10 or not torch.equal(fold, deal_folds(answers, number, 1))


def test_left_out_features_are_noise_of_that_variance_along_every_direction():
    """What stands for leaving out features in the basis of components: a variance of p / (1 - p), whatever the direction."""
    rows = data(400, 40)[0]
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0)
    generator = torch.Generator().manual_seed(0)
    noise = torch.cat([dropped(rows, 0.25, generator) - rows for _ in range(50)])
    directions = torch.linalg.qr(torch.randn(40, 10, generator=generator))[0]
    found = (noise @ directions).var(0)
    torch.testing.assert_close(found, torch.full((10,), 1 / 3), rtol=0.05, atol=0)


def test_components_answer_as_features_do():
    """Fewer numbers learn: of 30 rows of 400 features no more than 29 directions. Other rows are told apart as well."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 400, generator=generator) * 0.4
    answers = (torch.arange(230) % 2)[:, None]
    rows = means[answers[:, 0]] + torch.randn(230, 400, generator=generator)
    rows = (rows - rows[:30].mean(0)) / rows[:30].std(0, correction=0)
    fold, found = torch.arange(30) % 5, []
    for settings in (BagSettings(hidden=32), BagSettings(hidden=32, turned=True)):
        bag = train_bag(rows[:30], answers[:30], Questions((2,)), fold, last(), settings, 0).bag
        assert not settings.turned or torch.linalg.matrix_rank(bag.first[0]) <= 29
        found.append(float((bag(rows[30:]).mean(0).argmax(1) == answers[30:, 0]).double().mean()))
    assert min(found) > 0.97


@EITHER
def test_rows_that_do_not_differ_give_the_frequencies(settings):
    answers = (torch.arange(60) % 3 > 0).long()[:, None]
    trained = train_bag(torch.zeros(60, 4), answers, Questions((2,)), torch.arange(60) % 3, last(), settings, 0)
    assert trained.bag.first.shape == (3, 4, 16)
    share = trained.unseen.softmax(1)[:, 1]
    assert float((share - 2 / 3).abs().max()) < 0.2
