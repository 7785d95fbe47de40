"""The size of the input where none is given."""

import itertools

import pytest
from PIL import Image

from comodulation.data.features import BackboneSettings, first_images, natural_size, size_note
from comodulation.data.opening import open_split
from comodulation.errors import InputError
from support.synthetic import images_at, write


def pictures(*sides):
    return [Image.new("RGB", side) for side in sides]


@pytest.mark.parametrize(
    ("name", "sides", "expected"),
    [
        ("efficientnet-lite0", [(640, 427)], 224),
        ("efficientnet-lite0", [(32, 32)], 128),
        ("efficientnet-lite0", [(112, 500)], 224),  # half as large
        ("efficientnet-lite0", [(111, 500)], 128),  # the shorter side counts
        ("efficientnet-lite0", [(500, 111), (32, 32), (300, 300)], 128),  # the median counts
        ("efficientnet-lite0", [(500, 411), (32, 32), (300, 300)], 224),
        ("efficientnet-lite0", [], 224),
        ("resnet10t", [(300, 300)], 176),  # input_size, not test_input_size, which is 224
        ("resnet10t.c3_in1k", [(300, 300)], 176),
        ("test_resnet", [(32, 32)], 128),
        ("resnet10-cifar", [(32, 32)], 32),
        ("resnet10-cifar", [(8, 8)], 32),  # 128 would be more than it was made for
        ("vit_base_patch14_dinov2", [(640, 427)], 518),
        ("vit_base_patch14_dinov2", [(200, 200)], 128),
    ],
)
def test_the_rule(name, sides, expected):
    assert natural_size(name, pictures(*sides)) == expected


def test_only_the_first_64_count():
    small, large = pictures((32, 32)), pictures((300, 300))
    endless = itertools.chain(small * 64, itertools.repeat(large[0]))
    assert natural_size("efficientnet-lite0", endless) == 128
    assert natural_size("efficientnet-lite0", itertools.chain(small * 31, itertools.repeat(large[0]))) == 224


def test_a_size_that_is_given_is_kept(tmp_path):
    split = open_split(str(write(tmp_path / "data")), "train")
    given = BackboneSettings(image_size=96)
    assert given.settled(split) == (given, "")
    settings, note = BackboneSettings(image_size=None).settled(split)
    assert (settings, note) == (BackboneSettings(image_size=128), size_note("efficientnet-lite0", 128))


def test_images_that_cannot_be_read_do_not_count(tmp_path):
    broken = dict.fromkeys(range(10), b"noise")
    split = open_split(str(write(tmp_path / "data", images_at(broken))), "train")
    assert [image.size for image in first_images(split)] == [(32, 32)] * 54


def test_what_is_said():
    assert size_note("efficientnet-lite0", 224) == "images are scaled to 224 px, the backbone's own size"
    assert "128 px: they are less than half as large as the backbone's own 224 px" in size_note(
        "efficientnet-lite0", 128
    )


def test_an_unknown_backbone():
    with pytest.raises(InputError, match=r"unknown backbone 'resnet-18'; did you mean 'resnet18'\?"):
        natural_size("resnet-18", [])
