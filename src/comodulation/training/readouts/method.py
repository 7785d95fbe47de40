"""Fit a method of readouts to features and examples, as `training.tune` fits a method with layers."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ...data.features import FeatureRows
from ...evaluation import Predictions
from ...mathematics import derived_seed
from ...networks.methods import ReadoutMethod, rows_of
from ...networks.readouts import Questions
from ...tasks import Examples, task_logits
from ..inputs import filled
from ..progress import Progress
from .table import Candidate, fit_readouts

Quality = Literal["fast", "default", "best"]
QUALITIES = get_args(Quality)
MOST_NUMBERS = 2**30  # of features held in memory (4 GiB); with more images, readouts are fitted to some of them
MOST_PAIRS = 200_000  # of out-of-fold predictions that stand for validation
READ_ROWS = 8192
LEAST_TOLD = 0.005  # a weight below it is not told


class Yardstick(NamedTuple):
    """The best probe of a method that has other members, too: its place among the members, and its own out-of-fold predictions."""

    place: int
    validation: Predictions


class FittedMethod(NamedTuple):
    """What came of fitting a method of readouts: out-of-fold predictions, what metrics.json says of how they came about, and the
    probe alone, where there are other members to be measured by it."""

    validation: Predictions
    about: dict[str, Any]
    linear: Yardstick | None


def fit_method(
    method: ReadoutMethod,
    features: FeatureRows,
    examples: Examples,
    seed: int,
    tell: Progress,
    *,
    pooled: int | None = None,
    quality: str = "default",
    calibrate: bool = True,
) -> FittedMethod:
    """Fit the readouts of a method to all examples.

    Args:
        method: not fitted, or, for groups of classes that were added, fitted: then its answers stay.
        features: of all images. examples: to learn, at least one. seed: of the fit. tell: is told what happens.
        pooled: number of features, from the first, that a row has without the map; None takes the means over positions.
        quality: `fast` (no committees), `default`, or `best` (more committees; of classes in groups, gains of each group, too).
        calibrate: whether temperatures are fitted.
    """
    channels, height, width = features.shape
    positions = height * width
    narrow = pooled or channels
    row = channels if positions == 1 else channels * (1 + positions)
    examples = _as_many_as_fit(examples, row, seed, tell)
    images = examples.image.unique()
    questions, allowed, unit, gained = Questions.of(method.family), None, images, False
    if method.family.kind == "classes":  # one question, whose answers depend on the group: a row is a pair
        unit, answers = examples.image, examples.target[:, None]
        allowed = method.family.member_mask(examples.task)
        gained = len(method.family.tasks) > 1 and sum(map(len, method.family.members)) == method.family.num_outputs
    else:
        answers = questions.answers(method.family, examples, images)
    # In the features' own precision, single or double: the demo's are double, so that what it prints is the same everywhere.
    rows = filled((rows_of(features.rows(unit[part])) for part in torch.arange(len(unit)).split(READ_ROWS)), len(unit))
    candidates = candidates_of(method, narrow, row, quality, gained=gained)
    fitted = fit_readouts(
        rows, answers, questions, candidates, allowed, seed, tell.message, unit=unit, calibrate=calibrate
    )
    if not method.fitted:
        method.set_parts([fitted.readouts])
    method.eval()
    tell.message(_choice(fitted.nll, fitted.weights))
    about = {
        "nll_out_of_fold": {name: round(value, 5) for name, value in fitted.nll.items()},
        "weights": {name: round(value, 4) for name, value in fitted.weights.items()},
        "l2": fitted.strengths,
        "committees": fitted.history,
    }

    def unseen(logits: Tensor) -> Predictions:
        """Answers to the pairs whose rows were judged, from the logits of these rows."""
        if allowed is not None:
            return _predictions(method, examples.take(fitted.judged), logits)
        judged = images[fitted.judged]
        pairs = examples.of_images(judged)
        return _predictions(method, pairs, logits[torch.searchsorted(judged, pairs.image)])

    linear = None
    if method.measured_by_linear and fitted.linear is not None:
        linear = Yardstick(fitted.linear[0], unseen(fitted.linear[1]))
    return FittedMethod(unseen(fitted.logits), about, linear)


def candidates_of(
    method: ReadoutMethod | type[ReadoutMethod],
    narrow: int,
    row: int,
    quality: str = "default",
    *,
    gained: bool = False,
) -> list[Candidate]:
    """Members that a method tries: those of its kind, on pooled features and, where there is one, on the map.

    Args:
        method: or its class. narrow: number of features, from the first, without the map. row: with it.
        quality: one of ``QUALITIES``.
        gained: whether tasks may have gains: outputs belong to one of several tasks each, and one probe answers for all of them.
    """
    places = [("pooled", 0, narrow)] + ([("map", narrow, row)] if narrow < row else [])
    words = {"means": "class means", "probe": "linear", "bag": "committee"}
    kinds = [
        kind
        for kind in method.kinds_of_members
        if kind in words and (kind != "bag" or quality != "fast" or method.name == "committee")
    ]
    found = [Candidate(kind, f"{words[kind]}, {name}", a, b) for kind in kinds for name, a, b in places]
    if quality == "best" and "bag" in kinds:
        found += [Candidate("bag", f"{words['bag']}, all", 0, row)] if narrow < row else []
        found += [Candidate("bag", f"{words['bag']} 2, {name}", a, b) for name, a, b in places]
    if quality == "best" and gained and "probe" in kinds and "bag" in kinds:
        found += [Candidate("gains", f"gains, {name}", a, b) for name, a, b in places]
    if "frequencies" in method.kinds_of_members:
        found.append(Candidate("frequencies", "frequencies", 0, 1))
    return found


def _as_many_as_fit(examples: Examples, row: int, seed: int, tell: Progress) -> Examples:
    """The examples, or those of some images, where the features of all, ``row`` of each, are too many to hold."""
    images = examples.image.unique()
    if len(images) * row <= MOST_NUMBERS:
        return examples
    generator = torch.Generator().manual_seed(derived_seed(seed, "images"))
    kept = torch.randperm(len(images), generator=generator)[: MOST_NUMBERS // row]
    tell.message(f"readouts are fitted to {len(kept):,} of {len(images):,} images, drawn at random")
    return examples.of_images(images[kept])


def _choice(nll: dict[str, float], weights: dict[str, float]) -> str:
    """What was taken, and why, in one line."""
    single = {name: value for name, value in nll.items() if name != "together"}
    best = min(single, key=lambda name: single[name])
    heaviest = sorted(((share, name) for name, share in weights.items() if share >= LEAST_TOLD), reverse=True)
    shares = ", ".join(f"{100 * share:.0f}% {name}" for share, name in heaviest)
    if len(single) == 1:
        return f"takes {best}: NLL {nll['together']:.3f} out of fold"
    return f"takes the weighted mean of {shares}: NLL {nll['together']:.3f} out of fold, the best alone ({best}) {single[best]:.3f}"


def _predictions(method: ReadoutMethod, pairs: Examples, logits: Tensor) -> Predictions:
    """Answers out of fold to pairs, from the logits ``(P, C)`` of their rows; at most ``MOST_PAIRS`` of them."""
    most = max(1, min(MOST_PAIRS, 2**26 // max(2, method.family.num_outputs)))
    kept = pairs.take(torch.arange(len(pairs))[:most])
    logs = task_logits(method.family, logits[:most], kept.task, "restricted").log_softmax(-1)
    return Predictions(kept.image, kept.task, kept.target, logs)
