"""Killed at random, the last file torn, two commands at once: what is left is resumed to the same bits, or refused.

Sixty rounds, the last five with processes of their own, in about half an hour on a busy machine, with a table of what fell where:

    python -m pytest tests/runs/test_faults.py -m slow -s
"""

import itertools
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from comodulation.data.features import extraction as features
from comodulation.errors import InputError
from comodulation.files import json_bytes, torn, write_json
from comodulation.runs import fitting
from comodulation.studies.cells import CELLS, claim, study_config
from comodulation.studies.paper import Study
from comodulation.tensors import read_tensors, write_tensors
from comodulation.training import checkpoint as training
from support.command import GROUPED, SMALL, comodulate, comodulate_here, fit
from support.command import SHORT as EPOCHS_OF_RUN
from support.faults import (
    KINDS,
    Phase,
    Started,
    differences,
    forked,
    larger_data,
    measure,
    play_round,
    tear,
    tree,
)
from support.forked import Process
from support.studies import study_differences, study_words
from support.synthetic import picture

EPOCHS = 8
FIT = [
    Phase("extraction", "task "),
    Phase("pretraining", "features, test:"),
    Phase("fine-tuning", f"pretraining: epoch {EPOCHS}/{EPOCHS}"),
    Phase("reporting", f"comodulation: epoch {EPOCHS}/{EPOCHS}"),
]
STUDY = [Phase("searches", "features, test:"), Phase("cells", "core: 0 of 8"), Phase("study's report", "core 8/8")]


def fit_words(data, out, cache, *options):
    epochs = ["--epochs", EPOCHS, "--pretraining-epochs", EPOCHS]
    return [
        "fit",
        "--data",
        data,
        "--out",
        out,
        "--cache",
        cache,
        *GROUPED,
        *SMALL,
        *epochs,
        "--method",
        "comodulation",
        *options,
    ]


