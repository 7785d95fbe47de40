from .canvases import DIGITS, KINDS, MEMBERS, PLACES, Canvases, digit_splits, draw_canvases, side_by_side
from .celeba import CELEBA_ATTRIBUTES, CELEBA_GROUPS, CELEBA_SPLITS, open_celeba, read_attributes, read_partitions
from .cifar100_attributes import (
    CIFAR100_ATTRIBUTES,
    Attribute,
    attribute_columns,
    attribute_family,
    attribute_groups,
    cifar100_classes,
    class_attributes,
)
from .cues import COLOURS, CUED, cued_family, cued_pairs, cued_scenes, tinted
from .digits import PARITY, Digits, Scenes, digit_scenes, load_digits, patches, split_digits
from .scenes import SceneFeatures, make_scenes

__all__ = [
    "CELEBA_ATTRIBUTES",
    "CELEBA_GROUPS",
    "CELEBA_SPLITS",
    "CIFAR100_ATTRIBUTES",
    "COLOURS",
    "CUED",
    "DIGITS",
    "KINDS",
    "MEMBERS",
    "PARITY",
    "PLACES",
    "Attribute",
    "Canvases",
    "Digits",
    "SceneFeatures",
    "Scenes",
    "attribute_columns",
    "attribute_family",
    "attribute_groups",
    "cifar100_classes",
    "class_attributes",
    "cued_family",
    "cued_pairs",
    "cued_scenes",
    "digit_scenes",
    "digit_splits",
    "draw_canvases",
    "load_digits",
    "make_scenes",
    "open_celeba",
    "patches",
    "read_attributes",
    "read_partitions",
    "side_by_side",
    "split_digits",
    "tinted",
]
