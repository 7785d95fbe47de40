"""Places: weights by a relative path, outputs inside the data, folders with things left out, text where paths are taken."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from comodulation import Run
from comodulation.runs.config import read_config
from support.command import SHORT, SMALL, comodulate, fit
from support.synthetic import encode, picture


def test_a_run_is_read_from_elsewhere(data, cache, tmp_path, monkeypatch, no_figures):
    """Its weights were given by a path relative to where the fit was started; --resume takes either path for the same."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "own.safetensors")
    monkeypatch.chdir(tmp_path)
    outcome = fit(data, "run", cache, "--weights", "own.safetensors")
    assert outcome.status == 0, outcome.err
    assert read_config(tmp_path / "run" / "config.yaml").backbone.weights == str(tmp_path / "own.safetensors")
    assert fit(data, "run", cache, "--weights", "own.safetensors", "--resume").status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    picture("red", 0).save("a.png")
    assert comodulate("predict", "../run", "a.png", "--json").json["images"][0]["tasks"]


def test_text_is_taken_where_paths_are(run, tmp_path):
    picture("red", 0).save(tmp_path / "a.png")
    opened = Run.open(str(run))
    path = tmp_path / "a.png"
    (by_text,), (by_path,) = opened.predict([str(path)], []), opened.predict([path], [])
    assert by_text == by_path


def test_a_run_inside_its_data_does_not_spoil_them(cache, tmp_path, no_figures):
    rows = [encode(picture(("red", "blue")[row % 2], row)) for row in range(80)]
    pq.write_table(pa.table({"image": rows, "red": [1 - row % 2 for row in range(80)]}), tmp_path / "data.parquet")
    options = ["--data", tmp_path, "--cache", tmp_path / "cache", "--task", "red", *SMALL, *SHORT]
    for name in ("run", "second"):
        outcome = comodulate("fit", *options, "--out", tmp_path / name)
        assert outcome.status == 0, outcome.err
    outcome = comodulate(
        "evaluate", tmp_path / "run", "--data", tmp_path, "--cache", tmp_path / "cache", "--split", "train", "--json"
    )
    assert outcome.json["count"] == 80


@pytest.mark.parametrize("test", ["test/{}.png", "test/red/{}.png"])
def test_what_is_left_out_is_said(test, cache, tmp_path, no_figures):
    """An unsorted test split leaves metrics of the validation images alone, and a line that says why."""
    for row in range(60):
        kind = ("red", "blue")[row % 2]
        for path in (f"data/train/{kind}/{row}.png", f"data/{test.format(row)}"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            picture(kind, row).save(tmp_path / path)
    outcome = comodulate(
        "fit", "--data", tmp_path / "data", "--out", tmp_path / "run", "--cache", cache, *SMALL, *SHORT
    )
    assert outcome.status == 0, outcome.err
    said = "warning: left out: 60 images of split 'test'" in outcome.err
    assert said == (test == "test/{}.png")
    assert ("validation split" in outcome.out) == said
