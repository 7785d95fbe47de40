"""Pictures or texts that are given in Python -> features of a frozen encoder, without a data set and without a cache."""

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
from ...files import user_path
from ..pictures import BadImageError, decode_image
from .allocator import large_blocks_kept
from .backbone import BackboneSettings
from .batches import at_once, in_batches
from .encoder import Encoder
from .input_sizes import LOOKED_AT, natural_size
from .text_encoder import MINILM, TextSettings


def settings_by_name(name: str, given: Sequence[Any]) -> BackboneSettings | TextSettings:
    """Settings of the encoder that a name means, with vectors as features: of texts ``all-minilm-l6-v2``, a folder of a model, or a
    repository of the hub (OWNER/NAME); else a backbone for pictures, with the input size that suits them.

    Raises:
        InputError: an unknown backbone; pictures that are none.
    """
    of_hub = name.count("/") == 1 and not name.startswith("hf-hub:")
    if name == MINILM or of_hub or (user_path(name) / "config.json").is_file():
        return TextSettings("", name).placed()
    settings = BackboneSettings(name, image_size=None, output="vector")
    return replace(settings, image_size=natural_size(name, _decoded(given[:LOOKED_AT])))


@lru_cache(maxsize=2)
def known_encoder(settings: BackboneSettings | TextSettings) -> Encoder:
    """The encoder of settings, made once: predictions on a few inputs would load it again and again."""
    return settings.encoder()


def features_of_given(encoder: Encoder, given: Sequence[Any]) -> Tensor:
    """Features of N inputs as rows, float32 ``(N, V)``, rounded as those of a cache are.

    Args:
        encoder: whose features are vectors.
        given: texts, or pictures: paths, encoded bytes, images of Pillow, arrays ``(H, W)`` or ``(H, W, 3)`` of uint8.

    Raises:
        InputError: what is no text, or no picture (BadImageError); it names the first.
    """
    read = _texts if encoder.what == "text" else _decoded
    rows = []
    with large_blocks_kept():
        for start in range(0, len(given), at_once(encoder)):
            prepared = [encoder.preprocess(one) for one in read(given[start : start + at_once(encoder)], start)]
            rows.append(in_batches(encoder, prepared).features(encoder).flatten(1))
    return torch.cat(rows)


def _texts(texts: Iterable[Any], start: int) -> Iterator[str]:
    for number, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise InputError(f"text {number} is {brief(text)}, expected a text")
        yield str(text)


def _decoded(pictures: Iterable[Any], start: int = 0) -> Iterator[Image.Image]:
    for number, picture in enumerate(pictures, start):
        where = f"image {number}"
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


def check_given(given: Any) -> list[Any]:
    """A list of inputs from what was given in its place. Raises InputError for no list, or an empty one."""
    if isinstance(given, (str, bytes, Path, Image.Image)) or not hasattr(given, "__iter__"):
        raise InputError(f"X is {brief(given)}, expected a list of images or texts for the encoder")
    found = list(given)
    if not found:
        raise InputError("X is empty, expected a list of images or texts for the encoder: 0 sample(s)")
    return found
