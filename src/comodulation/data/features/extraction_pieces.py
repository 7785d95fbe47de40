"""Extraction on several machines: as many processes as there is room for fill one cache together, each with blocks of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...processes import Resources, Worker, reports_of, run
from ..source import Split
from .encoder import Encoder
from .extraction import extract


@dataclass(frozen=True)
class Source:
    """What a process reads and computes with: an encoder, splits by name, and ``precision`` and ``skip_bad`` of ``extract``."""

    encoder: Encoder
    splits: Mapping[str, Split]
    precision: str
    skip_bad: bool


def extract_in_pieces(
    engines: Mapping[str, str],
    cache: Path,
    resources: Resources,
    make_source: Callable[[], Source],
    report: Callable[[str, int, int], None],
    shared: Sequence[Path],
) -> None:
    """Fill the caches of some splits; ``extract`` then finds them there.

    Args:
        engines: by name of the split: see ``forward_of``.
        cache: folder that all processes see. resources: how many there are.
        make_source: picklable; called once in each.
        report: called with a split, its rows done, its rows in all. shared: what all must see alike.
    """
    pieces = [
        (name, engine, place, resources.workers)
        for name, engine in engines.items()
        for place in range(resources.workers)
    ]
    run(
        pieces, resources, partial(_extractor, make_source, cache.absolute()), lambda told: report(*told), shared=shared
    )


def _extractor(make_source: Callable[[], Source], cache: Path) -> Worker:
    source = make_source()
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")

    def work(piece: Any) -> Iterator[tuple[str, int, int]]:
        name, engine, rank, world = piece

        def call(report: Callable[..., None]) -> None:
            extract(
                source.encoder, source.splits[name], cache, device=device, precision=source.precision, engine=engine,
                skip_bad=source.skip_bad, report=report, rank=rank, world=world,
            )  # fmt: skip

        for done, total in reports_of(call):
            yield name, done, total

    return work
