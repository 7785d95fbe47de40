"""Encoded pictures as pixels: what viewers show, and a refusal where a file does not say how it is meant."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comodulation.data import asked_pictures
from comodulation.data.pictures import BadImageError, decode_image, is_first_of_several
from comodulation.errors import InputError, RunError
from support.synthetic import encode

SCENE = np.zeros((30, 20, 3), np.uint8)
SCENE[:10] = (90, 160, 250)  # sky above, meadow below, a post on the left
SCENE[20:] = (40, 140, 40)
SCENE[10:20, :5] = (200, 30, 30)
# How the pixels of an upright picture are stored under each EXIF orientation.
STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


def pixels(content):
    return np.asarray(decode_image(content, "here")).astype(int)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey(values, kind="PNG"):
    return saved(Image.fromarray(np.asarray(values)), kind)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    content = saved(STORED[orientation](Image.fromarray(SCENE)), kind, exif=exif, **options)
    seen = pixels(content)
    assert seen.shape == SCENE.shape
    assert np.abs(seen - SCENE).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_sixteen_bits_keeps_its_levels(kind):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    seen = pixels(grey(values, kind))
    assert np.abs(seen - values[:, :, None] / 257).max() <= 0.5 + 1e-9
    assert len(np.unique(seen)) == 256


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_grey_of_floating_point_numbers(top):
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert np.abs(pixels(grey(top * values, "TIFF")) - 255 * values[:, :, None]).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 3000, np.uint16), "grey values from 3000 to 3000, expected 16 bits"),
        (np.array([[-5, 40000]], np.int32), "grey values from -5 to 40000"),
        (np.array([[0, 70000]], np.int32), "grey values from 0 to 70000"),
        (np.array([[0, 3.5]], np.float32), "grey values from 0 to 3.5, expected 0 to 1, or 0 to 255"),
        (np.array([[-1, 1]], np.float32), "grey values from -1 to 1"),
        (np.array([[0, np.nan]], np.float32), "grey values from nan to nan"),
    ],
)
def test_grey_whose_range_is_not_clear_is_refused(values, message):
    """Twelve bits in sixteen would be nearly black, numbers above 255 all white."""
    with pytest.raises(BadImageError, match=f"unreadable image: here: {message}.*scale them"):
        decode_image(grey(values, "TIFF"), "here")


def test_black_is_black():
    assert not pixels(grey(np.zeros((4, 4), np.uint16))).any()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour of a PNG"])
def test_what_is_transparent_is_white(kind):
    """A black letter on nothing is black on white; the colour below what is transparent is not seen."""
    letter = np.zeros((6, 6, 4), np.uint8)
    letter[2:4, 2:4, 3] = 255
    image = Image.fromarray(letter)
    if kind == "palette":
        image = Image.fromarray(np.uint8(letter[:, :, 3] // 255), "P")
        image.putpalette([255, 0, 0, 0, 0, 0])
        content = saved(image, "PNG", transparency=0)
    elif kind == "colour of a PNG":
        rgb = Image.fromarray(np.where(letter[:, :, 3:] == 255, 0, 7).repeat(3, 2).astype(np.uint8))
        content = saved(rgb, "PNG", transparency=(7, 7, 7))
    else:
        content = saved(image.convert(kind), "PNG")
    expected = np.full((6, 6, 3), 255)
    expected[2:4, 2:4] = 0
    assert np.array_equal(pixels(content), expected)


def test_half_transparent_is_half_white():
    content = saved(Image.new("RGBA", (2, 2), (200, 0, 0, 128)), "PNG")
    assert np.abs(pixels(content)[0, 0] - (228, 127, 127)).max() <= 1


def test_the_first_of_several_pictures_is_read():
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = saved(first, kind, save_all=True, append_images=[second], **options)
        assert np.array_equal(pixels(content)[0, 0], (255, 0, 0))
        assert is_first_of_several(decode_image(content, "here"))
        assert not is_first_of_several(decode_image(saved(first, kind, **options), "here"))


def test_what_a_camera_stores_beside_a_picture_is_not_missed():
    """Phones write a small or a second view into the file (MPO): the picture is the whole of it."""
    content = saved(
        Image.new("RGB", (8, 8), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")]
    )
    image = decode_image(content, "here")
    assert image.size == (8, 8)
    assert not is_first_of_several(image)


@pytest.mark.parametrize(("colour", "channels"), [(2, [0, 1, 2]), (6, [0, 1, 2, 3])])
def test_colours_of_sixteen_bits_keep_the_upper_eight(colour, channels):
    """A PNG by hand: Pillow reads such files, and writes none."""
    values = np.dstack([SCENE, np.full((30, 20), 255, np.uint8)])[:, :, channels]
    rows = b"".join(b"\0" + (257 * row.astype(">u2")).tobytes() for row in values)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 20, 30, 16, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(pixels(content), SCENE)


# ---- HEIC ----


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=-1, **options)
    return out.getvalue()


def test_heic_is_read_upright():
    """Of what a phone takes, by its own orientation; damaged, it is refused by name."""
    large = Image.fromarray(SCENE.repeat(4, 0).repeat(4, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    for content, turned in ((heic(large), False), (heic(large, exif=exif.tobytes()), True)):
        seen = pixels(content)
        expected = np.asarray(large.transpose(Image.Transpose.ROTATE_270) if turned else large).astype(int)
        assert seen.shape == expected.shape
        assert np.abs(seen - expected).mean() < 3
    with pytest.raises(BadImageError, match="unreadable image: here"):
        decode_image(content[: len(content) // 2], "here")


def test_without_its_package_heic_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    header = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(
        BadImageError, match=r"unreadable image: here: HEIC needs .* pip install 'comodulation\[heic\]'"
    ):
        decode_image(header, "here")
    assert (
        pixels(saved(Image.fromarray(SCENE), "AVIF", quality=100)).shape == SCENE.shape
    )  # a relative, which Pillow reads


def test_cmyk_has_its_colours():
    seen = pixels(saved(Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK"), "JPEG", quality=100))
    assert np.abs(seen - (200, 30, 60)).max() < 10


def test_files_that_are_not_there_are_bad_and_those_the_system_keeps_are_failures(tmp_path, monkeypatch):
    """A missing picture can be skipped; one that may not be read now would be lost for ever."""
    for path in (tmp_path / "none.png", tmp_path / "none" / "a.png", tmp_path):
        with pytest.raises(BadImageError, match="unreadable image: here"):
            decode_image(path, "here")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImageError, match="not a regular file"):
        decode_image(tmp_path / "pipe.png", "here")
    good = tmp_path / "good.png"
    good.write_bytes(encode(Image.new("RGB", (4, 4))))
    if os.geteuid():
        good.chmod(0)
    else:  # root reads anything
        monkeypatch.setattr("comodulation.data.pictures.read_bounded", _denied)
    with pytest.raises(RunError, match="cannot read here: Permission denied"):
        decode_image(good, "here")


def _denied(path, limit):
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a.png", r"give a list of image files, not one: \['a.png'\]"),
        (Path("a.png"), r"give a list of image files, not one"),
        (["a.png", np.zeros((2, 2, 3), np.uint8)], r"image 1 is .*, expected the path of a file"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(given, said):
    """A single path would be taken for the paths of its letters."""
    with pytest.raises(InputError, match=said):
        list(asked_pictures(given))
