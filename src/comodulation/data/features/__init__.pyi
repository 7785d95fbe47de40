from .allocator import large_blocks_kept
from .backbone import WEIGHTS, Backbone, BackboneSettings, placed
from .engines import BATCH, ENGINES, faster_engine, forward_of
from .extraction import PRECISIONS, FeatureRows, Features, cache_folder, extract, features_of_images, settled_engine
from .given_pictures import check_pictures, features_of_pictures, known_backbone, picture_settings
from .input_sizes import first_images, natural_size, resolved_size, size_note
from .memory import TRAINED_COPIES, check_fits
from .small_resnets import SMALL_RESNETS, small_resnet
from .store import FeatureStore

__all__ = [
    "BATCH",
    "ENGINES",
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
    "check_pictures",
    "extract",
    "faster_engine",
    "features_of_images",
    "features_of_pictures",
    "first_images",
    "forward_of",
    "known_backbone",
    "large_blocks_kept",
    "natural_size",
    "picture_settings",
    "placed",
    "resolved_size",
    "settled_engine",
    "size_note",
    "small_resnet",
]
