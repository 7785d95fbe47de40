from .canvases import DIGITS, KINDS, MEMBERS, PLACES, Canvases, digit_splits, draw_canvases, side_by_side
from .celeba import CELEBA_ATTRIBUTES, CELEBA_GROUPS, open_celeba, read_attributes, read_partitions
from .cifar100_attributes import (
    CIFAR100_ATTRIBUTES,
    Attribute,
    attribute_columns,
    attribute_family,
    attribute_groups,
    cifar100_classes,
)
from .cues import COLOURS, CUED, TURNS, cued_family, cued_pairs, cued_scenes, tinted, turned
from .digits import PARITY, Digits, Scenes, digit_scenes, load_digits, patches, split_digits
from .messages import NAMES, cued_texts, named_family, resampled
from .scenes import SceneFeatures, make_scenes

__all__ = [
    "CELEBA_ATTRIBUTES",
    "CELEBA_GROUPS",
    "CIFAR100_ATTRIBUTES",
    "COLOURS",
    "CUED",
    "DIGITS",
    "KINDS",
    "MEMBERS",
    "NAMES",
    "PARITY",
    "PLACES",
    "TURNS",
    "Attribute",
    "Canvases",
    "Digits",
    "SceneFeatures",
    "Scenes",
    "attribute_columns",
    "attribute_family",
    "attribute_groups",
    "cifar100_classes",
    "cued_family",
    "cued_pairs",
    "cued_scenes",
    "cued_texts",
    "digit_scenes",
    "digit_splits",
    "draw_canvases",
    "load_digits",
    "make_scenes",
    "named_family",
    "open_celeba",
    "patches",
    "read_attributes",
    "read_partitions",
    "resampled",
    "side_by_side",
    "split_digits",
    "tinted",
    "turned",
]
