"""A fit on several processes that work alone: extraction by blocks, then each method in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.features import Features, Source, extract, extract_in_pieces, settled_engine
from ..processes import Resources, Worker, reports_of, run
from ..training import Epoch, Progress, Venue, joined
from .config import RunConfig
from .prepared import Prepared, prepared_fit
from .session import Encoded, Session


@dataclass(frozen=True)
class Extracted:
    """Features of splits, what has computed them, and seconds that it took, ``features_NAME``."""

    features: dict[str, Features]
    engines: dict[str, str]
    seconds: dict[str, float]


def extract_together(
    prepared: Prepared, cache: Path, resources: Resources, engine: str, tell: Progress
) -> dict[str, str]:
    """Have the nodes of a cluster extract what this process then finds in the cache. Returns the engine of each split."""
    shared = prepared.configs[0]
    device = "cuda" if resources.gpus else "cpu"
    engines = {
        name: settled_engine(
            engine, prepared.encoder, data.split, cache, device=device, precision=shared.precision, say=tell.message
        )
        for name, data in prepared.labelled.items()
    }
    extract_in_pieces(engines, cache, resources, partial(_source, prepared.configs), tell.extraction, shared.places)
    return engines


def _source(configs: list[RunConfig]) -> Source:
    prepared = prepared_fit(configs)
    splits = {name: data.split for name, data in prepared.labelled.items()}
    return Source(prepared.encoder, splits, configs[0].precision, configs[0].skip_bad)


def fit_together(
    prepared: Prepared,
    unfinished: Sequence[tuple[RunConfig, Path]],
    cache: Path,
    resources: Resources,
    extracted: Extracted,
    made_from: Mapping[str, Any],
    tell: Progress,
) -> None:
    """Fit methods whose features are in the cache and whose folders are claimed by this process, each in one worker.

    Args:
        prepared: what they share. unfinished: those to fit, with their folders. extracted: their features.
        made_from: see ``claiming.sources``.
    """
    configs = prepared.configs
    pieces = [(configs.index(config), folder.absolute()) for config, folder in unfinished]
    make = partial(_fitter, configs, cache.absolute(), extracted.engines, extracted.seconds, dict(made_from))

    def on_event(event: tuple[str, tuple[Any, ...]]) -> None:
        kind, values = event
        getattr(tell, kind)(*values)

    run(pieces, resources, make, on_event, shared=configs[0].places)


class _Relayed:
    """Progress that another process hears of."""

    def __init__(self, report: Callable[..., None]) -> None:
        self.report = report

    def message(self, text: str) -> None:
        self.report("message", (text,))

    def extraction(self, split: str, done: int, total: int) -> None: ...  # said before

    def epoch(self, phase: str, epoch: Epoch) -> None:
        self.report("epoch", (phase, epoch))


def _fitter(
    configs: list[RunConfig],
    cache: Path,
    engines: dict[str, str],
    seconds: dict[str, float],
    made_from: dict[str, Any],
) -> Worker:
    prepared = prepared_fit(configs)
    shared, encoder = prepared.configs[0], prepared.encoder
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    features = {
        name: extract(
            encoder, data.split, cache, device=device, precision=shared.precision, engine=engines[name],
            skip_bad=shared.skip_bad,
        )
        for name, data in prepared.labelled.items()
    }  # fmt: skip

    def work(piece: tuple[int, Path]) -> Iterator[tuple[Any, ...]]:
        number, folder = piece

        def call(report: Callable[..., None]) -> None:
            venue = Venue(fabric, _Relayed(report))
            session = Session(shared, prepared, Encoded(encoder, features), venue, cache)
            session.run(prepared.configs[number], folder, seconds, made_from)

        with joined() as fabric:  # in this thread, which has a GPU of its own; a new one would begin with the first
            yield from reports_of(call)

    return work
