"""Train a bag: one small network a fold, each on the rows of the other folds, all in the same operations.

Every row has one network that never saw it. Its answers say when to stop, how much the bag is worth beside other members, and how
sure it may be; no image is kept out of the bag for that. Source: Breiman, "Bagging predictors" (Machine Learning 24, 1996), with
the folds of cross-validation in place of bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...networks.readouts import Bag, Questions
from ..optimizers import AdamW
from .probe import Basis

AVERAGED_STEPS = 100  # that the moving average of the weights goes back
AVERAGED_EVERY = 5  # steps: as good as every one, and a fifth of the time


@dataclass(frozen=True)
class BagSettings:
    """How a bag is trained.

    Attributes:
        hidden: units of each network.
        input_dropout, hidden_dropout: share of features and of hidden units that a step leaves out.
        turned: whether the networks learn in the basis of the rows' principal components; see ``_turned``.
        weight_decay: of AdamW. learning_rate: its highest, under one cycle.
        passes: over the data; more where they are fewer than ``fewest_steps`` steps, fewer where more than ``most_steps``.
    """

    hidden: int = 256
    input_dropout: float = 0.5
    hidden_dropout: float = 0.5
    turned: bool = False
    weight_decay: float = 0.1
    learning_rate: float = 1e-3
    passes: int = 15
    fewest_steps: int = 150
    most_steps: int = 20_000
    looks: int = 10

    def batch_size(self, rows: int) -> int:
        """Rows in a step: a twentieth of them, from 32 to 256."""
        return min(256, max(32, rows // 20), rows)

    def steps(self, rows: int) -> int:
        """Steps for a training on so many rows."""
        return min(self.most_steps, max(self.fewest_steps, self.passes * rows // self.batch_size(rows)))


@dataclass(frozen=True)
class Trained:
    """A bag at its best, what it says of rows that its network has not seen ``(N, C)``, and how it came there."""

    bag: Bag
    unseen: Tensor
    history: list[dict[str, float]]


def train_bag(
    rows: Tensor,
    answers: Tensor,
    questions: Questions,
    fold: Tensor,
    judge: Callable[[Tensor], float],
    settings: BagSettings,
    seed: int,
) -> Trained:
    """Train a bag of as many networks as there are folds.

    Args:
        rows: standardised features ``(N, V)``.
        answers: int64 ``(N, Q)``, -1 where missing.
        questions: Q of them, with C outputs.
        fold: of each row, from 0, ``(N,)``.
        judge: mean NLL of logits ``(N, C)``: of each row, those of the network that has not seen it.
        settings: see there.
        seed: of initial values, order and dropout.
    """
    turn = _turned(rows) if settings.turned else None
    if turn is None or not turn.shape[1]:  # rows that do not differ have no components
        return _train(rows, answers, questions, fold, judge, replace(settings, turned=False), seed)
    found = _train(rows @ turn, answers, questions, fold, judge, settings, seed)
    return replace(found, bag=_of_features(found.bag, turn))


def _turned(rows: Tensor) -> Tensor:
    """What turns standardised rows ``(N, V)`` into coordinates in which a bag learns as well and in less time, ``(V, R)``.

    N rows differ in at most N - 1 directions, so that a hundred rows of 1,600 features become rows of 99 principal components.
    Two things depend on the basis. Leaving out a share p of standardised features adds noise of variance p / (1 - p) along every
    direction: here that noise is added. AdamW makes steps of one size along every coordinate, where among features they follow
    the gradient, which is small where rows differ little: here component j is in units that make its variance v_j^2 / mean(v).
    """
    basis = Basis.of(rows, (rows.new_zeros(rows.shape[1]), rows.new_ones(rows.shape[1])))
    return basis.directions * (basis.variance / basis.variance.mean()).sqrt()


def _of_features(bag: Bag, turn: Tensor) -> Bag:
    """A bag that reads turned rows as one that reads the features."""
    members, _, hidden = bag.first.shape
    found = Bag(members, len(turn), hidden, bag.bias.shape[-1])
    found.load_state_dict({**bag.state_dict(), "first": turn @ bag.first})
    return found.requires_grad_(False)


def _train(
    rows: Tensor,
    answers: Tensor,
    questions: Questions,
    fold: Tensor,
    judge: Callable[[Tensor], float],
    settings: BagSettings,
    seed: int,
) -> Trained:
    """``train_bag``, on rows as they are given."""
    generator = torch.Generator().manual_seed(seed)
    members, width = int(fold.max()) + 1, rows.shape[1]
    bag = _initial(members, width, questions, settings, generator)
    own = [(fold != member).nonzero()[:, 0] for member in range(members)]
    fewest = min(map(len, own))
    size, total = settings.batch_size(fewest), settings.steps(fewest)
    weight = _weights(answers)
    groups = [
        {"params": [bag.first, bag.second], "weight_decay": settings.weight_decay},
        {"params": [bag.first_bias, bag.bias], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total, pct_start=0.2)
    average = {name: value.detach().clone() for name, value in bag.named_parameters()}
    unseen = out_of_fold(bag, rows, fold)
    best = (judge(unseen), {name: value.clone() for name, value in average.items()}, unseen)
    history = [{"step": 0.0, "nll": best[0]}]
    order = [_Order(part, generator) for part in own]
    for step in range(1, total + 1):
        chosen = torch.stack([one.next(size) for one in order])
        seen, left_out = rows[chosen], settings.input_dropout
        if settings.turned:
            noise = torch.empty_like(seen).normal_(generator=generator)
            seen, left_out = torch.add(seen, noise, alpha=math.sqrt(left_out / (1 - left_out))), 0.0
        logits = bag(seen, input_dropout=left_out, hidden_dropout=settings.hidden_dropout, generator=generator)
        ((questions.losses(logits, answers[chosen]) * weight).sum() / size).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % AVERAGED_EVERY == 0 or step == total:
            gained = min(1.0, AVERAGED_EVERY / min(AVERAGED_STEPS, AVERAGED_EVERY * (1 + step / 25)))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), list(bag.parameters()), gained)
        if step % max(1, total // settings.looks) == 0 or step == total:
            unseen = out_of_fold(bag, rows, fold, average)
            nll = judge(unseen)
            history.append({"step": float(step), "nll": nll})
            if nll < best[0]:
                best = (nll, {name: one.clone() for name, one in average.items()}, unseen)
    bag.load_state_dict(best[1])
    return Trained(bag.requires_grad_(False), best[2], history)


class _Order:
    """Rows in random order, again and again."""

    def __init__(self, rows: Tensor, generator: torch.Generator) -> None:
        self.rows, self.generator, self.left = rows, generator, rows[:0]

    def next(self, number: int) -> Tensor:
        while len(self.left) < number:
            again = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
            self.left = torch.cat([self.left, again])
        taken, self.left = self.left[:number], self.left[number:]
        return taken


def _initial(members: int, width: int, questions: Questions, settings: BagSettings, generator: torch.Generator) -> Bag:
    bag = Bag(members, width, settings.hidden, questions.num_outputs)
    with torch.no_grad():
        for weight, fan in ((bag.first, width), (bag.second, settings.hidden)):
            weight.uniform_(-1, 1, generator=generator).mul_(1 / math.sqrt(fan))
    return bag


def _weights(answers: Tensor) -> Tensor:
    """Weight of each question's answers ``(Q,)``: rows for every answer that it has, so that each question weighs the same."""
    counts = (answers >= 0).sum(0)
    return len(answers) / counts.clamp(min=1)


@torch.no_grad()
def out_of_fold(bag: Bag, rows: Tensor, fold: Tensor, values: dict[str, Tensor] | None = None) -> Tensor:
    """Logits ``(N, C)`` of each row by the network of its own fold, which has not seen it; with other parameters if given."""
    kept = dict(bag.named_parameters()) if values is None else values
    result = rows.new_empty(len(rows), kept["bias"].shape[-1])
    for member in range(len(kept["first"])):
        for part in (fold == member).nonzero()[:, 0].split(8192):
            one = torch.func.functional_call(
                bag, {name: value[member : member + 1] for name, value in kept.items()}, rows[part]
            )
            result[part] = one[0]
    return result
