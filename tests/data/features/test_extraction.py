"""The feature cache: right, resumable, and kept under a key of all that features depend on."""

import os
import shutil

import numpy as np
import pytest
import torch

from comodulation.data.features import extraction as features
from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.extraction import cache_folder, extract, features_of
from comodulation.errors import InputError, RunError
from support.small_cache import BLOCK, FILES, ROWS, the_file
from support.synthetic import snapshot

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_features_are_the_backbones(backbone, split, copied):
    """Row by row what the backbone gives for the image, rounded to float16; reported block by block."""
    seen = []
    shutil.rmtree(copied)
    result = extract(backbone, split, copied, report=lambda done, total: seen.append((done, total)))
    assert result.extracted_rows == len(result) == ROWS
    assert result.array.shape == (ROWS, *backbone.feature_shape)
    assert seen == [(64, 160), (128, 160), (160, 160)]
    rows = torch.tensor([0, 63, 64, 159])
    with torch.no_grad():
        expected = backbone(torch.stack([backbone.preprocess(split.image(row)) for row in rows.tolist()]))
    torch.testing.assert_close(result.rows(rows), expected, atol=1e-3, rtol=2e-3)
    assert torch.equal(result.rows(slice(0, 2)), torch.from_numpy(result.array[:2].astype(np.float32)))
    with pytest.raises((ValueError, RuntimeError)):
        result.array[0] = 0  # read-only


def test_images_on_their_own_get_the_features_of_the_cache(backbone, split, filled):
    """`predict` computes what `evaluate` reads, up to the rounding of a convolution over another batch size."""
    images = torch.stack([backbone.preprocess(split.image(row)) for row in range(3)])
    cached = extract(backbone, split, filled).rows(slice(0, 3))
    torch.testing.assert_close(features_of(backbone, (images,)), cached, atol=1e-3, rtol=2e-3)


def test_a_second_call_extracts_nothing(backbone, split, copied):
    before, seen = snapshot(copied), []
    again = extract(backbone, split, copied, report=lambda done, total: seen.append((done, total)))
    assert again.extracted_rows == 0
    assert seen == [(ROWS, ROWS)]
    assert snapshot(copied) == before


def test_what_features_depend_on_is_in_the_key(backbone, split, copied):
    others = [
        extract(backbone, split, copied, precision="bfloat16"),
        extract(Backbone(BackboneSettings("test_resnet", "random", 48, layer=-2)), split, copied),
        extract(Backbone(BackboneSettings("test_resnet", "random", 32)), split, copied),
    ]
    assert all(other.extracted_rows == ROWS for other in others)
    assert len({other.key for other in others} | {extract(backbone, split, copied).key}) == 4
    difference = np.abs(others[0].array.astype(float) - extract(backbone, split, copied).array).max()
    assert 0 < difference < 0.1  # bfloat16 was used, and is near
    with pytest.raises(InputError, match=r"unknown precision 'float61'; did you mean 'float16'|unknown precision"):
        extract(backbone, split, copied, precision="float61")


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_extraction_continues(stop, backbone, split, filled, tmp_path):
    """Ctrl-C after a block: the next call extracts the rest alone, and the file is the same to the byte."""

    def interrupt(done, total):
        if done == stop * BLOCK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(backbone, split, tmp_path, report=interrupt)
    result = extract(backbone, split, tmp_path)
    assert result.extracted_rows == ROWS - stop * BLOCK
    assert the_file(tmp_path, "data.bin").read_bytes() == the_file(filled, "data.bin").read_bytes()


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("failing", "missing"), [(1, 160), (2, 160), (3, 160), (4, 160), (5, 96), (6, 96), (9, 0)])
def test_a_full_disk_is_a_run_error(failing, missing, backbone, split, filled, tmp_path, monkeypatch):
    """A disk full at some write (identity, its folder, data, journal, ..., merged journal): what is finished is kept."""
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(number)
        return full_disk() if len(calls) == failing else real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=r"cannot write .*features.*: No space left on device"):
        extract(backbone, split, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(features, "BLOCK", BLOCK)
    again = extract(backbone, split, tmp_path)
    # A line whose fsync failed may yet be in the journal; then its block need not be made again.
    assert again.extracted_rows in (missing, missing - BLOCK)
    for file in FILES:
        assert the_file(tmp_path, file).read_bytes() == the_file(filled, file).read_bytes()
    assert not list(tmp_path.glob("features/*/*.new"))


def test_a_cache_below_a_file(backbone, split, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the feature cache"):
        extract(backbone, split, tmp_path / "file" / "cache")


def test_features_beyond_half_precision(split, tmp_path):
    """Values that float16 cannot hold are an error, not infinities in the cache."""
    broken = Backbone(BackboneSettings("test_resnet", "random", 32, layer=-2))
    broken.pixel_std /= 1e9
    with pytest.raises(RunError, match="more than float16 holds"):
        extract(broken, split, tmp_path)


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("COMODULATION_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("COMODULATION_CACHE")
    assert cache_folder() == tmp_path / "b" / "comodulation"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "comodulation"
