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
from .image_folders import folder_splits
from .label_table import label_table_splits
from .labels import answer_column, binary_column, class_column, is_binary, label_names, yes_no_column
from .opening import available_splits, find_splits, open_split
from .source import BadImageError, Split

__all__ = [
    "CELEBA_ATTRIBUTES",
    "CELEBA_GROUPS",
    "CELEBA_SPLITS",
    "CIFAR100_ATTRIBUTES",
    "Attribute",
    "BadImageError",
    "Split",
    "answer_column",
    "attribute_columns",
    "attribute_family",
    "attribute_groups",
    "available_splits",
    "binary_column",
    "cifar100_classes",
    "class_attributes",
    "class_column",
    "find_splits",
    "folder_splits",
    "is_binary",
    "label_names",
    "label_table_splits",
    "open_celeba",
    "open_split",
    "yes_no_column",
]
