from .allocator import large_blocks_kept
from .backbone import Backbone, BackboneSettings
from .batches import Batches, at_once, in_batches
from .embeddings import Embeddings, EmbeddingSettings
from .encoder import Encoder, EncoderSettings, cut_note
from .engines import BATCH, ENGINES, faster_engine, forward_of
from .extraction import PRECISIONS, FeatureRows, Features, cache_folder, extract, features_of, settled_engine
from .extraction_pieces import Source, extract_in_pieces
from .given_inputs import check_given, features_of_given, known_encoder, settings_by_name
from .input_sizes import LOOKED_AT, first_images, natural_size, size_note
from .memory import TRAINED_COPIES, check_fits
from .small_resnets import SMALL_RESNETS, small_resnet
from .store import FeatureStore
from .text_encoder import MINILM, TextEncoder, TextSettings
from .translations import open_shapes
from .weights import WEIGHTS

__all__ = [
    "BATCH",
    "ENGINES",
    "LOOKED_AT",
    "MINILM",
    "PRECISIONS",
    "SMALL_RESNETS",
    "TRAINED_COPIES",
    "WEIGHTS",
    "Backbone",
    "BackboneSettings",
    "Batches",
    "EmbeddingSettings",
    "Embeddings",
    "Encoder",
    "EncoderSettings",
    "FeatureRows",
    "FeatureStore",
    "Features",
    "Source",
    "TextEncoder",
    "TextSettings",
    "at_once",
    "cache_folder",
    "check_fits",
    "check_given",
    "cut_note",
    "extract",
    "extract_in_pieces",
    "faster_engine",
    "features_of",
    "features_of_given",
    "first_images",
    "forward_of",
    "in_batches",
    "known_encoder",
    "large_blocks_kept",
    "natural_size",
    "open_shapes",
    "settings_by_name",
    "settled_engine",
    "size_note",
    "small_resnet",
]
