"""Bad run folders, disks, adapters, tasks and images: one line, status 2, and nothing written."""

import json
import pickle
import shutil

import datasets
import pytest

from comodulation.tensors import read_tensors, write_tensors
from support.command import comodulate, fit
from support.synthetic import picture, write

# ---- run folders ----


def test_out_folders_that_cannot_be(data, tmp_path, refused):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("kept")
    refused(lambda out, cache: fit(data, tmp_path / "file", cache), "file is a file, expected a folder")
    refused(lambda out, cache: fit(data, tmp_path / "file" / "run", cache), "cannot write to .*Not a directory")
    refused(
        lambda out, cache: fit(data, tmp_path / "other", cache), "is not empty and not a run folder; choose another"
    )
    refused(lambda out, cache: fit(data, "/proc/nowhere/run", cache), "cannot write to /proc/nowhere/run: ")
    refused(lambda out, cache: fit(data, tmp_path / ("x" * 300), cache), "cannot write to .*File name too long")


@pytest.mark.parametrize("error", ["Read-only file system", "No space left on device"])
def test_a_disk_that_cannot_be_written_to(error, data, refused, monkeypatch):
    """At the start that is bad input. (Tests may run as root, whom permissions do not bind; so the system call fails.)"""
    import os

    def mkdir(*arguments, **options):
        raise OSError(30 if error.startswith("Read") else 28, error)

    monkeypatch.setattr(os, "mkdir", mkdir)
    refused(lambda out, cache: fit(data, out, cache), f"cannot write to .*: {error}")


def test_a_cache_that_cannot_be_written_to(data, run, tmp_path, refused):
    (tmp_path / "file").write_text("")
    broken = tmp_path / "file" / "cache"
    refused(lambda out, cache: fit(data, out, broken), "cannot write to .*cache: Not a directory")
    refused(
        lambda out, cache: comodulate("evaluate", run, "--data", data, "--cache", broken),
        "cannot write to .*cache: Not a directory",
    )


def test_run_folders_that_are_taken(data, run, tmp_path, refused):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    refused(lambda out, cache: fit(data, own, cache), "already holds a run; --resume continues it, another --out")
    refused(
        lambda out, cache: fit(data, own, cache, "--resume", "--image-size", 48),
        r"holds a run with another backbone\.image_size \(32, now 48\); choose another --out",
    )
    refused(
        lambda out, cache: fit(data, own, cache, "--resume", "--method", "attention"),
        r"holds a run with another method \('comodulation', now 'attention'\)",
    )
    two = ["--method", "base", "--method", "attention"]
    refused(lambda out, cache: fit(data, own, cache, *two), "is the run folder of one method; choose another --out")
    # The second of two methods is refused: the first, which could be fitted, leaves nothing either.
    (tmp_path / "two" / "attention").mkdir(parents=True)
    (tmp_path / "two" / "attention" / "notes.txt").write_text("kept")
    refused(lambda out, cache: fit(data, tmp_path / "two", cache, *two), "attention is not empty and not a run folder")
    (own / "config.yaml").write_text("method: [")
    refused(lambda out, cache: fit(data, own, cache, "--resume"), r"config\.yaml cannot be read as YAML")


# ---- evaluate and predict ----


