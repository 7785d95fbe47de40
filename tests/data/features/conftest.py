"""A cache of features of three blocks, which tests of extraction and of damage share."""

import shutil

import pytest

from comodulation.data.features import extraction as features
from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.extraction import extract
from comodulation.data.opening import open_split
from support.small_cache import BLOCK
from support.synthetic import write


@pytest.fixture
def small_blocks(monkeypatch):
    """Three blocks: 64, 64 and 32 rows."""
    monkeypatch.setattr(features, "BLOCK", BLOCK)


@pytest.fixture(scope="session")
def backbone():
    return Backbone(BackboneSettings("test_resnet", "random", 32, layer=-2))


@pytest.fixture(scope="session")
def split(tmp_path_factory):
    return open_split(str(write(tmp_path_factory.mktemp("data") / "small")), "train")


@pytest.fixture(scope="session")
def filled(tmp_path_factory, backbone, split):
    """A complete cache, not to be changed."""
    cache = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", BLOCK)
        extract(backbone, split, cache)
    return cache


@pytest.fixture
def copied(filled, tmp_path):
    """A copy of the complete cache, to be damaged."""
    shutil.copytree(filled, tmp_path / "cache")
    return tmp_path / "cache"
