"""Features by ONNX Runtime and OpenVINO: those of torch up to rounding, with their own caches, chosen where faster."""

import importlib.util
import json
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from comodulation.data.features import engines, extraction, translations
from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.data.features.engines import faster_engine, forward_of
from comodulation.data.features.extraction import extract, features_of, settled_engine
from comodulation.data.features.text_encoder import TextSettings
from comodulation.data.features.translations import OnnxForward, OpenVinoForward, bfloat16_here
from comodulation.data.opening import open_split
from comodulation.errors import InputError, RunError
from support.synthetic import write

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

pytestmark = pytest.mark.usefixtures("quick_onnx")

KINDS = {"onnx": OnnxForward, "openvino": OpenVinoForward}
translated = pytest.mark.parametrize("engine", KINDS)


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


LITE = {"name": "efficientnet-lite0", "size": 97, "weights": "pretrained", "output": "vector"}


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        *[(engine, {"name": "test_vit", "size": 64}) for engine in KINDS],
        ("openvino", {"name": "test_convnext", "size": 64, "output": "vector", "layer": -2}),
        ("openvino", LITE),
        pytest.param("onnx", LITE, marks=pytest.mark.slow),  # eight seconds, for what the others show, too
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_the_engines_agree(engine, options):
    """For batches of other sizes than it was translated with, and images in either layout."""
    backbone = backbone_of(**options)
    forward = forward_of(backbone, engine)
    assert isinstance(forward, KINDS[engine])
    for number in (1, 5):
        images = pixels(options["size"], number)
        expected, found = features_of(backbone, (images,)), features_of(forward, (images,))
        assert found.shape == (number, *backbone.feature_shape)
        assert found.dtype == expected.dtype
        exact, given = backbone(images), forward(images)
        assert (given - exact).abs().max() < 1e-3 * exact.std()
        assert torch.equal(forward(images.contiguous(memory_format=torch.channels_last)), given)


def test_threads_are_those_of_torch(backbone):
    threads = torch.get_num_threads()
    assert OnnxForward(backbone)._session.get_session_options().intra_op_num_threads == threads
    compiled = OpenVinoForward(backbone)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"  # not what it would take by itself


@translated
def test_texts_of_any_length(engine):
    """The same vectors from batches of other numbers and lengths, and whatever a text is padded with."""
    encoder = TextSettings("text").encoder()
    texts = ["where is my card", "no", "what is the exchange rate between yen and euros, and who sets it?", "naïve 🙂"]
    prepared = [encoder.preprocess(text) for text in texts]
    forward = forward_of(encoder, engine)
    together = forward(*encoder.collate(prepared))
    exact = encoder(*encoder.collate(prepared))
    torch.testing.assert_close(together, exact, atol=1e-6, rtol=0)
    for one, found in zip(prepared, together, strict=True):
        torch.testing.assert_close(forward(*encoder.collate([one]))[0], found, atol=1e-6, rtol=0)


@translated
def test_a_network_is_translated_once_and_again_when_it_has_changed(engine):
    backbone = backbone_of()
    first = forward_of(backbone, engine)
    assert forward_of(backbone, engine) is first
    with torch.no_grad():
        next(backbone.parameters()).mul_(2)
    second, images = forward_of(backbone, engine), pixels(32, 3)
    assert second is not first
    torch.testing.assert_close(second(images), backbone(images), atol=1e-4, rtol=1e-4)


@translated
def test_caches_say_which_engine_filled_them(engine, backbone, split, tmp_path):
    """torch's key has the hash that it had before there were engines."""
    by_torch, by_other = (extract(backbone, split, tmp_path, engine=one) for one in ("torch", engine))
    assert by_torch.key != by_other.key
    assert by_other.extracted_rows == by_torch.extracted_rows == len(split)
    exact = by_torch.array.astype(float)
    np.testing.assert_allclose(by_other.array, exact, rtol=2**-10, atol=1e-3 * exact.std())  # one place of float16
    identities = {
        key: json.loads((tmp_path / "features" / key / "identity.json").read_text())
        for key in (by_torch.key, by_other.key)
    }
    assert sorted(identities[by_torch.key]) == ["backbone", "images", "precision", "shape", "version"]
    assert identities[by_other.key] == {**identities[by_torch.key], "engine": engine}
    assert extract(backbone, split, tmp_path, engine=engine).extracted_rows == 0


