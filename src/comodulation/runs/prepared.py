"""What a fit works on: data, labels and encoder of configurations that share them, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..data import Split, refuse_unlearnable, summarize
from ..data.features import TRAINED_COPIES, Encoder, check_fits
from ..networks.methods import METHODS
from ..tensors import WithoutValues
from .config import RunConfig
from .dataset import TaskData, deal_images, learnable_columns, open_splits, read_family, read_labels
from .session import build_head

_DEFAULT_TEST_SPLIT = RunConfig.model_fields["test_split"].default


@dataclass(frozen=True)
class Prepared(TaskData):
    """What a fit works on, read once a process.

    Attributes:
        configs: with what the data have settled of the encoder. encoder: of the inputs. found: how many labels there are.
        splits: all that were opened, and ``unlabelled``, one that has no labels.
        settled: a sentence on what the data settled. left_out: columns that are no tasks, and why.
    """

    configs: list[RunConfig]
    encoder: Encoder
    found: Any
    splits: dict[str, Split]
    unlabelled: str | None
    settled: str
    left_out: dict[str, str]


def prepared_fit(configs: list[RunConfig]) -> Prepared:
    """Data, labels and encoder of configurations that share them. Raises InputError for all that is bad input."""
    shared = configs[0]
    asked = shared.test_split != _DEFAULT_TEST_SPLIT  # the usual one may be absent, one that was asked for may not
    needed, wanted = [shared.train_split], [shared.test_split]
    splits = open_splits(shared, needed + wanted if asked else needed, wanted)
    names: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    if shared.table and not shared.label_columns:
        names, left_out = learnable_columns(shared, splits[shared.train_split])
    family = read_family(shared, splits[shared.train_split], names)
    labelled = {
        name: read_labels(shared, split, family, needed=asked or name == shared.train_split)
        for name, split in splits.items()
    }
    unlabelled = [name for name, own in labelled.items() if not len(own.examples)]
    for name in unlabelled:
        del labelled[name]
    train = labelled[shared.train_split]
    found = summarize(family, train.examples, len(train.split))
    if family.kind != "classes":
        refuse_unlearnable(found, named=bool(names or shared.tasks or shared.attributes))
    if not all(METHODS[config.method].without_layers for config in configs):
        deal_images(shared, family, train.examples)
    settings, settled = shared.encoder.settled(train.split)
    configs = [config.with_encoder(settings) for config in configs]
    shared = configs[0]
    encoder = settings.encoder()
    with torch.device("meta"), WithoutValues():
        head = build_head(shared, family, encoder.feature_shape[0])
    check_fits(head, "the head (--channels, --kernel-size)", TRAINED_COPIES)
    return Prepared(
        family, labelled, configs, encoder, found, splits, unlabelled[0] if unlabelled else None, settled, left_out
    )
