"""Encoded images -> RGB pixels: as viewers show them, upright and on white, or refused where a file does not say how."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..errors import BadInputError, RunError
from ..files import read_bounded

# Part of the key of everything that is made of pixels: raise it whenever a file is read as other pixels than before.
DECODING = 2
MAX_FILE = 2**31  # bytes of an encoded picture

_LARGEST = 65535.0  # of 16-bit grey
_SHARE = 16  # a picture that uses less than one part in 16 of its range of values has another range than its type says
_WHITE = (255, 255, 255, 255)
_SEVERAL = "comodulation: first of several"
# Kinds of an ISO media file that are HEIC pictures; "mif1" and "msf1" may be AVIF, too, which Pillow reads by itself.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What the system says of a file that is not there. Anything else (a permission, a disk that fails) is no property of a picture.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class BadImageError(BadInputError):
    """An image that cannot be read; the message names it."""


def decode_image(cell: dict[str, Any] | bytes | str | Path | Image.Image | None, where: str) -> Image.Image:
    """Decode an image to RGB.

    The orientation that a camera notes (EXIF) is applied. What is transparent is laid on white. Grey of 16 bits is scaled from
    0..65535 to 0..255. Grey of floating-point numbers is scaled from 0..1, or taken as it is where it goes up to 255. Of an
    animation, or of a file of several pages, the first picture is read, and ``is_first_of_several`` knows of it. Colour profiles
    are not applied; CMYK is converted without one. HEIC needs the package pillow-heif.

    Args:
        cell: encoded bytes, a path, an image of Pillow, or a Hugging Face image cell, ``{"bytes": ..., "path": ...}``.
        where: names it in errors.

    Raises:
        BadImageError: no image, no such file, not an image, a damaged one, or grey values whose range is not clear.
        RunError: the system cannot read the file.
    """
    if isinstance(cell, dict):
        path = cell.get("path")
        where = f"{where}, {path}" if path else where
        cell = cell.get("bytes") or path
    if cell is None:
        raise BadImageError(f"no image at {where}")
    try:
        if isinstance(cell, Image.Image):
            return _rgb(ImageOps.exif_transpose(cell))
        content = cell if isinstance(cell, bytes) else _read(Path(cell), where)
        _read_heic_too(content)
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            several = _holds_several(image)
            found = _rgb(ImageOps.exif_transpose(image))
        found.info[_SEVERAL] = several
        return found
    except (MemoryError, RunError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them into
        reason = str(error).split(": <")[0].split(" <")[0] or type(error).__name__
        raise BadImageError(f"unreadable image: {where}: {reason}") from error


def _read(path: Path, where: str) -> bytes:
    try:
        return read_bounded(path, MAX_FILE)
    except OSError as error:
        if error.errno in ABSENT:
            raise ValueError("there is no such file") from error
        raise RunError(f"cannot read {where}: {error.strerror or error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """An RGB image of one in any mode. Raises ValueError for modes and values that have no clear meaning as colours."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _grey(values: np.ndarray) -> np.ndarray:
    """Grey levels, uint8 ``(H, W)``, of 16-bit, 32-bit or floating-point values ``(H, W)``."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if low >= 0 and high <= 1:
            return np.rint(255 * values).astype(np.uint8)
        if low >= 0 and 255 / _SHARE <= high <= 255:
            return np.rint(values).astype(np.uint8)
        raise ValueError(f"grey values from {low:g} to {high:g}, expected 0 to 1, or 0 to 255; scale them")
    if low < 0 or high > _LARGEST or 0 < high < _LARGEST / _SHARE:
        raise ValueError(
            f"grey values from {low:.0f} to {high:.0f}, expected 16 bits, 0 to {_LARGEST:.0f}, of which an image uses at "
            f"least one part in {_SHARE}; scale them"
        )
    return np.rint(values.astype(np.float64) * (255 / _LARGEST)).astype(np.uint8)


def is_first_of_several(image: Any) -> bool:
    """Whether what ``decode_image`` has read is the first picture of an animation, or the first page of several."""
    return isinstance(image, Image.Image) and bool(image.info.get(_SEVERAL))


def _holds_several(image: Image.Image) -> bool:
    # A camera's MPO holds the picture and small or second views of it: nothing is left out that anyone would miss.
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of a damaged second picture, which is not read
        return False


def _read_heic_too(content: bytes) -> None:
    """Let Pillow read what may be HEIC. Raises ValueError where it cannot, and cannot read the file by itself either."""
    if content[4:8] != b"ftyp" or content[8:12] not in _HEIC:
        return
    try:
        import pillow_heif
    except ImportError as error:
        if content[8:12] in (b"mif1", b"msf1") and b"avif" in content[:64]:
            return
        raise ValueError("HEIC needs the package pillow-heif: pip install 'comodulation[heic]'") from error
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()


def _formats() -> list[str]:
    """All that Pillow reads by itself: PostScript it would hand to an interpreter, Ghostscript."""
    Image.init()
    return [name for name in list(Image.OPEN) if name != "EPS"]