@pytest.mark.skipif(not bfloat16_here(), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bfloat16(engine, backbone, split, tmp_path):
    """Eight bits of precision; caches of its own."""
    exact, rough = (extract(backbone, split, tmp_path, engine=engine, precision=one) for one in ("float32", "bfloat16"))
    assert exact.key != rough.key
    difference = np.abs(rough.array.astype(float) - exact.array)
    assert 2**-12 < difference.max() / exact.array.std() < 2**-3


def test_a_cache_that_is_there_is_taken(backbone, split, tmp_path, monkeypatch):
    """Without measuring: what was extracted once is not extracted again because the machine is busy."""
    monkeypatch.setattr(extraction, "faster_engine", lambda *_: pytest.fail("engines were measured"))
    by_onnx = extract(backbone, split, tmp_path, engine="onnx")
    again = extract(backbone, split, tmp_path, engine="auto")
    assert (again.key, again.extracted_rows) == (by_onnx.key, 0)
    by_torch = extract(backbone, split, tmp_path, engine="torch")
    assert extract(backbone, split, tmp_path, engine="auto").key == by_torch.key
    assert settled_engine("onnx", backbone, split, tmp_path) == "onnx"


def measured(monkeypatch, by_torch, **others):
    """Let the engines do so many images a second; those that are not named are not there."""
    rates = {KINDS[engine]: rate for engine, rate in others.items()}
    monkeypatch.setattr(engines, "_rate", lambda forward, *_: rates.get(type(forward), by_torch))
    real = engines._unfit
    monkeypatch.setattr(
        engines, "_unfit", lambda engine, *given: "is away" if engine not in others else real(engine, *given)
    )


@pytest.mark.parametrize(
    ("rates", "fastest", "line"),
    [
        ({"onnx": 230.0}, "onnx", "features by ONNX Runtime: 230 images/s, torch 100"),
        ({"onnx": 90.0}, "torch", "features by torch: 100 images/s, ONNX Runtime 90"),
        ({"openvino": 210.0, "onnx": 220.0}, "openvino", "features by OpenVINO: 210 images/s, torch 100"),
    ],
)
def test_the_faster_engine_is_taken(rates, fastest, line, monkeypatch):
    said, backbone = [], backbone_of()
    measured(monkeypatch, 100.0, **rates)
    assert faster_engine(backbone, 10_000, say=said.append) == fastest
    assert len(said) == 1
    assert said[0].endswith(line)
    monkeypatch.setattr(engines, "_rate", lambda *_: pytest.fail("engines were measured again"))
    assert faster_engine(backbone, 561) == fastest  # the test split


@translated
def test_both_are_really_measured(engine, monkeypatch):
    said, backbone, real = [], backbone_of(), engines._unfit
    monkeypatch.setattr(engines, "_unfit", lambda one, *given: "is away" if one != engine else real(one, *given))
    monkeypatch.setitem(engines._TRANSLATIONS, engine, replace(engines._TRANSLATIONS[engine], worth=0.0))
    monkeypatch.setattr(engines, "MEASURED", 0.05)
    assert faster_engine(backbone, 513, say=said.append) in ("torch", engine)
    assert len(said) == 1
    assert all(label in said[0] for label in ("torch", engines._TRANSLATIONS[engine].label))


@pytest.mark.parametrize(
    ("number", "by_torch", "options"),
    [
        (512, 1.0, {}),  # few images
        (1_499, 100.0, {}),  # less than a quarter of a minute of torch's
        (10**9, 1.0, {"precision": "bfloat16"}),
        (10**9, 1.0, {"device": "cuda"}),
    ],
)
def test_where_nothing_is_translated(number, by_torch, options, monkeypatch):
    backbone = backbone_of()
    for kind in KINDS.values():
        monkeypatch.setattr(engines, kind.__name__, lambda *_: pytest.fail("the network was translated"))
    monkeypatch.setattr(engines, "bfloat16_here", lambda: False)
    monkeypatch.setattr(engines, "_rate", lambda *_: by_torch)
    assert faster_engine(backbone, number, **options) == "torch"


def test_without_the_extra_packages(split, monkeypatch, tmp_path):
    backbone = backbone_of()
    real, absent = importlib.util.find_spec, ("onnxruntime", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else real(name))
    monkeypatch.setattr(engines, "_rate", lambda *_: 1.0)
    assert faster_engine(backbone, 10**9) == "torch"
    for engine, package in zip(("onnx", "openvino"), absent, strict=True):
        with pytest.raises(
            InputError, match=rf"engine '{engine}' needs {package}: pip install 'comodulation\[{engine}\]'"
        ):
            extract(backbone, split, tmp_path / "cache", engine=engine)
    assert not list(tmp_path.iterdir())


def test_engines_that_are_refused(backbone, split, tmp_path):
    with pytest.raises(InputError, match=r"unknown engine 'onxx'; did you mean 'onnx'\?"):
        extract(backbone, split, tmp_path, engine="onxx")
    with pytest.raises(InputError, match="computes in float32, not in bfloat16; take --engine torch"):
        extract(backbone, split, tmp_path, engine="onnx", precision="bfloat16")
    for engine in KINDS:
        with pytest.raises(InputError, match="computes on CPUs, not on 'cuda'"):
            forward_of(backbone, engine, "cuda")
    assert not list(tmp_path.iterdir())


def test_a_processor_without_bfloat16(backbone, split, monkeypatch, tmp_path):
    """OpenVINO would compute in float32 there and say nothing."""
    monkeypatch.setattr(engines, "bfloat16_here", lambda: False)
    with pytest.raises(
        InputError, match="engine 'openvino' computes in bfloat16 on processors that have its instructions"
    ):
        extract(backbone, split, tmp_path, engine="openvino", precision="bfloat16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "has"), [("fpu avx512_bf16 lm", True), ("fpu amx_bf16", True), ("fpu avx512_bf", False)]
)
def test_what_linux_says_of_a_processor(flags, has, monkeypatch):
    monkeypatch.setattr(translations.Path, "read_text", lambda _: f"model name\t: avx512_bf16\nflags\t\t: {flags}\n")
    assert bfloat16_here() is has


def test_a_trace_that_holds_for_one_shape_only(monkeypatch):
    backbone = backbone_of()
    real = backbone.model.forward_intermediates
    by_shape = lambda x, **options: real(x if len(x) == 2 else x / 2, **options)  # noqa: E731
    monkeypatch.setattr(backbone.model, "forward_intermediates", by_shape)
    with pytest.raises(RunError, match="cannot be translated for OpenVINO: its features are not those of torch"):
        forward_of(backbone, "openvino")


def test_nothing_is_reported_over_the_network(backbone, monkeypatch):
    """OpenVINO's own tools would."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    OpenVinoForward(backbone)(pixels(32, 1))


def test_ctrl_c_after_two_encoders():
    """OpenVINO's plugin once left a stack for signals that was no longer there, and Ctrl-C a segmentation fault."""
    code = """
import gc, os, signal, time, torch
from comodulation.data.features.translations import OpenVinoForward

class Encoder(torch.nn.Linear):
    called, input_names, open_dimensions = "a layer", ("values",), 1
    def example(self, number): return (torch.ones(number, self.in_features),)

signal.signal(signal.SIGINT, signal.default_int_handler)
first, second = OpenVinoForward(Encoder(3, 2)), OpenVinoForward(Encoder(3, 2))
del first; gc.collect()
del second; gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


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
    measured(monkeypatch, 1.0, onnx=2.0)
    assert faster_engine(backbone, 10_000, say=said.append) == "torch"
    assert len(said) == 1
    assert said[0].endswith("; torch computes")
