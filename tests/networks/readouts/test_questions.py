"""Questions against a loop over their columns."""

import pytest
import torch
from torch.nn import functional as F

from comodulation.networks.readouts import Questions
from comodulation.tasks import Examples, TaskFamily

MANY = tuple(int(size) for size in torch.randint(2, 9, (60,), generator=torch.Generator().manual_seed(0)))
CASES = [Questions((4,)), Questions((3, 2, 3, 5)), Questions(MANY), Questions((1,) * 7, True), Questions((1,), True)]


def drawn(questions, *shape, missing=0.4, seed=0):
    """Logits and answers, some of them missing, all of the second row's."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape, questions.num_outputs, generator=generator)
    sizes = [2] * len(questions.sizes) if questions.binary else questions.sizes
    places = [torch.randint(int(size), shape, generator=generator) for size in sizes]
    answers = torch.stack(places, -1)
    answers[torch.rand(answers.shape, generator=generator) < missing] = -1
    answers[..., 1, :] = -1
    return logits, answers


def blocks(questions, logits):
    """Logits of each question's answers; of binary questions of no and yes."""
    parts = logits.split(questions.sizes, -1)
    return [torch.cat([torch.zeros_like(part), part], -1) for part in parts] if questions.binary else list(parts)


@pytest.mark.parametrize("shape", [(6,), (3, 5)])
@pytest.mark.parametrize("questions", CASES, ids=lambda one: f"{len(one.sizes)}{'b' * one.binary}")
def test_losses_and_probabilities_of_a_loop(questions, shape):
    logits, answers = drawn(questions, *shape)
    losses, logs = questions.losses(logits, answers), questions.log_softmax(logits)
    assert losses.shape == answers.shape
    first = 0
    for number, (block, size) in enumerate(zip(blocks(questions, logits), questions.sizes, strict=True)):
        own = answers[..., number]
        expected = F.cross_entropy(block.movedim(-1, 1), own, ignore_index=-1, reduction="none")
        torch.testing.assert_close(losses[..., number], expected)
        torch.testing.assert_close(logs[..., first : first + size], block.log_softmax(-1)[..., -size:])
        assert (questions.question[first : first + size] == number).all()
        assert questions.first[number] == first
        first += size
    assert questions.num_outputs == first


@pytest.mark.parametrize("questions", CASES, ids=lambda one: f"{len(one.sizes)}{'b' * one.binary}")
def test_gradients_where_answers_are_missing(questions):
    """Finite, those of automatic differentiation through the loop, and 0 in rows without an answer."""
    logits, answers = drawn(questions, 6)
    ours, loop = (logits.double().requires_grad_() for _ in range(2))
    questions.losses(ours, answers).sum().backward()
    expected = [
        F.cross_entropy(block, answers[:, number], ignore_index=-1, reduction="sum")
        for number, block in enumerate(blocks(questions, loop))
        if (answers[:, number] >= 0).any()
    ]
    torch.stack(expected).sum().backward()
    torch.testing.assert_close(ours.grad, loop.grad)
    assert (ours.grad[1] == 0).all()
    losses, slopes = questions.losses_and_slopes(ours.detach(), answers)
    torch.testing.assert_close(losses, questions.losses(ours, answers).detach())
    torch.testing.assert_close(slopes, loop.grad)
    assert (slopes[1] == 0).all()


def test_outputs_that_are_not_among_the_answers():
    """-inf is a probability of 0, and its gradient is 0."""
    questions = Questions((4,))
    logits = torch.tensor([[1.0, 2.0, -torch.inf, 0.5]], requires_grad=True)
    questions.losses(logits, torch.tensor([[1]])).sum().backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(questions.log_softmax(logits)[0, [0, 1, 3]], logits[0, [0, 1, 3]].log_softmax(0))


@pytest.mark.parametrize(
    ("family", "targets", "expected"),
    [
        (TaskFamily.from_attributes(("p", "q")), [1, 0, 1], [[1, -1], [0, 1]]),
        (TaskFamily.from_columns(("p", "q"), (("a", "b", "c"), ("u", "v"))), [2, 0, 4], [[2, -1], [0, 1]]),
    ],
)
def test_answers_of_a_table(family, targets, expected):
    """Rows of the images asked for, in their order; an image without a label has none."""
    examples = Examples(torch.tensor([3, 8, 8]), torch.tensor([0, 0, 1]), torch.tensor(targets))
    found = Questions.of(family).answers(family, examples, torch.tensor([3, 5, 8]))
    assert found.tolist() == [expected[0], [-1, -1], expected[1]]


def test_a_family_of_classes_asks_one_question():
    family = TaskFamily("classes", ("a", "b"), tuple("wxyz"), ((0, 2), (1, 3)))
    questions = Questions.of(family)
    assert questions == Questions((4,))
    examples = Examples(torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor([3, 2]))
    assert questions.answers(family, examples, torch.tensor([0, 1])).tolist() == [[2], [3]]
