"""Fit readouts to a table of labels: all rows are used for training, and each row is predicted by networks that have not seen it.

The rows are dealt to E folds. The probe is fitted on all of them, its strength of L2 chosen on the folds; a bag has a network a
fold. The weights of the members and the temperatures are fitted to the answers that were given out of fold. Nothing is
kept out for validation, and nothing that was fitted to an answer judges it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError
from ...evaluation import apply_temperature, fit_temperature
from ...mathematics import derived_seed
from ...networks.readouts import Bag, Probe, Questions, Readouts
from .bagging import BagSettings, train_bag
from .class_means import fit_class_means
from .frequencies import fit_frequencies
from .gains import fit_gains
from .mixing import mixture_weights
from .probe import FittedProbe, fit_probe, moments_of

FOLDS = 5
JUDGED_NUMBERS = 2**26  # in the out-of-fold predictions that are kept of a member
# How bags are trained, for fewer rows than the first number.
BAGS = (
    (150, BagSettings(turned=True)),
    (10_000, BagSettings()),
    (math.inf, BagSettings(hidden=512)),
)
MOST_TEMPERATURES = 1000  # with more questions, one temperature for all
HIGHEST_TEMPERATURE = 20.0
SHOWN_STRENGTHS = 20  # of the first questions, in what is told of a fit
CERTAIN = -20.0  # the lowest log-probability that counts


@dataclass(frozen=True)
class Candidate:
    """A member that may answer: its kind, `frequencies`, `means`, `probe`, `gains` or `bag`, and the features that it reads.

    Gains are those on the probe of the same features, which stands before them.
    """

    kind: str
    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Fitted:
    """Readouts, and what is known of them without a test.

    Attributes:
        readouts: fitted.
        judged: rows that were judged out of fold, sorted, ``(J,)``.
        logits: of the judged rows, out of fold, mixed and at their temperature, ``(J, C)``.
        nll: mean NLL out of fold of each candidate, and of the mixture, by name.
        weights: mean weight of each candidate, by name.
        history: of the bags' training, by name.
        linear: place of the probe with the lowest NLL among the candidates, and its logits of the judged rows, out of fold, as
            they are, ``(J, C)``; None where none was tried.
    """

    readouts: Readouts
    judged: Tensor
    logits: Tensor
    nll: dict[str, float]
    weights: dict[str, float]
    strengths: dict[str, list[float]]
    history: dict[str, list[dict[str, float]]]
    linear: tuple[int, Tensor] | None = None


def deal_folds(answers: Tensor, number: int, seed: int, unit: Tensor | None = None) -> Tensor:
    """Fold of each row, ``(N,)``: even in size, and in the answers to the first question that has any.

    Args:
        answers: int64 ``(N, Q)``, -1 where missing. number: of folds, at most N. seed: of the deal.
        unit: what each row belongs to, ``(N,)``: rows of one unit stay together; None: each row alone.
    """
    if unit is not None:
        first, place = np.unique(unit.numpy(), return_index=True, return_inverse=True)[1:]
        return deal_folds(answers[torch.from_numpy(first)], number, seed)[torch.from_numpy(place)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(answers), generator=generator)
    fullest = int((answers >= 0).sum(0).argmax())
    order = order[answers[order, fullest].argsort(stable=True)]
    fold = torch.empty(len(answers), dtype=torch.int64)
    fold[order] = torch.arange(len(answers)) % number
    return fold


def fit_readouts(
    rows: Tensor,
    answers: Tensor,
    questions: Questions,
    candidates: Sequence[Candidate],
    allowed: Tensor | None,
    seed: int,
    tell: Callable[[str], Any] = lambda message: None,
    *,
    unit: Tensor | None = None,
    calibrate: bool = True,
    settings: BagSettings | None = None,
) -> Fitted:
    """Fit all candidates, and weigh them.

    Args:
        rows: features ``(N, V)``.
        answers: int64 ``(N, Q)``, -1 where missing.
        questions: Q of them, with C outputs.
        candidates: what may answer.
        allowed: outputs that are among the answers to each row, bool ``(N, C)``; None: all.
        seed: of folds, initial values, order and dropout.
        tell: is told what happens, in one line each.
        unit: what each row belongs to, ``(N,)``; see ``deal_folds``.
        calibrate: whether temperatures are fitted; without, they are 1.
        settings: of the bags; None chooses by the number of rows.

    Raises:
        InputError: fewer than two rows.
    """
    number = min(FOLDS, len(rows) if unit is None else len(unit.unique()))
    if number < 2:
        raise InputError(f"readouts are fitted to at least 2 labelled images, got {number}")
    fold = deal_folds(answers, number, derived_seed(seed, "folds"), unit)
    generator = torch.Generator().manual_seed(derived_seed(seed, "judged"))
    judged = torch.randperm(len(rows), generator=generator)[: max(1, JUDGED_NUMBERS // questions.num_outputs)].sort()[0]
    fitting = _Fitting(
        rows, answers, questions, allowed, fold, seed, settings or next(own for most, own in BAGS if len(rows) < most)
    )
    members: list[tuple[Probe | Bag, int, int]] = []
    unseen: list[Tensor] = []
    for candidate in candidates:
        network, logits = fitting.fit(candidate)
        members.append((network, candidate.start, candidate.stop))
        unseen.append(_limited(logits.to(rows.dtype), allowed)[judged])
        tell(f"{candidate.name}: NLL {fitting.nll(logits):.3f} out of fold")
    readouts = Readouts(questions, rows.shape[1], members)
    readouts.mean.copy_(fitting.mean)
    readouts.deviation.copy_(fitting.deviation)
    own = answers[judged]
    known = answered_elsewhere(answers, questions, fold)[judged] if calibrate else None
    mixed, losses = _weigh(readouts, torch.stack(unseen), own, known)
    names = [candidate.name for candidate in candidates]
    nll = dict(zip(names, losses, strict=True))
    nll["together"] = float(-_truth(mixed, own, questions)[0].clamp(min=CERTAIN).mean())
    shares = dict(zip(names, readouts.weights.mean(0).tolist(), strict=True))
    linear_places = [place for place, candidate in enumerate(candidates) if candidate.kind == "probe"]
    best = min(linear_places, key=lambda place: nll[names[place]], default=None)
    linear = None if best is None else (best, unseen[best])
    return Fitted(readouts, judged, mixed, nll, shares, fitting.strengths, fitting.history, linear)


@dataclass
class _Fitting:
    """A table whose candidates are fitted one after the other; arguments as of ``fit_readouts``, and the ``fold`` of each row.

    Attributes:
        mean, deviation: of each feature, ``(V,)``. strengths, history: as in ``Fitted``. probes: by the features that they read.
    """

    rows: Tensor
    answers: Tensor
    questions: Questions
    allowed: Tensor | None
    fold: Tensor
    seed: int
    settings: BagSettings
    strengths: dict[str, list[float]] = field(default_factory=dict)
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    probes: dict[tuple[int, int], FittedProbe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mean, self.deviation = moments_of(self.rows)

    def nll(self, logits: Tensor) -> float:
        """Mean NLL of logits ``(N, C)`` of every row, out of fold."""
        return float(_truth(_limited(logits, self.allowed), self.answers, self.questions)[0].mean().neg())

    def fit(self, candidate: Candidate) -> tuple[Probe | Bag, Tensor]:
        """A candidate's network on all rows, and logits ``(N, C)`` of each row by what has not seen its fold."""
        columns = slice(candidate.start, candidate.stop)
        read, moments = self.rows[:, columns], (self.mean[columns], self.deviation[columns])
        if candidate.kind == "frequencies":
            return fit_frequencies(self.answers, self.questions, self.fold, read.shape[1])
        if candidate.kind == "probe":
            probe = fit_probe(read, self.answers, self.questions, self.fold, moments, self.seed)
            self.probes[candidate.start, candidate.stop] = probe
            self.strengths[candidate.name] = probe.strength.tolist()[:SHOWN_STRENGTHS]
            return probe.probe, probe.unseen
        standard = (read - moments[0]) / moments[1]
        if candidate.kind == "means":
            return fit_class_means(standard, self.answers, self.questions, self.fold)
        if candidate.kind == "gains":
            assert self.allowed is not None
            return fit_gains(
                standard, self.answers, self.allowed, self.fold, self.probes[candidate.start, candidate.stop]
            )
        seed = derived_seed(self.seed, candidate.name)
        trained = train_bag(standard, self.answers, self.questions, self.fold, self.nll, self.settings, seed)
        self.history[candidate.name] = trained.history
        return trained.bag, trained.unseen


