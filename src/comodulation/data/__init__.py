"""Data sources, all in one shape: a split with images and label columns."""

from .labels import binary_column, class_column, label_names
from .source import BadImageError, Split, available_splits, open_split

__all__ = [
    "BadImageError",
    "Split",
    "available_splits",
    "binary_column",
    "class_column",
    "label_names",
    "open_split",
]
