from .allocator import large_blocks_kept
from .backbone import WEIGHTS, Backbone, BackboneSettings, placed
from .extraction import BATCH, PRECISIONS, FeatureRows, Features, cache_folder, extract, features_of_images
from .input_sizes import first_images, natural_size, resolved_size, size_note
from .memory import TRAINED_COPIES, check_fits
from .small_resnets import SMALL_RESNETS, small_resnet
from .store import FeatureStore

__all__ = [
    "BATCH",
    "PRECISIONS",
    "SMALL_RESNETS",
    "TRAINED_COPIES",
    "WEIGHTS",
    "Backbone",
    "BackboneSettings",
    "FeatureRows",
    "FeatureStore",
    "Features",
    "cache_folder",
    "check_fits",
    "extract",
    "features_of_images",
    "first_images",
    "large_blocks_kept",
    "natural_size",
    "placed",
    "resolved_size",
    "size_note",
    "small_resnet",
]
