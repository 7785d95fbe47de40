"""Runs on vectors in place of maps, and at an image size that is found: fitted, continued, read again, exported, served."""

import json

import numpy as np
import pytest

from comodulation.app.server.service import Service
from comodulation.data import decode_image
from comodulation.data.features import BackboneSettings
from comodulation.errors import InputError
from comodulation.runs import Run, fit, make_config, read_config
from comodulation.runs.export import export_run
from comodulation.training import Silent
from support import command
from support.synthetic import picture, snapshot

pytestmark = pytest.mark.usefixtures("undrawn", "quick_onnx")


class Told(Silent):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def config(data, **backbone):
    """A small run on vectors of an image size that is to be found, unless told otherwise."""
    settings = {"name": "test_vit", "weights": "random", "image_size": None, "output": "vector", **backbone}
    return make_config({
        "data": str(data), "group": "coarse_label", "label": "fine_label", "method": "comodulation",
        "backbone": BackboneSettings(**settings),
        "head": {"encoder_channels": 8, "decoder_channels": 8, "hidden": 8}, "pretraining": {"epochs": 1, "learning_rate": 0.01},
        "tuning": {"epochs": 1, "learning_rate": 0.01},
    })  # fmt: skip


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """A run on vectors, the size of whose input was found, and what was said."""
    place, told = tmp_path_factory.mktemp("vectors"), Told()
    fit([config(data)], place / "run", place / "cache", progress=told)
    return place, told.lines


def test_the_size_is_found_and_kept(fitted, data):
    place, lines = fitted
    expected = "images are scaled to 128 px: they are less than half as large as the backbone's own 160 px"
    assert lines.count(expected) == 1
    stored = read_config(place / "run" / "config.yaml").backbone
    assert stored == BackboneSettings("test_vit", "random", 128, output="vector")
    # The finished run is continued by the same question, and by its answer; another size is another run.
    for size in (None, 128):
        again = fit([config(data, image_size=size)], place / "run", place / "cache", resume=True)
        assert again[0].metrics == Run.open(place / "run").metrics
    with pytest.raises(InputError, match=r"another backbone\.image_size \(128, now 96\)"):
        fit([config(data, image_size=96)], place / "run", place / "cache", resume=True)
    with pytest.raises(InputError, match=r"another backbone\.output \('?vector'?, now '?map'?\)"):
        fit([config(data, output="map")], place / "run", place / "cache", resume=True)


def test_predictions_exports_and_answers_agree(fitted, data, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    opened = Run.open(fitted[0] / "run")
    assert opened.backbone.feature_shape == (384, 1, 1)
    assert opened.evaluate(str(data), None, fitted[0] / "cache")["count"] == opened.metrics["test"]["count"]
    image = tmp_path / "yellow.png"
    picture("yellow", 77).save(image)
    (answer,) = opened.predict([image], [])
    about = export_run(opened, tmp_path / "run.onnx")
    assert about["image_size"] == 128
    session = onnxruntime.InferenceSession(str(tmp_path / "run.onnx"), providers=["CPUExecutionProvider"])
    pixels = opened.backbone.preprocess(decode_image(image, "picture"))[None].numpy()
    service = Service(opened)
    assert service.describe()["image_size"] == 128
    served = service.predict(service.prepare(picture("yellow", 77)), [])["tasks"]
    assert service.mechanism(service.prepare(picture("yellow", 77)), opened.family.tasks[0], [-1.0, 1.0], 4)
    for number, task in enumerate(opened.family.tasks):
        own = answer["tasks"][task]["probabilities"]
        given = session.run(None, {"images": pixels, "tasks": np.array([number])})[0][0]
        for name, value in own.items():
            assert float(given[about["answers"].index(name)]) == pytest.approx(value, abs=1e-4)
            assert served[task]["probabilities"][name] == pytest.approx(value, abs=1e-4)


def test_files_of_earlier_releases(run, tmp_path):
    """A configuration without the field is one of maps."""
    text = (run / "config.yaml").read_text()
    assert "  output: map\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("  output: map\n", ""))
    assert read_config(tmp_path / "config.yaml") == read_config(run / "config.yaml")


def test_the_engine_of_a_run(data, tmp_path):
    """Features by ONNX Runtime from the command line: fitted, evaluated from the same cache, answered with the same answers."""
    pytest.importorskip("onnxruntime")
    cache, out = tmp_path / "cache", tmp_path / "run"
    outcome = command.fit(data, out, cache, "--engine", "onnx")
    assert outcome.status == 0, outcome.err
    stored = [json.loads(path.read_text()) for path in cache.glob("features/*/identity.json")]
    assert [identity.get("engine") for identity in stored] == ["onnx", "onnx"]
    before = snapshot(cache)
    outcome = command.comodulate("evaluate", out, "--data", data, "--cache", cache, "--json")
    assert outcome.status == 0, outcome.err
    assert snapshot(cache) == before
    image = tmp_path / "yellow.png"
    picture("yellow", 77).save(image)
    by_torch, by_onnx, by_either = (
        command.comodulate("predict", out, image, "--json", "--engine", engine).json["images"][0]["tasks"]
        for engine in ("torch", "onnx", "auto")
    )
    assert by_either == by_torch
    for task, answer in by_torch.items():
        assert by_onnx[task]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-3)
    for verb in (
        ("fit", "--data", data, "--out", tmp_path / "new"),
        ("evaluate", out, "--data", data),
        ("predict", out, image),
    ):
        outcome = command.comodulate(*verb, "--engine", "onxx")
        assert outcome.status == 2
        assert "unknown engine 'onxx'; did you mean 'onnx'?" in outcome.line