class Field:
    """What is killed: a command, its phases and their times, and what it leaves when nothing disturbs it."""

    def __init__(self, folder, data, launch, words, phases, differ, resume):
        self.folder, self.data, self.launch, self.words = folder, data, launch, words
        self.phases, self.differ, self.resume, self.number = phases, differ, resume, itertools.count()
        reference = words(data, folder / "out", folder / "cache")
        self.seconds = measure(launch, folder / "reference", reference, phases)

    def round(self, place, kind, generator):
        """A round in folders of its own. Returns it, and what differs from the reference: [] if it was survived."""
        own = self.folder / f"round {next(self.number)}"
        own.mkdir()
        out, cache = own / "out", own / "cache"
        first, again = self.words(self.data, out, cache), self.words(self.data, out, cache, *self.resume)
        played = play_round(
            self.launch, own / "streams", first, again, [out, cache], self.phases, self.seconds, place, kind, generator
        )
        if played.resumed.code:
            return played, [f"status {played.resumed.code}: {played.resumed.err.splitlines()[-1:]}"]
        found = self.differ(out, self.folder / "out") + sorted(tree(cache) ^ tree(self.folder / "cache"))
        if not found:
            shutil.rmtree(own)
        return played, found


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of features in the small training split, so that extraction can be stopped between them."""
    monkeypatch.setattr(features, "BLOCK", 64)


@pytest.fixture
def no_drawings(no_figures, no_study_figures):
    """Reports of runs and studies without their figures."""


# ---- killed at random ----


def test_killed_at_random(data, run, small_blocks, no_drawings, tmp_path):
    """Five rounds of a fit. ``run``: this process has loaded what its copies need."""
    field = Field(tmp_path, data, forked, fit_words, FIT, differences, ["--resume"])
    generator = np.random.default_rng(5)
    for place, kind in ((0, "SIGTERM"), (1, "zeroed"), (1, "cut"), (2, "SIGKILL"), (3, "SIGKILL")):
        played, found = field.round(place, kind, generator)
        assert found == [], played


@pytest.mark.slow
def test_killed_at_random_fifty_times_and_more(data, run, small_blocks, no_drawings, tmp_path, capfd):
    """Twice in every phase of a fit with every kind, once in every phase of a study; five times in real processes."""
    generator = np.random.default_rng(11)
    larger = larger_data(tmp_path / "larger", 600, 120)
    (tmp_path / "fit").mkdir(), (tmp_path / "study").mkdir(), (tmp_path / "started").mkdir()
    fits = Field(tmp_path / "fit", larger, forked, fit_words, FIT, differences, ["--resume"])
    study = Field(tmp_path / "study", data, forked, study_words, STUDY, study_differences, [])
    real = Field(tmp_path / "started", larger, Started, fit_words, FIT, differences, ["--resume"])
    plan = [(fits, place, kind) for place in range(len(FIT)) for kind in KINDS for _ in range(2)]
    plan += [(study, place, kind) for place in range(len(STUDY)) for kind in KINDS]
    plan += [(real, place, kind) for place, kind in zip((0, 1, 2, 3, 0), KINDS, strict=True)]
    lines, lost = [], []
    for field, place, kind in plan:
        played, found = field.round(place, kind, generator)
        how = "started" if field is real else "forked"
        lines.append(
            f"{played.phase:15s} fell in {played.reached:15s} {how:8s} {kind:8s} {played.torn:32s} "
            f"status {played.code:3d}  {found or 'the same bits'}"
        )
        with capfd.disabled():
            print(lines[-1], flush=True)
        lost += [lines[-1]] if found else []
    with capfd.disabled():
        for field in (fits, study, real):
            print({name: round(seconds, 2) for name, seconds in field.seconds.items()})
    assert not lost, "\n".join(lost)


# ---- moments that chance seldom finds ----


def killed_at(owner, name, chosen, call):
    """A call that ends in SIGKILL instead of the first call of a function that is ``chosen`` by its first argument."""

    def first():
        real = getattr(owner, name)

        def watched(path, *arguments, **options):
            if chosen(path):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(path, *arguments, **options)

        setattr(owner, name, watched)
        return call()

    return first


def killed_fit(data, place, owner, name, chosen):
    """A fit that ends so. Returns its run folder and cache."""
    place.mkdir()
    out, own = place / "run", place / "cache"
    process = Process(place / "killed", killed_at(owner, name, chosen, lambda: fit(data, out, own).status))
    assert process.wait(1800).code == -signal.SIGKILL
    return out, own


def resumed_alike(data, out, own, run, cache):
    """Resume a run, and check that it is what nothing disturbed has left, in its folder and in its cache."""
    outcome = fit(data, out, own, "--resume")
    assert outcome.status == 0, outcome.err
    assert differences(out, run) == []
    assert tree(own) <= tree(cache)


@pytest.mark.parametrize("folder", ["run", "cache"])
@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_torn_checkpoint_is_not_read(kind, folder, data, run, cache, no_figures, tmp_path):
    """Of pretraining (in the cache) and of fine-tuning (in the run folder), torn anywhere: training starts over."""
    moved = []

    def second(path):
        if path.name == "checkpoint.safetensors" and ("heads" in path.parts) == (folder == "cache"):
            moved.append(path)
        return len(moved) == 3

    out, own = killed_fit(data, tmp_path / "place", training, "write_tensors", second)
    generator = np.random.default_rng(3)
    torn_file = tear([out if folder == "run" else own / "heads"], kind, generator)
    assert torn_file.name == "checkpoint.safetensors"
    resumed_alike(data, out, own, run, cache)


def test_whatever_is_left_of_tensors_is_refused(tmp_path):
    """Every length that a power cut may leave of a file, and zeros behind every length: an error, or the whole content."""
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.arange(1.0, 9.0), "b": torch.tensor([[3, 0]], dtype=torch.int16)}  # its last bytes are zeros
    write_tensors(path, tensors, {"identity": "x"})
    content = path.read_bytes()
    for kept in range(len(content)):
        for behind in (b"", bytes(len(content) - kept)):
            path.write_bytes(content[:kept] + behind)
            if content[:kept] + behind == content:
                assert torch.equal(read_tensors(path)[0]["a"], tensors["a"])
                continue
            with pytest.raises(InputError):
                read_tensors(path)


def test_one_bit_of_a_tensor(tmp_path):
    """A bit that has turned is seen; tensors that other programs wrote, without a checksum, are read."""
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.arange(1.0, 9.0)})
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its content is not what was written"):
        read_tensors(path)
    save_file({"a": torch.ones(2)}, path)
    assert read_tensors(path)[1] == {}


def test_what_counts_as_torn(tmp_path):
    path, whole = tmp_path / "study.json", b'{"seed": 1}\n'
    for kept in range(len(whole) + 1):
        for left in (whole[:kept], whole[:kept] + bytes(len(whole) - kept)):
            path.write_bytes(left)
            assert torn(path, whole) == (left != whole)
    for other in (b'{"seed": 2', b"x", whole + b"\0", whole + b"x", bytes(len(whole) + 1)):
        path.write_bytes(other)
        assert not torn(path, whole), other


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_torn_configuration(kind, data, run, cache, no_figures, tmp_path):
    """A power cut when the run folder holds nothing else: the same command with --resume begins again."""
    out, own = killed_fit(data, tmp_path / "place", fitting, "extract", lambda backbone: True)
    assert tear([out], kind, np.random.default_rng(1)).name == "config.yaml"
    resumed_alike(data, out, own, run, cache)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_torn_metrics(kind, data, run, cache, no_figures, tmp_path):
    """They are written last: where they are torn, the run is not finished, and --resume finishes it."""
    shutil.copytree(run, tmp_path / "run"), shutil.copytree(cache, tmp_path / "cache")
    os.utime(tmp_path / "run" / "metrics.json")
    assert tear([tmp_path / "run"], kind, np.random.default_rng(1)).name == "metrics.json"
    resumed_alike(data, tmp_path / "run", tmp_path / "cache", run, cache)


@pytest.mark.parametrize("times", [1, 2])
def test_killed_before_the_checkpoint_goes(times, data, run, cache, no_figures, tmp_path):
    """In the cache after pretraining, in the run folder after the metrics: all is there, and a checkpoint too many."""
    removed = []

    def chosen(path):
        removed.extend([path] if path.name == "checkpoint.safetensors" else [])
        return len(removed) == times

    out, own = killed_fit(data, tmp_path / "place", pathlib.Path, "unlink", chosen)
    assert list((tmp_path / "place").rglob("checkpoint.safetensors")) != []
    resumed_alike(data, out, own, run, cache)


def test_a_study_killed_at_its_first_file(data, tmp_path):
    """Only a part of study.json, or a torn one: the same study begins in the folder; another one, and one that has begun, not."""
    study, other = (
        Study("cifar100", study_config("cifar100", str(data)), seeds=(0, 1), trials=trials) for trials in (2, 3)
    )
    whole = json_bytes(study.to_json())
    (tmp_path / ".study.json.123.partial").write_bytes(whole[:9])
    claim(study, tmp_path)
    for left in (b"", whole[:100], whole[:100] + bytes(50), whole):
        (tmp_path / "study.json").write_bytes(left)
        claim(study, tmp_path)
    with pytest.raises(InputError, match="another trials"):
        claim(other, tmp_path)
    (tmp_path / "study.json").write_bytes(whole[:100])
    (tmp_path / CELLS).mkdir()
    claim(study, tmp_path)
    (tmp_path / CELLS / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"study\.json cannot be read as JSON"):
        claim(study, tmp_path)


def test_a_study_begun_before_a_field_existed_goes_on(data, tmp_path):
    """What is missing has its default, wherever it is; any other value is another study."""
    study = Study("cifar100", study_config("cifar100", str(data)), seeds=(0, 1), trials=2)
    (tmp_path / CELLS).mkdir()
    (tmp_path / CELLS / "a.json").write_text("{}")
    written = study.to_json()
    for section, names in (("head", ("encoder_skip", "batch_norm", "depth")), ("controller", ("rank", "task_vectors"))):
        for name in names:
            del written["config"][section][name]
    del written["config"]["balance"]
    write_json(tmp_path / "study.json", written)
    claim(study, tmp_path)
    for change, named in (({"depth": 2}, "config.head.depth"), ({"dropout": 0.5}, "config.head.dropout")):
        head = {**written["config"]["head"], **change}
        write_json(tmp_path / "study.json", {**written, "config": {**written["config"], "head": head}})
        with pytest.raises(InputError, match=f"another {named}"):
            claim(study, tmp_path)
    head = {
        name: value for name, value in written["config"]["head"].items() if name != "start"
    }  # layers began at random then
    write_json(tmp_path / "study.json", {**written, "config": {**written["config"], "head": head}})
    with pytest.raises(InputError, match=r"another config\.head\.start"):
        claim(study, tmp_path)
    for broken in (None, [], {"head": 3}, {**written["config"], "colour": 1}):
        write_json(tmp_path / "study.json", {**written, "config": broken})
        with pytest.raises(InputError, match="another config"):
            claim(study, tmp_path)


# ---- two commands at once ----


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["new", "resumed"])
def test_two_fits_of_one_run_folder(resume, data, run, no_figures, tmp_path):
    """Begun at the same moment, three times: one does the work, the other is refused in a line with status 2.

    Unless it is told to go on and comes when all is done: then it has nothing to do.
    """
    for turn in range(3):
        place = tmp_path / f"{turn}"
        place.mkdir()
        words = fit_words(data, place / "run", place / "cache", *resume)
        words += ["--epochs", 3, "--pretraining-epochs", 3]  # as the run they are compared with
        ended = [process.wait(1800) for process in [forked(place / name, words) for name in "ab"]]
        first, second = sorted(ended, key=lambda one: one.code)
        if (first.code, second.code) != (0, 0) or not resume:
            assert (first.code, second.code) == (0, 2), ended
            assert second.err.count("\n") == 1, second.err
            assert "is in use by another process" in second.err or "already holds a run" in second.err
        assert differences(place / "run", run) == []
        assert [path for path in place.rglob("*.partial")] == []


@pytest.mark.slow
def test_two_studies_in_one_folder(data, run, no_drawings, tmp_path):
    """Begun at the same moment: one does the work, the other is refused, or comes when all is done; what is there is the same."""
    words = study_words(data, tmp_path / "study", tmp_path / "cache", "--trials", 0)
    ended = [process.wait(1800) for process in [forked(tmp_path / name, words) for name in "ab"]]
    first, second = sorted(ended, key=lambda one: one.code)
    if (first.code, second.code) != (0, 0):
        assert (first.code, second.code) == (0, 2), ended
        assert second.err == f"error: {tmp_path / 'study'} is in use by another process\n"
    alone = study_words(data, tmp_path / "alone", tmp_path / "cache", "--trials", 0)
    assert forked(tmp_path / "c", alone).wait(1800).code == 0
    assert study_differences(tmp_path / "study", tmp_path / "alone") == []


def test_readers_while_a_run_is_resumed(data, run, cache, no_figures, tmp_path):
    """`evaluate` and `predict`, again and again while files appear one by one: refused as unfinished, or the final answer."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "metrics.json").unlink()  # as a run that was killed when all else was there
    picture("red", 900).save(tmp_path / "red.png")
    asked = (["evaluate", "--data", data, "--cache", cache], ["predict", tmp_path / "red.png"])

    def ask(folder):
        return [comodulate(verb, folder, *rest, "--json") for verb, *rest in asked]

    final = [answer.json for answer in ask(run)]

    def slowly():
        def replace(source, target, _real=os.replace):
            time.sleep(0.4)
            _real(source, target)

        os.replace = replace
        return comodulate_here(
            "fit", "--data", data, "--out", out, "--cache", cache, *GROUPED, *SMALL, *EPOCHS_OF_RUN, "--resume"
        )

    process = Process(tmp_path / "process", slowly)
    refused = answered = 0
    ended = None
    while not answered and ended is None:
        ended = process.ended()
        for answer, expected in zip(ask(out), final, strict=True):
            if answer.status == 2:
                assert answer.line == f"error: the run in {out} is not finished; continue it with fit --resume"
                refused += 1
            else:
                assert answer.status == 0, answer.err
                assert answer.json | {"run": ""} == expected | {"run": ""}
                answered += 1
    ended = ended or process.wait(1800)
    assert ended.code == 0, ended.err
    assert answered > 0
    assert refused > 0
    assert [answer.json | {"run": ""} for answer in ask(out)] == [expected | {"run": ""} for expected in final]
