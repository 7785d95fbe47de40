"""Logistic regression on frozen features: the yardstick. All questions at once, each with an L2 of its own by cross-validation.

For question q with n_q answers, and features x standardised over the training rows, it minimises

    1/n_q sum_i -log p(y_iq | W_q x_i + b_q)  +  l_q/2 |W_q|^2

which is scikit-learn's LogisticRegression with C = 1 / (l_q n_q). Two changes of coordinates leave the minimum where it is and make
L-BFGS find it in some ten steps. First, rows are turned into the basis of their principal components, which drops the directions
in which no row differs (n rows have at most n - 1 others). Second, coordinate j of output c is measured in units of
1 / sqrt(h_c v_j + l_q): v_j is the variance of component j and h_c = pi_c (1 - pi_c), with pi_c the frequency of the output. That
is the inverse square root of the Hessian's diagonal at the start, where the logits are those of the frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...mathematics import derived_seed
from ...networks.readouts import Probe, Questions
from ..optimizers import LBFGS

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(2, -11, -1))  # of the L2 that are tried, from strong to weak
SHARED_ANSWERS = 20.0  # what all questions together say of a strength counts as so many answers of each one
SEARCHED_ROWS = 5_000  # with more, strengths of L2 are compared on one fold
PROBE_NUMBERS = 2**28  # in the rows that a probe is fitted on; with more, it is fitted on some of them
STEPS = 200  # of L-BFGS, at most
SEARCH_TOLERANCE = 1e-3  # of the gradient while strengths are compared, at most,
STRENGTH_TOLERANCE = 0.1  # and in parts of the strength: its share of the gradient is what moves the minimum
WRONG_ANSWERS = 0.5  # that each question is taken to have beside those held out; see choose_strength
TIED = 1.0  # nats over all held-out answers to a question, by which a weaker strength must be better to be taken


def moments_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature of rows ``(N, V)``, each ``(V,)``; deviation 1 where a feature is constant."""
    deviation, mean = torch.std_mean(rows, 0, correction=0)
    return mean, torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-6), deviation, 1.0)


@dataclass(frozen=True)
class Basis:
    """Principal components of some rows.

    Attributes:
        mean, deviation: of each feature, ``(V,)``; deviation is 1 where a feature is constant.
        directions: orthonormal, of standardised features, ``(V, R)``.
        variance: along each of them, ``(R,)``, falling.
    """

    mean: Tensor
    deviation: Tensor
    directions: Tensor
    variance: Tensor

    @classmethod
    def of(cls, rows: Tensor, moments: tuple[Tensor, Tensor] | None = None) -> Basis:
        """The basis of rows ``(N, V)``, computed in float64 from the smaller of the two matrices of products.

        Args:
            rows: to find directions in. moments: to standardise by, where the rows are some of others; None: their own.
        """
        mean, deviation = moments_of(rows) if moments is None else moments
        standard = (rows - mean) / deviation
        number, width = standard.shape
        if number >= width:
            values, vectors = torch.linalg.eigh((standard.T @ standard).double() / number)
        else:
            values, inner = torch.linalg.eigh((standard @ standard.T).double() / number)
            values = values.clamp(min=0)
            vectors = standard.T.double() @ inner / (number * values.clamp(min=1e-30)).sqrt()
        kept = values > 1e-6 * values.max().clamp(min=1e-30)
        values, vectors = values[kept].flip(0), vectors[:, kept].flip(1)
        return cls(mean, deviation, vectors.to(rows.dtype), values.to(rows.dtype))

    def turned(self, rows: Tensor) -> Tensor:
        """Rows ``(N, V)`` in the basis, ``(N, R)``."""
        return ((rows - self.mean) / self.deviation) @ self.directions

    def weights(self, turned: Tensor) -> Tensor:
        """Weights ``(R, C)`` of turned rows as weights of standardised ones, ``(C, V)``."""
        return (self.directions @ turned).T


