"""Where should a task act? Encoder at each stage of a frozen network, for tasks that name a category, a place or a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ....data.sets import KINDS
from ....evaluation import informativeness, metrics
from ....networks.attached import Comodulated
from ...cells import Cell, Inquiry, Laboratory, Question, Row, Stage, cell_numbers
from .answer import METHODS, OWN, QUALITIES, Condition, answer
from .laboratory import LocationLaboratory, make_laboratory
from .network import LOCATIONS

# The better of 0.1 and 0.3 at stage 3, on validation canvases of another seed.
RATES = {
    "channel": {"attention": 0.3, "comodulation": 0.1},
    "position": {"attention": 0.1, "comodulation": 0.1},
    "moment": {"attention": 0.3, "comodulation": 0.3},
}


def stages(seeds: Sequence[int]) -> list[Stage]:
    """The neurons each kind needs, at every location, on two seeds; then channels where they cannot do, and the other seeds."""

    def cells(kinds: Iterable[str], own: bool, some: Sequence[int]) -> tuple[Cell, ...]:
        found = []
        for kind in kinds:
            conditions = [Condition(kind, OWN[kind] if own else "channel", location) for location in LOCATIONS]
            labels = [condition.label(method) for condition in conditions for method in METHODS]
            for seed in some:
                found += [Cell(kind, "open", Row.parse(label), seed) for label in (["base"] if own else []) + labels]
        return tuple(found)

    first, more = tuple(seeds)[:2], tuple(seeds)[2:]
    # One process pretrains the next network while the others have cells of those that are there.
    second = cells(KINDS[:1], True, more) + cells(KINDS[1:], False, first) + cells(KINDS[1:], True, more)
    found = [Stage("first seeds", cells(KINDS, True, first)), Stage("channels, more seeds", second)]
    return [*found, Stage("channels of more seeds", cells(KINDS[1:], False, more))] if more else found


def settings(cell: Cell, inquiry: Inquiry, num_tasks: int) -> dict[str, Any]:
    """Learning rate and weight decay of a cell."""
    return {} if cell.row.method == "base" else {"learning_rate": first_rate(cell.row), "weight_decay": 1e-4}


def first_rate(row: Row) -> float:
    """A row's learning rate without a search, and where its search begins."""
    return RATES[row.get("neurons")][row.method]


def measure(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and test a cell; measure how well its couplings and gains tell informative neurons from others."""
    assert isinstance(laboratory, LocationLaboratory)
    more: dict[str, Any] = {}
    history: list[dict[str, float]] = []
    if cell.row.method == "base":
        net = laboratory.net(
            cell, laboratory.encoded(cell.seed, cell.variant == "temporal", LOCATIONS[-1])["test"].activity
        )
        more["alone"] = alone(laboratory, cell)
    else:
        _, trained = laboratory.adapt(cell, settings)
        net, history = trained.net, trained.history
        more |= label_quality(laboratory, cell, net)
    tested = laboratory.answer(cell, net, "test")
    whole = metrics(tested.log_probabilities, tested.target)
    learnable = sum(value.numel() for value in net.learnable()) if history else 0
    seconds = sum(entry["seconds"] for entry in history)
    return {**cell_numbers(cell, whole, learnable, seconds, settings, len(history)), **more}


@torch.no_grad()
def alone(laboratory: LocationLaboratory, cell: Cell) -> float:
    """Accuracy of the network without a task on the images to report, each by itself: what no selection can be expected to beat."""
    canvases = laboratory.encoded(cell.seed, cell.variant == "temporal", LOCATIONS[-1])["test"].canvases
    split = laboratory.material.config.test_split
    labels = laboratory.labels(split)[0][canvases.reported]
    images = laboratory.images[split][canvases.reported]
    network = laboratory.network(cell.seed)
    hits = [network(part).argmax(1) for part in images.split(256)]
    return float((torch.cat(hits) == labels).double().mean())


@torch.no_grad()
def label_quality(laboratory: LocationLaboratory, cell: Cell, net: Comodulated) -> dict[str, float]:
    """How well a task's couplings and decoder gains tell the neurons that are informative for it from the others, mean AUC.

    Informative are the quarter of neurons with the highest d' on test canvases without a task: between the classes of the task's
    superclass, or between superclasses where the task names a place or a moment.
    """
    location, temporal = cell.row.get("location"), cell.variant == "temporal"
    encoded = laboratory.encoded(cell.seed, temporal, location)["test"]
    examples = laboratory.examples(cell.variant, encoded.canvases, "test")
    groups = laboratory.labels(laboratory.material.config.test_split)[1]
    labels = examples.target if cell.variant == "category" else groups[encoded.canvases.reported]
    encoder, decoder = [], []
    for rows in examples.image.split(256):
        activity = laboratory.arranged(cell, encoded.activity[rows])
        encoder.append(net.encoder_sites[0].averaged(activity))
        reached = net.model.get_submodule("decoder")(activity)
        decoder.append(net.decoder_site.averaged(reached))
    u = net.controller(torch.arange(net.num_tasks))
    found = {"encoder_auc": informativeness(torch.cat(encoder), labels, examples.task, u).auc}
    if cell.row.method == "comodulation":
        assert net.task_gains is not None
        found["auc"] = informativeness(torch.cat(decoder), labels, examples.task, net.task_gains).auc
    # Tasks with too few test canvases to tell have none; where that is all of them, chance is what is known.
    return {name: float(auc.nanmean()) if not auc.isnan().all() else 0.5 for name, auc in found.items()}


LOCATION = Question(
    place=f"{__name__}:LOCATION",
    name="location",
    title="Where should a task act?",
    asks="At which stage should the encoder be, for tasks that name a category, a place or a moment, and what must a neuron be?",
    predicts=(
        "Categories differ in what late stages represent: category tasks should be best with the encoder at the last stage. "
        "Places differ in where, not in what: with a neuron for each channel and position a place can be selected at any stage, "
        "best early, where receptive fields have not yet mixed neighbours; moments meet only in the mean at the end, so that no "
        "location should matter much. With channels alone places and moments cannot be told apart, whatever the gains: 25% "
        "accuracy at most. Gains that label informative neurons better should go with more accurate answers."
    ),
    stages=stages,
    measure=measure,
    settings=settings,
    answer=answer,
    first_rate=first_rate,
    columns=tuple(QUALITIES),
    make_laboratory=make_laboratory,
    has_yardstick=False,  # its answers are about a part of the canvas, of which a readout of the whole knows nothing
    network="residual network of four stages that the study pretrains",
    rates="Learning rates are from a few trials at stage 3 on another seed; --trials searches each row's own.",
)  # fmt: skip
