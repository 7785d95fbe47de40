"""Task gains on a probe: learned across folds, folded into its weights, and used where they foretell answers."""

import pytest
import torch

from comodulation.networks.readouts import Questions
from comodulation.training.readouts import fit_gains, fit_probe, gains, moments_of

ROWS, WIDTH, FOLDS = 1200, 6, 4


@pytest.fixture(scope="module")
def given():
    """Two tasks of two classes each. In the first, the classes are told by the positive part of feature 0; its negative part is
    large and says nothing. In the second, both parts of feature 1 tell them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator)
    x[:, 0] = torch.where(x[:, 0] < 0, 4 * x[:, 0], 2 * x[:, 0])
    task = torch.arange(ROWS) % 2
    clean = torch.where(task == 0, (x[:, 0] > 0.5), (x[:, 1] > 0)).long()
    flipped = torch.rand(ROWS, generator=generator) < torch.where((task == 0) & (x[:, 0] < 0), 0.35, 0.05)
    answers = (2 * task + (clean ^ flipped.long()))[:, None]
    allowed = torch.zeros(ROWS, 4, dtype=torch.bool)
    allowed[torch.arange(ROWS), 2 * task] = allowed[torch.arange(ROWS), 2 * task + 1] = True
    fold = torch.arange(ROWS) // 2 % FOLDS
    mean, deviation = moments_of(x)
    fitted = fit_probe(x, answers, Questions((4,)), fold, (mean, deviation), 0)
    return (x - mean) / deviation, answers, allowed, fold, fitted


def nll(logits, answers, allowed):
    logs = logits.masked_fill(~allowed, -torch.inf).log_softmax(1)
    return float(-logs.gather(1, answers).mean())


def test_they_find_what_the_probe_cannot_say(given):
    """The misleading half of a feature is turned down, for the task that it misleads; out of fold the answers are better."""
    _, answers, allowed, _, fitted = given
    probe, unseen = fit_gains(*given)
    assert nll(unseen, answers, allowed) < nll(fitted.unseen, answers, allowed) - 0.008
    found = probe.weight / torch.cat([fitted.probe.weight, -fitted.probe.weight], 1)
    assert torch.allclose(found[0], found[1])  # the classes of a task share its gains
    assert torch.allclose(found[2], found[3])
    assert not torch.allclose(found[0], found[2])
    assert (found > 0).all()
    positive, negative = found[0, 0], found[0, WIDTH]
    assert negative < 0.5 * positive


def test_the_readout_is_the_probe_with_gains(given):
    """Its logits are those of rectified features times gains, in the probe's weights."""
    standard, *_, fitted = given
    probe, _ = fit_gains(*given)
    gained = (probe.weight / torch.cat([fitted.probe.weight, -fitted.probe.weight], 1)).detach()
    for output in range(4):
        up, down = gained[output].chunk(2)
        expected = (standard.relu() * up - (-standard).relu() * down) @ fitted.probe.weight[output] + fitted.probe.bias[
            output
        ]
        torch.testing.assert_close(probe(standard)[0, :, output], expected, atol=1e-5, rtol=1e-5)


def test_none_are_the_probe(given, monkeypatch):
    """Under a penalty that leaves no gain, all answers are the probe's."""
    monkeypatch.setattr(gains, "STRENGTHS", (1e9,))
    standard, *_, fitted = given
    probe, unseen = fit_gains(*given)
    torch.testing.assert_close(unseen, fitted.unseen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe(standard), fitted.probe(standard), atol=1e-4, rtol=1e-4)


def test_no_answer_reaches_what_judges_it(given, monkeypatch):
    """With the penalty held, other answers in a fold and the same probes, the gains that judge the fold have the same bits."""
    monkeypatch.setattr(gains, "STRENGTHS", (10.0,))
    standard, answers, allowed, fold, fitted = given
    _, unseen = fit_gains(*given)
    other = answers.clone()
    other[fold == 2] ^= 1
    _, again = fit_gains(standard, other, allowed, fold, fitted)
    own = allowed & (fold == 2)[:, None]
    assert torch.equal(again[own], unseen[own])
    assert not torch.equal(again[allowed & (fold == 1)[:, None]], unseen[allowed & (fold == 1)[:, None]])


def test_rows_without_an_answer_teach_nothing(given):
    standard, answers, allowed, fold, fitted = given
    known = torch.arange(ROWS) % 3 > 0
    missing = answers.masked_fill(~known[:, None], -1)
    probe, unseen = fit_gains(standard, missing, allowed, fold, fitted)
    parts = fitted._replace(unseen=fitted.unseen[known])
    alone, alone_unseen = fit_gains(standard[known], answers[known], allowed[known], fold[known], parts)
    torch.testing.assert_close(probe.weight, alone.weight)
    torch.testing.assert_close(unseen[known], alone_unseen)