def _weigh(readouts: Readouts, unseen: Tensor, answers: Tensor, known: Tensor | None) -> tuple[Tensor, list[float]]:
    """Set what each member's answers weigh, and temperatures.

    Args:
        unseen: logits of the judged rows by each member, out of fold, ``(M, J, C)``. answers: to these rows, ``(J, Q)``.
        known: as in ``_temperatures``; None leaves temperatures at 1.

    Returns:
        Logits of the mixture ``(J, C)``, and the mean NLL of each member.
    """
    questions = readouts.questions
    found = [_truth(logits, answers, questions) for logits in unseen]
    truth, question = torch.stack([one[0] for one in found]).clamp(min=CERTAIN), found[0][1]
    readouts.weights.copy_(mixture_weights(truth, question, len(questions.sizes)))
    weights = readouts.weights.T.log()
    if known is not None:
        readouts.temperature.copy_(_temperatures(questions, readouts.combine(unseen, weights), answers, known))
    return readouts.combine(unseen, weights), [float(-one.mean()) for one in truth]


def _limited(logits: Tensor, allowed: Tensor | None) -> Tensor:
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def _truth(logits: Tensor, answers: Tensor, questions: Questions) -> tuple[Tensor, Tensor]:
    """Log-probability of each answer that is known ``(P,)``, and its question ``(P,)``."""
    known = answers >= 0
    return -questions.losses(logits, answers)[known], known.nonzero()[:, 1]


