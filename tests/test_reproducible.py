"""Equal seed, equal result: whatever stands beside an image in its batch, however many processes and threads.

Which bits are equal: everything where the same batches are computed on the same number of threads, whatever the process (a study on
one device or on two); the noise, always. Equal up to rounding: predictions in batches of other sizes or composition, because
matrix products of other sizes add in another order (``ROUNDING`` in log-probability, and a tenth of it relative to one that is
far from 0); trained couplings and gains under
another number of threads (``TRAINED``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from comodulation.mathematics import modulator_noise
from comodulation.tasks import Examples
from comodulation.tensors import read_tensors
from comodulation.training import Inputs, predict, tuning
from support.command import GROUPED, SHORT, SMALL, comodulate, comodulate_here
from support.faults import differences
from support.forked import Process
from support.methods import CASES, CLASSES, make, train
from support.remembered import forget

# Differences of log-probabilities between batches of any size. Half a unit in the last place of a float32 sum is 6e-8 of its
# terms; a logit here goes through five layers of up to 72 terms of size about 1.
ROUNDING = 1e-5
TRAINED = 1e-4  # of couplings and gains, after three epochs, each beginning where rounding left the one before


class Rows:
    """Features of a split in memory, as ``tuning.FeatureRows``."""

    def __init__(self, number: int) -> None:
        self.values = torch.randn(number, 5, 2, 2, generator=torch.Generator().manual_seed(4))
        self.key, self.shape = "rows", (5, 2, 2)

    def rows(self, rows):
        return self.values[rows]


def every_pair(family, number):
    """Every image under every task, as examples."""
    image, task = torch.meshgrid(torch.arange(number), torch.arange(family.num_tasks), indexing="ij")
    if family.kind == "binary":
        target = image % 2
    else:
        first = torch.tensor([group[0] for group in family.members])
        target = first[task]
    return Examples(image.flatten(), task.flatten(), target.flatten())


def fitted(name, family, **options):
    method, number = make(name, family, **options), 33
    rows, examples = Rows(number), every_pair(family, number)
    given = method.prepare(rows.values[examples.image]).detach()
    train(method, given, examples.task, examples.target)
    return method, Inputs(method, rows, torch.arange(number)), examples


# ---- batches ----


@pytest.mark.parametrize(("name", "family"), CASES)
def test_predictions_do_not_depend_on_the_batch(name, family, monkeypatch):
    """Batches of 1, 2, 7, 32 and all; the pairs in another order; one task's alone: the same up to rounding."""
    method, inputs, examples = fitted(name, family)
    whole = predict(method, inputs, examples).log_probabilities
    assert torch.equal(predict(method, inputs, examples).log_probabilities, whole)
    for size in (1, 2, 7, 32):
        monkeypatch.setattr(tuning, "EVALUATION_BATCH", size)
        again = predict(method, inputs, examples).log_probabilities
        assert_close(again, whole)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(size))
        assert_close(predict(method, inputs, examples.take(order)).log_probabilities, whole[order])
    for task in range(family.num_tasks):
        own = (examples.task == task).nonzero()[:, 0]
        assert_close(predict(method, inputs, examples.take(own)).log_probabilities, whole[own])


def assert_close(found, expected):
    """Log-probabilities equal up to ``ROUNDING``; what is impossible is impossible in both."""
    torch.testing.assert_close(found, expected, rtol=ROUNDING / 10, atol=ROUNDING)


@pytest.mark.parametrize("encoder", ["gain", "stochastic"])
@pytest.mark.parametrize("level", ["task", "input"])
@pytest.mark.parametrize("estimator", ["derivative", "quadrature", "monte_carlo"])
def test_neither_does_comodulation_with_noise_and_other_estimators(estimator, level, encoder, monkeypatch):
    """The modulator's samples belong to image and task, so that sampled predictions too are the same in any company."""
    options = {"estimator": estimator, "level": level, "encoder": encoder, "training_encoder": "gain", "num_samples": 6}
    method, inputs, examples = fitted("comodulation", CLASSES, **options)
    whole = predict(method, inputs, examples).log_probabilities
    for size in (1, 7):
        monkeypatch.setattr(tuning, "EVALUATION_BATCH", size)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(size))
        assert_close(predict(method, inputs, examples.take(order)).log_probabilities, whole[order])


