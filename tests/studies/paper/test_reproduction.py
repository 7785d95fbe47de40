"""A study from one command: what it leaves, that nothing is repeated, and that it survives being killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from comodulation.data.sets import cifar100_classes
from comodulation.studies.cells import CELLS, SEARCH, engine, read_trials, searches
from comodulation.studies.cells.folder import LOCK
from comodulation.studies.paper import reproduction as module
from comodulation.studies.paper.illustration import read_illustration
from comodulation.studies.paper.plan import PARTS
from comodulation.studies.paper.reproduction import ILLUSTRATION, STUDY
from support import celeba_layout
from support.command import comodulate, comodulate_here
from support.forked import Process
from support.small_study import CORE, SHORT, SMALL, reproduce, small_study
from support.synthetic import encode, snapshot

NARROW = [*CORE, "--method", "attention"]


@pytest.fixture
def copy(tmp_path):
    """A copy of the small study that may be changed; times of files as they were."""
    shutil.copytree(small_study().out, tmp_path / "study")
    return tmp_path / "study"


def again(out, *options):
    small = small_study()
    return reproduce("cifar100", small.data, out, small.cache, *options)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (*(folder / CELLS).iterdir(), *(folder / SEARCH).iterdir())}


def without_seconds(path):
    """The lines of a cells.csv but for their last column, as bytes."""
    return [line.rpartition(b",")[0] for line in path.read_bytes().splitlines()]


# ---- what is there ----


def test_every_cell_is_there():
    """Three files a cell (two without gains), as many trials as asked for, the settings of each search."""
    small = small_study()
    planned = small.study.cells
    assert len(planned) > 100
    names = {path.name for path in (small.out / CELLS).iterdir()}
    assert {f"{cell.key}.{kind}" for cell in planned for kind in ("json", "scores.safetensors")} <= names
    assert len([name for name in names if name.endswith(".json")]) == len(planned)
    assert not [name for name in os.listdir(small.out) if name.endswith(".partial")]
    for cell in small.study.plan().searches():
        assert len(read_trials(module.search_path(small.out, cell))) == 2
    settings = json.loads((small.out / "settings.json").read_text())
    assert len(settings) == len(small.study.plan().searches())
    for result in small.results:
        source = small.study.plan().searched_for(result.cell)
        assert result.numbers["settings"] == settings.get(module.search_path(small.out, source).stem, {})
    for name in ("report.html", "cells.csv", "comparisons.csv", "calibration.csv", "results.json", "figures"):
        assert (small.out / name).exists()


def test_the_json_on_standard_output():
    """One object that any reader reads, the same as in results.json and the text for the terminal."""

    def refuse(constant):
        raise AssertionError(constant)

    small = small_study()
    printed = json.loads(small.outcome.out, parse_constant=refuse)
    text = printed.pop("text")
    assert small.outcome.out.count("\n") == 1
    assert printed == json.loads((small.out / "results.json").read_text(), parse_constant=refuse)
    assert printed["cells"] == len(small.results)
    assert [v["claim"].split()[0] for v in printed["verdicts"]] == [
        "C1",
        "C2",
        "C2",
        "C2",
        "C2",
        "C3",
        "C4",
        "C5",
        "C5",
    ]
    assert (printed["primary"]["a"], printed["primary"]["b"]) == ("comodulation", "attention")
    assert printed["primary"]["n"] == 2
    assert printed["study"]["seeds"] == [0, 1]
    for verdict in printed["verdicts"]:
        assert f"{verdict['claim']}: {verdict['verdict']}" in text
    for diagnosis in printed["diagnoses"]:
        line = f"failure signature: {diagnosis['name']} ({diagnosis['variant']}): {diagnosis['evidence']}"
        assert (line in text) == diagnosis["found"]


def test_gains_that_do_not_move_are_named(monkeypatch, no_study_figures, tmp_path):
    """A search range of vanishing beta and rates: the signature is in results.json and on the terminal."""
    real = searches.space

    def space(row):
        return real(row) | ({"beta": ("linear", 0.0, 1e-9)} if row.method == "comodulation" else {})

    monkeypatch.setattr(searches, "space", space)
    outcome = again(tmp_path / "study", *NARROW, "--json")
    found = [(d["name"], d["variant"]) for d in outcome.json["diagnoses"] if d["found"]]
    assert ("gains that do not move from 1", "residual") in found
    assert ("gains that do not move from 1", "base") in found
    assert (
        "failure signature: gains that do not move from 1 (residual): mean |ln gain| of the decoder 0.000 nats"
        in (outcome.json["text"])
    )
    healthy = small_study().outcome.json["diagnoses"]
    assert not any(d["found"] for d in healthy if d["name"].startswith("gains that") and d["variant"] == "residual")


def test_the_illustration(copy, no_study_figures):
    """Written once, with all that the figures need; it is the cell that was trained."""
    small = small_study()
    arrays, names = read_illustration(copy / ILLUSTRATION)
    assert names["kind"] == "classes"
    assert len(names["tasks"]) == 3
    assert arrays["image"].shape == (32, 32, 3)
    assert arrays["coupling"].shape == arrays["encoder_dprime"].shape == (3, 16)
    assert arrays["trace"].shape == (60, 16)
    assert arrays["before"].shape == arrays["after"].shape == (8,)
    assert arrays["before"].sum() == pytest.approx(1, abs=1e-5)
    assert arrays["after"].sum() == pytest.approx(1, abs=1e-5)
    from comodulation.studies.cells import read_gains

    gains = read_gains(small.out / CELLS, small.cell("residual", "open", "comodulation", 0))
    for name, gain in gains.items():
        assert np.array_equal(arrays[name], gain), name
    assert {"noise.svg", "one_image.svg", "informativeness.svg", "gain_map.svg"} <= set(os.listdir(copy / "figures"))
    before = (copy / ILLUSTRATION).stat().st_mtime_ns
    (copy / ILLUSTRATION).unlink()
    assert read_illustration(copy / ILLUSTRATION) is None
    assert again(copy).status == 0
    written = (copy / ILLUSTRATION).stat().st_mtime_ns
    assert written > before
    assert (copy / ILLUSTRATION).read_bytes() == (small.out / ILLUSTRATION).read_bytes()


# ---- again ----


def test_nothing_is_repeated(copy, no_study_figures):
    before, tables = times(copy), [(copy / name).read_bytes() for name in ("cells.csv", "comparisons.csv")]
    illustration = (copy / ILLUSTRATION).stat().st_mtime_ns
    for folder in (copy, copy / CELLS, copy / SEARCH, copy / "figures"):
        (folder / ".x.json.123.partial").touch()  # of a process that was killed while writing
    outcome = again(copy)
    assert outcome.status == 0, outcome.err
    assert times(copy) == before
    assert not list(copy.rglob("*.partial"))
    assert (copy / ILLUSTRATION).stat().st_mtime_ns == illustration
    assert [(copy / name).read_bytes() for name in ("cells.csv", "comparisons.csv")] == tables
    assert "core: 32 of 32 cells are there" in outcome.err
    # A cell that is lost is trained again, to the same numbers, and nothing else is.
    lost = small_study().cell("base", "open", "ia3", 1).cell
    scores = (copy / CELLS / f"{lost.key}.scores.safetensors").read_bytes()
    for path in (copy / CELLS).glob(f"{lost.key}.*"):
        path.unlink()
    outcome = again(copy)
    assert outcome.status == 0, outcome.err
    after = times(copy)
    assert {name for name in after if after[name] != before[name]} == {
        name for name in before if name.startswith(f"{lost.key}.")
    }
    assert (copy / CELLS / f"{lost.key}.scores.safetensors").read_bytes() == scores
    assert without_seconds(copy / "cells.csv") == without_seconds(small_study().out / "cells.csv")


def test_more_seeds_and_parts(tmp_path, no_study_figures):
    """A narrow study grows: what is finished stays, and ends where the whole one is."""
    out, small = tmp_path / "study", small_study()
    first = again(out, *NARROW)
    assert first.status == 0, first.err
    before = times(out)
    grown = again(out, *NARROW, "--part", "restricted", "--seeds", "3")
    assert grown.status == 0, grown.err
    after = times(out)
    assert {name: after[name] for name in before} == before
    assert {result["seed"] for result in map(json.loads, map(_text, (out / CELLS).glob("*.json")))} == {0, 1, 2}
    whole = set(without_seconds(small.out / "cells.csv"))
    rows = without_seconds(out / "cells.csv")
    mine = [row for row in rows if row.split(b",")[4] != b"2"]
    assert set(mine) <= whole
    # Two seeds; two readouts of the features, variants by rows of the core, and of the restricted readout.
    assert len(mine) == 1 + 2 * (2 + 2 * 2 + 2 * 3)
    assert len(rows) == 1 + 3 * (2 + 2 * 2 + 2 * 3)


def _text(path):
    return path.read_text()


OTHERS = {
    "channels": (["--channels", 8], r"another config\.head\.encoder_channels \(16, now 8\)"),
    "trials": (["--trials", 3], r"another trials \(2, now 3\)"),
    "epochs": (["--epochs", 3], r"another config\.tuning\.epochs \(2, now 3\)"),
    "split seed": (["--split-seed", 1], r"another config\.split_seed \(None, now 1\)"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_study_in_the_folder(name):
    import re

    options, message = OTHERS[name]
    small = small_study()
    before = times(small.out)
    outcome = again(small.out, *options)
    assert outcome.status == 2
    assert re.search(f"holds a study with {message}; choose another --out", outcome.line)
    assert times(small.out) == before


# ---- killed ----


def test_killed_and_continued(tmp_path, no_study_figures):
    """Killed when the first search is over, and again after the third cell: it ends as if nothing had happened."""
    small, out = small_study(), tmp_path / "study"
    words = ["reproduce", "cifar100", "--data", small.data, "--out", out, "--cache", tmp_path / "cache", *SMALL, *SHORT]

    def there(folder):
        return len([path for path in (out / folder).glob("*.json*") if not path.name.startswith(".")])

    def killed_after(owner, name, times):
        def call():
            left = [times]

            real = getattr(owner, name)

            def counted(*arguments):
                result = real(*arguments)
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(owner, name, counted)
            return comodulate_here(*words, *NARROW)

        ended = Process(tmp_path / f"process {name}", call).wait()
        assert ended.code == -signal.SIGKILL, ended.err

    killed_after(searches, "write_bytes", 2)  # the first search has two trials
    assert (there(SEARCH), there(CELLS)) == (1, 0)
    killed_after(engine, "write_json", 3)
    assert there(CELLS) == 3
    finished = times(out)
    outcome = reproduce("cifar100", small.data, out, tmp_path / "cache", *NARROW)
    assert outcome.status == 0, outcome.err
    assert "core: 3 of 8 cells are there" in outcome.err
    after = times(out)
    done = {name.removesuffix(".json") for name in finished if name.endswith(".json") and not name.startswith(".")}
    assert all(after[name] == finished[name] for name in finished if name.split(".")[0] in done)
    # As the study that was never stopped, in which other methods were trained between these.
    rows = without_seconds(out / "cells.csv")
    assert len(rows) == 13
    assert set(rows) <= set(without_seconds(small.out / "cells.csv"))
    for name in os.listdir(out / SEARCH):
        assert (out / SEARCH / name).read_bytes() == (small.out / SEARCH / name).read_bytes()
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_the_real_command_killed(devices, tmp_path):
    """From outside, at any moment of its training; its workers end with it. Devices do not change the bits."""
    small, out = small_study(), tmp_path / "study"
    words = ["reproduce", "cifar100", "--data", small.data, "--out", out, "--cache", tmp_path / "cache", *SMALL, *SHORT]
    words += [*NARROW, "--devices", devices]
    command = [sys.executable, "-m", "comodulation", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list((out / CELLS).glob("[!.]*.json"))) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "cells.csv").exists()
    outcome = comodulate(*words)
    assert outcome.status == 0, outcome.err
    assert set(without_seconds(out / "cells.csv")) <= set(without_seconds(small.out / "cells.csv"))
    assert len(without_seconds(out / "cells.csv")) == 11


def test_a_folder_in_use(copy, tmp_path):
    """A second process on one folder is refused in one line, and does not disturb the first."""
    there = tmp_path / "there"

    def hold():
        from comodulation.files import locked

        with locked(copy / LOCK, wait=False):
            there.touch()
            while there.exists():
                time.sleep(0.02)
        return 0

    process = Process(tmp_path / "process", hold)
    ends = time.monotonic() + 30
    while not there.exists() and time.monotonic() < ends:
        time.sleep(0.02)
    before = snapshot(copy)
    outcome = again(copy)
    assert outcome.status == 2
    assert outcome.line == f"error: {copy} is in use by another process"
    assert snapshot(copy) == before
    there.unlink()
    assert process.wait().code == 0


def test_ctrl_c(tmp_path, monkeypatch):
    """One line that says how to go on, status 1."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Study, "search", interrupt)
    outcome = again(tmp_path / "study", *NARROW)
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == "error: interrupted; what is finished is kept, the same command continues"


