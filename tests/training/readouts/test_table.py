"""Readouts of whole tables: whatever the labels, the mixture is no worse than the probe, and no number is lost."""

import math

import pytest
import torch

from comodulation.errors import InputError
from comodulation.networks.readouts import Questions, Readouts
from comodulation.training.readouts import BagSettings, Candidate, fit_readouts, probe
from comodulation.training.readouts import table as tables

ROWS, WIDTH = 150, 12
QUICK = BagSettings(hidden=32, fewest_steps=100, passes=5)
BOTH = (Candidate("probe", "linear", 0, WIDTH), Candidate("bag", "committee", 0, WIDTH))


def features(rows=ROWS, width=WIDTH, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def noise(*sizes, rows=ROWS, missing=0.0, seed=1):
    """Answers that the features say nothing of."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.stack([torch.randint(size, (rows,), generator=generator) for size in sizes], 1)
    answers[torch.rand(answers.shape, generator=generator) < missing] = -1
    return answers


def linear(rows):
    return (rows[:, :3] - 1).argmax(1)[:, None]


def one_example(rows):
    answers = linear(rows)
    answers[answers == 2] = 0
    answers[7] = 2
    return answers


def single_label(rows):
    second = torch.full((len(rows), 1), -1)
    second[5] = 1
    return torch.cat([linear(rows), second], 1)


def one_class(rows):
    return torch.cat([linear(rows), torch.ones(len(rows), 1, dtype=torch.int64)], 1)


def missing(share):
    def make(rows):
        found = torch.cat([linear(rows), noise(2, 4, rows=len(rows))], 1)
        found[torch.rand(found.shape, generator=torch.Generator().manual_seed(2)) < share] = -1
        return found

    return make


TABLES = {
    "noise": (lambda rows: noise(3, rows=len(rows)), Questions((3,))),
    "noise, binary": (lambda rows: noise(2, 2, rows=len(rows)), Questions((1, 1), True)),
    "a linear rule": (linear, Questions((3,))),
    "a linear rule, binary": (lambda rows: (rows[:, :2] > 1).long(), Questions((1, 1), True)),
    "one example of a class": (one_example, Questions((3,))),
    "a class of which there is none": (lambda rows: linear(rows) % 2, Questions((4,))),
    "a single labelled row": (single_label, Questions((3, 2))),
    "labels of one class": (one_class, Questions((3, 2))),
    "nothing but one class": (lambda rows: torch.ones(len(rows), 1, dtype=torch.int64), Questions((2,))),
    "binary, always yes": (lambda rows: torch.ones(len(rows), 1, dtype=torch.int64), Questions((1,), True)),
    **{f"{share:.0%} missing": (missing(share), Questions((3, 2, 4))) for share in (0.1, 0.5, 0.8, 0.95)},
}


def assert_sound(fitted, rows, answers, questions):
    """Finite throughout, no worse than the probe, answers that add up to 1, and the bits that the tensors bring back."""
    assert fitted.nll["together"] <= fitted.nll["linear"] + 0.02, fitted.nll
    assert all(map(math.isfinite, (*fitted.nll.values(), *fitted.weights.values())))
    readouts = fitted.readouts
    assert all(value.isfinite().all() for value in readouts.tensors().values())
    torch.testing.assert_close(readouts.weights.sum(1), torch.ones(len(questions.sizes)))
    assert (readouts.temperature > 0).all()
    answered = readouts.combine(*readouts(rows))
    assert answered.isfinite().all()
    assert fitted.logits.isfinite().all()
    if not questions.binary:
        for part in answered.split(questions.sizes, 1):
            torch.testing.assert_close(part.exp().sum(1), torch.ones(len(rows)))
    sizes = [2] * len(questions.sizes) if questions.binary else questions.sizes
    again = Readouts.of_tensors(readouts.tensors(), sizes)
    assert torch.equal(again.combine(*again(rows)), answered)
    own = questions.losses(fitted.logits, answers[fitted.judged])[answers[fitted.judged] >= 0]
    assert float(own.clamp(max=-tables.CERTAIN).mean()) == pytest.approx(fitted.nll["together"], abs=1e-5)


@pytest.mark.parametrize("name", TABLES)
def test_no_worse_than_the_probe(name):
    make, questions = TABLES[name]
    rows = features()
    answers = make(rows)
    assert_sound(fit_readouts(rows, answers, questions, BOTH, None, 0, settings=QUICK), rows, answers, questions)


def test_one_row_teaches_nothing():
    with pytest.raises(InputError, match="at least 2 labelled images, got 1"):
        fit_readouts(features(1), noise(2, rows=1), Questions((2,)), BOTH, None, 0)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_few_rows(number):
    rows = features(number)
    answers = noise(3, 2, rows=number)
    assert_sound(
        fit_readouts(rows, answers, Questions((3, 2)), BOTH, None, 0, settings=QUICK), rows, answers, Questions((3, 2))
    )


def test_columns_that_are_constant():
    """Everywhere, and in all folds but one."""
    rows = features()
    answers = linear(rows)
    fold = tables.deal_folds(answers, 5, tables.derived_seed(0, "folds"))
    rows[:, 4] = 1e-3
    rows[:, 5] = 0.0
    rows[:, 6] = torch.where(fold == 2, rows[:, 6], 3.0)
    rows[:, 7] = 0.0
    rows[9, 7] = 1000.0
    assert_sound(
        fit_readouts(rows, answers, Questions((3,)), BOTH, None, 0, settings=QUICK), rows, answers, Questions((3,))
    )


def test_noise_is_not_foretold():
    """Nothing that was fitted to an answer judges it: with as many features as rows, no member beats the entropy."""
    rows, answers = features(100, 100), noise(2, rows=100)
    candidates = (Candidate("probe", "linear", 0, 100), Candidate("bag", "committee", 0, 100))
    found = fit_readouts(rows, answers, Questions((2,)), candidates, None, 0, settings=QUICK)
    assert min(found.nll["linear"], found.nll["committee"]) > math.log(2) - 0.02
    # On rows of the training a member that has seen them would be nearly certain.
    unseen = features(2000, 100, seed=8)
    own = found.readouts.combine(*found.readouts(unseen))
    assert float(-own.mean()) < math.log(2) + 0.05


def test_a_committee_finds_what_no_probe_can():
    """The exclusive or of two features among twelve, each of which is seen in copies as image features are."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(600, 2, generator=generator)
    answers = ((signs[:, 0] > 0) ^ (signs[:, 1] > 0)).long()[:, None]
    rows = signs.repeat(1, 6) + 0.1 * torch.randn(600, 12, generator=generator)
    found = fit_readouts(rows, answers, Questions((1,), True), BOTH, None, 0)
    assert found.nll["linear"] > 0.68
    assert found.nll["committee"] < 0.4
    assert found.nll["together"] < 0.4
    assert found.weights["committee"] > 0.9


@pytest.mark.parametrize("binary", [False, True])
def test_equal_seeds_give_equal_bits(binary):
    rows = features(60)
    answers = noise(2, 2, rows=60, missing=0.3)
    questions = Questions((1, 1), True) if binary else Questions((2, 2))
    first, second, other = (
        fit_readouts(rows, answers, questions, BOTH, None, seed, settings=QUICK) for seed in (3, 3, 4)
    )
    assert first.nll == second.nll
    assert torch.equal(first.logits, second.logits)
    tensors = second.readouts.tensors()
    assert all(torch.equal(value, tensors[name]) for name, value in first.readouts.tensors().items())
    assert first.nll != other.nll


def test_answers_out_of_fold_are_near_those_to_new_rows():
    """What is said of rows that a member has not seen is what a test says."""
    rows, new = features(300), features(3000, seed=9)
    answers, truth = linear(rows), linear(new)
    found = fit_readouts(rows, answers, Questions((3,)), BOTH, None, 0)
    tested = Questions((3,)).losses(found.readouts.combine(*found.readouts(new)), truth)
    assert float(tested.mean()) == pytest.approx(found.nll["together"], abs=0.07)


def test_answers_of_groups_are_among_their_own():
    """Outputs that do not belong to a row's group have no probability, and do not count."""
    rows = features()
    group = torch.arange(ROWS) % 2
    allowed = torch.tensor([[True, True, False, False], [False, False, True, True]])[group]
    answers = (2 * group + (rows[:, 0] > 1))[:, None]
    found = fit_readouts(rows, answers, Questions((4,)), BOTH, allowed, 0, settings=QUICK)
    assert (found.logits.isneginf() == ~allowed[found.judged]).all()
    assert found.nll["together"] <= found.nll["linear"] + 0.02
    assert found.nll["together"] < 0.3  # the group is given, and does not have to be guessed
    assert all(map(math.isfinite, found.nll.values()))


# ---- temperatures ----


def too_weak(monkeypatch, strength):
    monkeypatch.setattr(probe, "STRENGTHS", (strength,))


def test_overconfident_answers_are_made_less_sure(monkeypatch):
    """A probe without a penalty on labels of which a third are wrong."""
    too_weak(monkeypatch, 1e-4)
    rows = features(100, WIDTH)
    answers = (rows[:, :2] > 1).long()
    wrong = torch.rand(answers.shape, generator=torch.Generator().manual_seed(0)) < 0.35
    answers[wrong] = 1 - answers[wrong]
    for questions in (Questions((2, 2)), Questions((1, 1), True)):
        kept, fitted = (
            fit_readouts(rows, answers, questions, BOTH[:1], None, 0, calibrate=calibrate)
            for calibrate in (False, True)
        )
        assert (kept.readouts.temperature == 1).all()
        assert kept.nll["together"] == pytest.approx(kept.nll["linear"], abs=1e-5)
        assert (fitted.readouts.temperature > 1.1).all()
        assert fitted.nll["together"] < kept.nll["together"]


def test_answers_that_mislead_are_given_as_even():
    """Out of fold, labels that alternate are foretold by nothing, and confident answers are wrong as often as right."""
    generator = torch.Generator().manual_seed(0)
    questions = Questions((2,))
    logits, answers = 30 * torch.randn(200, 2, generator=generator), torch.randint(2, (200, 1), generator=generator)
    wrong = questions.log_softmax(logits).argmin(1, keepdim=True)
    answers[:120] = wrong[:120]
    assert float(tables._temperatures(questions, logits, answers, answers)) == tables.HIGHEST_TEMPERATURE


def test_answers_that_are_too_timid_are_made_surer(monkeypatch):
    too_weak(monkeypatch, 10.0)
    rows = features()
    fitted = fit_readouts(rows, linear(rows), Questions((3,)), BOTH[:1], None, 0)
    assert (fitted.readouts.temperature < 0.9).all()
    assert fitted.nll["together"] < fitted.nll["linear"]


@pytest.mark.parametrize("sizes", [(4,), (2, 5)])
def test_answers_that_no_other_fold_has(sizes):
    """By a loop over rows."""
    answers, questions = noise(*sizes, rows=25, missing=0.4), Questions(sizes)
    fold = torch.arange(25) % 5
    found = tables.answered_elsewhere(answers, questions, fold)
    for row in range(25):
        for question in range(len(sizes)):
            own = answers[row, question]
            others = answers[fold != fold[row], question]
            assert found[row, question] == (own if own in others else -1)
    binary = Questions((1,), True)
    assert torch.equal(
        tables.answered_elsewhere(answers[:, :1].clamp(max=1), binary, fold), answers[:, :1].clamp(max=1)
    )


def test_classes_of_one_example_do_not_make_the_others_unsure(monkeypatch):
    """Sixty classes far from each other, of which a third have one example: out of fold no readout knows these, new rows of all
    are told apart."""
    generator = torch.Generator().manual_seed(3)
    centres = 3 * torch.randn(60, WIDTH, generator=generator)
    classes = torch.cat([torch.arange(60), torch.arange(20, 60).repeat(2)])
    rows, new = (centres[c] + torch.randn(len(c), WIDTH, generator=generator) for c in (classes, torch.arange(60)))
    questions = Questions((60,))

    def fitted():
        readouts = fit_readouts(rows, classes[:, None], questions, BOTH[:1], None, 0).readouts
        losses = questions.losses(readouts.combine(*readouts(new)), torch.arange(60)[:, None])
        return float(readouts.temperature), float(losses.mean())

    temperature, nll = fitted()
    monkeypatch.setattr(tables, "answered_elsewhere", lambda answers, questions, fold: answers)
    warmer, higher = fitted()
    assert temperature < warmer
    assert nll < higher - 0.05


GUESS = Candidate("frequencies", "frequencies", 0, 1)


@pytest.mark.parametrize("binary", [False, True])
def test_frequencies_are_those_of_the_other_folds(binary):
    """Against a count by hand: each row's fold has no say in what judges it."""
    rows, answers = features(40), noise(2, 2, rows=40, missing=0.4)
    questions = Questions((1, 1), True) if binary else Questions((2, 2))
    found = fit_readouts(rows, answers, questions, (GUESS,), None, 0, calibrate=False)
    fold = tables.deal_folds(answers, 5, tables.derived_seed(0, "folds"))
    for row, question in (answers >= 0).nonzero().tolist():
        others = answers[(fold != fold[row]) & (answers[:, question] >= 0), question]
        yes = (float((others == 1).sum()) + 0.5) / (len(others) + 1)
        own = found.logits[row, question].sigmoid() if binary else found.logits[row, 2 * question + 1].exp()
        assert float(own) == pytest.approx(yes, rel=1e-5)
    # Nothing of the features is read.
    first, second = (found.readouts.combine(*found.readouts(features(3, seed=seed))) for seed in (5, 6))
    assert torch.equal(first, second)


def test_frequencies_bear_what_no_feature_foretells():
    """Of answers that are noise, with more features than rows, the mixture is as good as they are."""
    rows, answers = features(60, 100), torch.zeros(60, 1, dtype=torch.int64)
    answers[torch.randperm(60, generator=torch.Generator().manual_seed(3))[:6]] = 1
    candidates = (Candidate("probe", "linear", 0, 100), Candidate("bag", "committee", 0, 100), GUESS)
    found = fit_readouts(rows, answers, Questions((2,)), candidates, None, 0, settings=QUICK)
    assert found.nll["together"] < found.nll["frequencies"] + 0.02
    again = Readouts.of_tensors(found.readouts.tensors(), [2])
    assert torch.equal(again.combine(*again(rows)), found.readouts.combine(*found.readouts(rows)))
