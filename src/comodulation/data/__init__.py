"""Data sources, all in one shape: a split with images and label columns."""

from .attributes import (
    CIFAR100_ATTRIBUTES,
    Attribute,
    attribute_columns,
    attribute_family,
    attribute_groups,
    cifar100_classes,
    class_attributes,
)
from .celeba import CELEBA_ATTRIBUTES, CELEBA_GROUPS, CELEBA_SPLITS, open_celeba
from .labels import binary_column, class_column, label_names
from .source import BadImageError, Split, available_splits, open_split

__all__ = [
    "CELEBA_ATTRIBUTES",
    "CELEBA_GROUPS",
    "CELEBA_SPLITS",
    "CIFAR100_ATTRIBUTES",
    "Attribute",
    "BadImageError",
    "Split",
    "attribute_columns",
    "attribute_family",
    "attribute_groups",
    "available_splits",
    "binary_column",
    "cifar100_classes",
    "class_attributes",
    "class_column",
    "label_names",
    "open_celeba",
    "open_split",
]
