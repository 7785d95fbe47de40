"""The side of a backbone's input where none is given: the one it was trained with, unless the images are small."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator

from PIL import Image

from ..pictures import BadImageError
from ..source import Split
from .architectures import EFFICIENTNET_LITE0, architecture_of
from .efficientnet_lite import INPUT_SIZE
from .small_resnets import SIDE, SMALL_RESNETS

LOOKED_AT = 64  # images
_FOR_SMALL_IMAGES = 128  # pixels: larger inputs would cost more and show nothing more


def own_size(name: str) -> int:
    """Side of the input that a backbone was trained with, pixels; the shorter one of two. Raises InputError for an unknown one."""
    if name == EFFICIENTNET_LITE0:
        return INPUT_SIZE
    architecture = architecture_of(name)
    if architecture in SMALL_RESNETS:
        return SIDE
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name) or get_pretrained_cfg(architecture)
    return INPUT_SIZE if config is None else min(config.input_size[1:])


def natural_size(name: str, images: Iterable[Image.Image]) -> int:
    """A backbone's own input size; 128 (or the own one if that is less) where most images are not half as large.

    Args:
        name: of the backbone.
        images: the first ``LOOKED_AT`` count. None: the own size.

    Raises:
        InputError: an unknown backbone.
    """
    own = own_size(name)
    sides = [min(image.size) for image in itertools.islice(images, LOOKED_AT)]
    small = bool(sides) and statistics.median(sides) < own / 2
    return min(own, _FOR_SMALL_IMAGES) if small else own


def first_images(split: Split) -> Iterator[Image.Image]:
    """The images of a split's first ``LOOKED_AT`` rows, without those that cannot be read, each decoded when asked for.

    Raises:
        RunError: a file that the system cannot read.
    """
    for row in range(min(LOOKED_AT, len(split))):
        try:
            yield split.image(row)
        except BadImageError:  # which extraction refuses or counts
            continue


def size_note(name: str, size: int) -> str:
    """One sentence on the size that was found for a backbone, for the user."""
    own = own_size(name)
    if size == own:
        return f"images are scaled to {size} px, the backbone's own size"
    return f"images are scaled to {size} px: they are less than half as large as the backbone's own {own} px"
