"""Fit a method of readouts to features and examples, as `training.tune` fits a method with layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...data.features import FeatureRows
from ...evaluation import Predictions
from ...mathematics import derived_seed
from ...networks.methods import ReadoutMethod, rows_of
from ...networks.readouts import Questions
from ...tasks import Examples, task_logits
from ..progress import Progress
from .table import Candidate, fit_readouts

QUALITIES = ("fast", "default", "best")
MOST_NUMBERS = 2**30  # of features held in memory (4 GiB); with more images, readouts are fitted to some of them
MOST_PAIRS = 200_000  # of answers out of fold that stand for validation
READ_ROWS = 8192


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
) -> tuple[Predictions, dict[str, Any]]:
    """Fit the readouts of a method to all examples.

    Args:
        method: without parts, or, for groups of classes that were added, with them.
        features: of all images. examples: to learn, at least one. seed: of the fit. tell: is told what happens.
        pooled: number of features, from the first, that a row has without the map; None takes the means over positions.
        quality: `fast` (probes only), `default`, or `best` (more committees).
        calibrate: whether temperatures are fitted.

    Returns:
        Answers out of fold, and what metrics.json says of how they came about.
    """
    images = examples.image.unique()
    channels, height, width = features.shape
    positions = height * width
    narrow = pooled or channels
    row = channels if positions == 1 else channels * (1 + positions)
    if len(images) * row > MOST_NUMBERS:
        generator = torch.Generator().manual_seed(derived_seed(seed, "images"))
        kept = torch.randperm(len(images), generator=generator)[: MOST_NUMBERS // row]
        tell.message(f"readouts are fitted to {len(kept):,} of {len(images):,} images, drawn at random")
        images = images[kept].sort()[0]
        examples = examples.of_images(images)
    rows = torch.empty(len(images), row)
    for part in torch.arange(len(images)).split(READ_ROWS):
        rows[part] = rows_of(features.rows(images[part]).float())
    questions = Questions.of(method.family)
    answers = questions.answers(method.family, examples, images)
    allowed = None
    if method.family.kind == "classes":
        place = torch.searchsorted(images, examples.image)
        groups = torch.zeros(len(images), dtype=torch.int64)
        groups[place] = examples.task
        allowed = method.family.member_mask(groups)
    candidates = candidates_of(method, narrow, row, quality)
    fitted = fit_readouts(rows, answers, questions, candidates, allowed, seed, tell.message, calibrate=calibrate)
    if not len(method.parts):
        method.parts = nn.ModuleList([fitted.readouts])
    method.eval()
    tell.message(_choice(fitted.nll, fitted.weights))
    about = {
        "nll_out_of_fold": {name: round(value, 5) for name, value in fitted.nll.items()},
        "weights": {name: round(value, 4) for name, value in fitted.weights.items()},
        "l2": fitted.strengths,
        "committees": fitted.history,
    }
    return _predictions(method, examples, images[fitted.judged], fitted.logits), about


def candidates_of(
    method: ReadoutMethod | type[ReadoutMethod], narrow: int, row: int, quality: str = "default"
) -> list[Candidate]:
    """Members that a method tries: those of its kind, on pooled features and, where there is one, on the map.

    Args:
        method: or its class. narrow: number of features, from the first, without the map. row: with it.
        quality: one of ``QUALITIES``.
    """
    places = [("pooled", 0, narrow)] + ([("map", narrow, row)] if narrow < row else [])
    words = {"probe": "linear", "bag": "committee"}
    kinds = [
        kind for kind in method.kinds_of_members if kind != "bag" or quality != "fast" or method.name == "committee"
    ]
    found = [Candidate(kind, f"{words[kind]}, {name}", a, b) for kind in kinds for name, a, b in places]
    if quality == "best" and "bag" in kinds:
        found += [Candidate("bag", f"{words['bag']}, all", 0, row)] if narrow < row else []
        found += [Candidate("bag", f"{words['bag']} 2, {name}", a, b) for name, a, b in places]
    return found


def _choice(nll: dict[str, float], weights: dict[str, float]) -> str:
    """What was taken, and why, in one line."""
    single = {name: value for name, value in nll.items() if name != "together"}
    best = min(single, key=lambda name: single[name])
    shares = ", ".join(f"{100 * share:.0f}% {name}" for name, share in sorted(weights.items(), key=lambda w: -w[1]))
    if len(single) == 1:
        return f"takes {best}: NLL {nll['together']:.3f} out of fold"
    return f"takes the weighted mean of {shares}: NLL {nll['together']:.3f} out of fold, the best alone ({best}) {single[best]:.3f}"


def _predictions(method: ReadoutMethod, examples: Examples, judged: Tensor, logits: Tensor) -> Predictions:
    """Answers out of fold to the pairs of the images that were judged; at most ``MOST_PAIRS`` of them."""
    pairs = examples.of_images(judged)
    most = max(1, min(MOST_PAIRS, 2**26 // max(2, method.family.num_outputs)))
    pairs = pairs.take(torch.arange(len(pairs))[:most])
    own = logits[torch.searchsorted(judged, pairs.image)]
    return Predictions(
        pairs.image,
        pairs.task,
        pairs.target,
        task_logits(method.family, own, pairs.task, "restricted").log_softmax(-1),
    )