# ---- damage ----


def test_damaged_files(copy, no_study_figures):
    """A report names them and overwrites nothing. The study does again what a power cut has torn, and refuses the rest."""
    small = small_study()
    cell = small.cell("residual", "open", "ia3", 0).cell
    for path in (copy / CELLS / f"{cell.key}.json", copy / STUDY):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        outcome = comodulate("report", copy)
        assert outcome.status == 2, (path, outcome)
        assert path.name in outcome.line
        assert path.read_bytes() == content[: len(content) // 2]
        outcome = again(copy)
        if path.name == STUDY:
            assert outcome.status == 2, outcome
            assert path.name in outcome.line
            path.write_bytes(content)
        else:
            assert outcome.status == 0, outcome.err
            assert f"{path.name} is damaged: trained again" in outcome.err
            assert without_seconds(copy / "cells.csv") == without_seconds(small.out / "cells.csv")
    trials = copy / SEARCH / "residual-ia3.jsonl"
    content = trials.read_bytes()
    trials.write_bytes(b"{}" + content)  # not torn: someone has written into it
    outcome = again(copy)
    assert outcome.status == 2, outcome
    assert trials.name in outcome.err.splitlines()[-1]
    for torn in (content[:-9], content[:-9] + bytes(9)):  # the last trial is drawn again
        trials.write_bytes(torn)
        assert again(copy).status == 0
        assert trials.read_bytes() == content
    illustration = (copy / ILLUSTRATION).read_bytes()
    (copy / ILLUSTRATION).write_bytes(illustration[:-40] + bytes(40))
    assert again(copy).status == 0
    assert (copy / ILLUSTRATION).read_bytes() == illustration
    for text in ("[]", "3", "{}", '{"schema": 1}'):
        content = (copy / STUDY).read_bytes()
        (copy / STUDY).write_text(text)
        for outcome in (again(copy), comodulate("report", copy)):
            assert outcome.status == 2
            assert "study" in outcome.line
        (copy / STUDY).write_bytes(content)


# ---- the other studies ----


def test_celeba(tmp_path, no_study_figures):
    """From a folder in the official layout to the verdict on C1."""
    data = celeba_layout.write(tmp_path / "data", 120)
    options = [*CORE, "--method", "hard-sharing", "--trials", 0, "--epochs", 1, "--pretraining-epochs", 1, "--json"]
    outcome = reproduce("celeba", data, tmp_path / "study", tmp_path / "cache", *options)
    assert outcome.status == 0, outcome.err
    verdict = outcome.json["verdicts"][0]
    assert verdict["claim"] == "C1 attributes"
    assert verdict["n"] == "2 seeds"
    assert verdict["effect"].endswith(" %")
    assert outcome.json["cells"] == 16
    numbers = json.loads(next((tmp_path / "study" / CELLS).glob("comodulation-*.json")).read_text())
    assert len(numbers["binary"]["tasks"]) == 40
    assert len(numbers["binary"]["groups"]) == 8
    assert "eyes" in numbers["binary"]["groups"]


BROKEN = {
    "no list": (lambda data: (data / "list_attr_celeba.txt").unlink(), r"lacks list_attr_celeba\.txt"),
    "no images": (lambda data: shutil.rmtree(data / "img_align_celeba"), "lacks the folder img_align_celeba/"),
    "an image is missing": (lambda data: (data / "img_align_celeba" / "000003.jpg").unlink(), r"000003\.jpg"),
    "another list": (
        lambda data: (data / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"),
        r"list_eval_partition\.txt",
    ),
    "nothing": (shutil.rmtree, "data"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_folders_of_celeba(name, tmp_path):
    import re

    data = celeba_layout.write(tmp_path / "data", 12)
    change, message = BROKEN[name]
    change(data)
    before = snapshot(tmp_path)
    outcome = reproduce("celeba", data, tmp_path / "place" / "study", tmp_path / "place" / "cache")
    assert outcome.status == 2
    assert re.search(message, outcome.line), outcome.line
    assert snapshot(tmp_path) == before


def write_cifar100(folder, rows=(240, 60)):
    """Random images with the hundred names of CIFAR-100 as their labels."""
    import datasets
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, number in zip(("train", "test"), rows, strict=True):
        pixels = rng.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        table = {
            "img": [{"bytes": encode(Image.fromarray(image)), "path": None} for image in pixels],
            "fine_label": [row % 100 for row in range(number)],
        }
        kinds = {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=list(cifar100_classes()))}
        data = datasets.Dataset.from_dict(table, features=datasets.Features(kinds))
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_attributes(tmp_path, no_study_figures):
    """Forty binary tasks read off the fine label."""
    data = write_cifar100(tmp_path / "data")
    options = [*CORE, "--method", "hard-sharing", "--trials", 0]
    options += ["--epochs", 1, "--pretraining-epochs", 1, "--json"]
    outcome = reproduce("attributes", data, tmp_path / "study", tmp_path / "cache", *options)
    assert outcome.status == 0, outcome.err
    assert outcome.json["verdicts"][0]["n"] == "2 seeds"
    assert outcome.json["cells"] == 16
    numbers = json.loads(next((tmp_path / "study" / CELLS).glob("attention-*.json")).read_text())
    assert {"furry", "wheels"} <= set(numbers["tasks"])
    assert "covering" in numbers["binary"]["groups"]


@pytest.mark.slow
def test_the_engine_of_all_processes(data, tmp_path, no_study_figures):
    """What extracts in the first process is what the others read."""
    pytest.importorskip("onnxruntime")
    options = [*CORE, "--method", "hard-sharing", "--trials", 0, "--epochs", 1, "--pretraining-epochs", 1]
    outcome = reproduce(
        "cifar100", data, tmp_path / "study", tmp_path / "cache", *options, "--devices", 2, "--engine", "onnx"
    )
    assert outcome.status == 0, outcome.err
    stored = [json.loads(path.read_text()) for path in tmp_path.glob("cache/features/*/identity.json")]
    assert [identity.get("engine") for identity in stored] == ["onnx", "onnx"]
    outcome = reproduce("cifar100", data, tmp_path / "other", tmp_path / "cache", "--engine", "onxx")
    assert outcome.status == 2
    assert "unknown engine 'onxx'; did you mean 'onnx'?" in outcome.line
    assert not (tmp_path / "other").exists()


def test_attributes_need_the_names_of_cifar100(tmp_path):
    small = small_study()
    outcome = reproduce("attributes", small.data, tmp_path / "study", tmp_path / "cache")
    assert outcome.status == 2
    assert "unknown CIFAR-100 class 'red'" in outcome.line
    assert snapshot(tmp_path) == {str(tmp_path): None}


def test_a_missing_extra_is_said_at_once(tmp_path, monkeypatch):
    """Not after hours of training."""
    real = module.importlib.util.find_spec
    for package, extra, options in (
        ("optuna", "studies", []),
        ("torchjd", "aggregation", [*CORE, "--part", "aggregation"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module.importlib.util, "find_spec", lambda name, p=package: None if name == p else real(name))
            outcome = again(tmp_path / "study", *options)
            assert outcome.status == 2
            assert outcome.line == f"error: this study needs {package}: pip install 'comodulation[{extra}]'"
    assert snapshot(tmp_path) == {str(tmp_path): None}


# ---- bad input ----

ARGUMENTS = {
    "study": (["cifar10"], r"unknown study 'cifar10'; did you mean 'cifar100'\?"),
    "method": (["--method", "atention"], r"unknown method 'atention'; did you mean 'attention'\?"),
    "part": (["--part", "core", "--part", "options2"], r"unknown part 'options2'; did you mean 'options'\?"),
    "no core": (["--part", "options"], "the core is part of every study"),
    "seeds": (["--seeds", 1], "--seeds must be 2 to 1000, got 1: a paired test needs at least 2"),
    "seed": (["--seed", -1], "seed -1 is out of range"),
    "last seed": (["--seed", 2**32 - 1], "seed 4294967296 is out of range"),
    "trials": (["--trials", -1], "--trials must be 0 to 1000, got -1"),
    "devices": (["--devices", 0], "--devices must be 1 to 256, got 0"),
    "epochs": (["--epochs", 0], "tuning: epochs 0 is out of range"),
    "channels": (["--channels", 0], "encoder_channels must be a whole number from 1 to 65536, got 0"),
    "split seed": (["--split-seed", -1], r"split_seed: .* \(given: -1\)"),
    "backbone": (["--backbone", "resnet-18"], r"unknown backbone 'resnet-18'; did you mean 'resnet"),
    "weights": (["--weights", "/nowhere/w.safetensors"], "no such weights: '/nowhere/w.safetensors'"),
    "image size": (["--image-size", 8], "image size 8 is out of range"),
    "data": (["--data", "/nowhere/data"], "/nowhere/data"),
    "option": (["--sedes", 2], "[Nn]o such option:? '?--sedes"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments(name, tmp_path):
    """One line, status 2, nothing left behind."""
    import re

    options, message = ARGUMENTS[name]
    small, study = small_study(), "cifar100"
    if name == "study":
        study, options = options[0], []
    place = tmp_path / "place"
    place.mkdir()
    outcome = reproduce(study, small.data, place / "runs" / "study", place / "cache", *options)
    assert outcome.status == 2
    assert re.search(message, outcome.line), outcome.line
    assert len(outcome.line) < 1000
    assert snapshot(place) == {str(place): None}


def test_data_that_do_not_fit(data, tmp_path):
    """Columns of another name, too few images: before anything is written."""
    from support import synthetic

    few = synthetic.write(
        tmp_path / "few", lambda table, _: [cells.__delitem__(slice(9, None)) for cells in table.values()]
    )
    renamed = synthetic.write(tmp_path / "renamed", _renamed, changed="both")
    before = snapshot(tmp_path)
    for place, message in ((few, "too few"), (renamed, "coarse_label")):
        outcome = reproduce("cifar100", place, tmp_path / "study", tmp_path / "cache")
        assert outcome.status == 2
        assert message in outcome.line
        assert snapshot(tmp_path) == before


def _renamed(table, features):
    for columns in (table, features):
        columns["coarse"] = columns.pop("coarse_label")


def test_places_that_cannot_be_written_to(tmp_path):
    small = small_study()
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.txt").write_text("x")
    before = snapshot(tmp_path)
    for out, message in (
        (tmp_path / "file", "is a file, expected a folder to write the study to"),
        (tmp_path / "other", "is not empty and not a study; choose another --out"),
        (tmp_path / "file" / "study", "cannot write to"),
    ):
        outcome = reproduce("cifar100", small.data, out, tmp_path / "cache")
        assert outcome.status == 2, outcome
        assert message in outcome.line
        assert snapshot(tmp_path) == before


def test_help():
    for verb in ("reproduce", "report"):
        outcome = comodulate(verb, "--help")
        assert outcome.status == 0
        assert f"Example: comodulate {verb}" in " ".join(outcome.out.split())
        assert "--json" in outcome.out
    text = "".join(comodulate("reproduce", "--help").out.split())
    assert all(name in text for name in (*PARTS, *module.STUDIES))


def test_missing_arguments():
    for words in (["reproduce"], ["reproduce", "cifar100"], ["report"]):
        assert "issing" in comodulate(*words).line


with contextlib.suppress(ImportError):
    import torchjd  # noqa: F401

    @pytest.mark.slow
    def test_gradient_aggregation(tmp_path, no_study_figures):
        """The part that must be asked for."""
        out = tmp_path / "study"
        outcome = again(out, *CORE, "--part", "aggregation", "--method", "gradient-aggregation", "--json")
        assert outcome.status == 0, outcome.err
        assert len(list((out / CELLS).glob("gradient-aggregation-*.json"))) == 4
