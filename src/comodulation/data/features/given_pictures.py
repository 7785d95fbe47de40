"""Pictures that are given in Python -> features of a frozen backbone, without a data set and without a cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import InputError, brief
from ..pictures import BadImageError, decode_image
from .allocator import large_blocks_kept
from .backbone import Backbone, BackboneSettings
from .engines import BATCH
from .extraction import features_of
from .input_sizes import LOOKED_AT, natural_size


def picture_settings(name: str, pictures: Sequence[Any]) -> BackboneSettings:
    """Settings of a backbone whose features are rows, with the input size that suits pictures.

    Raises:
        InputError: an unknown backbone; pictures that are none.
    """
    settings = BackboneSettings(name, image_size=None, output="vector")
    return replace(settings, image_size=natural_size(name, _decoded(pictures[:LOOKED_AT])))


@lru_cache(maxsize=2)
def known_backbone(settings: BackboneSettings) -> Backbone:
    """The backbone of settings, made once: predictions on a few pictures would load it again and again."""
    return Backbone(settings)


def features_of_pictures(backbone: Backbone, pictures: Sequence[Any]) -> Tensor:
    """Features of N pictures as rows, float32 ``(N, V)``, rounded to half precision as those of a cache are.

    Args:
        backbone: whose features are vectors.
        pictures: paths, encoded bytes, images of Pillow, or arrays ``(H, W)`` or ``(H, W, 3)`` of uint8.

    Raises:
        BadImageError: what is no picture, or cannot be read; it names the first.
    """
    rows = []
    with large_blocks_kept():
        for start in range(0, len(pictures), BATCH):
            images = [backbone.preprocess(image) for image in _decoded(pictures[start : start + BATCH], start)]
            rows.append(features_of(backbone, backbone.collate(images)).flatten(1))
    return torch.cat(rows)


def _decoded(pictures: Iterable[Any], start: int = 0) -> Iterator[Image.Image]:
    for number, picture in enumerate(pictures, start):
        where = f"picture {number}"
        if isinstance(picture, (np.ndarray, Tensor)):
            array = np.asarray(picture)
            if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
                raise BadImageError(
                    f"{where} is an array {array.shape} of {array.dtype}, expected (H, W) or (H, W, 3) of uint8"
                )
            yield Image.fromarray(array).convert("RGB")
            continue
        if not isinstance(picture, (str, Path, bytes, Image.Image)):
            raise BadImageError(
                f"{where} is {brief(picture)}, expected a path, bytes, an image of Pillow or an array of uint8"
            )
        yield decode_image(picture, f"{where}, {picture}" if isinstance(picture, (str, Path)) else where)


def check_pictures(pictures: Any) -> list[Any]:
    """A list of pictures from what was given in its place. Raises InputError for no list, or an empty one."""
    if isinstance(pictures, (str, bytes, Path, Image.Image)) or not hasattr(pictures, "__iter__"):
        raise InputError(f"X is {brief(pictures)}, expected a list of pictures or texts for the encoder")
    found = list(pictures)
    if not found:
        raise InputError("X is empty, expected a list of pictures or texts for the encoder: 0 sample(s)")
    return found