def test_noise_keeps_its_bits_in_any_batch_and_on_any_number_of_threads():
    """Large enough to be shared out among threads; float64 all the way to the last rounding, no sums."""
    images, tasks = torch.arange(40_000) % 5000, torch.arange(40_000) % 20
    whole = modulator_noise(images, tasks, 6, seed=9, layer=1, step=2)
    order = torch.randperm(40_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(modulator_noise(images[order], tasks[order], 6, seed=9, layer=1, step=2), whole[:, order])
    parts = [
        modulator_noise(i, t, 6, seed=9, layer=1, step=2)
        for i, t in zip(images.split(999), tasks.split(999), strict=True)
    ]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_images_are_predicted_alone_as_together(run, data, tmp_path):
    """`comodulate predict` of eight image files at once, and of each."""
    from support.synthetic import CLASSES as COLOURS
    from support.synthetic import picture

    files = []
    for number, name in enumerate(COLOURS):
        files.append(tmp_path / f"{name}.png")
        picture(name, 500 + number).save(files[-1])
    together = comodulate("predict", run, *files, "--json").json["images"]
    turned = comodulate("predict", run, *reversed(files), "--json").json["images"][::-1]
    for place, file in enumerate(files):
        (alone,) = comodulate("predict", run, file, "--json").json["images"]
        for other in (alone, turned[place]):
            assert other["image"] == together[place]["image"]
            for task, answer in together[place]["tasks"].items():
                probabilities = other["tasks"][task]["probabilities"]
                assert probabilities == pytest.approx(answer["probabilities"], rel=ROUNDING, abs=1e-12)


# ---- processes and threads ----


def words(data, place):
    return ["fit", "--data", data, "--out", place / "run", "--cache", place / "cache", *GROUPED, *SMALL, *SHORT]


def fit_on(threads, data, place):
    """A fit in a process of its own with a number of threads; not a copy of this one, whose threads it would not have."""
    command = [sys.executable, "-m", "comodulation", *map(str, words(data, place))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return place / "run"


@pytest.mark.usefixtures("no_figures")
def test_equal_seeds_make_equal_files(data, run, tmp_path):
    """Another process, another cache, another folder: every bit."""
    again = tmp_path / "again"
    again.mkdir()

    def anew():
        forget()
        return comodulate_here(*words(data, again))

    ended = Process(again / "process", anew).wait(1800)
    assert ended.code == 0, ended.err
    assert differences(again / "run", run) == []


@pytest.mark.slow
def test_threads_change_no_more_than_rounding(data, run, tmp_path):
    """One thread or two, from the images on: couplings and gains to ``TRAINED``, metrics to 0.001; two threads twice: every bit."""
    two, twice = fit_on(2, data, tmp_path / "two"), fit_on(2, data, tmp_path / "twice")
    assert differences(two, twice) == []
    one, other = read_tensors(run / "adapter.safetensors")[0], read_tensors(two / "adapter.safetensors")[0]
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=TRAINED, atol=TRAINED)
    numbers, others = (json.loads((folder / "metrics.json").read_text())["test"] for folder in (run, two))
    for metric in ("accuracy", "nll", "brier", "ece"):
        assert others[metric] == pytest.approx(numbers[metric], abs=1e-3)


@pytest.mark.slow
def test_devices_change_no_bit_of_a_study(data, run, tmp_path):
    """A study on one device and on two, a thread each: trials, scores, gains and numbers."""
    from support.studies import study_differences, study_words

    for devices in (1, 2):
        words = study_words(data, tmp_path / f"{devices}", tmp_path / "cache", "--devices", devices)
        ended = comodulate(*words)
        assert ended.status == 0, ended.err
    assert study_differences(tmp_path / "1", tmp_path / "2") == []