def answered_elsewhere(answers: Tensor, questions: Questions, fold: Tensor) -> Tensor:
    """Answers ``(N, Q)``, -1 for those that no row of another fold has: what judges them out of fold cannot know of them.

    Binary questions keep all: what knows no yes still says how likely one is.
    """
    if questions.binary:
        return answers
    folds = int(fold.max()) + 1
    output = (answers + questions.first).clamp(min=0)
    place = (output * folds + fold[:, None])[answers >= 0]
    counts = torch.bincount(place, minlength=questions.num_outputs * folds).view(-1, folds)
    elsewhere = counts.sum(1)[output] - counts[output, fold[:, None]]
    return torch.where(elsewhere > 0, answers, -1)


def _temperatures(questions: Questions, logits: Tensor, answers: Tensor, known: Tensor) -> Tensor:
    """Temperature of each question, fitted to answers that were given out of fold.

    Some answers are out of fold the only ones of their class. The readouts that are kept have seen them: as certain as if they had
    not is too uncertain, as certain as on the other answers (``known``) too certain. The temperature is the geometric mean of both.
    """
    found = torch.ones(len(questions.sizes))
    if len(questions.sizes) > MOST_TEMPERATURES:
        return found
    for number, size in enumerate(questions.sizes):
        first = int(questions.first[number])
        own = logits[:, first : first + size]
        if questions.binary:
            own = torch.cat([torch.zeros_like(own), own], 1)
        found[number] = _temperature(own, answers[:, number])
        others = known[:, number]
        several = len(others[others >= 0].unique()) > 1  # one class alone tells nothing of a temperature
        if several and not torch.equal(others, answers[:, number]):
            found[number] = math.sqrt(found[number] * _temperature(own, others))
    return found


def _temperature(logits: Tensor, answers: Tensor) -> float:
    """The temperature with the lowest NLL, 1 without answers; logits ``(N, size)``, answers ``(N,)``, -1 where missing.

    Where no temperature is best, because answers are the more often wrong the surer they are, it is the highest that may be or 1,
    whichever of them is better.
    """
    given = answers >= 0
    own, target = logits[given], answers[given]
    possible = own.gather(1, target[:, None])[:, 0].isfinite()
    logs, target = own[possible].log_softmax(1), target[possible]
    if not len(logs):
        return 1.0
    try:
        return float(fit_temperature(logs, target))
    except ValueError:
        ends = (1.0, HIGHEST_TEMPERATURE)
        return min(ends, key=lambda end: float(F.nll_loss(apply_temperature(logs, end), target)))
