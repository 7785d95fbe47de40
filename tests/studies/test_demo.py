"""The demo's scenes, its statement, and one small run of the real thing."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from comodulation.data.sets import PARITY, digit_scenes, load_digits, patches, split_digits
from comodulation.errors import InputError
from comodulation.evaluation import paired_difference
from comodulation.studies import demo


def test_scenes_hold_the_digit_asked_for_and_one_of_the_other_parity():
    digits = load_digits()
    scenes = digit_scenes(digits, 400, 3, distractor=True)
    single = digit_scenes(digits, 400, 3, distractor=False)
    task, target = scenes.examples.task, scenes.examples.target
    assert torch.equal(target % 2, task)
    assert torch.equal(single.examples.target, target)
    # Where the distractor is missing, one side of 4 pixels is empty; the digit asked for stands left and right equally.
    left = single.images[:, 0, :, 8:].sum((1, 2)) == 0
    right = single.images[:, 0, :, :4].sum((1, 2)) == 0
    assert (left ^ right).all()
    assert 0.4 < float(left.float().mean()) < 0.6
    assert (scenes.images >= single.images).all()
    assert (scenes.images.sum((1, 2, 3)) > single.images.sum((1, 2, 3))).all()
    # Every class comes up about equally often in either role, so that no prior over classes helps.
    counts = np.bincount(target.numpy(), minlength=10)
    assert counts.min() > 20


def test_split_is_disjoint_and_complete():
    parts = split_digits(load_digits(), demo.SHARES, 0)
    assert sum(len(part.labels) for part in parts) == 1797
    images = torch.cat([part.images.flatten(1) for part in parts])
    assert len(images.unique(dim=0)) == len(load_digits().images.flatten(1).unique(dim=0))


def test_patches_are_the_pixels():
    scenes = digit_scenes(load_digits(), 3, 0, distractor=True)
    features = patches(scenes.images)
    assert features.shape == (3, 16, 4, 6)
    # Patch (1, 2) starts at pixel (2 * 1 - 1, 2 * 2 - 1).
    torch.testing.assert_close(features[:, :, 1, 2], scenes.images[:, 0, 1:5, 3:7].flatten(1))


def test_verdict_says_what_the_intervals_say():
    def cells(shift):
        rows = []
        for seed in range(5):
            jitter = 0.001 * (seed % 2)
            for name in demo.COMPARED:
                value = 0.7 + (shift + jitter if name == "comodulation" else 0.0)
                rows.append(
                    {"seed": seed, "method": name, "accuracy": value, "nll": 1 - value, "brier": 0.1, "ece": 0.1}
                )
        return rows

    better, same, worse = (demo.verdict(cells(shift)) for shift in (0.1, -0.0005, -0.1))
    assert "Routing matters here" in better
    assert "accuracy is better. Against attention" in better
    assert "accuracy is better, NLL is better, ECE cannot be told apart" in better
    assert "does not show" in same
    assert "accuracy cannot be told apart" in same
    assert "accuracy is worse, NLL is worse" in worse
    # Six rivals' accuracy and two other metrics: what one comparison alone would decide, eight together do not.
    alone = paired_difference([0.0006 + 0.001 * (seed % 2) for seed in range(5)], [0.0] * 5)
    assert alone.decided
    assert "accuracy cannot be told apart, NLL cannot be told apart" in demo.verdict(cells(0.0006))
    # The interval's end at 0, on either side of it: said, and no verdict.
    critical = stats.t.isf(0.025 / 8, 4) * alone.sd / math.sqrt(5)
    for end in (-0.05, 0.05):
        text = demo.verdict(cells(critical * (1 + end) - 0.0004))
        assert "accuracy is at the edge, NLL is at the edge" in text
        assert "does not show" in text


def test_what_is_printed_does_not_hang_on_the_number_of_threads(monkeypatch):
    """Sums in another order change a last bit, and training in single precision makes percents of it."""
    monkeypatch.setattr(
        demo, "COUNTS", {"pretraining": 256, "pretraining_validation": 64, "tuning": 128, "validation": 64, "test": 200}
    )
    monkeypatch.setattr(demo, "COMPARED", ("base", "comodulation"))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append({name: values for name, (_, values) in demo.fit_seed(0).items()})
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for name, values in other.items():
            assert values == pytest.approx(found[0][name], abs=1e-6)


def test_small_run(tmp_path, monkeypatch):
    """Two seeds with little data: files are written, numbers agree with one another, a second run replaces the first. A seed fitted
    again gives the same numbers."""
    monkeypatch.setattr(
        demo, "COUNTS", {"pretraining": 256, "pretraining_validation": 64, "tuning": 128, "validation": 64, "test": 100}
    )
    real, fitted = demo.fit_seed, {}
    monkeypatch.setattr(demo, "fit_seed", lambda seed: fitted.setdefault(seed, real(seed)))
    result = demo.run_demo(tmp_path / "demo", seeds=2)
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["cells"] == result["cells"]
    assert {cell["method"] for cell in result["cells"]} == set(demo.COMPARED)
    assert len(result["cells"]) == 2 * len(demo.COMPARED)
    text = demo.describe(result)
    assert result["verdict"] == demo.verdict(result["cells"])
    assert {d["family"] for judged in result["judged"].values() for d in judged.values()} == {9}
    assert all(name in text for name in demo.COMPARED)
    assert (tmp_path / "demo" / "gains.svg").read_text().startswith("<svg")
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "results.json", "cells.csv", "gains.svg", "head.safetensors", "adapter.safetensors"
    }  # fmt: skip
    with monkeypatch.context() as fewer:
        fewer.setattr(demo, "COMPARED", ("base", "comodulation"))
        again = {name: values for name, (_, values) in real(0).items()}
    assert again == {name: values for name, (_, values) in fitted[0].items() if name in again}
    written = (tmp_path / "demo" / "adapter.safetensors").read_bytes()
    monkeypatch.setattr(demo, "fit_seed", fitted.get)
    (tmp_path / "demo" / "cells.csv").write_text("old")
    again = demo.run_demo(tmp_path / "demo", seeds=2)
    assert again["cells"] == result["cells"]
    assert (tmp_path / "demo" / "cells.csv").read_text() != "old"
    assert (tmp_path / "demo" / "adapter.safetensors").read_bytes() == written
    learned = {cell["method"]: cell["learnable_parameters"] for cell in result["cells"]}
    assert learned["attention"] == learned["comodulation"] == PARITY.num_tasks * 64


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="at least 2"):
        demo.run_demo(tmp_path / "d", seeds=1)
    with pytest.raises(InputError, match="out of range"):
        demo.run_demo(tmp_path / "d", first_seed=-1)
    assert not (tmp_path / "d").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not a demo's folder"):
        demo.run_demo(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_interrupted_demo_can_be_run_again(tmp_path, monkeypatch):
    """Whatever of its files are there by then, and the partial one of a process that was killed."""
    out = tmp_path / "demo"

    def interrupt(seed, rates=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "fit_seed", interrupt)
    for left in ((), ("gains.svg", "head.safetensors"), (".adapter.safetensors.12.partial",)):
        for name in left:
            (out / name).write_text("")
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(str(out))
    assert not list(out.glob("*.partial")) + list(out.glob(".*.partial"))


@pytest.mark.parametrize(
    "files",
    [
        {"results.json": json.dumps({"study": "cifar100", "cells": []}), "cells.csv": ""},
        {"results.json": "{", "cells.csv": ""},
        {"cells.csv": "seed,method\n0,base\n"},
        {"head.safetensors": "x", "adapter.safetensors": "x"},
        {"cells.csv": "", "notes.txt": "x"},
    ],
)
def test_what_others_wrote_is_not_overwritten(files, tmp_path, monkeypatch):
    """A study's folder has a results.json and a cells.csv, too."""
    monkeypatch.setattr(demo, "fit_seed", lambda *arguments: pytest.fail("it began"))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="not empty and not a demo's folder"):
        demo.run_demo(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
