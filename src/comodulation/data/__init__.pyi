from .asked import Asked, asked_inputs, asked_pictures, images_in, pictures_in
from .folder_files import SUFFIXES
from .folders import folder_splits
from .given_tables import InputReader, given_table_splits
from .hub import REACHING, hub_errors
from .label_columns import (
    FORMS,
    MISSING,
    LabelColumns,
    classes_and_places,
    in_form,
    places_among,
    probabilities_in_form,
    read_label_columns,
)
from .label_files import is_table, read_label_table
from .label_lists import with_binary_columns
from .labels import answer_column, binary_column, class_column, is_binary, label_names, yes_no_column
from .opening import available_splits, find_splits, open_split
from .partitions import Partition, partition
from .pictures import BadImageError, decode_image
from .source import Split
from .suitability import unlearnable
from .summary import refuse_unlearnable, summarize, summary_table, warnings_of
from .tables import label_table_splits
from .texts import Texts
from .vectors import Vectors, is_folder_of_vectors, read_vectors

__all__ = [
    "FORMS",
    "MISSING",
    "REACHING",
    "SUFFIXES",
    "Asked",
    "BadImageError",
    "InputReader",
    "LabelColumns",
    "Partition",
    "Split",
    "Texts",
    "Vectors",
    "answer_column",
    "asked_inputs",
    "asked_pictures",
    "available_splits",
    "binary_column",
    "class_column",
    "classes_and_places",
    "decode_image",
    "find_splits",
    "folder_splits",
    "given_table_splits",
    "hub_errors",
    "images_in",
    "in_form",
    "is_binary",
    "is_folder_of_vectors",
    "is_table",
    "label_names",
    "label_table_splits",
    "open_split",
    "partition",
    "pictures_in",
    "places_among",
    "probabilities_in_form",
    "read_label_columns",
    "read_label_table",
    "read_vectors",
    "refuse_unlearnable",
    "summarize",
    "summary_table",
    "unlearnable",
    "warnings_of",
    "with_binary_columns",
    "yes_no_column",
]