@pytest.fixture
def own(run, tmp_path):
    """A copy of the finished run, to be damaged."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def tell(run, **values):
    """Change metrics.json."""
    path = run / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


RUNS = {
    "not a run": (lambda run: (run / "config.yaml").unlink(), r"is not a run folder: it has no config\.yaml"),
    "gone": (shutil.rmtree, r"is not a run folder: it has no config\.yaml"),
    "not finished": (lambda run: (run / "metrics.json").unlink(), "is not finished; continue it with fit --resume"),
    "other image size": (
        lambda run: edit(run / "config.yaml", "image_size: 32", "image_size: 64"),
        "another backbone: it has",
    ),
    "other layer": (
        lambda run: edit(run / "config.yaml", "layer: -1", "layer: -2"),
        "the layers were trained on another one",
    ),
    "other backbone": (
        lambda run: edit(run / "config.yaml", "test_resnet", "test_efficientnet"),
        "the layers were trained on another one",
    ),
    "no backbone": (
        lambda run: edit(run / "config.yaml", "test_resnet", "test_resnett"),
        r"did you mean 'test_resnet'\?",
    ),
    "other method": (
        lambda run: edit(run / "config.yaml", "method: comodulation", "method: attention"),
        "another method",
    ),
    "other sigma": (
        lambda run: edit(run / "config.yaml", "std: 0.3", "std: 0.5"),
        r"another modulation\.std: it has 0\.3",
    ),
    "other variant": (lambda run: edit(run / "config.yaml", "residual: true", "residual: false"), "another residual"),
    "configuration cut": (
        lambda run: (run / "config.yaml").write_text("data: ["),
        r"config\.yaml cannot be read as YAML",
    ),
    "configuration empty": (lambda run: (run / "config.yaml").write_text(""), r"config\.yaml is not a configuration"),
    "unknown setting": (lambda run: edit(run / "config.yaml", "readout:", "readuot:"), r"did you mean 'readout'\?"),
    "adapter cut": (
        lambda run: cut(run / "adapter.safetensors"),
        r"adapter\.safetensors is not a readable safetensors",
    ),
    "adapter gone": (lambda run: (run / "adapter.safetensors").unlink(), r"no such file: .*adapter\.safetensors"),
    "adapter pickled": (
        lambda run: (run / "adapter.safetensors").write_bytes(pickle.dumps([1])),
        r"adapter\.safetensors is not a readable safetensors file",
    ),
    "adapter of anything": (
        lambda run: shutil.copy(run / "head.safetensors", run / "adapter.safetensors"),
        "is not an adapter: its header names no tasks",
    ),
    "metrics of nothing": (
        lambda run: tell(run, test=None),
        r"metrics\.json is damaged: test: expected metrics, or no such key \(found: None\)",
    ),
    "added tasks of nothing": (
        lambda run: tell(run, added=[{"tasks": ["a"]}]),
        r"metrics\.json is damaged: added\.0\.validation: Field required",
    ),
    "head cut": (lambda run: cut(run / "head.safetensors"), r"head\.safetensors is not a readable safetensors file"),
    "head gone": (lambda run: (run / "head.safetensors").unlink(), r"no such file: .*head\.safetensors"),
    "head of anything": (
        lambda run: shutil.copy(run / "adapter.safetensors", run / "head.safetensors"),
        r"head\.safetensors of this configuration",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_cannot_be_loaded(name, own, data, tmp_path, refused):
    """By evaluate as by predict, with the same words."""
    damage, message = RUNS[name]
    damage(own)
    picture("red", 0).save(tmp_path / "red.png")
    refused(lambda out, cache: comodulate("evaluate", own, "--data", data, "--cache", cache), message)
    refused(lambda out, cache: comodulate("predict", own, tmp_path / "red.png"), message)


def test_a_head_with_a_flipped_bit(own, data, refused):
    def evaluate(out, cache):
        return comodulate("evaluate", own, "--data", data, "--cache", cache)

    content = bytearray((own / "head.safetensors").read_bytes())
    content[-2] ^= 1
    (own / "head.safetensors").write_bytes(bytes(content))
    refused(evaluate, "is damaged: its content is not what was written")


def test_another_head(own, data, refused):
    """The adapter belongs to the exact layers it was learned on."""
    path = own / "head.safetensors"
    tensors, metadata = read_tensors(path)
    tensors[next(iter(tensors))].view(-1)[0] += 1e-6
    write_tensors(path, tensors, metadata)
    refused(lambda out, cache: comodulate("evaluate", own, "--data", data, "--cache", cache), "belongs to another head")


def test_data_that_does_not_fit_the_run(run, data, tmp_path, refused):
    def evaluate(folder, *options):
        return lambda out, cache: comodulate("evaluate", run, "--data", folder, "--cache", cache, *options)

    refused(evaluate(data, "--split", "valid"), r"unknown split of .* 'valid'; known: ")
    refused(evaluate(data, "--seed", -1), "seed -1 is out of range, expected 0 to 4294967295")
    refused(evaluate(tmp_path / "nowhere"), "no such data folder")

    def rename(table, features):
        table["fine"], features["fine"] = table.pop("fine_label"), features.pop("fine_label")

    renamed = write(tmp_path / "renamed", rename, splits=("test",), changed="test")
    refused(evaluate(renamed), r"unknown column 'fine_label'; did you mean 'fine'\?|unknown column 'fine_label'")

    def other(table, features):
        features["fine_label"] = datasets.ClassLabel(names=["red", "pink", *"abcdef"])

    others = write(tmp_path / "others", other, splits=("test",), changed="test")
    refused(evaluate(others), r"column 'fine_label', row 1: label 'pink' is out of range, expected one of the 8 known")


def test_images_and_tasks_that_do_not_exist(run, tmp_path, refused):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture("red", 0).save(good)
    bad.write_bytes(good.read_bytes()[:200])

    def predict(*arguments):
        return lambda out, cache: comodulate("predict", run, *arguments)

    refused(predict(good, tmp_path / "nowhere.png"), r"no such image: .*nowhere\.png")
    refused(predict(tmp_path / "place"), "holds no images; expected files that end with")
    refused(predict(bad), r"unreadable image: .*bad\.png: image file is truncated")
    refused(predict(bad, bad), r"unreadable image: .*bad\.png: image file is truncated \(and 1 more\)")
    refused(predict(good, "--task", "wram"), r"unknown task 'wram'; did you mean 'warm'\? known: warm, cool, grey")
    refused(predict(good, "--seed", 2**32), "seed 4294967296 is out of range")