def logistic_regression(
    rows: Tensor,
    answers: Tensor,
    questions: Questions,
    strength: Tensor,
    variance: Tensor,
    begin: tuple[Tensor, Tensor] | None = None,
    *,
    tolerance: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Weights ``(R, C)`` and biases ``(C,)`` of the minimum that the head of this file defines.

    Args:
        rows: turned, ``(N, R)``.
        answers: int64 ``(N, Q)``, -1 where missing.
        questions: Q of them, with C outputs.
        strength: l of each question, positive, ``(Q,)``.
        variance: of each coordinate, ``(R,)``.
        begin: weights and biases near the minimum, where some are known.
        tolerance: largest component of the gradient, in the coordinates above, at which it ends.
    """
    frequency, counts = _frequencies(answers, questions, rows.dtype)
    share = (1 / counts.clamp(min=1)).to(rows.dtype)
    per_output, share_per_output = strength.to(rows.dtype)[questions.question], share[questions.question]
    h = (frequency * (1 - frequency)).clamp(min=1e-4)
    scale = (h * variance[:, None] + per_output).rsqrt()
    start = torch.logit(frequency.clamp(1e-4, 1 - 1e-4)) if questions.binary else frequency.clamp(min=1e-6).log()
    unit = h.rsqrt()
    moved = torch.zeros(rows.shape[1], questions.num_outputs, dtype=rows.dtype) if begin is None else begin[0] / scale
    shift = torch.zeros_like(start) if begin is None else (begin[1] - start) / unit
    moved.grad, shift.grad = torch.empty_like(moved), torch.empty_like(shift)
    solver = LBFGS(
        [moved, shift], max_iter=STEPS, history_size=10, tolerance_grad=tolerance, tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        weights = scale * moved
        losses, slopes = questions.losses_and_slopes(torch.addmm(start + unit * shift, rows, weights), answers)
        slopes *= share_per_output
        penalised = weights * per_output
        torch.addmm(penalised, rows.T, slopes, out=moved.grad).mul_(scale)
        torch.mul(unit, slopes.sum(0), out=shift.grad)
        return losses.sum(0, dtype=torch.float64) @ share.double() + (weights * penalised).sum(dtype=torch.float64) / 2

    solver.step(objective)
    return scale * moved, start + unit * shift


def _frequencies(answers: Tensor, questions: Questions, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Frequency of each output among the answers to its question ``(C,)``, and number of answers of each question ``(Q,)``."""
    known = answers >= 0
    counts = known.sum(0)
    if questions.binary:
        hits = (answers == 1).sum(0)
    else:
        hits = torch.bincount((answers + questions.first)[known], minlength=questions.num_outputs)
    return (hits / counts.clamp(min=1)[questions.question]).to(dtype), counts


def choose_strength(
    rows: Tensor, answers: Tensor, questions: Questions, variance: Tensor, folds: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The strength of L2 with the lowest mean NLL on held-out rows, for each question.

    A question with few answers says little: what all questions say together counts as ``SHARED_ANSWERS`` further ones. And where
    few answers are all right, the weakest strength looks best, however sure it is. So half an answer more is taken to have been
    wrong, as in a rule of succession: its loss is the mean of -log(1 - p) over the answers given.
    Strengths are tried from strong to weak, until no question has improved twice in succession. Of those that are as good to
    ``TIED`` nats, the strongest is taken: where few rows are told apart with ease, all weak ones are, and which has the very
    lowest NLL is chance.

    Args:
        rows, answers, questions, variance: as in ``logistic_regression``.
        folds: of rows to fit on and rows to judge on.

    Returns:
        Strengths ``(Q,)``, and the held-out mean NLL of each of those tried ``(S, Q)``.
    """
    found: list[Tensor] = []
    judged = torch.stack([(answers[held] >= 0).sum(0) for _, held in folds]).sum(0)
    answered = judged > 0
    begin: list[tuple[Tensor, Tensor] | None] = [None] * len(folds)
    for strength in STRENGTHS:
        total, wrong = torch.zeros(2, len(questions.sizes), dtype=torch.float64)
        tolerance = min(SEARCH_TOLERANCE, STRENGTH_TOLERANCE * strength)
        level = torch.full((len(questions.sizes),), strength)
        for number, (fitted, held) in enumerate(folds):
            weights, bias = begin[number] = logistic_regression(
                rows[fitted], answers[fitted], questions, level, variance, begin[number], tolerance=tolerance
            )
            losses = questions.losses(rows[held] @ weights + bias, answers[held]).double().clamp(1e-9, 20)
            known = answers[held] >= 0
            total += (losses * known).sum(0)
            wrong -= ((-torch.expm1(-losses)).log() * known).sum(0)
        total += WRONG_ANSWERS * wrong / judged.clamp(min=1)
        together = (total[answered] / judged[answered]).mean() if bool(answered.any()) else torch.tensor(0.0)
        found.append((total + SHARED_ANSWERS * together) / (judged + SHARED_ANSWERS))
        if len(found) > 2 and bool((torch.stack(found[-2:]) > torch.stack(found[:-2]).amin(0)).all()):
            break
    table = torch.stack(found)
    close = table <= table.amin(0) + TIED / (judged + SHARED_ANSWERS)
    return torch.tensor(STRENGTHS)[close.int().argmax(0)], table  # argmax: the first of them


class FittedProbe(NamedTuple):
    """Logistic regression on all rows, and on those outside each fold.

    Attributes:
        probe: on all rows.
        by_fold: those on the rows outside each fold.
        unseen: logits of each row by the one of its fold, which has not seen it, ``(N, C)``.
        strength: of L2, of each question, ``(Q,)``.
    """

    probe: Probe
    by_fold: list[Probe]
    unseen: Tensor
    strength: Tensor


def fit_probe(
    rows: Tensor, answers: Tensor, questions: Questions, fold: Tensor, moments: tuple[Tensor, Tensor], seed: int
) -> FittedProbe:
    """Logistic regression on all rows, and on those outside each fold.

    Each fold's begins where nothing is known: what has seen a fold's answers, such as another fold's solution, never helps to
    find what judges them.

    Args:
        rows: ``(N, V)``. answers: int64 ``(N, Q)``, -1 where missing. questions: Q of them, with C outputs.
        fold: of each row, ``(N,)``. moments: of each feature, to standardise by. seed: of which rows are taken, if there are too
            many.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "probe"))
    most = max(1, PROBE_NUMBERS // rows.shape[1])
    taken = torch.randperm(len(rows), generator=generator)[:most] if len(rows) > most else torch.arange(len(rows))
    basis = Basis.of(rows[taken], moments)
    turned, known, part = basis.turned(rows[taken]), answers[taken], fold[taken]
    parts = range(int(fold.max()) + 1)
    folds = [((part != one).nonzero()[:, 0], (part == one).nonzero()[:, 0]) for one in parts]
    searched = folds if len(taken) <= SEARCHED_ROWS else folds[:1]
    strength, _ = choose_strength(turned, known, questions, basis.variance, searched)
    logits = rows.new_empty(len(rows), questions.num_outputs)

    def as_probe(weights: Tensor, bias: Tensor) -> Probe:
        probe = Probe(rows.shape[1], questions.num_outputs)
        with torch.no_grad():
            probe.weight.copy_(basis.weights(weights))
            probe.bias.copy_(bias)
        return probe.requires_grad_(False)

    by_fold = []
    for one, (fitted, _) in zip(parts, folds, strict=True):
        own, shift = logistic_regression(turned[fitted], known[fitted], questions, strength, basis.variance)
        by_fold.append(as_probe(own, shift))
        for held in (fold == one).nonzero()[:, 0].split(8192):
            logits[held] = basis.turned(rows[held]) @ own + shift
    whole = as_probe(*logistic_regression(turned, known, questions, strength, basis.variance))
    return FittedProbe(whole, by_fold, logits, strength)
