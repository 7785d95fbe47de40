"""Features by ONNX Runtime: those of torch up to rounding, in caches of their own, and chosen where they come faster."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from comodulation.data.features import engines, extraction
from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.engines import OnnxForward, faster_engine, forward_of
from comodulation.data.features.extraction import extract, features_of, settled_engine
from comodulation.data.opening import open_split
from comodulation.errors import InputError, RunError
from support.synthetic import write

pytest.importorskip("onnxruntime")


def backbone_of(name="test_resnet", size=32, **options):
    return Backbone(BackboneSettings(name, options.pop("weights", "random"), size, **options))


@pytest.fixture(scope="module")
def backbone():
    return backbone_of()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return open_split(str(write(tmp_path_factory.mktemp("data") / "small")), "train")


def pixels(size, number):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "efficientnet-lite0", "size": 97, "weights": "pretrained", "output": "vector"},
        {"name": "test_vit", "size": 64},
        {"name": "test_convnext", "size": 64, "output": "vector", "layer": -2},
    ],
    ids=lambda options: options["name"],
)
def test_the_engines_agree(options):
    """For batches of other sizes than it was translated with, and images in either layout."""
    backbone = backbone_of(**options)
    forward = forward_of(backbone, "onnx")
    assert isinstance(forward, OnnxForward)
    for number in (1, 5):
        images = pixels(options["size"], number)
        expected, found = features_of(backbone, (images,)), features_of(forward, (images,))
        assert found.shape == (number, *backbone.feature_shape)
        assert found.dtype == expected.dtype
        exact, given = backbone(images), forward(images)
        assert (given - exact).abs().max() < 1e-3 * exact.std()
        assert torch.equal(forward(images.contiguous(memory_format=torch.channels_last)), given)


def test_threads_are_those_of_torch(backbone):
    forward = OnnxForward(backbone)
    assert forward._session.get_session_options().intra_op_num_threads == torch.get_num_threads()


def test_a_network_is_translated_once_and_again_when_it_has_changed():
    backbone = backbone_of()
    first = forward_of(backbone, "onnx")
    assert forward_of(backbone, "onnx") is first
    with torch.no_grad():
        next(backbone.parameters()).mul_(2)
    second, images = forward_of(backbone, "onnx"), pixels(32, 3)
    assert second is not first
    torch.testing.assert_close(second(images), backbone(images), atol=1e-4, rtol=1e-4)


def test_caches_say_which_engine_filled_them(backbone, split, tmp_path):
    """torch's key has the hash that it had before there were engines."""
    by_torch, by_onnx = (extract(backbone, split, tmp_path, engine=engine) for engine in ("torch", "onnx"))
    assert by_torch.key != by_onnx.key
    assert by_onnx.extracted_rows == by_torch.extracted_rows == len(split)
    exact = by_torch.array.astype(float)
    np.testing.assert_allclose(by_onnx.array, exact, rtol=2**-10, atol=1e-3 * exact.std())  # one place of float16
    identities = {
        key: json.loads((tmp_path / "features" / key / "identity.json").read_text())
        for key in (by_torch.key, by_onnx.key)
    }
    assert sorted(identities[by_torch.key]) == ["backbone", "images", "precision", "shape", "version"]
    assert identities[by_onnx.key] == {**identities[by_torch.key], "engine": "onnx"}
    assert extract(backbone, split, tmp_path, engine="onnx").extracted_rows == 0


def test_a_cache_that_is_there_is_taken(backbone, split, tmp_path, monkeypatch):
    """Without measuring: what was extracted once is not extracted again because the machine is busy."""
    monkeypatch.setattr(extraction, "faster_engine", lambda *_: pytest.fail("engines were measured"))
    by_onnx = extract(backbone, split, tmp_path, engine="onnx")
    again = extract(backbone, split, tmp_path, engine="auto")
    assert (again.key, again.extracted_rows) == (by_onnx.key, 0)
    by_torch = extract(backbone, split, tmp_path, engine="torch")
    assert extract(backbone, split, tmp_path, engine="auto").key == by_torch.key
    assert settled_engine("onnx", backbone, split, tmp_path) == "onnx"


def measured(monkeypatch, torchs, onnxs):
    """Let the engines do so many images a second."""
    monkeypatch.setattr(engines, "_rate", lambda forward, *_: onnxs if isinstance(forward, OnnxForward) else torchs)


def test_the_faster_engine_is_taken(backbone, monkeypatch):
    said = []
    measured(monkeypatch, 100.0, 230.0)
    assert faster_engine(backbone, 10_000, say=said.append) == "onnx"
    measured(monkeypatch, 100.0, 90.0)
    assert faster_engine(backbone, 10_000, say=said.append) == "torch"
    assert said == [
        "features by ONNX Runtime: 230 images/s, torch 100",
        "features by torch: 100 images/s, ONNX Runtime 90",
    ]


def test_both_are_really_measured(backbone, monkeypatch):
    said = []
    monkeypatch.setattr(engines, "WORTH", 0.0)
    monkeypatch.setattr(engines, "MEASURED", 0.05)
    assert faster_engine(backbone, 513, say=said.append) in ("torch", "onnx")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("number", "torchs", "options"),
    [
        (512, 1.0, {}),  # few images
        (5_999, 100.0, {}),  # less than a minute of torch's
        (10**9, 1.0, {"precision": "bfloat16"}),
        (10**9, 1.0, {"device": "cuda"}),
    ],
)
def test_where_nothing_is_translated(number, torchs, options, backbone, monkeypatch):
    monkeypatch.setattr(engines, "OnnxForward", lambda *_: pytest.fail("the network was translated"))
    monkeypatch.setattr(engines, "_rate", lambda *_: torchs)
    assert faster_engine(backbone, number, **options) == "torch"


def test_without_the_extra_package(backbone, split, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    monkeypatch.setattr(engines, "_rate", lambda *_: 1.0)
    assert faster_engine(backbone, 10**9) == "torch"
    with pytest.raises(InputError, match=r"engine 'onnx' needs onnxruntime: pip install 'comodulation\[onnx\]'"):
        extract(backbone, split, tmp_path / "cache", engine="onnx")
    assert not list(tmp_path.iterdir())


def test_engines_that_are_refused(backbone, split, tmp_path):
    with pytest.raises(InputError, match=r"unknown engine 'onxx'; did you mean 'onnx'\?"):
        extract(backbone, split, tmp_path, engine="onxx")
    with pytest.raises(InputError, match="computes in float32, not in bfloat16; --engine torch computes here"):
        extract(backbone, split, tmp_path, engine="onnx", precision="bfloat16")
    with pytest.raises(InputError, match="computes on CPUs, not on 'cuda'"):
        forward_of(backbone, "onnx", "cuda")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_translated(monkeypatch):
    """Asked for, it is an error; found out on the way, it is a line and torch's work."""
    backbone, said = backbone_of(), []
    real = backbone.model.forward_intermediates

    def untraceable(x, **options):
        assert float(x.sum()) == float(x.sum())  # a value decides
        return real(x, **options)

    monkeypatch.setattr(backbone.model, "forward_intermediates", untraceable)
    with pytest.raises(RunError, match="backbone 'test_resnet' cannot be translated for ONNX Runtime: ") as error:
        forward_of(backbone, "onnx")
    assert "\n" not in str(error.value)
    measured(monkeypatch, 1.0, 2.0)
    assert faster_engine(backbone, 10_000, say=said.append) == "torch"
    assert len(said) == 1
    assert said[0].endswith("; torch computes")
